//! One node finds out what it misses, and answers others who want to know that.
//!
//!   Summary -> windows that differ -> Buckets -> buckets that differ -> List -> what is newer there -> Fetch -> shards
//!
//! A round asks one node. What differs it finds out with one question after the other, and meanwhile fetches what is
//! missing with several at once: a site that was cut off for long misses a hundred thousand records, two thousand of them
//! are in one answer, and an answer takes a round trip. What it fetches goes to the shards the same way as a stream's
//! records, and waits for room there. A round that fails, for want of an answer in time, is begun anew by the carrier.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::Replication;
use crate::base::hash::{HashSeed, KeyHash};
use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::base::time::unix_ms;
use crate::cluster::host::links::{Channel, Handler, Links};
use crate::cluster::state::State;
use crate::replica::batch;
use crate::replica::port::{Step, StepAnswer};
use crate::replica::repair::{Answer, BucketList, Named, Question, Summary, lists};
use crate::replica::versions::Buckets;
use crate::replica::{Counts, KeyId};

/// What the carrier is asked to do with the shards.
pub(super) enum Request {
    /// Have these steps done, each by its shard.
    Steps(Vec<(u16, Step)>, oneshot::Sender<Vec<StepAnswer>>),
    /// Apply these records. Answered: whether there was room; none if they are no records.
    Apply(Vec<u8>, oneshot::Sender<Option<bool>>),
}

/// How a comparison ended.
pub(super) struct Ended {
    pub node: NodeId,
    pub is_done: bool,
    pub was_urgent: bool,
}

/// This node's shards, through the carrier.
#[derive(Clone)]
pub(super) struct Shards {
    requests: mpsc::Sender<Request>,
    /// One for each question of another node that may be under way.
    places: Arc<Semaphore>,
    /// One for each answer with records that may be under way to this node.
    fetches: Arc<Semaphore>,
    pub count: u16,
    pub seed: HashSeed,
}

/// One comparison.
#[derive(Clone)]
pub(super) struct Round {
    pub links: Links,
    pub shards: Shards,
    pub replication: Replication,
    pub node: NodeId,
    pub site: SiteId,
    pub is_urgent: bool,
    pub with_counters: bool,
}

/// Why a round ended early.
enum Failed {
    /// No answer in time, or not now.
    NoAnswer,
    /// An answer that is none to what was asked.
    Senseless(&'static str),
}

type Summaries = BTreeMap<Vec<SiteId>, Summary>;

impl Shards {
    pub(super) fn new(requests: mpsc::Sender<Request>, count: u16, seed: HashSeed) -> Shards {
        let places = Arc::new(Semaphore::new(limits::REPLICATION_QUESTIONS_MAX));
        let fetches = Arc::new(Semaphore::new(limits::REPLICATION_FETCHES_MAX));
        Shards { requests, places, fetches, count, seed }
    }

    /// What stands for the seed in a greeting: who hashes nothing to the same hashes keys to the same.
    fn check(&self) -> u64 {
        self.seed.hash(b"").0
    }

