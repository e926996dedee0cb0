use mufakat::protocol::lock::Mode;

use super::super::locks::{Asked, LockCheck};
use super::*;

fn asks(check: &mut LockCheck, clock: &mut Clock, owner: &str, mode: Mode) -> Asked {
    check.asks(clock.tick(), owner, vec!["lock".to_owned()], mode, TTL)
}

#[test]
fn two_holders_are_found_unless_both_share_or_one_has_given_back() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    let ann = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    let bob = asks(&mut check, &mut clock, "bob", Mode::Shared);
    let cid = asks(&mut check, &mut clock, "cid", Mode::Shared);
    check.granted(clock.tick(), &ann, 1);
    // From the sending of the release on, the lock may be somebody else's.
    check.releases(clock.tick(), &ann, 1);
    check.granted(clock.tick(), &bob, 2);
    check.granted(clock.tick(), &cid, 3);
    finds_nothing(&check.history);
    let ann = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.granted(clock.tick(), &ann, 4);
    let text = found(&check.history);
    assert!(
        text.contains("bob (shared, token 2) and ann (exclusive, token 4)"),
        "{text}"
    );
    let history = check.history.text();
    assert!(history.contains("ann gives token 1 back"), "{history}");
}

#[test]
fn a_lease_that_may_be_over_is_no_hold() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    let ann = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.granted(clock.tick(), &ann, 1);
    clock.0 += TTL;
    let bob = asks(&mut check, &mut clock, "bob", Mode::Exclusive);
    check.granted(clock.tick(), &bob, 2);
    // A grant that comes so late that its lease is over says nothing either.
    let cid = asks(&mut check, &mut clock, "cid", Mode::Exclusive);
    clock.0 += TTL - Duration::from_millis(100);
    check.granted(clock.tick(), &cid, 3);
    finds_nothing(&check.history);
}

#[test]
fn tokens_rise_over_all_locks_and_are_granted_once() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    let other = |check: &mut LockCheck, now, owner: &str| {
        check.asks(
            now,
            owner,
            vec![format!("lock of {owner}")],
            Mode::Exclusive,
            TTL,
        )
    };
    let ann = other(&mut check, clock.tick(), "ann");
    let bob = other(&mut check, clock.tick(), "bob");
    check.granted(clock.tick(), &ann, 8);
    // Both were on their way at once: either may have been first.
    check.granted(clock.tick(), &bob, 7);
    finds_nothing(&check.history);
    let cid = other(&mut check, clock.tick(), "cid");
    check.granted(clock.tick(), &cid, 6);
    assert!(found(&check.history).contains("token 6 is not above 8"));
    let dan = other(&mut check, clock.tick(), "dan");
    check.granted(clock.tick(), &dan, 8);
    assert!(check.history.text().contains("token 8 was granted twice"));
}

#[test]
fn what_was_not_answered_may_have_been_granted_before() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    let lost = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.not_granted(clock.tick(), &lost, "no_answer", true);
    let bob = check.asks(
        clock.tick(),
        "bob",
        vec!["other".to_owned()],
        Mode::Exclusive,
        TTL,
    );
    check.granted(clock.tick(), &bob, 9);
    let again = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.granted(clock.tick(), &again, 5);
    // Nor is it known whether a release without an answer took effect.
    check.releases(clock.tick(), &again, 5);
    check.released(clock.tick(), &again, 5, Some("no_answer"));
    let again = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.granted(clock.tick(), &again, 5);
    finds_nothing(&check.history);
    check.releases(clock.tick(), &again, 5);
    check.released(clock.tick(), &again, 5, None);
    let again = asks(&mut check, &mut clock, "ann", Mode::Exclusive);
    check.granted(clock.tick(), &again, 5);
    assert!(found(&check.history).contains("token 5 was granted twice"));
}

/// Asks for these locks and has no answer.
fn asks_in_vain(check: &mut LockCheck, clock: &mut Clock, owner: &str, locks: &[&str]) {
    let resources = locks.iter().map(|lock| (*lock).to_owned()).collect();
    let lost = check.asks(clock.tick(), owner, resources, Mode::Exclusive, TTL);
    check.not_granted(clock.tick(), &lost, "no_answer", true);
}

