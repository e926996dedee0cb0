//! The text that `mufakat dev` prints when the cluster is ready: lines to paste.

use std::path::Path;

use super::commands::Commands;
use super::ports::Ports;

const USUAL_NATS_PORT: u16 = 4222;

/// A few lines to try next. They are pasted in the directory `here`.
pub(super) fn text(ports: &Ports, commands: &Commands, data_dir: &Path, here: &Path) -> String {
    let mufakat = match commands.mufakat.strip_prefix(here) {
        Ok(path) => format!("./{}", path.display()),
        Err(_) => commands.mufakat.display().to_string(),
    };
    let mut lines = vec![String::from("Try in another terminal, in this directory:")];
    if ports.nats != USUAL_NATS_PORT {
        // Both programs read this variable, and the pasted lines stay the same.
        lines.push(format!("  export NATS_URL=nats://127.0.0.1:{}", ports.nats));
    }
    lines.extend([
        String::from(
            "  nats req mufakat.lock.acquire.orders.42 '{\"owner\":\"me\",\"ttl_ms\":30000}'",
        ),
        String::from("  nats req mufakat.lock.get.orders.42 '{}'"),
        String::from("  nats req mufakat.queue.push.mails '{\"payload\":\"hello\"}'"),
        String::from("  nats req mufakat.queue.pop.mails '{\"consumer\":\"me\"}'"),
        String::from("  nats req mufakat.cache.set.user.42 '{\"value\":\"Ada\",\"ttl_ms\":60000}'"),
        String::from("  nats req mufakat.cache.get.user.42 '{}'"),
        String::from("  nats req mufakat.status '{}'"),
        String::from("or, without the `nats` command line:"),
        format!("  {mufakat} lock acquire orders.43 --owner me --ttl 30s"),
        format!("  {mufakat} lock get orders.43"),
        format!("  {mufakat} lock run orders.44 -- sh -c 'echo \"token $MUFAKAT_TOKEN\"'"),
        format!("  {mufakat} queue push mails 'hello again'"),
        format!("  {mufakat} queue work mails --until-empty -- cat"),
        format!("  {mufakat} cache get user.42"),
        format!("  {mufakat} status"),
        format!(
            "Dashboard: http://127.0.0.1:{}/ (metrics: /metrics)",
            ports.http(1)
        ),
        format!(
            "Data and logs are in {}; Ctrl-C stops everything.",
            data_dir.display()
        ),
    ]);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    fn shown(shift: u16, here: &str) -> String {
        let commands = Commands {
            mufakat: PathBuf::from("/project/target/release/mufakat"),
            nats: PathBuf::new(),
            redis: PathBuf::new(),
            configuration: PathBuf::new(),
            data_dir: PathBuf::new(),
            setpriv: false,
            environment: BTreeMap::new(),
        };
        let ports = Ports::new(3, shift).expect("in range");
        text(&ports, &commands, Path::new("/data"), Path::new(here))
    }

    #[test]
    fn programs_are_named_as_seen_from_here() {
        assert!(shown(0, "/project").contains("  ./target/release/mufakat status\n"));
        assert!(shown(0, "/else").contains("  /project/target/release/mufakat status\n"));
    }

    #[test]
    fn other_ports_are_in_the_lines() {
        assert!(!shown(0, "/").contains("NATS_URL"));
        let moved = shown(1000, "/");
        assert!(
            moved.contains("export NATS_URL=nats://127.0.0.1:5222\n"),
            "{moved}"
        );
        assert!(moved.contains("http://127.0.0.1:6001/ "), "{moved}");
    }

    #[test]
    fn bodies_are_no_templates() {
        assert!(!shown(0, "/").contains("{{"), "nats req would expand them");
    }
}
