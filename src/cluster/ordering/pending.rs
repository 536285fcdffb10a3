//! Commands that wait to be ordered.
//!
//! A command stays here until it has been executed, or until the state no longer permits it; a proposal that is lost
//! loses nothing. The same command from two sides is one, by author and number. An author's commands go out in the
//! order of their numbers, and authors take turns, so that one with much to say cannot keep the others waiting.

use std::collections::BTreeMap;

use crate::base::id::SiteId;
use crate::base::limits;
use crate::cluster::command::{Author, Signed};
use crate::cluster::ordering::codec;
use crate::cluster::state::{State, Verifies};

/// Commands that wait.
#[derive(Default)]
pub struct Pending {
    authors: BTreeMap<Author, BTreeMap<u64, Waiting>>,
    count: usize,
    bytes: usize,
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingFull;

struct Waiting {
    signed: Signed,
    bytes: usize,
    /// It was submitted here.
    is_own: bool,
    /// The open height when it came.
    since: u64,
    /// The primary it was last sent to.
    told: Option<SiteId>,
}

/// A batch that can be executed, and the state afterwards.
pub struct Batch {
    /// The commands.
    pub commands: Vec<Signed>,
    /// The state once they are executed.
    pub after: State,
}

impl Pending {
    /// Takes a command in. Whether it is new.
    pub fn insert(&mut self, signed: Signed, is_own: bool, open_height: u64) -> Result<bool, PendingFull> {
        let bytes = codec::encode(&signed).len();
        let of_author = self.authors.entry(signed.author).or_default();
        if let Some(known) = of_author.get_mut(&signed.number) {
            known.is_own |= is_own;
            return Ok(false);
        }
        let is_full = self.count >= limits::PENDING_COMMANDS_MAX
            || of_author.len() >= limits::PENDING_COMMANDS_PER_AUTHOR_MAX
            || self.bytes + bytes > limits::PENDING_BYTES_MAX;
        if is_full {
            return Err(PendingFull);
        }
        self.count += 1;
        self.bytes += bytes;
        of_author.insert(signed.number, Waiting { signed, bytes, is_own, since: open_height, told: None });
        Ok(true)
    }

    /// Forgets what the state no longer permits: executed commands above all.
    pub fn retain_permitted(&mut self, state: &State) {
        self.retain(|signed| state.permits(signed).is_ok());
    }

    /// The next batch of `proposer` on top of `state`. What turns out not to be executable is forgotten.
    pub fn batch(&mut self, state: &State, height: u64, proposer: SiteId, verifies: Verifies<'_>) -> Batch {
        let mut after = state.execute_height(height, proposer, &[]).unwrap_or_else(|_| state.clone());
        let (mut commands, mut bytes, mut refused) = (Vec::new(), BATCH_HEAD_BYTES, Vec::new());
        let mut turns: Vec<_> = self.authors.values().map(|of_author| of_author.values()).collect();
        // One command of each author, then the next of each, until nobody has one or it would not fit.
        while !turns.is_empty() {
            turns.retain_mut(|turn| {
                let Some(waiting) = turn.next() else { return false };
                if bytes + waiting.bytes > limits::BATCH_BYTES_MAX {
                    return false;
                }
                match after.execute_by(&waiting.signed, verifies) {
                    Ok(()) => {
                        bytes += waiting.bytes;
                        commands.push(waiting.signed.clone());
                    }
                    Err(_) => refused.push((waiting.signed.author, waiting.signed.number)),
                }
                true
            });
        }
        self.retain(|signed| !refused.contains(&(signed.author, signed.number)));
        Batch { commands, after }
    }

    /// What `primary` is to be sent, if there is something this node sees to that it has not been sent yet: that, and
    /// whatever else it sees to. A message may overtake another, and a command that is overtaken by its
    /// author's next could not be executed any more.
    pub fn untold(&mut self, primary: SiteId, open_height: u64) -> Vec<Signed> {
        let is_told = |waiting: &Waiting| !waiting.is_seen_to(open_height) || waiting.told == Some(primary);
        if self.authors.values().flat_map(BTreeMap::values).all(is_told) {
            return Vec::new();
        }
        let commands = self.seen_to(open_height);
        for one in &commands {
            if let Some(waiting) = self.authors.get_mut(&one.author).and_then(|all| all.get_mut(&one.number)) {
                waiting.told = Some(primary);
            }
        }
        commands
    }

    /// Commands this node sees to, as many as fit a message.
    pub fn seen_to(&self, open_height: u64) -> Vec<Signed> {
        let mut bytes = BATCH_HEAD_BYTES;
        let own = self.authors.values().flat_map(BTreeMap::values).filter(|waiting| waiting.is_seen_to(open_height));
        let fitting = own.take_while(|waiting| {
            bytes += waiting.bytes;
            bytes <= limits::BATCH_BYTES_MAX
        });
        fitting.map(|waiting| waiting.signed.clone()).collect()
    }

