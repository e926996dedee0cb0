//! Whether one key's history is linearizable, after Wing and Gong, with the states that were tried
//! remembered (Lowe, "Testing for linearizability", 2017).

use std::collections::BTreeSet;

/// What one operation did, as its client knows it. Values are numbers that no two writes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// A value was there. Nothing is no value: a cache may forget.
    Read(u64),
    Wrote(u64),
    Removed,
    /// The first was there, the second came in its place.
    Replaced(u64, u64),
}

#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub did: Did,
    pub asked: u64,
    /// None when it is not known whether it took effect, then or later.
    pub answered: Option<u64>,
}

/// The state of the key: a value, or none.
type State = Option<u64>;

/// Whether the operations can be put in an order that a register would have had, each at a moment
/// between its question and its answer.
pub fn is_linearizable(operations: &[Operation]) -> bool {
    let observed: BTreeSet<u64> = operations
        .iter()
        .filter_map(|operation| match operation.did {
            Did::Read(value) | Did::Replaced(value, _) => Some(value),
            Did::Wrote(_) | Did::Removed => None,
        })
        .collect();
    // What may have happened and nobody saw can as well not have happened.
    let counts = |operation: &&Operation| match (operation.answered, operation.did) {
        (Some(_), _) => true,
        (None, Did::Wrote(value) | Did::Replaced(_, value)) => observed.contains(&value),
        (None, Did::Read(_) | Did::Removed) => false,
    };
    let mut operations: Vec<Operation> = operations.iter().filter(counts).copied().collect();
    operations.sort_by_key(|operation| operation.asked);
    search(&operations)
}

fn search(operations: &[Operation]) -> bool {
    let mut tried: BTreeSet<(Vec<usize>, usize, State)> = BTreeSet::new();
    // The first that is not placed, those after it that are, and the state.
    let mut open: Vec<(usize, BTreeSet<usize>, State)> = vec![(0, BTreeSet::new(), None)];
    while let Some((mut first, mut placed, state)) = open.pop() {
        while placed.remove(&first) {
            first += 1;
        }
        let rest = || (first..operations.len()).filter(|at| !placed.contains(at));
        let must = first_answer(rest().map(|at| &operations[at]));
        let Some(must) = must else {
            return true;
        };
        if !tried.insert((placed.iter().copied().collect(), first, state)) {
            continue;
        }
        for at in rest().take_while(|at| operations[*at].asked <= must) {
            let next = match operations[at].did {
                Did::Read(value) if state == Some(value) => state,
                Did::Wrote(value) => Some(value),
                Did::Removed => None,
                Did::Replaced(before, value) if state == Some(before) => Some(value),
                Did::Read(_) | Did::Replaced(..) => continue,
            };
            let mut placed = placed.clone();
            placed.insert(at);
            open.push((first, placed, next));
        }
    }
    false
}

/// When the first of these is answered. They are in the order in which they were asked, so that those
/// asked after an answer need no look.
fn first_answer<'a>(operations: impl Iterator<Item = &'a Operation>) -> Option<u64> {
    let mut first: Option<u64> = None;
    for operation in operations {
        if first.is_some_and(|first| first < operation.asked) {
            break;
        }
        first = [first, operation.answered].into_iter().flatten().min();
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(operations: &[(Did, u64, Option<u64>)]) -> bool {
        let of = |(did, asked, answered): &(Did, u64, Option<u64>)| Operation {
            did: *did,
            asked: *asked,
            answered: *answered,
        };
        is_linearizable(&operations.iter().map(of).collect::<Vec<_>>())
    }

    #[test]
    fn an_old_value_after_a_write_is_found() {
        use Did::{Read, Removed, Replaced, Wrote};
        let (one, two) = ((Wrote(1), 0, Some(1)), (Wrote(2), 2, Some(5)));
        assert!(history(&[
            one,
            two,
            (Read(1), 3, Some(4)),
            (Read(2), 3, Some(6))
        ]));
        assert!(!history(&[one, two, (Read(1), 6, Some(7))]));
        assert!(!history(&[
            one,
            two,
            (Read(2), 3, Some(3)),
            (Read(1), 4, Some(4))
        ]));
        assert!(!history(&[
            one,
            (Removed, 2, Some(3)),
            (Read(1), 4, Some(5))
        ]));
        assert!(history(&[
            one,
            (Wrote(2), 2, None),
            (Read(1), 4, Some(5)),
            (Read(2), 9, Some(9))
        ]));
        assert!(!history(&[(Wrote(2), 2, None), (Read(2), 1, Some(1))]));
        assert!(history(&[
            one,
            (Replaced(1, 3), 2, Some(3)),
            (Read(3), 4, Some(5))
        ]));
        assert!(!history(&[one, two, (Replaced(1, 3), 6, Some(7))]));
    }
}
