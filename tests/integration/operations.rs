//! Every operation, asked of leader and follower in both encodings: fields and errors as documented.

use async_nats::Client;
use mufakat::protocol::Encoding;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::documented::Documented;
use crate::raw::{self, Answer, names};
use crate::wire;

/// Asks one node in one encoding, and compares every answer with the document.
struct Asker<'a> {
    nats: &'a Client,
    documented: &'a Documented,
    encoding: Encoding,
    node: u64,
    leader: u64,
    resource: String,
}

impl Asker<'_> {
    async fn ask(&self, operation: &str, body: Value) -> Answer {
        let subject = format!("mufakat.node.{}.{operation}", self.node);
        let answer = raw::ask(self.nats, self.encoding, &subject, &body).await;
        self.documented.check_answer(operation, &answer.body);
        answer
    }

    async fn lock(&self, verb: &str, mut body: Value) -> Answer {
        body["resource"] = self.resource.as_str().into();
        let answer = self.ask(&format!("lock.{verb}"), body).await;
        // A follower that was asked says who leads; a wait may end under another leader.
        let timed_out = answer.body["error"]["code"] == "wait_timeout";
        let ask_node = (self.node != self.leader && !timed_out).then_some(self.leader);
        assert_eq!(answer.body["ask_node"].as_u64(), ask_node, "{verb}");
        answer
    }

    async fn refused(&self, verb: &str, body: Value, refusal: (&str, u64)) -> Value {
        let answer = self.lock(verb, body).await;
        assert_eq!(answer.refusal(), refusal, "{verb}");
        let error = answer.body["error"].clone();
        assert_eq!(error["outcome"], "not_applied", "{error}");
        error
    }

    /// The life of a lock, with every answer on the way.
    async fn life_of_a_lock(&self) -> u64 {
        let meta = json!({"job": "nightly", "parts": [1, 2.5, null]});
        let acquire = json!({"owner": "a", "ttl_ms": 40_000, "meta": meta,
                             "request_id": format!("r {}", self.resource)});
        let held = self.lock("acquire", acquire.clone()).await.success();
        let token = held["token"].as_u64().unwrap();
        assert_eq!(held["resource"], self.resource);
        assert_eq!(
            (&held["owner"], &held["mode"]),
            (&json!("a"), &json!("exclusive"))
        );
        assert!(held["expires_in_ms"].as_u64() > Some(30_000), "{held}");
        assert_eq!(held["waited_ms"], 0);

        let error = self
            .refused("acquire", json!({"owner": "b"}), ("lock_held", 409))
            .await;
        assert_eq!(error["retryable"], true);
        assert_eq!(error["queue_length"], 0);
        let holder = &error["holders"][0];
        assert_eq!(
            (&holder["owner"], &holder["token"]),
            (&json!("a"), &json!(token))
        );
        assert_eq!(holder["meta"], meta);
        let wait = json!({"owner": "b", "wait_ms": 50});
        let error = self.refused("acquire", wait, ("wait_timeout", 408)).await;
        assert_eq!(error["holders"][0]["owner"], "a");

        let again = json!({"owner": "a", "mode": "shared"});
        let error = self.refused("acquire", again, ("mode_conflict", 409)).await;
        assert_eq!(
            (&error["mode"], &error["token"]),
            (&json!("exclusive"), &json!(token))
        );
        let mut other = acquire.clone();
        other["mode"] = "shared".into();
        let error = self
            .refused("acquire", other, ("request_mismatch", 409))
            .await;
        assert_eq!(error["field"], "mode");

        let checked = self.lock("check", json!({"token": token})).await.success();
        assert_eq!(
            (&checked["valid"], &checked["current_token"]),
            (&json!(true), &json!(token))
        );
        let checked = self
            .lock("check", json!({"token": token + 1_000}))
            .await
            .success();
        assert_eq!(
            (&checked["valid"], &checked["current_token"]),
            (&json!(false), &json!(token))
        );
        assert!(checked["expires_in_ms"].is_null());

        let renewed = self
            .lock("renew", json!({"token": token, "ttl_ms": 90_000}))
            .await;
        assert!(renewed.success()["expires_in_ms"].as_u64() > Some(80_000));
        let wrong = json!({"token": token + 1_000});
        self.refused("renew", wrong.clone(), ("not_holder", 409))
            .await;
        self.refused("release", wrong, ("not_holder", 409)).await;
        let released = self
            .lock("release", json!({"token": token}))
            .await
            .success();
        assert_eq!(released["released"], true);
        self.refused("release", json!({"token": token}), ("not_holder", 409))
            .await;
        let checked = self.lock("check", json!({"token": token})).await.success();
        assert_eq!(checked["valid"], false);
        assert!(checked["current_token"].is_null());
        token
    }

    /// Shared holders and a waiter, as `get` shows them.
    async fn views(&self) {
        let free = self.lock("get", json!({})).await.success();
        assert_eq!(
            (&free["holders"], &free["waiters"]),
            (&json!([]), &json!([]))
        );
        for owner in ["a", "b"] {
            let shared = json!({"owner": owner, "mode": "shared"});
            self.lock("acquire", shared).await.success();
        }
        let wait = json!({"resource": self.resource, "owner": "c", "wait_ms": 30_000,
                          "request_id": self.resource});
        let subject = format!("mufakat.node.{}.lock.acquire", self.node);
        let mut waiting = wire::send(self.nats, &subject, &wait).await;
        let view = crate::wait::until("the waiter is seen", async || {
            let view = self.lock("get", json!({})).await.success();
            (view["waiters"] != json!([])).then_some(view)
        })
        .await;
        let waiter = &view["waiters"][0];
        assert_eq!(
            (&waiter["owner"], &waiter["request_id"]),
            (&json!("c"), &json!(self.resource))
        );
        assert_eq!(waiter["mode"], "exclusive");
        let owners: Vec<_> = view["holders"].as_array().unwrap().iter().collect();
        assert_eq!(
            (&owners[0]["owner"], &owners[1]["owner"]),
            (&json!("a"), &json!("b"))
        );
        assert!(owners.iter().all(|holder| holder["meta"].is_null()));
        let again = json!({"owner": "c", "wait_ms": 100});
        let error = self
            .refused("acquire", again, ("already_waiting", 409))
            .await;
        assert_eq!(error["resource"], self.resource);
        for holder in owners {
            self.lock("release", json!({"token": holder["token"]}))
                .await
                .success();
        }
        let granted = waiting.answer(crate::wait::LONG).await.expect("a grant");
        self.documented.check_answer("lock.acquire", &granted);
        let release = json!({"token": granted["token"]});
        self.lock("release", release).await.success();
        let stale = json!({"consistency": "stale"});
        crate::wait::until("a stale view sees it, too", async || {
            let view = self.lock("get", stale.clone()).await.success();
            (view["holders"] == json!([])).then_some(())
        })
        .await;
    }

    async fn node_itself(&self) {
        let status = self.ask("status", json!({})).await.success();
        assert_eq!(status["node"], self.node);
        assert_eq!(status["leader"], self.leader);
        let role = if self.node == self.leader {
            "leader"
        } else {
            "follower"
        };
        assert_eq!(status["role"], role);
        assert_eq!(status["members"].as_array().unwrap().len(), 3);
        assert_eq!(status["nats"]["connected"], true);
        assert!(status["redis"].is_null() && status["state_hash"].is_null());
        let hashed = self.ask("status", json!({"state_hash": "include"})).await;
        assert_eq!(names(&hashed.success()["state_hash"]), ["batches", "hash"]);
        let metrics = self.ask("metrics", json!({})).await.success();
        assert!(
            metrics["metrics"]
                .as_str()
                .unwrap()
                .contains("\nmufakat_raft_term ")
        );
    }
}

#[tokio::test]
async fn every_operation_answers_as_documented() {
    let mut cluster = Cluster::start(Options::default()).await;
    let (leader, follower) = (cluster.all_follow().await, cluster.follower().await);
    let (nats, documented) = (cluster.nats().await, Documented::load());
    let mut newest_token = 0;
    for node in [leader, follower] {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let asker = Asker {
                nats: &nats,
                documented: &documented,
                encoding,
                node,
                leader,
                resource: format!("all {encoding:?} {node}"),
            };
            let token = asker.life_of_a_lock().await;
            assert!(token > newest_token, "tokens go up over all resources");
            newest_token = token;
            asker.views().await;
            asker.node_itself().await;
        }
    }
}
