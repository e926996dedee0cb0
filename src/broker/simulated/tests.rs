use super::*;

fn outgoing(subject: &str, reply: Option<&str>) -> Outgoing {
    Outgoing {
        headers: Vec::new(),
        subject: subject.to_owned(),
        reply: reply.map(str::to_owned),
        payload: bytes::Bytes::from_static(b"x"),
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_listening_is_answered_at_the_reply_subject() {
    let network = Simulation::new(1);
    let broker = network.broker(NodeId(1));
    let mut inbox = broker.subscribe("inbox.>".to_owned(), 4).await.unwrap();
    broker.publish(outgoing("nobody", Some("inbox.7"))).unwrap();
    let answer = inbox.next().await.unwrap();
    assert!(answer.no_responders);
    assert_eq!(answer.subject, "inbox.7");
}

#[tokio::test(start_paused = true)]
async fn a_crash_ends_subscriptions_and_a_dropped_stream_ends_interest() {
    let network = Simulation::new(1);
    let broker = network.broker(NodeId(1));
    let mut first = broker.subscribe("a".to_owned(), 4).await.unwrap();
    network.crash(NodeId(1));
    assert!(first.next().await.is_none());

    let second = broker.subscribe("a".to_owned(), 4).await.unwrap();
    drop(second);
    assert!(network.state(|state| state.subscriptions.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    async fn run(seed: u64) -> Vec<String> {
        let network = Simulation::new(seed);
        network.set_faults(Faults {
            drop: 0.2,
            duplicate: 0.2,
            reorder: 0.3,
            ..Faults::NONE
        });
        let mut inbox = network
            .broker(NodeId(2))
            .subscribe("a.>".to_owned(), 100)
            .await
            .unwrap();
        for number in 0..50 {
            network
                .broker(NodeId(1))
                .publish(outgoing(&format!("a.{number}"), None))
                .unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        std::iter::from_fn(|| inbox.try_next().map(|m| m.subject)).collect()
    }
    assert_eq!(run(7).await, run(7).await);
    assert_ne!(run(7).await, run(8).await);
}