    /// Whether a batch without a command that has waited for long had room for it.
    pub fn is_suppressed_by(&self, batch: &[Signed], batch_bytes: usize, open_height: u64) -> bool {
        let overdue = |waiting: &&Waiting| open_height.saturating_sub(waiting.since) >= limits::SUPPRESSED_HEIGHTS;
        let has = |signed: &Signed| batch.iter().any(|one| one.author == signed.author && one.number == signed.number);
        self.authors
            .values()
            .flat_map(BTreeMap::values)
            .filter(overdue)
            .any(|waiting| batch_bytes + waiting.bytes <= limits::BATCH_BYTES_MAX && !has(&waiting.signed))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn retain(&mut self, mut keeps: impl FnMut(&Signed) -> bool) {
        let (mut count, mut bytes) = (0, 0);
        self.authors.retain(|_, of_author| {
            of_author.retain(|_, waiting| keeps(&waiting.signed));
            count += of_author.len();
            bytes += of_author.values().map(|waiting| waiting.bytes).sum::<usize>();
            !of_author.is_empty()
        });
        (self.count, self.bytes) = (count, bytes);
    }
}

impl Waiting {
    /// Whether this node sees to it that others get it: it was submitted here, or nobody seems to.
    fn is_seen_to(&self, open_height: u64) -> bool {
        self.is_own || open_height.saturating_sub(self.since) >= limits::ORPHANED_HEIGHTS
    }
}

/// What a list of commands costs beside the commands: its length.
const BATCH_HEAD_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::NodeId;
    use crate::cluster::command::Command;
    use crate::cluster::keys;
    use crate::cluster::ordering::room::{genesis, node_key, operator_key};

    fn state() -> State {
        State::new(&genesis(4))
    }

    fn policy(number: u64, bytes: usize) -> Signed {
        let command = Command::SetTenant { name: format!("t{}", number % 200), policy: Some(vec![7; bytes]) };
        Signed::new(state().network, Author::Operator, number, command, &operator_key())
    }

    fn audit(node: u16, number: u64) -> Signed {
        let command = Command::AuditRoot { entries: number, root: [0; 32] };
        Signed::new(state().network, Author::Node(NodeId(node)), number, command, &node_key(node))
    }

    fn batch(pending: &mut Pending) -> Vec<(Author, u64)> {
        let batch = pending.batch(&state(), 1, SiteId(1), &keys::verifies);
        batch.commands.iter().map(|signed| (signed.author, signed.number)).collect()
    }

    #[test]
    fn a_batch_takes_turns_between_authors_and_keeps_each_ones_order() {
        let mut pending = Pending::default();
        for number in [3, 1, 2] {
            pending.insert(policy(number, 1), true, 1).unwrap();
        }
        pending.insert(audit(2, 5), false, 1).unwrap();
        let node = Author::Node(NodeId(2));
        let expected = [(Author::Operator, 1), (node, 5), (Author::Operator, 2), (Author::Operator, 3)];
        assert_eq!(batch(&mut pending), expected);
        assert_eq!(batch(&mut pending), expected, "a proposal that is lost loses nothing");
    }

    #[test]
    fn a_batch_has_a_bound_and_the_rest_waits() {
        let mut pending = Pending::default();
        for number in 1..=100 {
            pending.insert(policy(number, 4_000), true, 1).unwrap();
        }
        pending.insert(audit(2, 1), true, 1).unwrap();
        let commands = pending.batch(&state(), 1, SiteId(1), &keys::verifies).commands;
        assert!(codec::encode(&commands).len() <= limits::BATCH_BYTES_MAX);
        assert!(commands.len() > 50 && commands.len() < 100);
        assert!(commands.iter().any(|signed| signed.author == Author::Node(NodeId(2))), "others have their turn");
        assert_eq!(pending.len(), 101);
    }

    #[test]
    fn the_same_command_is_one_and_an_author_has_no_more_than_its_share() {
        let mut pending = Pending::default();
        assert_eq!(pending.insert(audit(1, 1), false, 1), Ok(true));
        assert_eq!(pending.insert(audit(1, 1), true, 1), Ok(false));
        assert_eq!(pending.len(), 1);
        for number in 2..=limits::PENDING_COMMANDS_PER_AUTHOR_MAX as u64 {
            pending.insert(audit(1, number), true, 1).unwrap();
        }
        assert_eq!(pending.insert(audit(1, 9_999), true, 1), Err(PendingFull));
        assert_eq!(pending.insert(audit(2, 1), true, 1), Ok(true));
    }

    #[test]
    fn what_can_no_longer_be_executed_is_forgotten() {
        let mut pending = Pending::default();
        pending.insert(audit(1, 1), true, 1).unwrap();
        pending.insert(audit(1, 2), true, 1).unwrap();
        let mut after = state();
        after.execute(&audit(1, 1)).unwrap();
        pending.retain_permitted(&after);
        assert_eq!(pending.len(), 1);
        after.execute(&audit(1, 2)).unwrap();
        pending.retain_permitted(&after);
        assert!(pending.is_empty() && pending.bytes == 0 && pending.authors.is_empty());
    }

    #[test]
    fn a_command_of_others_is_seen_to_once_nobody_else_seems_to() {
        let mut pending = Pending::default();
        pending.insert(audit(1, 1), false, 10).unwrap();
        assert!(pending.seen_to(11).is_empty());
        assert_eq!(pending.untold(SiteId(1), 12).len(), 1);
        assert!(pending.untold(SiteId(1), 12).is_empty(), "once for each primary");
        assert_eq!(pending.untold(SiteId(2), 12).len(), 1);
    }
}
