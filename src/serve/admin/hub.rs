//! Events for all who read them: each is made once, kept for a while, and taken by every reader at its own pace.
//!
//!   tick ──> | 598 | 599 | 600 |  kept, by bytes and number          reader with Last-Event-ID 598: 599, 600, then live
//!              └──────────────> broadcast, 64 deep ──> readers       reader 6.4 s behind: dropped

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hyper::body::Bytes;
use tokio::sync::broadcast;

use crate::base::limits;
use crate::serve::admin::locked;
use crate::serve::admin::sample::{Facts, Sample};
use crate::serve::admin::ticks::Ticks;

/// Where events come from.
pub(super) struct Hub {
    inner: Mutex<Inner>,
    readers: AtomicU64,
    dropped: AtomicU64,
}

struct Inner {
    ticks: Ticks,
    kept: VecDeque<(u64, Bytes)>,
    kept_bytes: usize,
    next: u64,
    sender: broadcast::Sender<Bytes>,
    /// What readers are told first, as long as it holds.
    hello: Option<(bool, Bytes)>,
}

/// A reader's place.
pub(super) struct Subscription {
    /// What it is sent first: the greeting, and what it has missed.
    pub first: Vec<Bytes>,
    /// What comes then.
    pub live: broadcast::Receiver<Bytes>,
}

impl Hub {
    pub fn new() -> Hub {
        let inner = Inner {
            ticks: Ticks::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            next: 1,
            sender: broadcast::Sender::new(limits::ADMIN_EVENTS_BEHIND),
            hello: None,
        };
        Hub { inner: Mutex::new(inner), readers: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// Tells everybody of a sample.
    pub fn tick(&self, sample: &Arc<Sample>, facts: &Facts, started_unix_ms: u64, show_keys: bool) {
        let mut inner = locked(&self.inner);
        let line = inner.ticks.tick(sample.clone(), facts, show_keys);
        let number = inner.next;
        inner.next += 1;
        let event = Bytes::from(format!("id: {started_unix_ms}-{number}\nevent: tick\ndata: {line}\n\n"));
        inner.kept_bytes += event.len();
        inner.kept.push_back((number, event.clone()));
        while inner.kept.len() > limits::ADMIN_EVENTS_KEPT || inner.kept_bytes > limits::ADMIN_EVENT_BYTES_KEPT {
            let Some((_, oldest)) = inner.kept.pop_front() else { break };
            inner.kept_bytes -= oldest.len();
        }
        inner.hello = None;
        // Nobody may be listening.
        let _ = inner.sender.send(event);
    }

    /// Forgets what was told: it may hold what must not be told any more.
    pub fn forget(&self) {
        let mut inner = locked(&self.inner);
        inner.kept.clear();
        inner.kept_bytes = 0;
        inner.hello = None;
    }

    /// A new reader's place, behind the event that it names if it is known.
    pub fn subscribe(&self, last: Option<&str>, facts: &Facts, started_unix_ms: u64, show_keys: bool) -> Subscription {
        let mut inner = locked(&self.inner);
        let live = inner.sender.subscribe();
        let hello = match &inner.hello {
            Some((shown, hello)) if *shown == show_keys => hello.clone(),
            _ => {
                let line = inner.ticks.hello(facts, started_unix_ms, show_keys);
                let hello = Bytes::from(format!("retry: {RETRY_MS}\nevent: hello\ndata: {line}\n\n"));
                inner.hello = Some((show_keys, hello.clone()));
                hello
            }
        };
        let mut first = vec![hello];
        let seen = last.and_then(|id| id.split_once('-')).and_then(|(start, number)| {
            let is_ours = start.parse() == Ok(started_unix_ms);
            number.parse::<u64>().ok().filter(|number| is_ours && *number < inner.next)
        });
        if let Some(seen) = seen {
            first.extend(inner.kept.iter().filter(|(number, _)| *number > seen).map(|(_, event)| event.clone()));
        }
        Subscription { first, live }
    }

    /// The shard of the slowest request of the last second, and its time.
    pub fn slowest(&self) -> Option<(String, f64)> {
        locked(&self.inner).ticks.slowest()
    }

    pub fn reader_came(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    pub fn reader_went(&self, was_dropped: bool) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
        self.dropped.fetch_add(u64::from(was_dropped), Ordering::Relaxed);
    }

    /// Readers now, and readers dropped.
    pub fn readers(&self) -> (u64, u64) {
        (self.readers.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }
}

/// How long a reader waits before it connects again.
const RETRY_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn number_of(event: &Bytes) -> Option<u64> {
        let text = std::str::from_utf8(event).unwrap();
        text.lines().find_map(|line| line.strip_prefix("id: 77-"))?.parse().ok()
    }

    fn numbers(subscription: &Subscription) -> Vec<u64> {
        subscription.first.iter().filter_map(number_of).collect()
    }

    #[test]
    fn who_comes_back_hears_what_it_missed_and_then_what_comes() {
        let (hub, facts) = (Hub::new(), Facts::default());
        (0..5).for_each(|_| hub.tick(&Arc::default(), &facts, 77, false));
        let resumed = |last| hub.subscribe(last, &facts, 77, false);
        assert_eq!(numbers(&resumed(Some("77-3"))), [4, 5]);
        assert!(numbers(&resumed(Some("77-5"))).is_empty() && numbers(&resumed(None)).is_empty());
        for of_another_run in ["76-3", "77-900", "77-x", "", "-", "77"] {
            assert!(numbers(&resumed(Some(of_another_run))).is_empty(), "{of_another_run}");
        }
        let mut reader = resumed(Some("77-4"));
        hub.tick(&Arc::default(), &facts, 77, false);
        assert_eq!((numbers(&reader), number_of(&reader.live.try_recv().unwrap())), (vec![5], Some(6)));
    }

    #[test]
    fn what_is_kept_is_bounded_and_who_is_far_behind_is_told() {
        let (hub, facts) = (Hub::new(), Facts::default());
        let mut slow = hub.subscribe(None, &facts, 77, false);
        (0..limits::ADMIN_EVENTS_KEPT + 50).for_each(|_| hub.tick(&Arc::default(), &facts, 77, false));
        assert!(matches!(slow.live.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
        let inner = locked(&hub.inner);
        let bytes: usize = inner.kept.iter().map(|(_, event)| event.len()).sum();
        assert!(inner.kept.len() <= limits::ADMIN_EVENTS_KEPT && bytes == inner.kept_bytes);
        assert!(bytes <= limits::ADMIN_EVENT_BYTES_KEPT);
    }
}