    async fn ask(&self, steps: Vec<(u16, Step)>) -> Option<Vec<StepAnswer>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Steps(steps, reply)).await.ok()?;
        answer.await.ok()
    }

    async fn ask_all(&self, step: Step) -> Option<Vec<StepAnswer>> {
        self.ask((0..self.count).map(|shard| (shard, step.clone())).collect()).await
    }

    async fn summaries(&self, to: SiteId) -> Option<(Summaries, Counts)> {
        let (mut summaries, mut counts) = (Summaries::new(), Counts::default());
        for answer in self.ask_all(Step::Summary { to }).await? {
            let StepAnswer::Summary(of_shard, counted) = answer else { return None };
            counts.add(&counted);
            for (regions, summary) in of_shard {
                summaries.entry(regions).or_default().add(&summary);
            }
        }
        Some((summaries, counts))
    }

    async fn buckets(&self, regions: &[SiteId], windows: &[Option<u64>]) -> Option<Vec<Buckets>> {
        let mut sums: Vec<Buckets> = windows.iter().map(|_| Buckets::default()).collect();
        for (sums, windows) in sums.chunks_mut(WINDOWS_PER_STEP).zip(windows.chunks(WINDOWS_PER_STEP)) {
            let step = Step::Buckets { regions: regions.to_vec(), windows: windows.to_vec() };
            for answer in self.ask_all(step).await? {
                let StepAnswer::Buckets(of_shard) = answer else { return None };
                sums.iter_mut().zip(&of_shard).for_each(|(sum, buckets)| sum.add(buckets));
            }
        }
        Some(sums)
    }

    /// Steps about some names, each by the shard that has them, a turn's worth each.
    fn steps<T: Copy>(&self, items: &[T], id: impl Fn(&T) -> KeyId, step: impl Fn(Vec<T>) -> Step) -> Vec<(u16, Step)> {
        let mut by_shard: Vec<Vec<T>> = (0..self.count).map(|_| Vec::new()).collect();
        for item in items {
            by_shard[KeyHash(id(item).hash).shard(self.count).0 as usize].push(*item);
        }
        let shards = by_shard.iter().zip(0..);
        let steps = shards.flat_map(|(items, shard)| {
            items.chunks(limits::REPLICATION_LOOKUPS_PER_TURN).map(move |items| (shard, items.to_vec()))
        });
        steps.map(|(shard, items)| (shard, step(items))).collect()
    }

    async fn wanted(&self, named: &[Named]) -> Option<Vec<KeyId>> {
        let answers = self.ask(self.steps(named, |named| named.id, Step::Wanted)).await?;
        let wanted = answers.into_iter().flat_map(|answer| match answer {
            StepAnswer::Wanted(ids) => ids,
            _ => Vec::new(),
        });
        Some(wanted.collect())
    }

    async fn list(&self, regions: &[SiteId], question: Vec<BucketList>) -> Option<Vec<Named>> {
        let steps = question.into_iter().flat_map(|list| {
            (0..self.count).map(move |shard| {
                let (bucket, windows, with_counters) = (list.bucket, list.windows.clone(), list.with_counters);
                (shard, Step::List { regions: regions.to_vec(), bucket, windows, with_counters })
            })
        });
        let answers = self.ask(steps.collect()).await?;
        let named = answers.into_iter().flat_map(|answer| match answer {
            StepAnswer::List(named) => named,
            _ => Vec::new(),
        });
        Some(named.take(2 * limits::REPLICATION_LISTED_MAX).collect())
    }

    async fn fetch(&self, ids: Vec<KeyId>, to: SiteId) -> Option<(Vec<u8>, Vec<KeyId>)> {
        let (mut bytes, mut left) = (Vec::new(), Vec::new());
        // Several turns' worth at once: a question should not wait for the carrier's next pass with each of them.
        for steps in self.steps(&ids, |id| *id, |ids| Step::Fetch { ids, to }).chunks(STEPS_AT_ONCE) {
            let is_full = bytes.len() >= limits::REPLICATION_FETCH_BYTES_MAX;
            let answers = if is_full { Vec::new() } else { self.ask(steps.to_vec()).await? };
            let mut answers = answers.into_iter();
            for (_, step) in steps {
                let Step::Fetch { ids, .. } = step else { continue };
                match answers.next() {
                    Some(StepAnswer::Records(records, unread)) if bytes.len() < limits::REPLICATION_FETCH_BYTES_MAX => {
                        bytes.extend_from_slice(&records);
                        left.extend(unread);
                    }
                    // There were some of the largest values among them: these are read again with the next question.
                    _ => left.extend(ids),
                }
            }
        }
        Some((bytes, left))
    }

    /// Has records applied, and waits for room. `None`: they are no records.
    async fn apply(&self, records: Vec<u8>) -> Option<()> {
        for _ in 0..APPLY_TRIES {
            let (reply, answer) = oneshot::channel();
            self.requests.send(Request::Apply(records.clone(), reply)).await.ok()?;
            if answer.await.ok()?? {
                return Some(());
            }
            tokio::time::sleep(APPLY_PAUSE).await;
        }
        None
    }

    async fn answer(&self, question: Question, to: SiteId) -> Option<Answer> {
        Some(match question {
            Question::Summary { check } if check != self.check() => Answer::OtherSeed,
            Question::Summary { .. } => Answer::Summary(self.summaries(to).await?.0.into_iter().collect()),
            Question::Buckets { regions, windows } => {
                let buckets = self.buckets(&regions, &windows).await?;
                Answer::Buckets(buckets.into_iter().map(|buckets| buckets.each.to_vec()).collect())
            }
            Question::List { regions, buckets } => Answer::List(self.list(&regions, buckets).await?),
            Question::Fetch { ids } => {
                let (records, left) = self.fetch(ids, to).await?;
                Answer::Records(batch::pack(&records).to_vec(), left)
            }
        })
    }
}

