//! How often keys are used, by what stands before their first colon (`stats detail`).
//!
//! Counted only while somebody has asked for it, under one lock for all shards: it is a tool for an hour of looking
//! closer, not for every day.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::limits;

/// Counts the use of keys by prefix.
#[derive(Debug, Default)]
pub struct Observer {
    counts: Mutex<BTreeMap<Vec<u8>, Counts>>,
}

/// How a key is used.
#[derive(Clone, Copy, Debug)]
pub enum Use {
    /// It is read.
    Get { is_hit: bool },
    /// A value is sent for it.
    Set,
    /// It is to go.
    Delete,
}

#[derive(Debug, Default)]
struct Counts {
    gets: u64,
    hits: u64,
    sets: u64,
    deletes: u64,
}

impl Observer {
    /// Counts a use. Beyond [`limits::MEMCACHED_PREFIXES_MAX`] prefixes those that are new are not counted.
    pub fn note(&self, key: &[u8], use_of: Use) {
        let Some(end) = key.iter().position(|&byte| byte == DELIMITER) else { return };
        let mut all = self.lock();
        if all.len() >= limits::MEMCACHED_PREFIXES_MAX && !all.contains_key(&key[..end]) {
            return;
        }
        let counts = all.entry(key[..end].to_vec()).or_default();
        match use_of {
            Use::Get { is_hit } => {
                counts.gets += 1;
                counts.hits += u64::from(is_hit);
            }
            Use::Set => counts.sets += 1,
            Use::Delete => counts.deletes += 1,
        }
    }

    /// Forgets all counts.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Appends all counts, as `stats detail dump` answers them.
    pub fn dump(&self, out: &mut Vec<u8>) {
        for (prefix, Counts { gets, hits, sets, deletes }) in &*self.lock() {
            out.extend_from_slice(b"PREFIX ");
            out.extend_from_slice(prefix);
            out.extend_from_slice(format!(" get {gets} hit {hits} set {sets} del {deletes}\r\n").as_bytes());
        }
        out.extend_from_slice(b"END\r\n");
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Counts>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What ends a prefix.
pub const DELIMITER: u8 = b':';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_counted_by_prefix_and_prefixes_are_bounded() {
        let observer = Observer::default();
        observer.note(b"plain", Use::Set);
        observer.note(b"foo:1", Use::Set);
        observer.note(b"foo:2", Use::Get { is_hit: true });
        observer.note(b"foo:3", Use::Get { is_hit: false });
        observer.note(b"foo:3", Use::Delete);
        let mut out = Vec::new();
        observer.dump(&mut out);
        assert_eq!(out, b"PREFIX foo get 2 hit 1 set 1 del 1\r\nEND\r\n");
        (0..2 * limits::MEMCACHED_PREFIXES_MAX).for_each(|at| observer.note(format!("{at}:").as_bytes(), Use::Set));
        assert_eq!(observer.lock().len(), limits::MEMCACHED_PREFIXES_MAX);
        observer.clear();
        out.clear();
        observer.dump(&mut out);
        assert_eq!(out, b"END\r\n");
    }
}
