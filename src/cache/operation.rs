//! What clients can do to one key, and what comes of it. Plain code.

use crate::cache::audit::Report;
use crate::cache::entry::{Entry, Key, Marks, NEVER, Version};
use crate::cache::event::Gone;
use crate::cache::fences::Fenced;
use crate::ids::Epoch;
use crate::protocol::INTEGER_MAX;
use crate::protocol::value::{Kind, Value};

/// A change of one key as a client asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub operation: Operation,
    /// That of the client's request, if it has one: repeats have the same.
    pub id: Option<Key>,
    /// Whether a request with this id may have been executed before.
    pub is_repeat: bool,
    /// The view under which the store was asked what became of the id.
    pub sought: Option<Epoch>,
}

impl From<Operation> for Write {
    fn from(operation: Operation) -> Self {
        Write {
            operation,
            id: None,
            is_repeat: false,
            sought: None,
        }
    }
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Set {
        value: Value,
        ttl_ms: Option<u64>,
        idle_ms: u64,
        condition: Condition,
        tags: Vec<Key>,
        fence: Option<Fenced>,
        /// The right to load the value under which it is set.
        claim: Option<Version>,
    },
    Delete {
        condition: Condition,
    },
    /// Removes what an invalidation is about.
    Invalidate,
    Increment {
        by: u64,
        initial: u64,
        ttl_ms: Option<u64>,
    },
    Touch {
        ttl_ms: u64,
    },
}

impl Operation {
    /// The fence under which it is made.
    pub fn fenced(&self) -> Option<&Fenced> {
        match self {
            Operation::Set { fence, .. } => fence.as_ref(),
            _ => None,
        }
    }

    /// Whether it leaves the same whatever is there.
    pub fn is_plain(&self) -> bool {
        matches!(self, Operation::Set { .. }) && !self.needs_value()
    }

    /// Whether what it does or answers depends on the value that is there.
    pub fn needs_value(&self) -> bool {
        match self {
            Operation::Set { condition, .. } => *condition != Condition::Always,
            // What is invalidated may be kept by the store alone, since it was made void there.
            Operation::Delete { .. }
            | Operation::Invalidate
            | Operation::Increment { .. }
            | Operation::Touch { .. } => true,
        }
    }
}

/// What must be so for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    Always,
    Absent,
    Present,
    Version(Version),
}

/// What is to become of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Entry),
    Remove(Gone),
}

/// A value as a reader gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    pub value: Value,
    pub version: Version,
    pub left_ms: Option<u64>,
    pub source: Source,
}

/// Where a value came from, as seen by the node that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its own memory.
    Local,
    /// The memory of the key's home.
    Home,
    /// The store, which the key's home has asked.
    Store,
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Found(Hit),
    Missed,
    /// There is no value, and whoever asked has the right to load it.
    Claimed {
        claim: Version,
    },
    Wrote {
        version: Version,
    },
    Removed {
        existed: bool,
    },
    Counted {
        value: u64,
        version: Version,
    },
    /// So many values were removed by an invalidation.
    Swept {
        removed: u64,
    },
    Audited(Report),
    Refused(Why),
}

/// Why nothing was read or changed, or is not known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no value.
    NotFound,
    /// There is one.
    Exists,
    /// There is another version, or no value.
    Mismatch(Option<Version>),
    /// The right to load the value is over: the key was written or invalidated, or it took too long.
    ClaimOver,
    /// A newer holder of the lock may have written the key.
    StaleToken,
    /// The token is not that of an exclusive hold.
    NotExclusive,
    /// Nobody could say who holds the lock.
    NoLeader,
    /// The value is no integer.
    NotANumber,
    /// The sum has no form on the wire.
    TooGreat,
    /// Another node decides about this key by now.
    NotHome,
    /// Nobody could decide until the deadline.
    NoLease,
    /// It did not come to its turn until the deadline.
    TimedOut,
    /// Not everybody had acknowledged the write at the deadline; it may yet be made.
    Indeterminate,
    /// It does not fit into the memory of the cache now.
    Full,
    /// It never will: beside what it needs, it takes more than all of the memory, which is so large.
    TooLarge { limit: u64 },
    /// Too many wait already.
    TooMany,
    /// This node is stopping, and another one will decide.
    Stopping,
    /// The store behind the memory cannot be asked now.
    StoreAway,
    /// There is no room to remember the result for repeats.
    TooManyIds,
    /// The id was used before, for another write of the key.
    AnotherRequest,
    /// What had the id may have been executed, and this node would not know.
    Forgotten,
}

