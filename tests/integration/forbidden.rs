//! What our command line makes of what the broker does not allow.

use crate::permissions::secured_cluster;
use crate::{command_line, wait};

#[tokio::test]
async fn what_the_broker_forbids_is_told_and_not_waited_for() {
    let cluster = secured_cluster().await;
    for (user, words, expected) in [
        (
            "monitor",
            "lock get a",
            "forbidden: the broker does not allow this user to publish to mufakat.lock.get\n",
        ),
        (
            "monitor",
            "lock acquire a --wait 1h",
            "forbidden: the broker does not allow this user to publish to mufakat.lock.acquire\n",
        ),
        (
            "monitor",
            "queue tail jobs",
            "forbidden: the broker does not allow this user to publish to mufakat.queue.stats\n",
        ),
        (
            "reports",
            "lock watch",
            "forbidden: the broker does not allow this user to subscribe to mufakat.event.lock.>\n",
        ),
        (
            "team_a",
            "lock get a --nats-inbox-prefix=_INBOX_team_b",
            "forbidden: the broker does not allow this user to subscribe to its inbox _INBOX_team_b.",
        ),
    ] {
        let mut flags = cluster.secured().flags(user);
        if words.contains("--nats-inbox-prefix") {
            flags.retain(|flag| !flag.starts_with("--nats-inbox-prefix"));
        }
        let flags = flags.iter().map(String::as_str);
        let words: Vec<&str> = words.split(' ').chain(flags).collect();
        let mut command = tokio::process::Command::from(command_line::mufakat(&cluster, &words));
        let output = tokio::time::timeout(wait::LONG, command.output()).await;
        let output = output.expect("it ends").expect("it starts");
        let said = String::from_utf8(output.stderr).expect("it prints text");
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains(expected), "{words:?}: {said}");
    }
}
