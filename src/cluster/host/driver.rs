//! Drives a node's part in ordering: messages, timers and commands in; effects out, in the order they stand.
//!
//! It has a thread of its own, because an effect may be a flush and a flush may take as long as the disk likes: links
//! go on reading meanwhile, and nothing of the ordering overtakes the flush. That order is what safety hangs on: a
//! vote that leaves before its record is on the disk is a vote that a crash makes this node forget.
//!
//! An error here is the end of this node's part: a disk that fails, a log that does not hold, an engine that has
//! stopped. It is returned, logged, and ends the process; a node that is silent is a fault the protocol bears, and
//! one that goes on without its log is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::base::id::NodeId;
use crate::base::limits;
use crate::cluster::command::Signed;
use crate::cluster::host::disk::{Disk, DiskError};
use crate::cluster::host::links::{Channel, Inbound, Links};
use crate::cluster::host::news::{News, Weight};
use crate::cluster::host::status::{Position, Shared};
use crate::cluster::host::submit::{Recent, Submission, reason};
use crate::cluster::ordering::block::{Content, Snapshot};
use crate::cluster::ordering::codec;
use crate::cluster::ordering::validator::Validator;
use crate::cluster::ordering::{Block, Effect, Evidence, Ordering, TimerId};
use crate::cluster::state::State;

/// A part in ordering that a node can run: the trait, and what only the real one knows.
pub trait Part: Ordering {
    /// The state with the proof that it is the one.
    fn snapshot(&self) -> Option<Snapshot>;
    /// Why it says nothing any more.
    fn halted(&self) -> Option<String>;
    /// The highest height others say they have.
    fn highest_claimed(&self) -> u64;
    /// Commands that wait.
    fn pending(&self) -> usize;
    /// Messages refused, by reason.
    fn refusals(&self) -> Vec<(&'static str, u64)>;
}

impl Part for Validator {
    fn snapshot(&self) -> Option<Snapshot> {
        Validator::snapshot(self)
    }

    fn halted(&self) -> Option<String> {
        Validator::halted(self).map(ToString::to_string)
    }

    fn highest_claimed(&self) -> u64 {
        Validator::highest_claimed(self)
    }

    fn pending(&self) -> usize {
        Validator::pending(self)
    }

