//! Who holds, waits or is remembered: one record per owner, gone when none of the three is left.

use imbl::hashmap::Entry;
use imbl::{HashMap, OrdMap};
use serde::{Deserialize, Serialize, Serializer};

use super::Name;
use super::waiting::Place;
use crate::ids::Token;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// Numbers the owners in the order in which they came; no two have the same. It stays over
    /// retries as long as the record does, so that the same owner does not always lose.
    pub(super) first_seen: u64,
    /// Its one blocked request.
    pub(super) waiting: Option<Place>,
    /// Its holds by resource.
    pub(super) holds: OrdMap<Name, Token>,
    /// How many of its request ids are remembered.
    pub(super) requests: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owners {
    seen: u64,
    #[serde(serialize_with = "write_in_order")]
    by_name: HashMap<Name, Owner>,
}

/// The oldest first: equal tables are equal bytes.
fn in_order(by_name: &HashMap<Name, Owner>) -> Vec<(&Name, &Owner)> {
    let mut owners = Vec::from_iter(by_name);
    owners.sort_unstable_by_key(|(_, owner)| owner.first_seen);
    owners
}

fn write_in_order<S: Serializer>(by_name: &HashMap<Name, Owner>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(in_order(by_name))
}

impl Owners {
    pub(super) fn get(&self, name: &str) -> Option<&Owner> {
        self.by_name.get(name)
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The owner's record, a new one if there is none.
    pub(super) fn enter(&mut self, name: &Name) -> &mut Owner {
        match self.by_name.entry(name.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                self.seen += 1;
                new.insert(Owner {
                    first_seen: self.seen,
                    ..Owner::default()
                })
            }
        }
    }

    /// Changes a record that must exist, and drops it if nothing is left in it.
    pub(super) fn leave(&mut self, name: &Name, change: impl FnOnce(&mut Owner)) {
        let Some(owner) = self.by_name.get_mut(name) else {
            panic!("owner {name} holds, waits or is remembered, but has no record");
        };
        change(owner);
        if owner.waiting.is_none() && owner.holds.is_empty() && owner.requests == 0 {
            self.by_name.remove(name);
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &Owner)> {
        in_order(&self.by_name).into_iter()
    }
}
