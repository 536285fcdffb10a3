//! Is a recorded history of one register linearizable?
//!
//! Clients call, and get answers some time later. The history is fine if every call can be given one instant between
//! its invocation and its return so that, taken in the order of these instants, a single register would have given
//! the same answers:
//!
//!   process 1   |--- write 1 ---|        |--- read -> 1 ---|
//!   process 2           |------ write 2 ------|
//!   instants              2          1         r            fine: 2, then 1, then the read
//!
//! The search is Wing and Gong's \[1\] in Lowe's form \[2\]: take any call that may come next (it was invoked before the
//! first return among those not yet taken), apply it, go on; when nothing fits, take the last one back. A pair of
//! "which calls are taken" and "what the register holds" that has failed once is never tried again, which makes the
//! search quick on histories as they are recorded. Linearizability is local \[3\]: keys are checked one by one.
//!
//! An operation whose outcome nobody knows (a timeout, a killed client) may have happened at any instant after its
//! invocation, or never. A cache may forget: with [`Model::Cache`] a read may miss at any time, and what depends on a
//! key's absence may find it absent; but what a read returns must be the latest value, never an overwritten one.
//!
//! 1. J. Wing, C. Gong: Testing and Verifying Concurrent Objects. JPDC 17 (1993).
//! 2. G. Lowe: Testing for Linearizability. Concurrency and Computation 29 (2017).
//! 3. M. Herlihy, J. Wing: Linearizability: a Correctness Condition for Concurrent Objects. TOPLAS 12 (1990).

use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// One operation of a history. Times are of one clock; what unit they have is the recorder's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who called: for the report alone.
    pub process: u32,
    /// On which key.
    pub key: Vec<u8>,
    /// What was asked.
    pub action: Action,
    /// What came back.
    pub outcome: Outcome,
    /// When it was sent: read the clock before sending.
    pub invoked_at: u64,
    /// When the answer was there: read the clock after receiving. Of no meaning if the outcome is unknown.
    pub returned_at: u64,
}

/// What is asked of a register. Values are numbers: a recorder writes numbers, or hashes what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What does it hold?
    Read,
    /// Hold this.
    Write(u64),
    /// Hold nothing.
    Delete,
    /// If it holds the first, or nothing if that is none, hold the second.
    CompareAndSet(Option<u64>, u64),
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of a read: what it holds; none is a miss.
    Held(Option<u64>),
    /// Of a write or a delete: done.
    Done,
    /// Of a compare-and-set: whether it did.
    Swapped(bool),
    /// Refused: it has had no effect, and it certainly will have none.
    Refused,
    /// Nobody knows: it may have happened, may happen yet, or never.
    Unknown,
}

/// What a register promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// It holds what was written until something else is.
    Register,
    /// It may forget at any time, but never holds what was overwritten.
    Cache,
}

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinear {
    /// The key.
    pub key: Vec<u8>,
    /// The call that no order explains: of all attempts, the one that came furthest failed at its return.
    pub call: Box<Call>,
    /// What the register held in that attempt.
    pub held: Option<u64>,
    /// Calls that attempt had explained.
    pub explained: usize,
    /// Calls on this key.
    pub calls: usize,
}

/// Checks a history, key by key, in the order of keys.
pub fn check(history: &[Call], model: Model) -> Result<(), NotLinear> {
    let mut keys: BTreeMap<&[u8], Vec<&Call>> = BTreeMap::new();
    for call in history {
        // A refused call has had no effect, and a read without an answer has told nobody anything.
        let says_nothing =
            call.outcome == Outcome::Refused || (call.action == Action::Read && call.outcome == Outcome::Unknown);
        if !says_nothing {
            keys.entry(&call.key).or_default().push(call);
        }
    }
    keys.values().try_for_each(|calls| check_key(calls, model))
}

/// Whether a register that holds `held` can have answered so, and what it holds afterwards.
fn step(model: Model, held: Option<u64>, action: Action, outcome: Outcome) -> Option<Option<u64>> {
    let may_miss = model == Model::Cache;
    match (action, outcome) {
        (Action::Read, Outcome::Held(value)) => (value == held || (may_miss && value.is_none())).then_some(held),
        (Action::Write(value), Outcome::Done | Outcome::Unknown) => Some(Some(value)),
        (Action::Delete, Outcome::Done | Outcome::Unknown) => Some(None),
        (Action::CompareAndSet(expected, value), Outcome::Swapped(true)) => {
            (expected == held || (may_miss && expected.is_none())).then_some(Some(value))
        }
        // It found something else, or, in a cache, nothing.
        (Action::CompareAndSet(expected, _), Outcome::Swapped(false)) => {
            (expected != held || (may_miss && expected.is_some())).then_some(held)
        }
        // If it did not apply it changed nothing, and leaving it out says the same.
        (Action::CompareAndSet(expected, value), Outcome::Unknown) => {
            (expected == held || (may_miss && expected.is_none())).then_some(Some(value))
        }
        // An answer that does not belong to the question cannot be explained.
        _ => None,
    }
}

