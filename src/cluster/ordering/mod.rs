//! The order of control commands, agreed on by sites of which some may lie.
//!
//! An [`Ordering`] is one site's part in that, without I/O: it is told what arrived and which timer ran out, and
//! answers with effects. Whoever drives it (`host` with sockets, a disk and a clock; `sim` with none of them) carries
//! them out in the order they stand:
//!
//!   message, timer, command -> Ordering -> effects: append, flush, send, set a timer, decided, evidence
//!
//! The one rule that safety hangs on: nothing behind a [`Effect::Flush`] happens before everything appended until
//! then is on the disk. A site that forgets what it has signed may sign the opposite.
//!
//! - `validator`: [`Validator`], the ordering over the consensus engine; `hear`: what it believes; `recover`: the same
//!   after a restart
//! - `engine`: the engine, made to answer with effects; `context`: what it asks to be told
//! - `codec`: messages and log records as bytes; `block`: what a decided height leaves behind; `wal`: the log's frames
//! - `lie`: what a lying site would send, for tests and the simulation
//! - `refusal`: why a message is refused, counted; `signatures`: each checked once
//! - `statements`: who has said what, and proofs of lies; `pending`: commands that wait; `catch_up`: for laggards

pub mod block;
mod catch_up;
pub mod codec;
pub mod context;
pub mod engine;
mod hear;
pub mod lie;
mod pending;
pub mod recover;
pub mod refusal;
#[cfg(test)]
pub(in crate::cluster) mod room;
pub mod signatures;
pub mod statements;
pub mod validator;
pub mod wal;

use crate::base::id::{NodeId, SiteId};
use crate::cluster::command::Signed;
use crate::cluster::state::State;

pub use block::Snapshot;
pub use engine::Halt;
pub use recover::RecoverError;
pub use refusal::{Counters, REFUSALS, Refusal};
pub use statements::Proof;
pub use validator::Validator;

/// One site's part in ordering.
pub trait Ordering: Send {
    /// Begins, or goes on after a restart. Once, before anything else.
    fn start(&mut self) -> Vec<Effect>;

    /// A message has arrived from a node that the link has authenticated. Whatever it says, this does not panic.
    fn receive(&mut self, from: NodeId, bytes: &[u8]) -> Vec<Effect>;

    /// A timer has run out.
    fn timeout(&mut self, timer: TimerId) -> Vec<Effect>;

    /// A command to be ordered, from this node or sent here by another.
    fn submit(&mut self, command: Signed) -> Result<Vec<Effect>, SubmitRefused>;

    /// What has been agreed on so far.
    fn state(&self) -> &State;

    /// The height and round under way.
    fn position(&self) -> (u64, u32);
}

/// A timer of an ordering. Setting one that runs starts it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub u64);

/// What an ordering wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// To every other validator.
    Broadcast(Vec<u8>),
    /// To one node.
    Send(NodeId, Vec<u8>),
    /// Appends a record to the write-ahead log of the open height.
    Append(Vec<u8>),
    /// What has been appended must be on the disk before the next effect.
    Flush,
    /// A height is decided: its block is to be stored for good, and flushed, before the next effect; then the
    /// write-ahead log begins anew.
    Store(Block),
    /// Starts a timer.
    SetTimer(TimerId, u64),
    /// Stops a timer.
    StopTimer(TimerId),
    /// Stops all timers.
    StopTimers,
    /// The state has changed: a height was executed.
    Executed(Executed),
    /// Somebody was caught.
    Evidence(Evidence),
}

/// A decided height as it is kept and sent to those who missed it: enough to check it without trusting the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which height.
    pub height: u64,
    /// Value and certificate, encoded.
    pub bytes: Vec<u8>,
}

/// A height that was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Which.
    pub height: u64,
    /// In which round it was decided here.
    pub round: u32,
    /// SHA-256 of its value.
    pub value: [u8; 32],
    /// Who first proposed that value.
    pub proposer: SiteId,
    /// Commands in it.
    pub commands: usize,
    /// SHA-256 of the state afterwards.
    pub state: [u8; 32],
}

/// Two signed statements that cannot both be honest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Who signed both.
    pub culprit: SiteId,
    /// At which height.
    pub height: u64,
    /// In which round.
    pub round: u32,
    /// What was said twice: "proposal", "prevote", "precommit".
    pub what: &'static str,
}

/// Why a command is not even proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitRefused {
    /// Its author's signature does not hold.
    Signature,
    /// Its author has no right to it.
    Right,
    /// The same or a later number of that author was executed.
    Replayed,
    /// It is larger than a command may be.
    TooLarge,
    /// Too many wait already.
    Full,
    /// It makes no sense as the state is; the text says why.
    Senseless(String),
}
