//! `mufakat queue …` as people and scripts use it.

use serde_json::{Value, json};

use crate::queue::start;

#[tokio::test]
async fn queue_work_runs_a_command_for_each_message() {
    let (cluster, queue) = start(1).await;
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mufakat"));
        command
            .arg("queue")
            .args(arguments)
            .env("NATS_URL", cluster.nats_url());
        command.output().await.expect("the program runs")
    };
    let pushed = run(&["push", "a", "fine", "--id", "x"]).await;
    assert!(pushed.status.success(), "{pushed:?}");
    run(&["push", "a", "broken"]).await;
    queue
        .ok(
            "queue.configure",
            json!({"topic": "a", "max_deliveries": 1}),
        )
        .await;
    let script = "read line; echo \"$MUFAKAT_ID $line\"; test \"$line\" = fine";
    let worked = run(&["work", "a", "--until-empty", "--", "sh", "-c", script]).await;
    assert!(worked.status.success(), "{worked:?}");
    assert_eq!(
        String::from_utf8_lossy(&worked.stdout),
        "x fine\nseq-2 broken\n"
    );
    assert_eq!(queue.counts("a").await, [0, 0, 0, 1]);
    let redriven = run(&["redrive", "a"]).await;
    assert_eq!(
        String::from_utf8_lossy(&redriven.stdout),
        "{\"moved\":1,\"dead\":0}\n"
    );
    let popped = run(&["pop", "a"]).await;
    let popped: Value = serde_json::from_slice(&popped.stdout).expect("JSON");
    let receipt = popped["messages"][0]["receipt"]
        .as_str()
        .expect("a receipt");
    let acked = run(&["ack", "a", receipt]).await;
    assert!(
        String::from_utf8_lossy(&acked.stdout).contains("\"acked\""),
        "{acked:?}"
    );
    // A command that keeps its message longer than the visibility loses it to nobody.
    queue.push("b", json!("slow")).await;
    let work = [
        "work",
        "b",
        "--until-empty",
        "--visibility",
        "300ms",
        "--",
        "sleep",
        "1",
    ];
    assert!(run(&work).await.status.success());
    assert_eq!(queue.counts("b").await, [0; 4]);
    assert_eq!(queue.stats("b").await["acked"], 1);
}