/// Answers other nodes.
pub(super) fn handler(shards: Shards, state: watch::Receiver<Arc<State>>, replication: Replication) -> Handler {
    Arc::new(move |from, bytes| {
        let (shards, replication) = (shards.clone(), replication.clone());
        let site = state.borrow().site_of(from);
        Box::pin(async move {
            let question = postcard::from_bytes::<Question>(&bytes).ok().filter(Question::is_modest);
            let is_pinned_elsewhere = |question: &Question, site: SiteId| match question {
                Question::Buckets { regions, .. } | Question::List { regions, .. } => {
                    !regions.is_empty() && !regions.contains(&site)
                }
                _ => false,
            };
            let answer = match (question, site) {
                (None, _) => {
                    replication.with(|report| report.malformed += 1);
                    Answer::Busy
                }
                (_, None) => {
                    replication.with(|report| report.strangers += 1);
                    Answer::Busy
                }
                (Some(question), Some(site)) if is_pinned_elsewhere(&question, site) => Answer::Busy,
                (Some(question), Some(site)) => match shards.places.clone().try_acquire_owned() {
                    // They are asked again in a second.
                    Err(_) => Answer::Busy,
                    Ok(_place) => {
                        replication.with(|report| report.answered += 1);
                        shards.answer(question, site).await.unwrap_or(Answer::Busy)
                    }
                },
            };
            postcard::to_allocvec(&answer).unwrap_or_default().into()
        })
    })
}

impl Round {
    /// Compares, and fetches what is missing.
    pub(super) async fn run(self) -> Ended {
        let outcome = self.compare().await;
        self.replication.with_peer(self.node, |report| match &outcome {
            Ok(()) => {
                report.compared += 1;
                report.trouble = None;
            }
            Err(Failed::NoAnswer) => report.failed += 1,
            Err(Failed::Senseless(reason)) => {
                report.failed += 1;
                report.trouble = Some((*reason).to_string());
            }
        });
        Ended { node: self.node, is_done: outcome.is_ok(), was_urgent: self.is_urgent }
    }

    async fn compare(&self) -> Result<(), Failed> {
        let check = self.shards.check();
        let theirs = match self.ask(&Question::Summary { check }).await? {
            Answer::Summary(theirs) => theirs,
            Answer::OtherSeed => return Err(Failed::Senseless("it hashes keys with another seed")),
            _ => return Err(Failed::NoAnswer),
        };
        let (mine, counts) = self.shards.summaries(self.site).await.ok_or(Failed::NoAnswer)?;
        self.replication.with(|report| report.counts = counts);
        let (mut differing, mut sum, mut is_equal) = (0, 0, true);
        for (regions, theirs) in theirs.into_iter().take(limits::REPLICATION_SCOPES_MAX) {
            let none = Summary::default();
            let mine = mine.get(&regions).unwrap_or(&none);
            let floor = mine.floor.max(theirs.floor);
            is_equal &= mine.digest(floor) == theirs.digest(floor);
            sum ^= mine.digest(floor).digest;
            let now_ms = unix_ms();
            let mut windows = mine.differences(&theirs, now_ms, self.is_urgent);
            if !self.with_counters {
                windows.retain(Option::is_some);
            }
            differing += windows.len();
            if !windows.is_empty() {
                self.close(&regions, &windows).await?;
            }
        }
        self.replication.with_peer(self.node, |report| {
            (report.differing, report.is_equal) = (differing as u64, is_equal);
            report.digest = format!("{sum:016x}");
        });
        Ok(())
    }

