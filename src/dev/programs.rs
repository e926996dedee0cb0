//! Where the programs of the broker and of Redis are. Searched in this order: the flag, the environment, the directory
//! that `make tools` fills in the project, PATH.

use std::collections::BTreeMap;
use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The oldest broker that Mufakat is tested with.
const NATS_MIN: (u32, u32) = (2, 12);

/// A program, with the flag and the variable that can name it.
pub(super) struct Program {
    name: &'static str,
    flag: &'static str,
    variable: &'static str,
}

pub(super) const NATS: Program = Program {
    name: "nats-server",
    flag: "--nats-server",
    variable: "MUFAKAT_NATS_SERVER",
};
pub(super) const REDIS: Program = Program {
    name: "redis-server",
    flag: "--redis-server",
    variable: "MUFAKAT_REDIS_SERVER",
};

/// The places to look in.
pub(super) struct Search<'a> {
    environment: &'a BTreeMap<String, String>,
    /// Directories at or below the project, if there is one; nearest first.
    starts: Vec<PathBuf>,
}

impl<'a> Search<'a> {
    /// Looks upward from this program and from the current directory.
    pub(super) fn new(
        mufakat: &Path,
        environment: &'a BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let here = env::current_dir().context("the current directory is gone")?;
        Ok(Self {
            environment,
            starts: vec![mufakat.to_owned(), here],
        })
    }

    /// Finds a program. One that a flag or the environment names must exist.
    pub(super) fn program(
        &self,
        program: &Program,
        by_flag: Option<&Path>,
    ) -> anyhow::Result<PathBuf> {
        if let Some(path) = by_flag {
            return named(path, program.flag);
        }
        let by_variable = self.environment.get(program.variable);
        if let Some(path) = by_variable.filter(|path| !path.is_empty()) {
            return named(Path::new(path), program.variable);
        }
        let installed = Path::new(".tools/bin").join(program.name);
        self.beside_the_project(&installed)
            .filter(|path| executable(path))
            .or_else(|| self.on_path(program.name))
            .with_context(|| {
                let Program {
                    name,
                    flag,
                    variable,
                } = program;
                format!(
                    "cannot find {name}: run `make tools`, or name it with {flag} or {variable}"
                )
            })
    }

    /// The first file with this relative path in a directory above this program or the current directory.
    pub(super) fn beside_the_project(&self, relative: &Path) -> Option<PathBuf> {
        let directories = self.starts.iter().flat_map(|start| start.ancestors());
        directories
            .map(|directory| directory.join(relative))
            .find(|path| path.is_file())
    }

    fn on_path(&self, name: &str) -> Option<PathBuf> {
        env::split_paths(self.environment.get("PATH")?)
            .map(|directory| directory.join(name))
            .find(|path| executable(path))
    }
}

/// Refuses a broker that is too old, such as the package of Debian.
pub(super) fn new_enough(nats: &Path) -> anyhow::Result<()> {
    let shown = nats.display();
    let output = Command::new(nats)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    judge(nats, &String::from_utf8_lossy(&output.stdout))
}

fn judge(nats: &Path, told: &str) -> anyhow::Result<()> {
    let shown = nats.display();
    let version = version(told).with_context(|| format!("{shown} does not print its version"))?;
    if version < NATS_MIN {
        let ((major, minor), (need, need_minor)) = (version, NATS_MIN);
        bail!(
            "{shown} is version {major}.{minor}; {need}.{need_minor} or newer is needed: run \
             `make tools`, or name another one with {} or {}",
            NATS.flag,
            NATS.variable
        );
    }
    Ok(())
}

/// Whether `setpriv`, which ends a child with its parent, is installed and can do that.
pub(super) fn setpriv() -> bool {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Major and minor number from a line such as `nats-server: v2.12.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let start = text.find(|letter: char| letter.is_ascii_digit())?;
    let mut numbers = text[start..].split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn named(path: &Path, by: &str) -> anyhow::Result<PathBuf> {
    if !executable(path) {
        bail!("{by}: {} is not an executable file", path.display());
    }
    std::path::absolute(path).with_context(|| format!("{by}: {}", path.display()))
}

fn executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn program(directory: &Path) -> PathBuf {
        fs::create_dir_all(directory).expect("directory");
        let path = directory.join("nats-server");
        fs::write(&path, "#!/bin/sh\n").expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
        path
    }

    #[test]
    fn flag_then_environment_then_project_then_path() {
        let root = tempfile::tempdir().expect("directory");
        let at = |name: &str| root.path().join(name);
        let by_flag = program(&at("flag"));
        let by_variable = program(&at("variable"));
        let installed = program(&at("project/.tools/bin"));
        let on_path = program(&at("path"));
        let mut environment = BTreeMap::from([
            (NATS.variable.to_owned(), by_variable.display().to_string()),
            (
                "PATH".to_owned(),
                format!("/nowhere:{}", at("path").display()),
            ),
        ]);
        let find = |environment: &BTreeMap<String, String>, flag: Option<&Path>| {
            let starts = vec![at("project/target/release/mufakat")];
            Search {
                environment,
                starts,
            }
            .program(&NATS, flag)
            .map_err(|error| error.to_string())
        };
        assert_eq!(find(&environment, Some(&by_flag)), Ok(by_flag));
        assert_eq!(find(&environment, None), Ok(by_variable));
        environment.insert(NATS.variable.to_owned(), String::new());
        assert_eq!(find(&environment, None).as_ref(), Ok(&installed));
        fs::remove_file(&installed).expect("remove");
        assert_eq!(find(&environment, None), Ok(on_path));
        environment.remove("PATH");
        let message = find(&environment, None).expect_err("nothing left");
        assert!(
            message.contains("make tools") && message.contains(NATS.flag),
            "{message}"
        );
    }

    #[test]
    fn what_is_named_has_to_be_there() {
        let environment = BTreeMap::from([(NATS.variable.to_owned(), "/nowhere".to_owned())]);
        let search = Search {
            environment: &environment,
            starts: Vec::new(),
        };
        let message = search.program(&NATS, None).expect_err("absent").to_string();
        assert_eq!(
            message,
            "MUFAKAT_NATS_SERVER: /nowhere is not an executable file"
        );
        let flag = Some(Path::new("/dev/null"));
        let message = search
            .program(&NATS, flag)
            .expect_err("no program")
            .to_string();
        assert_eq!(
            message,
            "--nats-server: /dev/null is not an executable file"
        );
    }

    #[test]
    fn versions_are_read_and_old_ones_refused() {
        assert_eq!(version("nats-server: v2.12.1\n"), Some((2, 12)));
        assert_eq!(version("nats-server: v2.9.10-beta"), Some((2, 9)));
        assert_eq!(version("what?"), None);
        let nats = Path::new("/usr/bin/nats-server");
        assert!(judge(nats, "nats-server: v2.15.0").is_ok());
        let message = judge(nats, "nats-server: v2.9.10")
            .expect_err("old")
            .to_string();
        assert!(
            message.contains("is version 2.9; 2.12 or newer is needed"),
            "{message}"
        );
    }
}
