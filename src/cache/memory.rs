//! Tables in the order of use, with what they cost counted to the byte. Plain code.

use hashlink::LruCache;

use crate::cache::entry::Key;

/// Entries by key, the one that was used least recently first.
///
/// Several tables share one count of uses, so that the least recently used entry of all of them is
/// the least of their firsts.
#[derive(Clone, Debug)]
pub struct Table<V> {
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
            entries: LruCache::new_unbounded(),
            bytes: 0,
        }
    }
}

impl<V> Table<V> {
    /// What all entries cost together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The entry, without counting that as a use.
    pub fn peek(&self, key: &str) -> Option<&V> {
        self.entries.peek(key).map(|slot| &slot.value)
    }

    pub fn peek_mut(&mut self, key: &str) -> Option<&mut V> {
        self.entries.peek_mut(key).map(|slot| &mut slot.value)
    }

    /// The entry, which is the most recently used from now on: `used` is greater than at every use
    /// before.
    pub fn touch(&mut self, key: &str, used: u64) -> Option<&mut V> {
        let slot = self.entries.get_mut(key)?;
        slot.used = used;
        Some(&mut slot.value)
    }

    /// Puts an entry in place of the one with its key, as the most recently used.
    pub fn insert(&mut self, key: Key, (value, bytes): (V, usize), used: u64) -> Option<V> {
        self.bytes += bytes;
        let slot = Slot { used, bytes, value };
        let before = self.entries.insert(key, slot)?;
        self.bytes -= before.bytes;
        Some(before.value)
    }

    pub fn remove(&mut self, key: &str) -> Option<V> {
        let slot = self.entries.remove(key)?;
        self.bytes -= slot.bytes;
        Some(slot.value)
    }

    /// The least recently used entry, and when that was.
    pub fn oldest(&self) -> Option<(&Key, u64)> {
        let (key, slot) = self.entries.iter().next()?;
        Some((key, slot.used))
    }

    /// All entries, the least recently used first.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.entries.iter().map(|(key, slot)| (key, &slot.value))
    }

    /// The keys of the entries for which `wanted`, the least recently used first.
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
        self.entries.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_and_bytes_are_those_of_a_list(
            uses in prop::collection::vec((0..3_u8, 0..8_u8, 1..100_usize), 0..200)
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
                    _ => {
                        prop_assert_eq!(table.remove(&name).is_some(), at.is_some());
                        at.map(|at| list.remove(at));
                    }
                }
                let order: Vec<String> = table.iter().map(|(key, ())| key.to_string()).collect();
                let expected: Vec<String> = list.iter().map(|(key, _)| key.to_string()).collect();
                prop_assert_eq!(order, expected);
                prop_assert_eq!(table.bytes(), list.iter().map(|(_, bytes)| bytes).sum::<usize>());
                prop_assert_eq!(table.oldest().map(|(key, _)| key.to_string()),
                    list.first().map(|(key, _)| key.to_string()));
            }
        }
    }
}