    /// Fetches what is missing in these windows.
    async fn close(&self, regions: &[SiteId], windows: &[Option<u64>]) -> Result<(), Failed> {
        let question = Question::Buckets { regions: regions.to_vec(), windows: windows.to_vec() };
        let Answer::Buckets(theirs) = self.ask(&question).await? else { return Err(Failed::NoAnswer) };
        if theirs.len() != windows.len() || theirs.iter().any(|sums| sums.len() != limits::REPLICATION_BUCKETS) {
            return Err(Failed::Senseless("answered for other windows than it was asked for"));
        }
        let mine = self.shards.buckets(regions, windows).await.ok_or(Failed::NoAnswer)?;
        // They end with this round, whichever way it ends.
        let mut fetches = JoinSet::new();
        let ended = |ended| match ended {
            Some(Ok(outcome)) => outcome,
            // The runtime ends, or a fetch has panicked, which the log knows.
            Some(Err(_)) => Err(Failed::NoAnswer),
            None => Ok(()),
        };
        for question in lists(regions, windows, &mine, &theirs) {
            let Answer::List(named) = self.ask(&question).await? else { return Err(Failed::NoAnswer) };
            let wanted = self.shards.wanted(&named).await.ok_or(Failed::NoAnswer)?;
            for ids in wanted.chunks(limits::REPLICATION_FETCH_MAX) {
                if fetches.len() == limits::REPLICATION_FETCHES_MAX {
                    ended(fetches.join_next().await)?;
                }
                let (round, ids) = (self.clone(), ids.to_vec());
                fetches.spawn(async move { round.fetch(ids).await });
            }
        }
        while !fetches.is_empty() {
            ended(fetches.join_next().await)?;
        }
        Ok(())
    }

    async fn fetch(&self, mut ids: Vec<KeyId>) -> Result<(), Failed> {
        let _place = self.shards.fetches.acquire().await.map_err(|_| Failed::NoAnswer)?;
        let mut busy = 0;
        while !ids.is_empty() {
            let asked = ids.len();
            let question = Question::Fetch { ids: ids.clone() };
            let (body, left) = match self.ask(&question).await? {
                Answer::Records(body, left) => (body, left),
                // Many have just come back together. What is half done is better brought to its end than begun anew.
                Answer::Busy if busy < BUSY_TRIES => {
                    busy += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                    continue;
                }
                _ => return Err(Failed::NoAnswer),
            };
            if left.len() >= asked {
                return Err(Failed::Senseless("fetches nothing of what it was asked for"));
            }
            let records = batch::unpack(&body).map_err(|malformed| Failed::Senseless(malformed.0))?;
            self.replication.with_peer(self.node, |report| report.fetched += (asked - left.len()) as u64);
            self.shards.apply(records).await.ok_or(Failed::NoAnswer)?;
            ids = left;
        }
        Ok(())
    }

    async fn ask(&self, question: &Question) -> Result<Answer, Failed> {
        let bytes = Bytes::from(postcard::to_allocvec(question).unwrap_or_default());
        let deadline = Duration::from_millis(limits::REPLICATION_QUESTION_MS);
        let answer = self.links.call(self.node, Channel::Replication, bytes, deadline).await;
        let bytes = answer.map_err(|_| Failed::NoAnswer)?;
        postcard::from_bytes(&bytes).map_err(|_| Failed::Senseless("gave an answer that is none"))
    }
}

/// Windows whose buckets a shard copies in one turn: 24 KiB.
const WINDOWS_PER_STEP: usize = 8;
/// Steps of a fetch that are asked for together.
const STEPS_AT_ONCE: usize = 8;
/// How often a node that was busy is asked again, and how long after.
const BUSY_TRIES: u32 = 20;
/// See [`BUSY_TRIES`].
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// How often records are offered to shards that have no room, and how long after the last time.
const APPLY_TRIES: u32 = 200;
/// See [`APPLY_TRIES`].
const APPLY_PAUSE: Duration = Duration::from_millis(5);