/// Asks for these locks and gets them with this token.
fn gets(
    check: &mut LockCheck,
    clock: &mut Clock,
    owner: &str,
    locks: &[&str],
    token: u64,
) -> Asked {
    let resources = locks.iter().map(|lock| (*lock).to_owned()).collect();
    let asked = check.asks(clock.tick(), owner, resources, Mode::Exclusive, TTL);
    check.granted(clock.tick(), &asked, token);
    asked
}

/// Releases, and hears this code; `None` for success.
fn gives_back(
    check: &mut LockCheck,
    clock: &mut Clock,
    asked: &Asked,
    token: u64,
    code: Option<&str>,
) {
    check.releases(clock.tick(), asked, token);
    check.released(clock.tick(), asked, token, code);
}

#[test]
fn a_grant_of_another_lock_says_nothing_of_the_one_that_was_not_answered() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    // Granted with token 1, and not heard of.
    asks_in_vain(&mut check, &mut clock, "ann", &["a"]);
    let b = gets(&mut check, &mut clock, "ann", &["b"], 2);
    gives_back(&mut check, &mut clock, &b, 2, None);
    // The same hold still.
    let a = gets(&mut check, &mut clock, "ann", &["a"], 1);
    finds_nothing(&check.history);
    gives_back(&mut check, &mut clock, &a, 1, None);
    gets(&mut check, &mut clock, "ann", &["a"], 1);
    assert!(found(&check.history).contains("token 1 was granted twice"));
}

#[test]
fn releases_that_were_not_answered_are_remembered_for_each_lock() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    for (lock, token) in [("a", 1), ("b", 2)] {
        let asked = gets(&mut check, &mut clock, "ann", &[lock], token);
        gives_back(&mut check, &mut clock, &asked, token, Some("no_answer"));
    }
    let c = gets(&mut check, &mut clock, "ann", &["c"], 3);
    gives_back(&mut check, &mut clock, &c, 3, None);
    for (lock, token) in [("a", 1), ("b", 2)] {
        gets(&mut check, &mut clock, "ann", &[lock], token);
    }
    finds_nothing(&check.history);
}

#[test]
fn a_set_is_unsure_of_each_of_its_locks() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    asks_in_vain(&mut check, &mut clock, "ann", &["a", "b"]);
    gets(&mut check, &mut clock, "bob", &["c"], 2);
    gets(&mut check, &mut clock, "ann", &["b", "a"], 1);
    finds_nothing(&check.history);
    // Another owner has no part in that.
    gets(&mut check, &mut clock, "cid", &["d"], 0);
    assert!(found(&check.history).contains("token 0 is not above 2"));
}

#[test]
fn a_release_on_its_way_may_end_the_hold_that_was_granted_again() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    let asked = gets(&mut check, &mut clock, "ann", &["a"], 1);
    gives_back(&mut check, &mut clock, &asked, 1, Some("no_answer"));
    let again = gets(&mut check, &mut clock, "ann", &["a"], 1);
    // Here the first release arrives.
    gets(&mut check, &mut clock, "bob", &["a"], 2);
    gives_back(&mut check, &mut clock, &again, 1, Some("not_holder"));
    finds_nothing(&check.history);
}

#[test]
fn a_hold_that_ends_before_its_lease_is_found() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    let late = gets(&mut check, &mut clock, "ann", &["a"], 1);
    clock.0 += TTL;
    gives_back(&mut check, &mut clock, &late, 1, Some("not_holder"));
    finds_nothing(&check.history);
    let early = gets(&mut check, &mut clock, "ann", &["a"], 2);
    gives_back(&mut check, &mut clock, &early, 2, Some("not_holder"));
    assert!(found(&check.history).contains("token 2 ended before its lease"));
}

/// As at a node that stood still and reads what was sent to it meanwhile.
#[test]
fn an_acquire_without_an_answer_may_arrive_after_later_ones() {
    let (mut check, mut clock) = (LockCheck::default(), Clock::new());
    asks_in_vain(&mut check, &mut clock, "ann", &["a"]);
    let a = gets(&mut check, &mut clock, "ann", &["a"], 1);
    gives_back(&mut check, &mut clock, &a, 1, None);
    // Here the first request arrives, and gets token 2.
    gets(&mut check, &mut clock, "bob", &["b"], 3);
    gets(&mut check, &mut clock, "ann", &["a"], 2);
    finds_nothing(&check.history);
}
