//! Values that end by themselves, by hand on three nodes.

use super::nodes::*;
use crate::cache::explain::State;
use crate::cache::operation::{Condition, Operation};
use crate::protocol::value::Value;

fn set_idle(text: &str, idle_ms: u64) -> Operation {
    Operation::Set {
        value: Value::text(text),
        ttl_ms: None,
        idle_ms,
        condition: Condition::Always,
        tags: Vec::new(),
        fence: None,
        claim: None,
    }
}

#[test]
fn what_has_lain_idle_is_not_revived_by_a_read_at_its_home() {
    let mut nodes = Nodes::start(1 << 20);
    let key = nodes.key();
    nodes.write(&key, set_idle("value", 200));
    for _ in 0..3 {
        nodes.pass(150);
        assert_eq!(nodes.hit(HOME, &key).as_deref(), Some("value"), "read");
    }
    nodes.pass(3_000);
    let explained = nodes.caches[&HOME].explain(&key, nodes.now);
    assert_eq!((explained.state, explained.version), (State::Absent, None));
    assert_eq!(nodes.hit(HOME, &key), None);
    assert_eq!(nodes.get(HOME, &key), None);
    assert_eq!(nodes.get(READER, &key), None);
}
