//! Lease time: it stands still without a quorum, no change of leader ends a lease early or begins it
//! anew, a leader that was replaced ends none, and a pause counts half a second at most.

use std::time::Duration;

use mufakat::ids::NodeId;
use mufakat::time::now;

use crate::client::{Client, code, token};
use crate::cluster::{Cluster, NODES};
use crate::run;

const PATIENCE: Duration = Duration::from_secs(30);
/// What a tick and an entry may add to a step.
const SLACK_MS: u64 = 200;
/// The most that one step counts (`STEP_MAX` of the lease clock).
const STEP_MS_MAX: u64 = 500;
/// Longest election, and grace, of the default configuration.
const ELECTION_MS_MAX: u64 = 800;
const GRACE_MS: u64 = 1_000;

async fn acquire(cluster: &mut Cluster, client: &mut Client, ttl_ms: u64) -> u64 {
    let leader = cluster.leader().await;
    let body = format!(r#"{{"resource":"r","owner":"a","ttl_ms":{ttl_ms}}}"#);
    let acquire = ("lock.acquire", body.as_str());
    let answer = client.call(cluster, leader, acquire, PATIENCE).await;
    token(&answer.expect("a grant"))
}

async fn is_valid(cluster: &mut Cluster, client: &mut Client, token: u64) -> bool {
    let leader = cluster.leader().await;
    let body = format!(r#"{{"resource":"r","token":{token},"timeout_ms":9000}}"#);
    let check = ("lock.check", body.as_str());
    let answer = client.call(cluster, leader, check, PATIENCE).await;
    let answer = answer.expect("an answer");
    assert_eq!(code(&answer), "ok", "{answer}");
    answer["valid"] == true
}

fn last_stamp(cluster: &Cluster) -> u64 {
    cluster.history.replay().state.now_ms()
}

#[test]
fn without_a_quorum_lease_time_stands_still() {
    for seed in 1..=3 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            let mut client = Client::new(&cluster, 1).await;
            let held = acquire(&mut cluster, &mut client, 3_000).await;
            let before_ms = last_stamp(&cluster);
            let followers = cluster.followers();
            for follower in &followers {
                cluster.crash(*follower, 0).await;
            }
            cluster.pass(60_000).await;
            for follower in &followers {
                cluster.start(*follower).await;
            }
            cluster.leader().await;
            assert!(
                is_valid(&mut cluster, &mut client, held).await,
                "the lease ended"
            );
            let counted_ms = last_stamp(&cluster) - before_ms;
            let most = ELECTION_MS_MAX + STEP_MS_MAX + SLACK_MS;
            assert!(counted_ms <= most, "{counted_ms} ms were counted");
        });
    }
}

/// etcd#9888: each new leader gave every lease its whole length again.
#[test]
fn a_change_of_leader_ends_no_lease_early_and_begins_none_anew() {
    for seed in 1..=3 {
        run(seed, async {
            // One that began anew at the second change would last half as long again.
            const TTL_MS: u64 = 20_000;
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            let mut holder = Client::new(&cluster, 1).await;
            let mut waiter = Client::new(&cluster, 2).await;
            acquire(&mut cluster, &mut holder, TTL_MS).await;
            let granted_at = now();
            let entry = cluster.followers()[0];
            let wait = r#"{"resource":"r","owner":"b","wait_ms":60000}"#;
            let asked = waiter.ask(&cluster, entry, "lock.acquire", wait);
            // Two changes, each well before the end; nothing but time is logged meanwhile.
            for _ in 0..2 {
                cluster.pass(7_000).await;
                let leader = cluster.leader().await;
                cluster.crash(leader, 0).await;
                cluster.leader().await;
                cluster.start(leader).await;
            }
            let answer = waiter.answer(&mut cluster, asked, now() + PATIENCE).await;
            assert_eq!(code(&answer.expect("a grant")), "ok");
            let lasted_ms = granted_at.elapsed().as_millis() as u64;
            let per_change = ELECTION_MS_MAX + STEP_MS_MAX + GRACE_MS + SLACK_MS;
            println!("  a lease of {TTL_MS} ms lasted {lasted_ms} ms over two changes of leader");
            assert!(lasted_ms + SLACK_MS >= TTL_MS, "the lease ended early");
            assert!(lasted_ms <= TTL_MS + 2 * per_change, "the lease began anew");
        });
    }
}

