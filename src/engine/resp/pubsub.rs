//! Who of a shard's clients listens to which channels.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::limits;
use crate::wire::glob;

/// The subscriptions of one shard's clients, by their numbers.
#[derive(Default)]
pub struct PubSub {
    channels: BTreeMap<Vec<u8>, BTreeSet<u64>>,
    patterns: BTreeMap<Vec<u8>, BTreeSet<u64>>,
    count: usize,
}

/// One who is to hear a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Listener {
    pub client: u64,
    /// The pattern by which, if it is one.
    pub pattern: Option<Vec<u8>>,
}

impl PubSub {
    /// Lets a client listen to a channel or a pattern. `false` if too many are listened to.
    pub fn subscribe(&mut self, client: u64, name: &[u8], is_pattern: bool) -> bool {
        if self.count >= limits::SUBSCRIPTIONS_MAX {
            return false;
        }
        let names = if is_pattern { &mut self.patterns } else { &mut self.channels };
        self.count += usize::from(names.entry(name.to_vec()).or_default().insert(client));
        true
    }

    /// Ends it.
    pub fn unsubscribe(&mut self, client: u64, name: &[u8], is_pattern: bool) {
        let names = if is_pattern { &mut self.patterns } else { &mut self.channels };
        if let Some(clients) = names.get_mut(name) {
            self.count -= usize::from(clients.remove(&client));
            if clients.is_empty() {
                names.remove(name);
            }
        }
    }

    /// Who is to hear a message on a channel.
    pub fn listeners(&self, channel: &[u8]) -> Vec<Listener> {
        let direct = self.channels.get(channel).into_iter().flatten();
        let mut listeners: Vec<Listener> = direct.map(|&client| Listener { client, pattern: None }).collect();
        for (pattern, clients) in self.patterns.iter().filter(|(pattern, _)| glob::matches(pattern, channel)) {
            listeners.extend(clients.iter().map(|&client| Listener { client, pattern: Some(pattern.clone()) }));
        }
        listeners
    }

    /// Channels that are listened to and match.
    pub fn channels(&self, pattern: Option<&[u8]>) -> impl Iterator<Item = &Vec<u8>> {
        self.channels.keys().filter(move |name| pattern.is_none_or(|pattern| glob::matches(pattern, name)))
    }

    /// Patterns that are listened to.
    pub fn patterns(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.patterns.keys()
    }

    /// How many listen to a channel.
    pub fn count(&self, channel: &[u8]) -> usize {
        self.channels.get(channel).map_or(0, BTreeSet::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_channels_and_patterns_and_nobody_who_left() {
        let mut pubsub = PubSub::default();
        assert!(pubsub.subscribe(1, b"news", false) && pubsub.subscribe(1, b"news", false));
        assert!(pubsub.subscribe(2, b"n*", true) && pubsub.subscribe(1, b"n*", true));
        let heard: Vec<(u64, bool)> =
            pubsub.listeners(b"news").iter().map(|it| (it.client, it.pattern.is_some())).collect();
        assert_eq!(heard, [(1, false), (1, true), (2, true)]);
        assert_eq!((pubsub.count(b"news"), pubsub.patterns().count()), (1, 1));
        pubsub.unsubscribe(1, b"news", false);
        pubsub.unsubscribe(1, b"n*", true);
        pubsub.unsubscribe(9, b"n*", true);
        assert_eq!(pubsub.listeners(b"news"), [Listener { client: 2, pattern: Some(b"n*".to_vec()) }]);
        assert_eq!(pubsub.channels(None).count(), 0);
        pubsub.unsubscribe(2, b"n*", true);
        assert_eq!(pubsub.count, 0);
    }
}
