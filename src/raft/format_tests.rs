//! What the release in `tests/fixtures` wrote is read by today's code: a node reads what its earlier version left
//! on its disk.
//!
//! `UPDATE_FIXTURES=1 cargo test --lib format` writes the files anew: once for each release, and never to
//! make a test pass that failed. A format that has to change gets another version number where it has one,
//! and code that reads both.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::type_config::alias::CommittedLeaderIdOf;

use super::command::{Batch, Command, Proposed, Stamp};
use super::frame::{self, Frame, Header, Lane};
use super::message::Append;
use super::network::Identity;
use super::state::State;
use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::ids::{BootId, DiskId, NodeId, Token};
use crate::lock::claim::{Grip, Wants};
use crate::lock::command::{self as lock, Acquire, Convert, DeadlockPolicy, OpenSession, Wait};
use crate::protocol::{Encoding, ReplyTo};
use crate::view::cluster as view;

/// The release whose formats are kept.
const RELEASE: &str = "0.1.0";

/// What the release wrote under this name; with `UPDATE_FIXTURES`, what is written today.
pub(super) fn recorded(name: &str, today: &[u8]) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let file = root.join(RELEASE).join(name);
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::create_dir_all(root.join(RELEASE)).expect("the repository can be written");
        fs::write(&file, today).expect("the repository can be written");
    }
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn acquire(resource: &str, owner: &str, wait: bool) -> Command {
    let reply = ReplyTo::new(format!("_INBOX.{owner}"), Encoding::Json);
    Command::Lock(lock::Command::Acquire(Acquire {
        wants: Wants::one(resource, Grip::Exclusive),
        owner: owner.into(),
        request_id: Some(format!("request-{owner}").into()),
        session: None,
        ttl_ms: Some(60_000),
        wait: wait.then_some(Wait {
            wait_ms: 30_000,
            reply,
        }),
        on_deadlock: DeadlockPolicy::Youngest,
        meta: Some(r#"{"job":1}"#.to_owned()),
        tenant: None,
    }))
}

/// One command of each kind that a state is made of.
fn commands() -> Vec<Proposed> {
    let commands = [
        Command::TermStarted {
            grace_ms: 1_000,
            keeps_over: false,
        },
        Command::View(view::Command::Join {
            node: NodeId(1),
            boot: BootId(11),
            lease_ms: 2_000,
        }),
        Command::Lock(lock::Command::OpenSession(Box::new(OpenSession {
            session: "s".into(),
            name: Some("of a test".into()),
            ttl_ms: 60_000,
            lock_delay_ms: 500,
            meta: None,
            tenant: None,
        }))),
        acquire("a", "one", false),
        acquire("a", "two", true),
        acquire("b", "one", false),
        Command::Lock(lock::Command::Renew {
            resource: Some("a".into()),
            token: Token(1),
            tenant: None,
            ttl_ms: Some(90_000),
        }),
        Command::Lock(lock::Command::Convert(Box::new(Convert {
            resource: "b".into(),
            token: Token(2),
            to: Grip::Shared,
            wait: None,
        }))),
        Command::Lock(lock::Command::Release {
            resource: Some("b".into()),
            token: Token(9),
            tenant: None,
        }),
        Command::Lock(lock::Command::KeepAlive {
            sessions: vec!["s".into()],
        }),
        Command::Lock(lock::Command::ForceRelease {
            resource: "c".into(),
            token: None,
            reason: "none".into(),
        }),
    ];
    let proposed = |command| Proposed {
        origin: None,
        command,
    };
    commands.map(proposed).into()
}

/// The batch of [`commands`] as it lies in the log.
fn batch() -> Batch {
    let stamp = Stamp {
        now_ms: 5_000,
        proposer: NodeId(1),
        boot: BootId(11),
        number: 1,
    };
    Batch::new(stamp, commands())
}

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: CommittedLeaderIdOf::<TypeConfig>::new(term),
        index,
    }
}

fn leader(term: u64) -> openraft::impls::leader_id_std::LeaderId<u64, NodeId> {
    openraft::impls::leader_id_std::LeaderId {
        term,
        voted_for: NodeId(1),
    }
}

pub(super) fn payload() -> EntryPayload<Batch, NodeId, super::types::Member> {
    EntryPayload::Normal(batch())
}

#[test]
fn the_commands_of_the_release_are_read() {
    let bytes = recorded("commands", &batch().encoded);
    let read: Vec<Proposed> = rmp_serde::from_slice(&bytes).expect("they decode");
    assert_eq!(read, commands());
}

#[test]
fn the_state_of_the_release_is_read() {
    let mut state = State::default();
    state.apply(5_000, &commands(), &mut Vec::new());
    let disks = |nodes: &[u64]| -> BTreeMap<NodeId, DiskId> {
        nodes
            .iter()
            .map(|id| (NodeId(*id), DiskId(*id * 7)))
            .collect()
    };
    state.members_changed(&disks(&[1, 2]), &disks(&[1]));
    let bytes = recorded("state", &state.encode());
    let read = State::decode(&bytes).expect("it decodes");
    assert_eq!(read.hash(), state.hash());
}

#[test]
fn what_a_node_of_the_release_says_is_read() {
    let identity = Identity {
        node: NodeId(1),
        disk: DiskId(7),
        boot: BootId(11),
    };
    let header = Header::new(Lane::Append, &identity, Some(DiskId(14))).at(3, 4);
    let append = Append {
        vote: Vote {
            leader_id: leader(2),
            committed: true,
        },
        prev_log_id: Some(log_id(1, 8)),
        entries: vec![Entry {
            log_id: log_id(2, 9),
            payload: payload(),
        }],
        leader_commit: Some(log_id(1, 8)),
    };
    let today = frame::encode(&header, &append, 0).expect("it fits");
    let bytes = Bytes::from(recorded("frame", &today));
    let read = Frame::decode(&bytes).expect("it is a frame");
    assert_eq!(read.header, header);
    let body: Append = read.body().expect("it is an append");
    let entry = |append: &Append| match &append.entries[0].payload {
        EntryPayload::Normal(batch) => batch.encoded.clone(),
        _ => Bytes::new(),
    };
    assert_eq!(entry(&body), entry(&append));
    assert_eq!(format!("{body:?}"), format!("{append:?}"));
}
