//! What is told of calls that were asked again, or given up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::fake_broker::{Arrived, FakeBroker, Reaction};
use super::tests::{acquired, client, ok, refused};
use super::{Client, ClientError, LeaseLost, RequestError, Target};
use crate::ids::Token;
use crate::protocol::admin::{CloseSession, ReleaseLock};
use crate::protocol::cache;
use crate::protocol::lock::{Acquire, Cancel};
use crate::protocol::queue::{Demand, Message, Pop, Push};
use crate::protocol::session::{One, Open};
use crate::protocol::value::Value as Payload;
use crate::protocol::{Code, Operation, Outcome};
use crate::time;

/// The first request is taken, and its answer lost with the connection; later ones get this one.
async fn after_a_lost_answer(
    answer: impl Fn() -> Reaction + Send + 'static,
) -> (FakeBroker, Client) {
    let mut asked = 0;
    client(Target::Leader, move |_: &Arrived| {
        asked += 1;
        match asked {
            1 => Reaction::Disconnect,
            _ => answer(),
        }
    })
    .await
}

fn body_of(arrived: &Arrived) -> Value {
    serde_json::from_str(&arrived.body).expect("JSON")
}

fn identified() -> Acquire {
    Acquire {
        request_id: Some("i".to_owned()),
        timeout_ms: Some(1_000),
        ..Acquire::new("a")
    }
}

/// A push of one message with this id.
fn push(id: Option<&str>) -> Push {
    Push {
        topic: "t".to_owned(),
        messages: vec![Message {
            id: id.map(str::to_owned),
            ..Message::new(Payload::text("x"))
        }],
        batch: false,
        require_durability: None,
        timeout_ms: Some(1_000),
    }
}

fn pop(wait_ms: u64) -> Pop {
    Pop {
        topic: "t".to_owned(),
        demand: Demand {
            wait_ms,
            ..Demand::new("c")
        },
        timeout_ms: None,
    }
}

/// The code of a refusal of the repeat, and what is then told of the outcome.
#[tokio::test]
async fn a_refusal_that_looked_at_nothing_leaves_the_outcome_unknown() {
    for (code, outcome) in [
        ("overloaded", Outcome::Unknown),
        ("timeout", Outcome::Unknown),
        ("no_lease", Outcome::Unknown),
        ("store_unavailable", Outcome::Unknown),
        ("queue_full", Outcome::Unknown),
        // With the same id the grant would have been the answer.
        ("lock_held", Outcome::NotApplied),
        ("wait_timeout", Outcome::NotApplied),
        ("bad_request", Outcome::NotApplied),
    ] {
        let refusal = move || refused(code, "not_applied");
        let (_broker, client) = after_a_lost_answer(refusal).await;
        let error = client.acquire(&identified()).await.unwrap_err();
        assert_eq!(
            (error.outcome(), error.code().unwrap().name()),
            (outcome, code)
        );

        let (_broker, client) = after_a_lost_answer(refusal).await;
        let error = client.push(&push(Some("m"))).await.unwrap_err();
        assert_eq!(error.outcome(), outcome, "{code}");
    }
    // What is not repeated is told as the first attempt left it.
    let (_broker, client) = client(Target::Leader, |_| refused("overloaded", "not_applied")).await;
    let error = client.acquire(&identified()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[tokio::test]
async fn what_a_lost_attempt_has_ended_counts_as_ended() {
    let over = |code| after_a_lost_answer(move || refused(code, "not_applied"));
    let one = One::new("s");
    let (_broker, client) = over("session_expired").await;
    client.session_close(&one).await.unwrap();
    let error = client.session_close(&one).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::SessionExpired));

    let (_broker, client) = over("session_expired").await;
    let close = CloseSession::new("s", "why");
    client.admin_session_close(&close).await.unwrap();

    let (_broker, client) = over("not_holder").await;
    let release = ReleaseLock {
        token: Some(Token(7)),
        ..ReleaseLock::new("a", "why")
    };
    client.admin_lock_release(&release).await.unwrap();
}

