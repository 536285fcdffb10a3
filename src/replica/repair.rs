//! What two sites ask each other to find out what they miss.
//!
//!   asks                         is answered with
//!   Summary                      a digest for each window, and one for all counters, by set of regions
//!   Buckets of windows           256 digests of each window that differs
//!   List of buckets              names and versions of what is in those that differ
//!   Fetch names                  the records of those that are newer than what the asker has
//!
//! Each site asks for itself and takes what is newer; nobody is sent what he did not ask for. So a site that lies about
//! what it has can make others fetch its own lies, which it could have sent anyway, and nothing else. Every answer has a
//! bound, and a site has one round under way with each other at a time.
//!
//! What is written while two sites compare is under way on its stream and looks like a difference. Windows that ended
//! some seconds ago have no such excuse: those are compared all the time. The newest are compared when there is a reason
//! to, after a gap; a few records are then sent twice, which harms nobody.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uhlc::NTP64;

use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::replica::clock::{Version, ntp};
use crate::replica::counter::Counter;
use crate::replica::table::KeyId;
use crate::replica::versions::{Buckets, Sum, window_end};

/// What one site asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Digests of everything the asker may have. The check tells whether both hash keys alike.
    Summary {
        /// The hash of nothing under the asker's seed.
        check: u64,
    },
    /// The digests of some windows' buckets.
    Buckets {
        /// Of which set of regions.
        regions: Vec<SiteId>,
        /// Which windows; none is that of the counters.
        windows: Vec<Option<u64>>,
    },
    /// What is in some buckets.
    List {
        /// Of which set of regions.
        regions: Vec<SiteId>,
        /// Which buckets, of which windows.
        buckets: Vec<BucketList>,
    },
    /// Records.
    Fetch {
        /// Of these names.
        ids: Vec<KeyId>,
    },
}

/// A bucket, and the windows in which it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketList {
    /// The bucket.
    pub bucket: u8,
    /// The windows.
    pub windows: Vec<u64>,
    /// The counters as well.
    pub with_counters: bool,
}

/// What a site is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Digests by set of regions.
    Summary(Vec<(Vec<SiteId>, Summary)>),
    /// Digests of buckets, in the order asked for.
    Buckets(Vec<Vec<Sum>>),
    /// Names and versions.
    List(Vec<Named>),
    /// Records, packed, and the names for which there was no room: to be asked for again.
    Records(Vec<u8>, Vec<KeyId>),
    /// Not now: too many questions are open.
    Busy,
    /// The nodes hash keys differently: they cannot compare.
    OtherSeed,
}

/// Digests of everything of one set of regions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The lowest window that is remembered.
    pub floor: u64,
    /// By window.
    pub windows: BTreeMap<u64, Sum>,
    /// Of the counters.
    pub counters: Sum,
}

/// What a site has under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The name.
    pub id: KeyId,
    /// The version of the last write; of a counter, the digest of its state in place of a time.
    pub version: Version,
    /// It is a counter.
    pub is_counter: bool,
}

impl Named {
    /// A counter's state.
    pub fn of_counter(id: KeyId, counter: &Counter) -> Named {
        Named { id, version: Version { time: NTP64(counter.digest(id)), node: NodeId(0) }, is_counter: true }
    }
}

impl Summary {
    /// Adds another shard's: a node's digests are those of its shards together, however many it has.
    pub fn add(&mut self, other: &Summary) {
        self.floor = self.floor.max(other.floor);
        self.counters = self.counters.and(other.counters);
        for (window, sum) in &other.windows {
            let mine = self.windows.entry(*window).or_default();
            *mine = mine.and(*sum);
        }
    }

    /// The windows in which this site and another differ, of those that both remember; `None` is the counters. Without
    /// `is_urgent`, only windows that ended long enough before now.
    pub fn differences(&self, theirs: &Summary, unix_ms: u64, is_urgent: bool) -> Vec<Option<u64>> {
        let floor = self.floor.max(theirs.floor);
        let settled = ntp(unix_ms.saturating_sub(limits::REPLICATION_SETTLE_MS));
        let sum_of = |summary: &Summary, window: u64| summary.windows.get(&window).copied().unwrap_or_default();
        let mut windows: Vec<u64> = self.windows.keys().chain(theirs.windows.keys()).copied().collect();
        windows.sort_unstable();
        windows.dedup();
        let differing = windows.into_iter().filter(|window| {
            *window >= floor
                && (is_urgent || window_end(*window) <= settled)
                && sum_of(self, *window) != sum_of(theirs, *window)
        });
        let differing = differing.map(Some).take(limits::REPLICATION_WINDOWS as usize + 2);
        differing.chain((self.counters != theirs.counters).then_some(None)).collect()
    }

