//! Namespaces: which keys are replicated how, and where they may go.
//!
//! A namespace is every key that begins with its prefix; of several that match, the longest counts, as with paths
//! and routes. Keys of no namespace belong to the default one, whose prefix is empty and which is `eventual` unless
//! the cluster has agreed on something else. There are few namespaces and many keys, so a lookup is a walk over a
//! sorted list that fits some cache lines, and a shard keeps its own copy, which it replaces when the cluster has
//! agreed on another.

use serde::{Deserialize, Serialize};

use crate::base::id::SiteId;

/// How the keys of a namespace are kept in step between regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Not at all: each node has its own.
    Local,
    /// Every node takes writes; the last writer wins everywhere in the end, and counters lose nothing.
    #[default]
    Eventual,
    /// One node at a time takes writes and answers reads: the holder of the lease of the key's home.
    Strong,
}

/// Keys with a common prefix, and what the cluster has agreed on for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// What its keys begin with.
    pub prefix: Vec<u8>,
    /// How it is kept in step.
    pub mode: Mode,
    /// Regions it may be kept in; none named means all.
    pub regions: Vec<SiteId>,
    /// Of a strong namespace: the region whose nodes take turns as its primary.
    pub home: Option<SiteId>,
    /// Entries written in an earlier epoch are gone: raised to empty the namespace everywhere.
    pub epoch: u64,
}

impl Namespace {
    /// The namespace of keys that nobody has said anything about.
    pub fn default_one() -> Namespace {
        Namespace { prefix: Vec::new(), mode: Mode::Eventual, regions: Vec::new(), home: None, epoch: 0 }
    }

    /// Whether its keys may be kept at a site.
    pub fn may_be_at(&self, site: SiteId) -> bool {
        self.regions.is_empty() || self.regions.contains(&site)
    }
}

/// All namespaces of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Longest prefix first, then by prefix; the default one, with the empty prefix, is always last.
    namespaces: Vec<Namespace>,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { namespaces: vec![Namespace::default_one()] }
    }
}

impl Rules {
    /// The namespace of a key.
    #[inline]
    pub fn of(&self, key: &[u8]) -> &Namespace {
        let default = &self.namespaces[self.namespaces.len() - 1];
        self.namespaces.iter().find(|namespace| key.starts_with(&namespace.prefix)).unwrap_or(default)
    }

    /// Adds a namespace or replaces the one with the same prefix.
    pub fn set(&mut self, namespace: Namespace) {
        match self.namespaces.iter_mut().find(|other| other.prefix == namespace.prefix) {
            Some(other) => *other = namespace,
            None => self.namespaces.push(namespace),
        }
        self.namespaces.sort_by(|a, b| b.prefix.len().cmp(&a.prefix.len()).then_with(|| a.prefix.cmp(&b.prefix)));
    }

    /// Forgets a namespace; the default one is set back to what it is without being named.
    pub fn remove(&mut self, prefix: &[u8]) {
        self.namespaces.retain(|namespace| namespace.prefix != prefix);
        if prefix.is_empty() {
            self.namespaces.push(Namespace::default_one());
        }
    }

    /// The namespace with exactly this prefix.
    pub fn named(&self, prefix: &[u8]) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.prefix == prefix)
    }

    /// All of them, longest prefix first.
    pub fn all(&self) -> &[Namespace] {
        &self.namespaces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(prefix: &str, mode: Mode) -> Namespace {
        Namespace { prefix: prefix.into(), mode, ..Namespace::default_one() }
    }

    #[test]
    fn the_longest_prefix_counts_and_the_default_takes_the_rest() {
        let mut rules = Rules::default();
        rules.set(named("a:", Mode::Local));
        rules.set(named("a:b:", Mode::Strong));
        assert_eq!(rules.of(b"a:b:1").mode, Mode::Strong);
        assert_eq!(rules.of(b"a:c:1").mode, Mode::Local);
        assert_eq!(rules.of(b"x").mode, Mode::Eventual);
        rules.set(named("", Mode::Local));
        assert_eq!(rules.of(b"x").mode, Mode::Local);
        rules.remove(b"");
        rules.remove(b"a:b:");
        assert_eq!((rules.of(b"x").mode, rules.of(b"a:b:1").mode), (Mode::Eventual, Mode::Local));
        assert_eq!(rules.all().len(), 2);
    }

    #[test]
    fn a_pinned_namespace_is_at_its_regions_only() {
        let pinned = Namespace { regions: vec![SiteId(2)], ..Namespace::default_one() };
        assert!(pinned.may_be_at(SiteId(2)) && !pinned.may_be_at(SiteId(1)));
        assert!(Namespace::default_one().may_be_at(SiteId(9)));
    }
}
