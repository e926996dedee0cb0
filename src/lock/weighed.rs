//! A map that knows at any time how much is in it: in all, of each tenant and of each session.
//!
//! It is written as the map alone. Sums follow from what is in it, so that a snapshot of an earlier version
//! gives the same ones.

use std::ops::{Deref, DerefMut};

use imbl::OrdMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Name;
use super::weight::Weight;
use crate::protocol::Tenant;

/// What can be weighed.
pub(super) trait Weigh<K> {
    fn weight(&self, key: &K) -> Weight;

    /// Among whose it counts.
    fn tenant(&self) -> Option<&Tenant>;

    /// The session that it lasts no longer than.
    fn session(&self) -> Option<&Name> {
        None
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Weighed<K: Ord, V> {
    items: OrdMap<K, V>,
    sums: Sums,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sums {
    all: Weight,
    /// Those of which there is anything.
    of_tenants: OrdMap<Tenant, Weight>,
    of_sessions: OrdMap<Name, Weight>,
}

/// What an item adds to the sums.
#[derive(Clone, PartialEq, Eq)]
struct Counted {
    weight: Weight,
    tenant: Option<Tenant>,
    session: Option<Name>,
}

/// An item that is being changed; it is weighed anew at the end.
pub(super) struct Changing<'a, K, V: Weigh<K>> {
    key: &'a K,
    value: &'a mut V,
    before: Counted,
    sums: &'a mut Sums,
}

impl<K: Ord, V> Default for Weighed<K, V> {
    fn default() -> Self {
        Weighed {
            items: OrdMap::default(),
            sums: Sums::default(),
        }
    }
}

impl<K: Clone + Ord, V: Clone + Weigh<K>> Weighed<K, V> {
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(before) = self.items.get(&key) {
            self.sums.subtract(Counted::of(&key, before));
        }
        self.sums.add(Counted::of(&key, &value));
        self.items.insert(key, value)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.items.remove(key)?;
        self.sums.subtract(Counted::of(key, &value));
        Some(value)
    }

    pub(super) fn get_mut<'a>(&'a mut self, key: &'a K) -> Option<Changing<'a, K, V>> {
        let Weighed { items, sums } = self;
        let value = items.get_mut(key)?;
        Some(Changing {
            before: Counted::of(key, value),
            key,
            value,
            sums,
        })
    }

    pub(super) fn weight(&self) -> Weight {
        self.sums.all
    }

    pub(super) fn weight_of_tenant(&self, tenant: &Tenant) -> Weight {
        let of_tenants = &self.sums.of_tenants;
        of_tenants.get(tenant).copied().unwrap_or_default()
    }

    pub(super) fn weight_of_session(&self, session: &Name) -> Weight {
        let of_sessions = &self.sums.of_sessions;
        of_sessions.get(session).copied().unwrap_or_default()
    }
}

/// For reading.
impl<K: Ord, V> Deref for Weighed<K, V> {
    type Target = OrdMap<K, V>;

    fn deref(&self) -> &OrdMap<K, V> {
        &self.items
    }
}

impl Counted {
    fn of<K, V: Weigh<K>>(key: &K, value: &V) -> Self {
        Counted {
            weight: value.weight(key),
            tenant: value.tenant().cloned(),
            session: value.session().cloned(),
        }
    }
}

impl Sums {
    fn add(&mut self, item: Counted) {
        self.all += item.weight;
        if let Some(tenant) = item.tenant {
            *self.of_tenants.entry(tenant).or_default() += item.weight;
        }
        if let Some(session) = item.session {
            *self.of_sessions.entry(session).or_default() += item.weight;
        }
    }

    fn subtract(&mut self, item: Counted) {
        self.all -= item.weight;
        if let Some(tenant) = &item.tenant {
            subtract_from(&mut self.of_tenants, tenant, item.weight);
        }
        if let Some(session) = &item.session {
            subtract_from(&mut self.of_sessions, session, item.weight);
        }
    }
}

fn subtract_from<G: Clone + Ord>(sums: &mut OrdMap<G, Weight>, group: &G, weight: Weight) {
    let sum = sums.get_mut(group).expect("what is there was added");
    *sum -= weight;
    if *sum == Weight::default() {
        sums.remove(group);
    }
}

impl<K, V: Weigh<K>> Deref for Changing<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.value
    }
}

impl<K, V: Weigh<K>> DerefMut for Changing<'_, K, V> {
    fn deref_mut(&mut self) -> &mut V {
        self.value
    }
}

impl<K, V: Weigh<K>> Drop for Changing<'_, K, V> {
    fn drop(&mut self) {
        let after = Counted::of(self.key, self.value);
        // Most changes are of no weight.
        if after != self.before {
            self.sums.subtract(self.before.clone());
            self.sums.add(after);
        }
    }
}

impl<K: Ord + Serialize, V: Serialize> Serialize for Weighed<K, V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.items.serialize(to)
    }
}

impl<'de, K, V> Deserialize<'de> for Weighed<K, V>
where
    K: Clone + Ord + Deserialize<'de>,
    V: Clone + Weigh<K> + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let items = OrdMap::<K, V>::deserialize(from)?;
        let mut sums = Sums::default();
        for (key, value) in &items {
            sums.add(Counted::of(key, value));
        }
        Ok(Weighed { items, sums })
    }
}