    /// One number for all of it from a window on: equal where the same is known.
    pub fn digest(&self, floor: u64) -> Sum {
        self.windows.range(floor..).fold(self.counters, |sum, (_, window)| sum.and(*window))
    }
}

/// The questions that list the buckets in which two sites differ, each small enough for one answer. `windows` are those
/// that were asked for, `mine` and `theirs` the digests of their buckets.
pub fn lists(regions: &[SiteId], windows: &[Option<u64>], mine: &[Buckets], theirs: &[Vec<Sum>]) -> Vec<Question> {
    let mut questions = Vec::new();
    let (mut buckets, mut named) = (Vec::new(), 0u64);
    for bucket in 0..limits::REPLICATION_BUCKETS {
        let mut list = BucketList { bucket: bucket as u8, windows: Vec::new(), with_counters: false };
        let mut count = 0;
        for ((window, mine), theirs) in windows.iter().zip(mine).zip(theirs) {
            let theirs = theirs.get(bucket).copied().unwrap_or_default();
            if mine.each[bucket] == theirs {
                continue;
            }
            count += u64::from(theirs.count);
            match window {
                Some(window) => list.windows.push(*window),
                None => list.with_counters = true,
            }
        }
        if count == 0 {
            // They have nothing there that could be missing here.
            continue;
        }
        if named + count > limits::REPLICATION_LISTED_MAX as u64 && !buckets.is_empty() {
            questions.push(Question::List { regions: regions.to_vec(), buckets: std::mem::take(&mut buckets) });
            named = 0;
        }
        named += count;
        buckets.push(list);
    }
    if !buckets.is_empty() {
        questions.push(Question::List { regions: regions.to_vec(), buckets });
    }
    questions
}

impl Question {
    /// Whether it asks for no more than one answer may hold.
    pub fn is_modest(&self) -> bool {
        match self {
            Question::Summary { .. } => true,
            Question::Buckets { windows, regions } => {
                windows.len() <= limits::REPLICATION_WINDOWS as usize + 3 && regions.len() <= 255
            }
            Question::List { buckets, regions } => {
                buckets.len() <= limits::REPLICATION_BUCKETS
                    && regions.len() <= 255
                    && buckets.iter().all(|list| list.windows.len() <= limits::REPLICATION_WINDOWS as usize + 2)
            }
            Question::Fetch { ids } => ids.len() <= limits::REPLICATION_FETCH_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    #[test]
    fn a_window_is_compared_once_it_has_settled_or_in_urgency() {
        let window = crate::replica::versions::window_of(ntp(NOW_MS));
        let sum = Sum { digest: 5, count: 1 };
        let mine = Summary {
            floor: window - 3,
            windows: BTreeMap::from([(window, sum), (window - 2, sum)]),
            ..Summary::default()
        };
        let theirs = Summary { floor: window - 2, windows: BTreeMap::from([(window - 3, sum)]), ..Summary::default() };
        assert_eq!(mine.differences(&theirs, NOW_MS, false), [Some(window - 2)]);
        assert_eq!(mine.differences(&theirs, NOW_MS, true), [Some(window - 2), Some(window)]);
        assert_eq!(theirs.differences(&mine, NOW_MS, true), mine.differences(&theirs, NOW_MS, true));
        let counted = Summary { counters: sum, ..mine.clone() };
        assert_eq!(counted.differences(&mine, NOW_MS, true), [None]);
        assert!(mine.differences(&mine, NOW_MS, true).is_empty());
    }

    #[test]
    fn lists_name_what_differs_in_answers_of_bounded_size() {
        let (mine, mut theirs) = (Buckets::default(), Buckets::default());
        for bucket in 0..200 {
            theirs.each[bucket] = Sum { digest: 1, count: 1000 };
        }
        let mut empty_there = mine.clone();
        empty_there.each[250] = Sum { digest: 1, count: 1 };
        let questions = lists(&[], &[Some(7), None], &[empty_there, mine.clone()], &[theirs.each.to_vec(), vec![]]);
        let mut seen = 0;
        for question in &questions {
            let Question::List { buckets, .. } = question else { panic!("{question:?}") };
            assert!(buckets.len() * 1000 <= limits::REPLICATION_LISTED_MAX && question.is_modest());
            assert!(buckets.iter().all(|list| list.windows == [7] && !list.with_counters));
            seen += buckets.len();
        }
        assert_eq!(seen, 200, "what they do not have is not asked for");
    }
}