/// The next holder's lock would be taken, or a second answer told that counts nothing of the first attempt.
#[tokio::test]
async fn what_a_repetition_would_do_to_others_is_asked_once() {
    let unknown = |error: ClientError, broker: &FakeBroker| {
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert_eq!(broker.arrived().len(), 1, "{:?}", broker.subjects());
    };
    let again = || {
        ok(
            1,
            r#""holders":[],"cancelled":false,"count":0,"moved":0,"dead":0"#,
        )
    };
    let (broker, client) = after_a_lost_answer(again).await;
    let release = ReleaseLock::new("a", "why");
    unknown(
        client.admin_lock_release(&release).await.unwrap_err(),
        &broker,
    );

    let (broker, client) = after_a_lost_answer(again).await;
    let cancel = Cancel::of_owner("a", "w");
    unknown(client.cancel(&cancel).await.unwrap_err(), &broker);

    for operation in [
        Operation::QueueCancel,
        Operation::QueueRedrive,
        Operation::AdminQueuePurge,
    ] {
        let (broker, client) = after_a_lost_answer(again).await;
        let body = json!({});
        let done = client.ask_queue::<Value>(operation, "t", &body).await;
        unknown(done.unwrap_err(), &broker);
    }
}

/// A node that goes on waiting would hand the next message to an answer that nobody waits for.
#[tokio::test]
async fn a_pop_and_a_read_that_are_asked_again_wait_only_for_what_is_left() {
    let shorter = |broker: &FakeBroker| {
        let bodies: Vec<Value> = broker.arrived().iter().map(body_of).collect();
        assert_eq!(bodies.len(), 2);
        let wait = |at: usize| bodies[at]["wait_ms"].as_u64().unwrap();
        assert!(wait(1) < wait(0), "{bodies:?}");
        assert!(bodies[1]["timeout_ms"].as_u64() < Some(5_000 + wait(0)));
    };
    let (broker, client) = after_a_lost_answer(|| ok(1, r#""messages":[]"#)).await;
    client.pop(&pop(20_000)).await.unwrap();
    shorter(&broker);

    let (broker, client) = after_a_lost_answer(|| ok(1, r#""status":"miss""#)).await;
    let get = cache::Get {
        wait_ms: 20_000,
        ..cache::Get::new("k")
    };
    client.cache_get(&get).await.unwrap();
    shorter(&broker);
}

#[tokio::test]
async fn a_read_that_waits_is_given_its_wait() {
    let (_broker, client) = client(Target::Any, |_| Reaction::Silence).await;
    tokio::time::pause();
    let started = time::now();
    let get = cache::Get {
        wait_ms: 20_000,
        ..cache::Get::new("k")
    };
    client.cache_get(&get).await.unwrap_err();
    assert!(started.elapsed() >= Duration::from_secs(25));
}

/// Only a request that others may be asked instead is given less time at its node.
#[tokio::test]
async fn a_push_that_may_not_be_repeated_has_all_its_time() {
    let pushed = r#""id":"m","seq":1,"duplicate":false,"durability":{"level":"fsync","source":"inspected","checked_at_ms":1}"#;
    let (_broker, client) = client(Target::Leader, move |request| {
        match request.subject.as_str() {
            "mufakat.queue.push" => ok(2, pushed),
            _ => Reaction::Silence,
        }
    })
    .await;
    let push = Push {
        timeout_ms: None,
        ..push(None)
    };
    client.push(&push).await.unwrap();
    tokio::time::pause();
    let started = time::now();
    let error = client.push(&push).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert!(started.elapsed() >= Duration::from_secs(5));
}

#[tokio::test]
async fn a_lease_does_not_outlive_the_closing_of_its_session() {
    let (_broker, client) = client(Target::Any, |request| match request.subject.as_str() {
        "mufakat.session.open" => ok(1, r#""session":"s","ttl_ms":30000,"keepalive_ms":10000"#),
        "mufakat.lock.acquire" => acquired(1, 30_000),
        "mufakat.session.close" => Reaction::Disconnect,
        other => panic!("{other}"),
    })
    .await;
    let session = client.open_session(&Open::new(30_000)).await.unwrap();
    let lease = session.acquire(&Acquire::new("a")).await.unwrap();
    lease.check().unwrap();
    tokio::time::timeout(Duration::from_millis(50), session.close())
        .await
        .unwrap_err();
    assert!(matches!(lease.check(), Err(LeaseLost::SessionClosed)));
    assert!(lease.left().is_zero());
    assert!(lease.during(std::future::pending::<()>()).await.is_err());
}

/// Waits are answered by silence, tries by a grant.
async fn granting_late() -> (FakeBroker, Client, Arc<Mutex<Vec<Value>>>) {
    let tries = Arc::new(Mutex::new(Vec::new()));
    let told = tries.clone();
    let (broker, client) = client(Target::Any, move |request| match request.subject.as_str() {
        "mufakat.lock.acquire" => {
            let body = body_of(request);
            if body["wait_ms"].as_u64().unwrap_or(0) > 0 {
                return Reaction::Silence;
            }
            told.lock().unwrap().push(body);
            acquired(1, 30_000)
        }
        "mufakat.lock.release" => ok(1, r#""released":true"#),
        other => panic!("{other}"),
    })
    .await;
    (broker, client, tries)
}

async fn dropped_after_a_moment<T>(call: impl Future<Output = T>) {
    let waited = tokio::time::timeout(Duration::from_millis(50), call).await;
    assert!(waited.is_err());
}

#[tokio::test]
async fn a_wait_that_is_dropped_is_given_up() {
    let (broker, client, tries) = granting_late().await;
    let request = Acquire {
        wait_ms: 30_000,
        ..Acquire::new("a")
    };
    dropped_after_a_moment(client.acquire_lease(&request)).await;
    let is_released = |subjects: &[&str]| subjects.last() == Some(&"mufakat.lock.release");
    broker.until(is_released).await;
    let asked = body_of(&broker.arrived()[0]);
    assert_eq!(tries.lock().unwrap()[0]["request_id"], asked["request_id"]);
    assert_eq!(body_of(&broker.arrived()[2])["token"], 7);
}

/// For whoever attaches to it again.
#[tokio::test]
async fn a_wait_whose_id_the_caller_chose_keeps_its_place_until_it_is_abandoned() {
    let (broker, client, _) = granting_late().await;
    let request = Acquire {
        wait_ms: 30_000,
        timeout_ms: None,
        ..identified()
    };
    dropped_after_a_moment(client.acquire(&request)).await;
    dropped_after_a_moment(client.acquire(&request)).await;
    assert_eq!(broker.subjects(), ["mufakat.lock.acquire"; 2]);
    client.abandon(&request).await.unwrap();
    assert_eq!(broker.subjects()[3..], ["mufakat.lock.release"]);
}

/// It may hold the lock by another request, too.
#[tokio::test]
async fn of_an_owner_with_a_name_only_the_wait_is_given_up() {
    let (broker, client) = client(Target::Any, |request| match request.subject.as_str() {
        "mufakat.lock.acquire" => Reaction::Silence,
        _ => ok(1, r#""cancelled":false,"token":7"#),
    })
    .await;
    let request = Acquire {
        owner: Some("w".to_owned()),
        wait_ms: 30_000,
        ..Acquire::new("a")
    };
    dropped_after_a_moment(client.acquire(&request)).await;
    broker.until(|subjects| subjects.len() == 2).await;
    assert_eq!(broker.subjects()[1], "mufakat.lock.cancel");
    let (asked, cancelled) = (body_of(&broker.arrived()[0]), body_of(&broker.arrived()[1]));
    assert_eq!(cancelled["request_id"], asked["request_id"]);
}

#[tokio::test]
async fn a_wait_that_cannot_be_given_up_is_told() {
    let (_broker, client) = client(Target::Any, |_| Reaction::NoResponders).await;
    let error = client.abandon(&identified()).await.unwrap_err();
    let unheard = matches!(
        error,
        ClientError::Unanswered {
            error: RequestError::NoResponders,
            ..
        }
    );
    assert!(unheard, "{error}");
}