/// Decides an operation on a key with this live entry, if it has one.
///
/// # Errors
/// The answer, when nothing is to change.
pub fn decide(
    operation: &Operation,
    current: Option<&Entry>,
    (version, now_ms): (Version, u64),
) -> Result<(Change, Answer), Answer> {
    let expires_at = |ttl_ms: &Option<u64>| ttl_ms.map_or(NEVER, |ttl| now_ms.saturating_add(ttl));
    let entry = match operation {
        Operation::Set {
            value,
            ttl_ms,
            idle_ms,
            condition,
            tags,
            fence,
            claim: _,
        } => {
            check(*condition, current)?;
            let fence = fence.as_ref().map(|fenced| &fenced.fence);
            let marks = Marks {
                tags: tags.clone(),
                fence: fence.or(current.and_then(Entry::fence)).cloned(),
            };
            let mut entry = Entry {
                value: value.clone(),
                version,
                expires_at_ms: expires_at(ttl_ms),
                idle_ms: *idle_ms,
                idle_at_ms: NEVER,
                marks: marks.kept(),
            };
            entry.read(now_ms);
            entry
        }
        Operation::Delete { condition } => {
            check(*condition, current)?;
            let removed = |existed| Answer::Removed { existed };
            return match current {
                Some(_) => Ok((Change::Remove(Gone::Deleted), removed(true))),
                None => Err(removed(false)),
            };
        }
        Operation::Invalidate => {
            let removed = |existed| Answer::Removed { existed };
            return match current {
                Some(_) => Ok((Change::Remove(Gone::Invalidated), removed(true))),
                None => Err(removed(false)),
            };
        }
        Operation::Increment {
            by,
            initial,
            ttl_ms,
        } => {
            let before = match current {
                Some(entry) => number(&entry.value).ok_or(Answer::Refused(Why::NotANumber))?,
                None => *initial,
            };
            let value = before + by;
            if value > INTEGER_MAX {
                return Err(Answer::Refused(Why::TooGreat));
            }
            let json = Value::json(&value.to_string()).expect("an integer is JSON");
            let entry = match current {
                Some(entry) => Entry {
                    value: json,
                    version,
                    expires_at_ms: ttl_ms.map_or(entry.expires_at_ms, |_| expires_at(ttl_ms)),
                    ..entry.clone()
                },
                None => Entry {
                    value: json,
                    version,
                    expires_at_ms: expires_at(ttl_ms),
                    idle_ms: 0,
                    idle_at_ms: NEVER,
                    marks: None,
                },
            };
            return Ok((Change::Put(entry), Answer::Counted { value, version }));
        }
        Operation::Touch { ttl_ms } => Entry {
            version,
            expires_at_ms: now_ms.saturating_add(*ttl_ms),
            ..current.ok_or(Answer::Refused(Why::NotFound))?.clone()
        },
    };
    Ok((Change::Put(entry), Answer::Wrote { version }))
}

fn check(condition: Condition, current: Option<&Entry>) -> Result<(), Answer> {
    let why = match (condition, current) {
        (Condition::Absent, Some(_)) => Why::Exists,
        (Condition::Present, None) => Why::NotFound,
        (Condition::Version(version), current) => match current.map(|entry| entry.version) {
            Some(is) if is == version => return Ok(()),
            is => Why::Mismatch(is),
        },
        _ => return Ok(()),
    };
    Err(Answer::Refused(why))
}

