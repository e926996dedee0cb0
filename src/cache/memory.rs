//! Tables in the order of use, with what they cost counted to the byte. Plain code.

use std::collections::BTreeMap;

use hashlink::LruCache;

use crate::cache::entry::Key;
use crate::protocol::Tenant;

/// Entries by key, the one that was used least recently first: those of each tenant that the table knows
/// in an order of their own, and all others in one.
///
/// Several tables share one count of uses, so that the least recently used entry of all of them is
/// the least of their firsts.
#[derive(Clone, Debug)]
pub struct Table<V> {
    others: Part<V>,
    tenants: BTreeMap<Tenant, Part<V>>,
}

#[derive(Clone, Debug)]
struct Part<V> {
    entries: LruCache<Key, Slot<V>>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Slot<V> {
    used: u64,
    bytes: usize,
    value: V,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Table {
            others: Part::default(),
            tenants: BTreeMap::new(),
        }
    }
}

impl<V> Default for Part<V> {
    fn default() -> Self {
        Part {
            entries: LruCache::new_unbounded(),
            bytes: 0,
        }
    }
}

impl<V> Part<V> {
    fn insert(&mut self, key: Key, slot: Slot<V>) -> Option<V> {
        self.bytes += slot.bytes;
        let before = self.entries.insert(key, slot)?;
        self.bytes -= before.bytes;
        Some(before.value)
    }

    fn oldest(&self) -> Option<(&Key, u64)> {
        let (key, slot) = self.entries.iter().next()?;
        Some((key, slot.used))
    }
}

impl<V> Table<V> {
    /// What all entries cost together.
    pub fn bytes(&self) -> usize {
        self.parts().map(|part| part.bytes).sum()
    }

    pub fn count(&self) -> usize {
        self.parts().map(|part| part.entries.len()).sum()
    }

    /// The tenants whose entries have an order of their own.
    pub fn tenants(&self) -> impl ExactSizeIterator<Item = &Tenant> {
        self.tenants.keys()
    }

    /// What the entries of a tenant that the table knows cost together; 0 of another.
    pub fn bytes_of(&self, tenant: &Tenant) -> usize {
        self.tenants.get(tenant).map_or(0, |part| part.bytes)
    }

    pub fn knows(&self, tenant: &Tenant) -> bool {
        self.tenants.contains_key(tenant)
    }

    /// From now on the entries of this tenant have an order of their own; those that are here move.
    pub fn learn(&mut self, tenant: &Tenant) {
        let mut own = Part::default();
        let others = std::mem::take(&mut self.others);
        for (key, slot) in others.entries {
            let part = match tenant.has(&key) {
                true => &mut own,
                false => &mut self.others,
            };
            part.insert(key, slot);
        }
        self.tenants.insert(tenant.clone(), own);
    }

    /// The entry, without counting that as a use.
    pub fn peek(&self, key: &str) -> Option<&V> {
        self.part(key).entries.peek(key).map(|slot| &slot.value)
    }

    pub fn peek_mut(&mut self, key: &str) -> Option<&mut V> {
        let slot = self.part_mut(key).entries.peek_mut(key)?;
        Some(&mut slot.value)
    }

    /// The entry, which is the most recently used from now on: `used` is greater than at every use
    /// before.
    pub fn touch(&mut self, key: &str, used: u64) -> Option<&mut V> {
        let slot = self.part_mut(key).entries.get_mut(key)?;
        slot.used = used;
        Some(&mut slot.value)
    }

    /// Puts an entry in place of the one with its key, as the most recently used.
    pub fn insert(&mut self, key: Key, (value, bytes): (V, usize), used: u64) -> Option<V> {
        let slot = Slot { used, bytes, value };
        self.part_mut(&key).insert(key, slot)
    }

