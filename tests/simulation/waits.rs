//! A committed wait survives the leader's death without asking again.

use std::time::Duration;

use mufakat::broker::simulated::Faults;
use mufakat::time::now;

use crate::client::{Client, code, token};
use crate::cluster::Cluster;
use crate::run;

#[test]
fn a_waiter_is_granted_once_though_the_leader_dies_on_a_bad_network() {
    for seed in 1..=5 {
        run(seed, async {
            let mut cluster = Cluster::of_three(seed, 10_000).await;
            cluster.network.set_faults(Faults {
                drop: 0.03,
                reorder: 0.1,
                ..Faults::NONE
            });
            let leader = cluster.leader().await;
            let entry = cluster.followers()[0];
            let (mut holder, mut waiter) = (
                Client::new(&cluster, 1).await,
                Client::new(&cluster, 2).await,
            );
            let patience = Duration::from_secs(10);
            let acquire = (
                "lock.acquire",
                r#"{"resource":"r","owner":"a","ttl_ms":60000}"#,
            );
            let held = holder
                .call(&mut cluster, entry, acquire, patience)
                .await
                .expect("a grant");
            let waits = r#"{"resource":"r","owner":"b","ttl_ms":60000,"wait_ms":60000}"#;
            let asked = waiter.ask(&cluster, entry, "lock.acquire", waits);
            cluster.pass(2_000).await;
            assert!(waiter.heard().is_empty(), "granted while another holds it");

            cluster.crash(leader, 0).await;
            let entry = cluster.leader().await;
            let release = format!(r#"{{"resource":"r","token":{}}}"#, token(&held));
            let released = ("lock.release", release.as_str());
            let released = holder.call(&mut cluster, entry, released, patience).await;
            assert_eq!(code(&released.expect("an answer")), "ok");
            let granted = waiter.answer(&mut cluster, asked, now() + patience).await;
            let granted = granted.expect("the waiter is granted without asking again");
            assert!(token(&granted) > token(&held));

            cluster.start(leader).await;
            cluster.pass(3_000).await;
            for (of, repeated) in waiter.heard() {
                assert_eq!(
                    (of, token(&repeated)),
                    (asked, token(&granted)),
                    "granted twice"
                );
            }
            cluster.heal();
            cluster.settle().await;
            assert_eq!(cluster.history.replay().grants.len(), 2);
        });
    }
}
