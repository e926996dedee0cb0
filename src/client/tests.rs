//! The client against a broker that reacts as it is told.

use std::time::Duration;

use super::fake_broker::{Arrived, FakeBroker, Reaction};
use super::*;
use crate::ids::Token;
use crate::protocol::lock::Acquire;
use crate::protocol::{Code, Outcome};
use crate::time;

const LONG: Duration = Duration::from_secs(10);

pub(super) async fn client(
    target: Target,
    react: impl FnMut(&Arrived) -> Reaction + Send + 'static,
) -> (FakeBroker, Client) {
    let broker = FakeBroker::start(react).await;
    let options = ClientOptions {
        target,
        ..ClientOptions::default()
    };
    let client = Client::new(broker.client.clone(), options).await.unwrap();
    (broker, client)
}

pub(super) fn ok(node: u64, fields: &str) -> Reaction {
    Reaction::Answer(format!(r#"{{"ok":true,"node":{node},{fields}}}"#))
}

pub(super) fn refused(code: &str, outcome: &str) -> Reaction {
    Reaction::Answer(format!(
        r#"{{"ok":false,"node":1,"error":{{"code":"{code}","status":400,"message":"m","retryable":true,"outcome":"{outcome}"}}}}"#
    ))
}

pub(super) fn acquired(node: u64, ttl_ms: u64) -> Reaction {
    ok(
        node,
        &format!(
            r#""resource":"a","owner":"w","token":7,"mode":"exclusive","expires_in_ms":{ttl_ms},"waited_ms":0"#
        ),
    )
}

#[tokio::test]
async fn each_request_gets_its_own_answer() {
    let (_broker, client) = client(Target::Any, |request| {
        Reaction::Answer(request.body.clone())
    })
    .await;
    let requests = (0..500).map(|i| {
        let requester = client.requester().clone();
        async move {
            let body = i.to_string();
            let message = requester.request("echo", body.clone().into(), LONG).await;
            assert_eq!(message.unwrap().payload, body);
        }
    });
    futures_util::future::join_all(requests).await;
}

#[tokio::test]
async fn a_request_without_an_answer_ends_at_its_timeout() {
    let mut held_back = None;
    let (_broker, client) = client(Target::Any, move |request| {
        match held_back.replace(request.body.clone()) {
            None => Reaction::Silence,
            Some(_) => Reaction::Answer(request.body.clone()),
        }
    })
    .await;
    let requester = client.requester();
    let short = Duration::from_millis(20);
    let first = requester.request("echo", "1".into(), short).await;
    assert_eq!(first.unwrap_err(), RequestError::TimedOut);
    let second = requester.request("echo", "2".into(), LONG).await;
    assert_eq!(second.unwrap().payload, "2");
}

#[tokio::test]
async fn nobody_listening_is_known_at_once() {
    let (_broker, client) = client(Target::Any, |_| Reaction::NoResponders).await;
    let request = client.requester().request("x", "".into(), LONG);
    assert_eq!(request.await.unwrap_err(), RequestError::NoResponders);
}

#[tokio::test]
async fn a_broken_connection_ends_what_was_on_its_way() {
    let (_broker, client) = client(Target::Any, |_| Reaction::Disconnect).await;
    let request = client.requester().request("x", "".into(), LONG);
    assert_eq!(request.await.unwrap_err(), RequestError::ConnectionLost);
}

#[tokio::test]
async fn the_client_learns_whom_to_ask_and_falls_back() {
    let mut dead = false;
    let (broker, client) = client(Target::Leader, move |request| {
        match request.subject.as_str() {
            "mufakat.node.2.lock.check" if dead => Reaction::NoResponders,
            "mufakat.node.2.lock.check" => {
                dead = true;
                ok(2, r#""valid":true"#)
            }
            "mufakat.lock.check" => ok(1, r#""ask_node":2,"valid":true"#),
            other => panic!("{other}"),
        }
    })
    .await;
    let check = Check::new("a", Token(1));
    for _ in 0..3 {
        assert!(client.check(&check).await.unwrap().valid);
    }
    assert_eq!(
        broker.subjects(),
        [
            "mufakat.lock.check",
            "mufakat.node.2.lock.check",
            "mufakat.node.2.lock.check",
            "mufakat.lock.check"
        ]
    );
}

/// The node took the request and died with it.
#[tokio::test]
async fn a_request_whose_node_died_is_asked_of_another_at_once() {
    let mut dead = false;
    let (broker, client) = client(Target::Leader, move |request| {
        match request.subject.as_str() {
            "mufakat.lock.check" => ok(2, r#""valid":true"#),
            "mufakat.node.2.lock.check" => {
                dead = true;
                Reaction::Silence
            }
            "mufakat.node.2.status" if dead => Reaction::NoResponders,
            other => panic!("{other}"),
        }
    })
    .await;
    let check = Check::new("a", Token(1));
    let started = time::now();
    for _ in 0..2 {
        assert!(client.check(&check).await.unwrap().valid);
    }
    let took = started.elapsed();
    assert!(took < Duration::from_millis(1_000), "took {took:?}");
    assert_eq!(
        broker.subjects(),
        [
            "mufakat.lock.check",
            "mufakat.node.2.lock.check",
            "mufakat.node.2.status",
            "mufakat.lock.check"
        ]
    );
}

#[tokio::test]
async fn an_acquire_is_repeated_under_one_id_and_waits_only_for_what_is_left() {
    let mut attempts = 0;
    let (broker, client) = client(Target::Leader, move |_| {
        attempts += 1;
        match attempts {
            1 => Reaction::Disconnect,
            2 => refused("no_leader", "not_applied"),
            _ => acquired(1, 1000),
        }
    })
    .await;
    let request = Acquire {
        wait_ms: 5_000,
        ..Acquire::new("a")
    };
    assert_eq!(client.acquire(&request).await.unwrap().token, Token(7));
    let bodies: Vec<serde_json::Value> = broker
        .arrived()
        .iter()
        .map(|arrived| serde_json::from_str(&arrived.body).unwrap())
        .collect();
    assert_eq!(bodies.len(), 3);
    assert!(
        bodies
            .iter()
            .all(|b| b["request_id"] == bodies[0]["request_id"])
    );
    assert!(bodies[0]["request_id"].is_string());
    assert!(bodies[2]["wait_ms"].as_u64() < bodies[0]["wait_ms"].as_u64());
}

#[tokio::test]
async fn a_refusal_that_the_caller_must_judge_is_not_repeated() {
    let (broker, client) = client(Target::Any, |_| refused("lock_held", "not_applied")).await;
    let error = client.acquire(&Acquire::new("a")).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::LockHeld));
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert_eq!(broker.arrived().len(), 1);
}

#[tokio::test]
async fn not_holder_counts_as_released_only_after_an_unanswered_attempt() {
    let mut attempts = 0;
    let (_broker, client) = client(Target::Any, move |_| {
        attempts += 1;
        match attempts {
            1 => Reaction::Disconnect,
            _ => refused("not_holder", "not_applied"),
        }
    })
    .await;
    let release = Release::new("a", Token(1));
    assert!(client.release(&release).await.unwrap().released);
    let error = client.release(&release).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::NotHolder));
}

#[tokio::test]
async fn an_unanswered_attempt_makes_the_outcome_unknown() {
    let mut attempts = 0;
    let (_broker, client) = client(Target::Any, move |_| {
        attempts += 1;
        match attempts {
            1 => Reaction::Disconnect,
            _ => refused("no_leader", "not_applied"),
        }
    })
    .await;
    let request = Acquire {
        timeout_ms: Some(400),
        ..Acquire::new("a")
    };
    let error = client.acquire(&request).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn a_lease_is_renewed_until_the_cluster_says_that_it_is_over() {
    let mut renewals = 0;
    let (_broker, client) = client(Target::Any, move |request| match request.subject.as_str() {
        "mufakat.lock.acquire" => acquired(1, 300),
        "mufakat.lock.renew" => {
            renewals += 1;
            match renewals {
                1..=4 => ok(1, r#""expires_in_ms":300"#),
                _ => refused("not_holder", "not_applied"),
            }
        }
        other => panic!("{other}"),
    })
    .await;
    let started = time::now();
    let lease = client.acquire_lease(&Acquire::new("a")).await.unwrap();
    assert!(matches!(lease.lost().await, LeaseLost::NotHolder));
    assert!(started.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_lease_that_cannot_be_renewed_is_lost_before_its_end() {
    let (broker, client) = client(Target::Any, |request| match request.subject.as_str() {
        "mufakat.lock.acquire" => acquired(1, 600),
        _ => Reaction::NoResponders,
    })
    .await;
    let asked_at = time::now();
    let request = Acquire {
        ttl_ms: Some(600),
        ..Acquire::new("a")
    };
    let lease = client.acquire_lease(&request).await.unwrap();
    assert!(lease.left() < Duration::from_millis(600));
    assert!(lease.ending(Duration::from_millis(100)).await.is_none());
    assert!(lease.check().is_ok() && lease.left() > Duration::ZERO);
    assert!(matches!(lease.lost().await, LeaseLost::NotRenewed(_)));
    assert!(asked_at.elapsed() < Duration::from_millis(600));
    assert!(lease.check().is_err() && lease.left().is_zero());
    assert!(broker.arrived().len() > 3, "it is tried again and again");
}

/// The machine sleeps for longer than the lease: nothing that was awake noticed.
#[tokio::test]
async fn a_lease_ends_while_the_machine_is_suspended_and_never_comes_back() {
    let (_broker, client) = client(Target::Any, |request| match request.subject.as_str() {
        "mufakat.lock.acquire" => acquired(1, 30_000),
        _ => ok(1, r#""expires_in_ms":30000"#),
    })
    .await;
    let lease = client.acquire_lease(&Acquire::new("a")).await.unwrap();
    let done = lease.during(async { 7 }).await;
    assert_eq!(done.unwrap(), 7);
    time::pretend::SUSPENDED.set(Duration::from_secs(29));
    assert!(lease.check().is_ok());
    time::pretend::SUSPENDED.set(Duration::from_secs(31));
    assert!(matches!(lease.check(), Err(LeaseLost::NotRenewed(_))));
    let work = lease.during(std::future::pending::<()>());
    assert!(work.await.is_err());
    // Not even if the clock went back.
    time::pretend::SUSPENDED.set(Duration::ZERO);
    assert!(lease.check().is_err());
}

/// Nobody calls [`Lease::check`]; whoever waits for the loss hears of it soon after the machine wakes.
#[tokio::test]
async fn a_suspend_is_noticed_by_whoever_waits_for_the_loss() {
    let (_broker, client) = client(Target::Any, |_| acquired(1, 30_000)).await;
    let lease = client.acquire_lease(&Acquire::new("a")).await.unwrap();
    let started = time::now();
    time::pretend::SUSPENDED.set(Duration::from_secs(31));
    let lost = tokio::join!(lease.lost(), lease.ending(Duration::from_secs(5))).0;
    assert!(matches!(lost, LeaseLost::NotRenewed(_)), "{lost}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// The machine sleeps while a renewal waits for its answer.
#[tokio::test]
async fn a_suspend_is_noticed_while_a_renewal_is_on_its_way() {
    let (broker, client) = client(Target::Any, |request| match request.subject.as_str() {
        "mufakat.lock.acquire" => acquired(1, 30_000),
        _ => Reaction::Silence,
    })
    .await;
    let lease = client.acquire_lease(&Acquire::new("a")).await.unwrap();
    time::pretend::SUSPENDED.set(Duration::from_secs(11));
    broker
        .until(|subjects| subjects.contains(&"mufakat.lock.renew"))
        .await;
    let started = time::now();
    time::pretend::SUSPENDED.set(Duration::from_secs(31));
    let lost = lease.lost().await;
    assert!(matches!(lost, LeaseLost::NotRenewed(_)), "{lost}");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_wait_longer_than_a_node_takes_is_attached_again_before_its_end() {
    let mut asked = 0;
    let (broker, client) = client(Target::Any, move |_| {
        asked += 1;
        match asked {
            1 | 2 => Reaction::Silence,
            _ => acquired(1, 30_000),
        }
    })
    .await;
    // From here on time is virtual: what waits for nothing but time waits for nothing.
    tokio::time::pause();
    let request = Acquire {
        wait_ms: 120_000,
        ..Acquire::new("a")
    };
    assert_eq!(client.acquire(&request).await.unwrap().token, Token(7));
    let bodies: Vec<serde_json::Value> = broker
        .arrived()
        .iter()
        .map(|arrived| serde_json::from_str(&arrived.body).unwrap())
        .collect();
    let waits: Vec<u64> = bodies
        .iter()
        .map(|b| b["wait_ms"].as_u64().unwrap())
        .collect();
    assert_eq!(waits.len(), 3);
    assert_eq!(waits[..2], [60_000, 60_000]);
    assert!((29_000..=30_000).contains(&waits[2]), "{waits:?}");
    assert!(
        bodies
            .iter()
            .all(|b| b["request_id"] == bodies[0]["request_id"])
    );
}

#[tokio::test]
async fn what_waits_for_an_answer_fails_when_its_client_is_closed() {
    let (broker, client) = client(Target::Any, |request| match request.subject.as_str() {
        "echo" => Reaction::Answer(request.body.clone()),
        _ => Reaction::Silence,
    })
    .await;
    let apart = client.apart().await.unwrap();
    let requester = apart.requester().clone();
    let waiting = requester.request("silent", "x".into(), LONG);
    let closing = async {
        while broker.subjects().is_empty() {
            tokio::task::yield_now().await;
        }
        apart.close().await;
    };
    let (answer, ()) = futures_util::future::join(waiting, closing).await;
    assert_eq!(answer.unwrap_err(), RequestError::Closed);
    let later = apart.requester().request("echo", "y".into(), LONG).await;
    assert_eq!(later.unwrap_err(), RequestError::Closed);
    assert_eq!(broker.subjects(), ["silent"], "nothing more was sent");
    let other = client.requester().request("echo", "z".into(), LONG).await;
    assert_eq!(other.unwrap().payload, "z");
}