/// etcd#15247, etcd#12528: a leader that had been replaced without noticing took away, once it was
/// back, the leases that had been kept alive with its successor.
#[test]
fn a_leader_that_was_replaced_ends_no_lease() {
    const TTL_MS: u64 = 3_000;
    for seed in 1..=3 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            let mut client = Client::new(&cluster, 1).await;
            let held = acquire(&mut cluster, &mut client, TTL_MS).await;
            let (term, old) = cluster.leading().expect("one leads");
            cluster.isolate(old);
            let renew = format!(r#"{{"resource":"r","token":{held},"timeout_ms":9000}}"#);
            let mut renew_at = async |cluster: &mut Cluster, node: NodeId| {
                let renew = ("lock.renew", renew.as_str());
                let answer = client.call(cluster, node, renew, PATIENCE).await;
                let answer = answer.expect("an answer");
                assert_eq!(code(&answer), "ok", "{answer}");
            };
            let cut_off_at = now();
            while cut_off_at.elapsed() < Duration::from_millis(3 * TTL_MS) {
                let other = *NODES.iter().find(|node| **node != old).expect("two more");
                renew_at(&mut cluster, other).await;
                cluster.pass(TTL_MS / 3).await;
            }
            assert!(cluster.leading().expect("one leads").0 > term);
            cluster.heal();
            for _ in 0..20 {
                renew_at(&mut cluster, old).await;
                cluster.pass(100).await;
            }
            cluster.settle().await;
        });
    }
}

/// hazelcast#15735: a session began when its client asked for it, by the client's clock, and could be
/// over by the time that it was made.
#[test]
fn a_session_begins_when_it_is_made() {
    const TTL_MS: u64 = 3_000;
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        let mut client = Client::new(&cluster, 1).await;
        let cut_off = cluster.followers()[0];
        cluster.isolate(cut_off);
        let open = format!(r#"{{"ttl_ms":{TTL_MS},"timeout_ms":30000}}"#);
        let asked = client.ask(&cluster, cut_off, "session.open", &open);
        // The others go on, and so does lease time.
        cluster.pass(3 * TTL_MS).await;
        cluster.heal();
        let opened = client.answer(&mut cluster, asked, now() + PATIENCE).await;
        let opened = opened.expect("an answer");
        assert_eq!(code(&opened), "ok", "{opened}");
        let get = format!(r#"{{"session":{}}}"#, opened["session"]);
        let leader = cluster.leader().await;
        let get = ("session.get", get.as_str());
        let seen = client.call(&mut cluster, leader, get, PATIENCE).await;
        let left_ms = seen.expect("an answer")["expires_in_ms"].as_u64();
        assert!(left_ms > Some(TTL_MS - SLACK_MS), "{left_ms:?}");
    });
}

#[test]
fn a_pause_counts_half_a_second_at_most() {
    run(1, async {
        let mut cluster = Cluster::of_three(1, 10_000).await;
        let mut client = Client::new(&cluster, 1).await;
        let held = acquire(&mut cluster, &mut client, 20_000).await;
        cluster.pass(1_000).await;
        // The machine sleeps: all nodes wake at once, long after the lease would have ended.
        tokio::time::advance(Duration::from_secs(60)).await;
        let valid = is_valid(&mut cluster, &mut client, held).await;
        assert!(valid, "a pause ended the lease");

        // It stumbles, so shortly that its quorum is still taken for confirmed.
        const TICK_MS: u64 = 100;
        cluster.pass(2_000).await;
        let leader = cluster.leader().await;
        let lease_time = |cluster: &Cluster| cluster.core(leader).handle.read(|_, now_ms| now_ms);
        let (leading, before_ms) = (cluster.leading(), lease_time(&cluster));
        tokio::time::advance(Duration::from_millis(750)).await;
        cluster.pass(TICK_MS).await;
        let counted_ms = lease_time(&cluster) - before_ms;
        println!("  of {} ms {counted_ms} ms were counted", 750 + TICK_MS);
        assert_eq!(cluster.leading(), leading, "the leader changed");
        let most = STEP_MS_MAX + 2 * TICK_MS;
        assert!(
            counted_ms <= most,
            "{counted_ms} ms were counted, not {most}"
        );
    });
}

/// An entry ends a thousand of them; with one entry for each tick of the leader's clock it would take half a second.
#[test]
fn what_ends_at_once_ends_entry_after_entry() {
    const HOLDS: u64 = 5_000;
    run(1, async {
        let mut cluster = Cluster::of_three(1, 100_000).await;
        let mut client = Client::new(&cluster, 1).await;
        let leader = cluster.leader().await;
        let open = ("session.open", r#"{"ttl_ms":60000}"#);
        let opened = client.call(&mut cluster, leader, open, PATIENCE).await;
        let opened = opened.expect("an answer");
        let session = opened["session"].as_str().expect("an id");
        for number in 1..=HOLDS {
            let body = format!(r#"{{"resource":"r{number}","session":"{session}"}}"#);
            client.ask(&cluster, leader, "lock.acquire", &body);
            if number % 500 == 0 {
                cluster.pass(100).await;
                client.heard();
            }
        }
        let held = |cluster: &Cluster| {
            let handle = &cluster.core(leader).handle;
            handle.read(|state, _| state.locks.counts().held)
        };
        assert_eq!(held(&cluster), HOLDS);
        let body = format!(r#"{{"session":"{session}"}}"#);
        let close = ("session.close", body.as_str());
        let closed = client.call(&mut cluster, leader, close, PATIENCE).await;
        assert_eq!(code(&closed.expect("an answer")), "ok");
        cluster.pass(150).await;
        assert_eq!(held(&cluster), 0);
    });
}
