//! Entries in a map, in place of a shard's, for tests of this room and of those that carry its streams.

use std::collections::BTreeMap;

use crate::replica::record::Found;
use crate::replica::shard::Entries;
use crate::replica::table::KeyId;

/// Entries in a map.
#[derive(Default)]
pub struct Shelf(pub BTreeMap<KeyId, Stored>);

/// An entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// When it ends.
    pub expires_ms: Option<u64>,
}

impl Entries for Shelf {
    fn look(&mut self, id: KeyId, visit: &mut dyn FnMut(&[u8], Found<'_>)) -> bool {
        let Some(stored) = self.0.get(&id) else { return false };
        visit(&stored.key, Found { value: &stored.value, expires_ms: stored.expires_ms, ..Found::default() });
        true
    }

    fn put(&mut self, id: KeyId, key: &[u8], found: Found<'_>) -> bool {
        let stored = Stored { key: key.to_vec(), value: found.value.to_vec(), expires_ms: found.expires_ms };
        self.0.insert(id, stored);
        true
    }

    fn remove(&mut self, id: KeyId, _: Option<&[u8]>) {
        self.0.remove(&id);
    }

    fn walk(&mut self, cursor: u32, visit: &mut dyn FnMut(KeyId, &[u8])) -> Option<u32> {
        self.0.iter().skip(cursor as usize).take(2).for_each(|(id, stored)| visit(*id, &stored.key));
        (cursor as usize + 2 < self.0.len()).then_some(cursor + 2)
    }
}
