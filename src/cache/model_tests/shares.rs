//! What one tenant does to the memory of others: it leaves them half.

use super::nodes::*;
use crate::cache::entry::{ENTRY_BYTES, Key};
use crate::cache::operation::{Answer, Operation, Why, Write};
use crate::protocol::Tenant;

/// What one of the entries here takes, about.
const EACH: usize = ENTRY_BYTES + "A/key-000".len() + 100;
const BYTES_MAX: usize = 20 * EACH;

fn tenant(account: &str) -> Tenant {
    Tenant::of_account(account).expect("valid")
}

fn keys_of(nodes: &Nodes, account: &str) -> Vec<Key> {
    let keys = (100..1_000).map(|n| Key::from(format!("{account}/key-{n}")));
    keys.filter(|key| nodes.caches[&HOME].home(key) == Some(HOME))
        .take(200)
        .collect()
}

/// Fills the memory of the home with what one tenant sets, after another has set a few; how many of these are
/// left.
fn left_of_others(nodes: &mut Nodes) -> usize {
    let (all_of_a, all_of_b) = (keys_of(nodes, "A"), keys_of(nodes, "B"));
    let few = &all_of_b[..7];
    for key in few.iter().chain(&all_of_a) {
        nodes.set(key, &"x".repeat(100));
        nodes.settle();
    }
    let (_, bytes) = nodes.caches[&HOME].size();
    assert!(bytes <= BYTES_MAX && bytes > BYTES_MAX / 2, "{bytes}");
    assert!(nodes.caches[&HOME].counts().evictions > 150);
    let newest = all_of_a.last().expect("keys");
    assert!(nodes.hit(HOME, newest).is_some(), "what is new is there");
    let mut left = few.iter().map(|key| nodes.hit(HOME, key));
    left.by_ref().flatten().count()
}

#[test]
fn a_tenant_that_sets_much_leaves_others_half_of_the_memory() {
    let mut nodes = Nodes::start_with(BYTES_MAX, false);
    for cache in nodes.caches.values_mut() {
        cache.meet(Some(&tenant("A")));
        cache.meet(Some(&tenant("B")));
    }
    assert_eq!(left_of_others(&mut nodes), 7);
}

#[test]
fn who_came_before_it_was_known_to_be_a_tenant_has_its_share_from_then_on() {
    let mut nodes = Nodes::start_with(BYTES_MAX, false);
    let early = keys_of(&nodes, "A");
    for key in &early {
        nodes.set(key, &"x".repeat(100));
        nodes.settle();
    }
    for cache in nodes.caches.values_mut() {
        cache.meet(Some(&tenant("A")));
    }
    assert_eq!(left_of_others(&mut nodes), 7);
}

/// That the others need the share: without tenants the oldest goes, whosever it is.
#[test]
fn without_tenants_the_least_recently_used_goes() {
    let mut nodes = Nodes::start_with(BYTES_MAX, false);
    assert_eq!(left_of_others(&mut nodes), 0);
}

/// A share is for others: who is alone takes all.
#[test]
fn a_tenant_takes_what_nobody_else_wants() {
    let mut nodes = Nodes::start_with(BYTES_MAX, false);
    for cache in nodes.caches.values_mut() {
        cache.meet(Some(&tenant("A")));
    }
    for key in keys_of(&nodes, "A") {
        nodes.set(&key, &"x".repeat(100));
        nodes.settle();
    }
    let (entries, _) = nodes.caches[&HOME].size();
    assert!(entries >= 17, "{entries}");
}

#[test]
fn a_tenant_that_names_many_writes_leaves_others_half_of_the_ids() {
    let mut nodes = Nodes::start_with(BYTES_MAX, false);
    let home = nodes.caches.get_mut(&HOME).expect("one of three");
    home.meet(Some(&tenant("A")));
    home.meet(Some(&tenant("B")));
    let accepted = |nodes: &mut Nodes, account: &str| {
        let keys = keys_of(nodes, account);
        let write = |key| {
            let increment = Operation::Increment {
                by: 1,
                initial: 0,
                ttl_ms: None,
            };
            let write = Write {
                id: Some("id".into()),
                ..increment.into()
            };
            let ticket = nodes.write(key, write);
            nodes.settle();
            nodes.answers[&ticket] != Answer::Refused(Why::TooManyIds)
        };
        keys.iter()
            .map(write)
            .take_while(|is_made| *is_made)
            .count()
    };
    let (of_a, of_b) = (accepted(&mut nodes, "A"), accepted(&mut nodes, "B"));
    assert!(of_a > 0 && of_a == of_b, "{of_a} and {of_b}");
    assert!(accepted(&mut nodes, "C") <= 1, "both have half of them");
}