    /// Puts an entry in place of the one with its key, without counting that as a use; nothing if there
    /// is none.
    pub fn replace(&mut self, key: &str, (value, bytes): (V, usize)) {
        let part = self.part_mut(key);
        if let Some(slot) = part.entries.peek_mut(key) {
            part.bytes = part.bytes - slot.bytes + bytes;
            (slot.value, slot.bytes) = (value, bytes);
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<V> {
        let part = self.part_mut(key);
        let slot = part.entries.remove(key)?;
        part.bytes -= slot.bytes;
        Some(slot.value)
    }

    /// The least recently used entry, of one tenant or of all, and when that was.
    pub fn oldest(&self, of: Option<&Tenant>) -> Option<(&Key, u64)> {
        match of {
            Some(tenant) => self.tenants.get(tenant)?.oldest(),
            None => {
                let oldest = self.parts().filter_map(Part::oldest);
                oldest.min_by_key(|(_, used)| *used)
            }
        }
    }

    /// All entries: of each part the least recently used first.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        let entries = self.parts().flat_map(|part| part.entries.iter());
        entries.map(|(key, slot)| (key, &slot.value))
    }

    /// The keys of the entries for which `wanted`, in the order of [`iter`](Self::iter).
    pub fn keys_where(&self, wanted: impl Fn(&Key, &V) -> bool) -> Vec<Key> {
        let found = self.iter().filter(|(key, value)| wanted(key, value));
        found.map(|(key, _)| key.clone()).collect()
    }

    /// Removes the entries for which not `kept`.
    pub fn retain(&mut self, kept: impl Fn(&Key, &V) -> bool) {
        for key in self.keys_where(|key, value| !kept(key, value)) {
            self.remove(&key);
        }
    }

    pub fn clear(&mut self) {
        self.others = Part::default();
        for part in self.tenants.values_mut() {
            *part = Part::default();
        }
    }

    fn parts(&self) -> impl Iterator<Item = &Part<V>> {
        std::iter::once(&self.others).chain(self.tenants.values())
    }

    /// Where an entry with this key is, if it is anywhere.
    fn part(&self, key: &str) -> &Part<V> {
        let tenant = self.tenant_of(key);
        tenant.map_or(&self.others, |account| &self.tenants[account])
    }

    fn part_mut(&mut self, key: &str) -> &mut Part<V> {
        match self.tenant_of(key) {
            Some(account) => self.tenants.get_mut(account).expect("it is known"),
            None => &mut self.others,
        }
    }

    /// The account of the tenant whose key it is, if the table knows that.
    fn tenant_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        if self.tenants.is_empty() {
            return None;
        }
        Tenant::account_in(key).filter(|account| self.tenants.contains_key(*account))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_and_bytes_are_those_of_a_list(
            uses in prop::collection::vec((0..4_u8, 0..8_u8, 1..100_usize), 0..200)
        ) {
            let mut table = Table::default();
            let mut list: Vec<(u8, usize)> = Vec::new();
            for (used, (what, key, bytes)) in uses.into_iter().enumerate() {
                let name = key.to_string();
                let at = list.iter().position(|(known, _)| *known == key);
                match what {
                    0 => {
                        table.insert(name.as_str().into(), ((), bytes), used as u64);
                        at.map(|at| list.remove(at));
                        list.push((key, bytes));
                    }
                    1 => {
                        prop_assert_eq!(table.touch(&name, used as u64).is_some(), at.is_some());
                        if let Some(at) = at {
                            let entry = list.remove(at);
                            list.push(entry);
                        }
                    }
                    2 => {
                        table.replace(&name, ((), bytes));
                        if let Some(at) = at {
                            list[at].1 = bytes;
                        }
                    }
                    _ => {
                        prop_assert_eq!(table.remove(&name).is_some(), at.is_some());
                        at.map(|at| list.remove(at));
                    }
                }
                let order: Vec<String> = table.iter().map(|(key, ())| key.to_string()).collect();
                let expected: Vec<String> = list.iter().map(|(key, _)| key.to_string()).collect();
                prop_assert_eq!(order, expected);
                prop_assert_eq!(table.bytes(), list.iter().map(|(_, bytes)| bytes).sum::<usize>());
                prop_assert_eq!(table.oldest(None).map(|(key, _)| key.to_string()),
                    list.first().map(|(key, _)| key.to_string()));
            }
        }
    }

    #[test]
    fn what_a_tenant_has_moves_to_an_order_of_its_own() {
        let a = Tenant::of_account("A").expect("valid");
        let mut table = Table::default();
        let names = ["A/1", "B/1", "A/2", "AA/1", "x"];
        for (used, name) in names.iter().enumerate() {
            table.insert((*name).into(), (used, 10), used as u64);
        }
        assert_eq!((table.bytes_of(&a), table.oldest(Some(&a))), (0, None));
        table.learn(&a);
        assert!(table.knows(&a));
        assert_eq!((table.bytes_of(&a), table.bytes()), (20, 50));
        for (used, name) in names.iter().enumerate() {
            assert_eq!(table.peek(name), Some(&used), "{name}");
        }
        let oldest = |table: &Table<usize>, of| table.oldest(of).map(|(key, _)| key.to_string());
        assert_eq!(oldest(&table, None).as_deref(), Some("A/1"));
        table.touch("A/1", 9);
        assert_eq!(oldest(&table, None).as_deref(), Some("B/1"));
        assert_eq!(oldest(&table, Some(&a)).as_deref(), Some("A/2"));
        assert_eq!(table.remove("A/2"), Some(2));
        assert_eq!((table.bytes_of(&a), table.count()), (10, 4));
        table.clear();
        assert_eq!((table.bytes(), table.count()), (0, 0));
    }
}
