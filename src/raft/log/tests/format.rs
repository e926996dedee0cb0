//! A log body that the release wrote is read by today's code.

use super::super::records::{self, Record};
use crate::ids::NodeId;
use crate::raft::format_tests::{log_id, payload, recorded};
use crate::raft::types::Vote;

#[test]
fn the_records_of_the_release_are_read() {
    let vote = Vote {
        leader_id: openraft::impls::leader_id_std::LeaderId {
            term: 2,
            voted_for: NodeId(1),
        },
        committed: true,
    };
    let mut body = Vec::new();
    records::put_vote(&mut body, &vote);
    records::put_entry(&mut body, log_id(2, 9), &payload());
    records::put_truncated(&mut body, 10);
    records::put_purged(&mut body, log_id(1, 3));
    records::put_committed(&mut body, log_id(2, 9));
    let read = |body: &[u8]| -> Vec<String> {
        let records = records::read_body(body).expect("it is a body");
        records.iter().map(|record| format!("{record:?}")).collect()
    };
    let recorded = recorded("log-records", &body);
    assert_eq!(read(&recorded), read(&body));
    let first = records::read_body(&recorded)
        .expect("it is a body")
        .remove(0);
    assert!(matches!(first, Record::Vote(read) if read == vote));
}