/// The value as an integer that has a form on the wire.
fn number(value: &Value) -> Option<u64> {
    let text = std::str::from_utf8(value.bytes()).ok()?;
    let number = text.parse().ok()?;
    (value.kind() == Kind::Json && number <= INTEGER_MAX).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;
    const OLD: Version = Version {
        epoch: 1,
        sequence: 1,
    };
    const NEW: Version = Version {
        epoch: 1,
        sequence: 2,
    };

    fn entry(json: &str) -> Entry {
        Entry {
            value: Value::json(json).unwrap(),
            version: OLD,
            expires_at_ms: 5_000,
            idle_ms: 0,
            idle_at_ms: NEVER,
            marks: None,
        }
    }

    fn set(condition: Condition) -> Operation {
        Operation::Set {
            value: Value::text("new"),
            ttl_ms: Some(100),
            idle_ms: 70,
            condition,
            tags: Vec::new(),
            fence: None,
            claim: None,
        }
    }

    fn refusal(operation: &Operation, current: Option<&Entry>) -> Why {
        match decide(operation, current, (NEW, NOW)) {
            Err(Answer::Refused(why)) => why,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn conditions_look_at_what_is_there() {
        let there = entry("1");
        let absent = set(Condition::Absent);
        assert_eq!(refusal(&absent, Some(&there)), Why::Exists);
        assert_eq!(refusal(&set(Condition::Present), None), Why::NotFound);
        let version = set(Condition::Version(NEW));
        assert_eq!(refusal(&version, Some(&there)), Why::Mismatch(Some(OLD)));
        assert_eq!(refusal(&version, None), Why::Mismatch(None));
        for (condition, current) in [
            (Condition::Always, None),
            (Condition::Absent, None),
            (Condition::Present, Some(&there)),
            (Condition::Version(OLD), Some(&there)),
        ] {
            let (change, answer) = decide(&set(condition), current, (NEW, NOW)).unwrap();
            let Change::Put(entry) = change else {
                panic!("a set puts");
            };
            assert_eq!((entry.expires_at_ms, entry.idle_at_ms), (1_100, 1_070));
            assert_eq!(answer, Answer::Wrote { version: NEW });
        }
    }

    #[test]
    fn increments_keep_the_lifetime_and_refuse_what_is_no_number() {
        let increment = |by, ttl_ms| Operation::Increment {
            by,
            initial: 10,
            ttl_ms,
        };
        let counted = |current: Option<&Entry>, by, ttl_ms| {
            let decided = decide(&increment(by, ttl_ms), current, (NEW, NOW));
            match decided.unwrap() {
                (Change::Put(entry), Answer::Counted { value, .. }) => (value, entry.expires_at_ms),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(counted(None, 1, None), (11, NEVER));
        assert_eq!(counted(Some(&entry("5")), 2, None), (7, 5_000));
        assert_eq!(counted(Some(&entry("5")), 2, Some(1)), (7, 1_001));
        let idle = Entry {
            idle_ms: 70,
            idle_at_ms: 1_050,
            ..entry("5")
        };
        let decided = decide(&increment(1, Some(9)), Some(&idle), (NEW, NOW));
        let Ok((Change::Put(after), _)) = decided else {
            panic!("{decided:?}");
        };
        assert_eq!((after.expires_at_ms, after.idle_ms), (1_009, 70));
        assert_eq!(after.idle_at_ms, idle.idle_at_ms);
        for value in ["1.0", "\"1\"", "-1", "9007199254740992"] {
            let why = refusal(&increment(1, None), Some(&entry(value)));
            assert_eq!(why, Why::NotANumber, "{value}");
        }
        let greatest = entry("9007199254740991");
        assert_eq!(refusal(&increment(1, None), Some(&greatest)), Why::TooGreat);
    }

    #[test]
    fn deleting_and_touching_need_something_there() {
        let delete = Operation::Delete {
            condition: Condition::Always,
        };
        let existed = Answer::Removed { existed: false };
        assert_eq!(decide(&delete, None, (NEW, NOW)), Err(existed));
        let touch = Operation::Touch { ttl_ms: 9 };
        assert_eq!(refusal(&touch, None), Why::NotFound);
        let (change, _) = decide(&touch, Some(&entry("1")), (NEW, NOW)).unwrap();
        let expected = Entry {
            version: NEW,
            expires_at_ms: 1_009,
            ..entry("1")
        };
        assert_eq!(change, Change::Put(expected));
    }
}