/// The invocation or the return of a call, in a list that calls are lifted out of and put back into.
#[derive(Clone, Copy)]
struct Entry {
    call: usize,
    is_return: bool,
    before: usize,
    after: usize,
}

/// The ends of the list: entry 0 stands before the first and after the last.
const END: usize = 0;

struct Entries {
    entries: Vec<Entry>,
    /// Where each call's invocation and return stand; an unknown outcome has no return.
    places: Vec<(usize, Option<usize>)>,
    /// Returns still in the list: when none is left, every answer is explained.
    returns: usize,
}

impl Entries {
    fn new(calls: &[&Call]) -> Entries {
        // At the same instant an invocation comes first: calls that touch count as concurrent, which excuses more
        // than it should rather than accusing wrongly.
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * calls.len());
        for (index, call) in calls.iter().enumerate() {
            moments.push((call.invoked_at, false, index));
            if call.outcome != Outcome::Unknown {
                moments.push((call.returned_at.max(call.invoked_at), true, index));
            }
        }
        moments.sort_unstable();
        let count = moments.len();
        let mut list = Entries {
            entries: vec![Entry { call: usize::MAX, is_return: false, before: count, after: 1 % (count + 1) }],
            places: vec![(END, None); calls.len()],
            returns: 0,
        };
        for (position, &(_, is_return, call)) in moments.iter().enumerate() {
            let here = position + 1;
            list.entries.push(Entry { call, is_return, before: here - 1, after: (here + 1) % (count + 1) });
            if is_return {
                list.places[call].1 = Some(here);
                list.returns += 1;
            } else {
                list.places[call].0 = here;
            }
        }
        list
    }

    fn unlink(&mut self, at: usize) {
        let Entry { before, after, .. } = self.entries[at];
        self.entries[before].after = after;
        self.entries[after].before = before;
    }

    fn relink(&mut self, at: usize) {
        let Entry { before, after, .. } = self.entries[at];
        self.entries[before].after = at;
        self.entries[after].before = at;
    }

    fn lift(&mut self, call: usize) {
        let (invocation, answer) = self.places[call];
        self.unlink(invocation);
        if let Some(answer) = answer {
            self.unlink(answer);
            self.returns -= 1;
        }
    }

    /// Undoes `lift`; the last one lifted is the first put back, so that neighbours are as they were.
    fn put_back(&mut self, call: usize) {
        let (invocation, answer) = self.places[call];
        if let Some(answer) = answer {
            self.relink(answer);
            self.returns += 1;
        }
        self.relink(invocation);
    }
}

fn check_key(calls: &[&Call], model: Model) -> Result<(), NotLinear> {
    let mut list = Entries::new(calls);
    let mut taken = vec![0u64; calls.len().div_ceil(64)];
    let mut held: Option<u64> = None;
    let mut path: Vec<(usize, Option<u64>)> = Vec::new();
    let mut failed: HashSet<(Vec<u64>, Option<u64>)> = HashSet::new();
    let mut furthest: Option<NotLinear> = None;
    let mut at = list.entries[END].after;
    while list.returns > 0 {
        let entry = list.entries[at];
        if at != END && !entry.is_return {
            let call = calls[entry.call];
            if let Some(next) = step(model, held, call.action, call.outcome) {
                taken[entry.call / 64] |= 1 << (entry.call % 64);
                if failed.insert((taken.clone(), next)) {
                    path.push((entry.call, held));
                    held = next;
                    list.lift(entry.call);
                    at = list.entries[END].after;
                    continue;
                }
                taken[entry.call / 64] &= !(1 << (entry.call % 64));
            }
            at = entry.after;
            continue;
        }
        // The first return left: its call must have come before, and did not fit anywhere.
        if at != END && furthest.as_ref().is_none_or(|known| known.explained < path.len()) {
            let call = calls[entry.call].clone();
            furthest = Some(NotLinear {
                key: call.key.clone(),
                call: Box::new(call),
                held,
                explained: path.len(),
                calls: calls.len(),
            });
        }
        let Some((call, before)) = path.pop() else {
            return Err(furthest.expect("a search ends at a return"));
        };
        held = before;
        taken[call / 64] &= !(1 << (call % 64));
        list.put_back(call);
        at = list.entries[list.places[call].0].after;
    }
    Ok(())
}

impl fmt::Display for NotLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = String::from_utf8_lossy(&self.key);
        let Call { process, action, outcome, invoked_at, returned_at, .. } = &*self.call;
        write!(
            f,
            "key {key:?}: no order of its {} calls explains process {process}'s {action:?} -> {outcome:?}, invoked at \
             {invoked_at} and returned at {returned_at}: after {} calls the key held {:?}",
            self.calls, self.explained, self.held
        )
    }
}

#[cfg(test)]
#[path = "linear_tests.rs"]
mod tests;