    fn refusals(&self) -> Vec<(&'static str, u64)> {
        self.counters().refusals().map(|(reason, count)| (reason.name(), count)).collect()
    }
}

/// What runs it.
pub struct Driver {
    /// The part.
    pub part: Box<dyn Part>,
    /// What it must not forget.
    pub disk: Disk,
    /// Where it says things.
    pub links: Links,
    /// Who is told of every new state.
    pub state: watch::Sender<Arc<State>>,
    /// Which commands were executed lately.
    pub executed: Recent,
    /// How it does.
    pub shared: Arc<Shared>,
    /// Who is told what matters.
    pub news: Arc<dyn News>,
    /// When each timer runs out.
    pub timers: BTreeMap<TimerId, Instant>,
    /// Height of the last snapshot.
    pub snapshot_height: u64,
}

impl Driver {
    /// Drives until it is told to stop, or cannot go on; then the reason.
    pub async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Inbound>,
        mut submissions: mpsc::Receiver<Submission>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<(), String> {
        let effects = self.part.start();
        self.step(effects)?;
        loop {
            let next = self.timers.iter().map(|(timer, at)| (*at, *timer)).min();
            let runs_out = async {
                match next {
                    Some((at, timer)) => {
                        tokio::time::sleep_until(at.into()).await;
                        timer
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut stop => return Ok(()),
                timer = runs_out => {
                    self.timers.remove(&timer);
                    let effects = self.part.timeout(timer);
                    self.step(effects)?;
                }
                message = inbox.recv() => {
                    let message = message.ok_or("the links have ended")?;
                    let effects = self.part.receive(message.from, &message.bytes);
                    self.step(effects)?;
                }
                submission = submissions.recv() => {
                    let Submission { signed, answer } = submission.ok_or("nobody submits any more")?;
                    let taken = self.part.submit(signed).map_err(|refused| reason(&refused));
                    // Whoever asked may have given up; the command stays.
                    let _ = match taken {
                        Ok(effects) => {
                            let _ = answer.send(Ok(()));
                            self.step(effects)?;
                            Ok(())
                        }
                        Err(reason) => answer.send(Err(reason)),
                    };
                }
            }
        }
    }

    /// Carries out what one step wants, and tells what has changed.
    fn step(&mut self, effects: Vec<Effect>) -> Result<(), String> {
        let mut is_executed = false;
        for effect in effects {
            is_executed |= matches!(effect, Effect::Executed(_));
            self.carry_out(effect).map_err(|error| error.to_string())?;
        }
        if let Some(reason) = self.part.halted() {
            return Err(reason);
        }
        let (height, round) = self.part.position();
        let state = self.part.state();
        if is_executed {
            self.state.send_replace(Arc::new(state.clone()));
        }
        let votes = state.sites.values().any(|site| site.validator == self.links.me);
        self.shared.stands(Position {
            height: height.saturating_sub(1),
            round,
            primary: state.primary.0,
            votes,
            highest_claimed: self.part.highest_claimed(),
            pending: self.part.pending(),
            refusals: self.part.refusals(),
        });
        if is_executed {
            // Whoever waits for the height has been told; what is left to do for it costs them nothing.
            self.disk.tidy().map_err(|error| error.to_string())?;
        }
        let state = self.part.state();
        if is_executed && state.height >= self.snapshot_height + limits::CLUSTER_SNAPSHOT_HEIGHTS {
            self.keep_snapshot().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), DiskError> {
        match effect {
            Effect::Broadcast(bytes) => {
                let bytes = Bytes::from(bytes);
                let validators: Vec<NodeId> = self.part.state().sites.values().map(|site| site.validator).collect();
                for node in validators.into_iter().filter(|node| *node != self.links.me) {
                    self.say(node, bytes.clone());
                }
            }
            Effect::Send(node, bytes) => self.say(node, bytes.into()),
            Effect::Append(record) => self.disk.append(&record),
            Effect::Flush => {
                let began = Instant::now();
                if self.disk.flush()? {
                    self.shared.flushed_in(began.elapsed());
                }
            }
            Effect::Store(block) => {
                self.disk.store_block(&block)?;
                self.note_commands(&block);
            }
            Effect::SetTimer(timer, ms) => {
                self.timers.insert(timer, Instant::now() + Duration::from_millis(ms));
            }
            Effect::StopTimer(timer) => {
                self.timers.remove(&timer);
            }
            Effect::StopTimers => self.timers.clear(),
            Effect::Executed(executed) => self.shared.executed(executed),
            Effect::Evidence(evidence) => self.caught(evidence),
        }
        Ok(())
    }

    /// Writes down which commands were executed, for those who wait for them.
    fn note_commands(&self, block: &Block) {
        let network = self.part.state().network;
        if let Some(Content::Value(value, _)) = Content::decode(network, &block.bytes) {
            let commands = codec::decode_list::<Signed>(&value.batch, limits::PENDING_COMMANDS_MAX);
            for signed in commands.into_iter().flatten() {
                self.executed.put(signed.author, signed.number, block.height);
            }
        }
    }

    /// A message that cannot be sent is lost: whoever must hear it hears it again.
    fn say(&self, node: NodeId, bytes: Bytes) {
        let _ = self.links.send(node, Channel::Ordering, bytes);
    }

    fn caught(&self, evidence: Evidence) {
        let fields = [
            ("culprit", evidence.culprit.to_string()),
            ("height", evidence.height.to_string()),
            ("round", evidence.round.to_string()),
            ("what", evidence.what.to_string()),
            ("remedy", "that site lies or its key was copied: look at it, then replace its key".to_string()),
        ];
        self.news.tell(Weight::Error, "a site was caught", &fields);
        self.shared.caught(evidence);
    }

    fn keep_snapshot(&mut self) -> Result<(), DiskError> {
        let Some(snapshot) = self.part.snapshot() else { return Ok(()) };
        self.disk.store_snapshot(snapshot.height, &snapshot.bytes)?;
        self.snapshot_height = snapshot.height;
        Ok(())
    }
}
