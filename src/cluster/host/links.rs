//! Messages between nodes.
//!
//! Each kind of traffic has its channel, so that a flood on one cannot starve another: a queue of its own on the
//! sending side and on the receiving side, both bounded, both refusing rather than waiting. Two ways to say something:
//!
//! - `send`: one message, no answer. It may be lost, and whoever sends must live with that.
//! - `call`: one message and its answer, or an error after the deadline.
//!
//! What carries the bytes is a [`Carrier`]: mutual TLS over TCP between processes, or [`memory`] within a test.
//! `from` is always whom the carrier has authenticated, never what a message says of itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::base::id::NodeId;
use crate::base::limits;
use crate::cluster::host::lock;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Channel {
    /// Proposals, votes, catching up.
    Ordering = 1,
    /// Raft inside a region.
    Raft = 2,
    /// Streams of entries between regions.
    Replication = 3,
    /// Round trips, measured.
    Probe = 4,
    /// Writes of strong namespaces between the nodes of a region.
    Strong = 5,
    /// Commands on their way to a validator.
    Submit = 6,
}

/// Every channel.
pub const CHANNELS: [Channel; 6] =
    [Channel::Ordering, Channel::Raft, Channel::Replication, Channel::Probe, Channel::Strong, Channel::Submit];

/// A message that has arrived.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Who sent it, as the carrier knows.
    pub from: NodeId,
    /// What it says.
    pub bytes: Bytes,
}

/// What a carrier takes from one node to another.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its channel.
    pub channel: Channel,
    /// What it is.
    pub kind: Kind,
    /// What it says.
    pub bytes: Bytes,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message without an answer.
    Message,
    /// A question, with the asker's number for it.
    Request(u64),
    /// The answer to the question of that number.
    Response(u64),
}

/// Takes frames to other nodes.
pub trait Carrier: Send + Sync {
    /// Queues a frame. Never waits.
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), NotSent>;
}

/// Why a frame was not even queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// Nobody of that number is known.
    Unknown,
    /// The node is not connected.
    Disconnected,
    /// Its queue is full: it is slow, or the link is.
    Full,
    /// It is larger than the channel allows.
    TooLarge,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// It was not sent.
    NotSent(NotSent),
    /// No answer within the deadline.
    Timeout,
    /// Too many questions are open already.
    Busy,
}

/// Answers questions of a channel.
pub type Handler = Arc<dyn Fn(NodeId, Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send>> + Send + Sync>;

/// A node's links to all others.
#[derive(Clone)]
pub struct Links {
    /// The node itself.
    pub me: NodeId,
    carrier: Arc<dyn Carrier>,
    desk: Arc<Desk>,
}

/// Where a node's frames arrive: a carrier holds it and delivers.
///
/// What waits for a channel's listener waits in a queue for each sender, and they take turns: a node that floods a
/// channel loses its own messages and delays nobody else's by more than one of its own.
#[derive(Default)]
pub struct Desk {
    inbound: Mutex<HashMap<Channel, Arc<Inbox>>>,
    handlers: Mutex<HashMap<Channel, Handler>>,
    open: Mutex<HashMap<u64, (NodeId, oneshot::Sender<Bytes>)>>,
    /// Questions of each node that are being answered.
    answering: Arc<Mutex<HashMap<NodeId, usize>>>,
    next: AtomicU64,
    /// Messages nobody had room for.
    pub dropped: AtomicU64,
}

impl Links {
    /// Links that a carrier carries, and whose desk it delivers to.
    pub fn new(me: NodeId, carrier: Arc<dyn Carrier>, desk: Arc<Desk>) -> Links {
        Links { me, carrier, desk }
    }

    /// Sends a message that needs no answer. Never waits.
    pub fn send(&self, to: NodeId, channel: Channel, bytes: Bytes) -> Result<(), NotSent> {
        self.carrier.send(to, Frame { channel, kind: Kind::Message, bytes })
    }

    /// Asks a question and waits for its answer, for `deadline` at most.
    pub async fn call(
        &self,
        to: NodeId,
        channel: Channel,
        bytes: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let number = self.desk.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        {
            let mut open = lock(&self.desk.open);
            if open.len() >= limits::CLUSTER_CALLS_MAX {
                return Err(CallError::Busy);
            }
            open.insert(number, (to, answer));
        }
        // Whatever happens below, the place is given back.
        let place = Place { desk: &self.desk, number };
        self.carrier.send(to, Frame { channel, kind: Kind::Request(number), bytes }).map_err(CallError::NotSent)?;
        let answer = tokio::time::timeout(deadline, answered).await;
        drop(place);
        match answer {
            Ok(Ok(bytes)) => Ok(bytes),
            _ => Err(CallError::Timeout),
        }
    }

    /// The messages of a channel, from now on. Whoever asked before gets no more.
    pub fn listen(&self, channel: Channel) -> mpsc::Receiver<Inbound> {
        let (sender, receiver) = mpsc::channel(limits::CLUSTER_INBOUND_AHEAD);
        lock(&self.desk.inbound).insert(channel, Arc::new(Inbox { listener: sender, waiting: Mutex::default() }));
        receiver
    }

    /// Answers the questions of a channel with `handler` from now on.
    pub fn answer(&self, channel: Channel, handler: Handler) {
        lock(&self.desk.handlers).insert(channel, handler);
    }

    /// Forgets who listens and who answers. What they hold, and what holds these links in turn, is let go.
    pub fn close(&self) {
        lock(&self.desk.inbound).clear();
        lock(&self.desk.handlers).clear();
    }

    /// Messages that arrived and nobody had room for.
    pub fn dropped(&self) -> u64 {
        self.desk.dropped.load(Ordering::Relaxed)
    }
}

impl Desk {
    /// Delivers a frame of a node that the carrier has authenticated; `back` takes the answer to a question there.
    /// Must be called within a tokio runtime.
    pub fn deliver(&self, from: NodeId, frame: Frame, back: &Arc<dyn Carrier>) {
        match frame.kind {
            Kind::Message => {
                let inbox = lock(&self.inbound).get(&frame.channel).cloned();
                if !inbox.is_some_and(|inbox| inbox.take(Inbound { from, bytes: frame.bytes })) {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Kind::Request(number) => {
                let Some(handler) = lock(&self.handlers).get(&frame.channel).cloned() else {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    return;
                };
                let Some(answering) = Answering::begin(&self.answering, from) else {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    return;
                };
                let (back, channel) = (back.clone(), frame.channel);
                tokio::spawn(async move {
                    let _answering = answering;
                    let bytes = handler(from, frame.bytes).await;
                    // Not sent: the asker's deadline tells it.
                    let _ = back.send(from, Frame { channel, kind: Kind::Response(number), bytes });
                });
            }
            Kind::Response(number) => {
                let mut open = lock(&self.open);
                // Only the node that was asked may answer.
                if open.get(&number).is_some_and(|(asked, _)| *asked == from)
                    && let Some((_, answer)) = open.remove(&number)
                {
                    let _ = answer.send(frame.bytes);
                }
            }
        }
    }
}

/// A channel's messages on their way to its listener.
struct Inbox {
    listener: mpsc::Sender<Inbound>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Of each sender its messages and their bytes; no queue is empty.
    queues: BTreeMap<NodeId, (VecDeque<Bytes>, usize)>,
    /// Whose turn was last.
    last: Option<NodeId>,
    /// A task hands messages over, and ends when none is left.
    is_handing_over: bool,
}

impl Inbox {
    /// Takes a message, if its sender has not too many here already and somebody listens.
    fn take(self: &Arc<Inbox>, message: Inbound) -> bool {
        let mut waiting = lock(&self.waiting);
        let message = match waiting.is_handing_over {
            true => message,
            false => match self.listener.try_send(message) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
                Err(mpsc::error::TrySendError::Full(message)) => message,
            },
        };
        let (queue, queued_bytes) = waiting.queues.entry(message.from).or_default();
        let is_full = queue.len() >= limits::CLUSTER_INBOUND_MESSAGES
            || *queued_bytes + message.bytes.len() > limits::CLUSTER_INBOUND_BYTES;
        if is_full {
            return false;
        }
        *queued_bytes += message.bytes.len();
        queue.push_back(message.bytes);
        if !waiting.is_handing_over {
            waiting.is_handing_over = true;
            let inbox = self.clone();
            tokio::spawn(async move {
                while let Some(message) = inbox.next() {
                    if inbox.listener.send(message).await.is_err() {
                        // Nobody listens any more; the flag stays, and what still comes is bounded by the queues.
                        return;
                    }
                }
            });
        }
        true
    }

    /// The next sender's next message, around.
    fn next(&self) -> Option<Inbound> {
        let mut waiting = lock(&self.waiting);
        let after =
            waiting.last.and_then(|last| waiting.queues.range((Bound::Excluded(last), Bound::Unbounded)).next());
        let Some(from) = after.or_else(|| waiting.queues.iter().next()).map(|(from, _)| *from) else {
            waiting.is_handing_over = false;
            return None;
        };
        waiting.last = Some(from);
        let (queue, queued_bytes) = waiting.queues.get_mut(&from)?;
        let bytes = queue.pop_front()?;
        *queued_bytes -= bytes.len();
        if queue.is_empty() {
            waiting.queues.remove(&from);
        }
        Some(Inbound { from, bytes })
    }
}

/// A question that is being answered.
struct Answering {
    counts: Arc<Mutex<HashMap<NodeId, usize>>>,
    from: NodeId,
}

impl Answering {
    fn begin(counts: &Arc<Mutex<HashMap<NodeId, usize>>>, from: NodeId) -> Option<Answering> {
        let mut held = lock(counts);
        let count = held.entry(from).or_default();
        (*count < limits::CLUSTER_ANSWERS_MAX).then(|| *count += 1)?;
        Some(Answering { counts: counts.clone(), from })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(count) = lock(&self.counts).get_mut(&self.from) {
            *count -= 1;
        }
    }
}

struct Place<'a> {
    desk: &'a Desk,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.desk.open).remove(&self.number);
    }
}

impl Channel {
    /// The channel of that number.
    pub fn from_number(number: u8) -> Option<Channel> {
        CHANNELS.into_iter().find(|channel| *channel as u8 == number)
    }
}

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotSent::Unknown => "no such node",
            NotSent::Disconnected => "not connected",
            NotSent::Full => "its queue is full",
            NotSent::TooLarge => "too large for its channel",
        })
    }
}

/// A network within one process, for tests: every pair of nodes has a delay, and may be cut.
pub mod memory {
    use std::collections::{HashMap, HashSet};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::{Carrier, Desk, Frame, Links, NotSent, lock};
    use crate::base::id::NodeId;

    /// The network.
    #[derive(Clone, Default)]
    pub struct Network {
        inner: Arc<Mutex<Inner>>,
    }

    #[derive(Default)]
    struct Inner {
        desks: HashMap<NodeId, Arc<Desk>>,
        delays: HashMap<(NodeId, NodeId), Duration>,
        cut: HashSet<(NodeId, NodeId)>,
        away: HashSet<NodeId>,
    }

    impl Network {
        /// The links of a node that joins, or comes back with nothing.
        pub fn join(&self, me: NodeId) -> Links {
            let desk = Arc::new(Desk::default());
            let mut inner = lock(&self.inner);
            inner.desks.insert(me, desk.clone());
            inner.away.remove(&me);
            Links::new(me, Arc::new(End { me, network: self.clone() }), desk)
        }

        /// A node is gone: nothing leaves or reaches it any more.
        pub fn leave(&self, node: NodeId) {
            let mut inner = lock(&self.inner);
            inner.desks.remove(&node);
            inner.away.insert(node);
        }

        /// One way takes this long, in both directions.
        pub fn set_delay(&self, a: NodeId, b: NodeId, delay: Duration) {
            lock(&self.inner).delays.extend([((a, b), delay), ((b, a), delay)]);
        }

        /// Cuts or heals a link, in both directions.
        pub fn set_cut(&self, a: NodeId, b: NodeId, is_cut: bool) {
            let mut inner = lock(&self.inner);
            for pair in [(a, b), (b, a)] {
                match is_cut {
                    true => inner.cut.insert(pair),
                    false => inner.cut.remove(&pair),
                };
            }
        }
    }

    struct End {
        me: NodeId,
        network: Network,
    }

    impl Carrier for End {
        fn send(&self, to: NodeId, frame: Frame) -> Result<(), NotSent> {
            let delay = {
                let inner = lock(&self.network.inner);
                if inner.cut.contains(&(self.me, to)) || inner.away.contains(&self.me) || inner.away.contains(&to) {
                    return Err(NotSent::Disconnected);
                }
                if !inner.desks.contains_key(&to) {
                    return Err(NotSent::Unknown);
                }
                inner.delays.get(&(self.me, to)).copied().unwrap_or(Duration::ZERO)
            };
            let (me, network) = (self.me, self.network.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let desk = {
                    let inner = lock(&network.inner);
                    if inner.cut.contains(&(me, to)) { None } else { inner.desks.get(&to).cloned() }
                };
                let back: Arc<dyn Carrier> = Arc::new(End { me: to, network: network.clone() });
                if let Some(desk) = desk {
                    desk.deliver(me, frame, &back);
                }
            });
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::memory::Network;
    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn messages_and_answers_arrive_from_whom_they_are() {
        run(async {
            let network = Network::default();
            let (a, b) = (network.join(NodeId(1)), network.join(NodeId(2)));
            let mut inbox = b.listen(Channel::Probe);
            a.send(NodeId(2), Channel::Probe, Bytes::from_static(b"hi")).unwrap();
            let message = inbox.recv().await.unwrap();
            assert_eq!((message.from, &message.bytes[..]), (NodeId(1), &b"hi"[..]));
            b.answer(
                Channel::Raft,
                Arc::new(|from, bytes| Box::pin(async move { [&bytes[..], &from.0.to_le_bytes()].concat().into() })),
            );
            let answer = a.call(NodeId(2), Channel::Raft, Bytes::from_static(b"x"), Duration::from_secs(1)).await;
            assert_eq!(answer.unwrap(), Bytes::from_static(b"x\x01\x00"));
        });
    }

    #[test]
    fn a_node_that_floods_loses_its_own_messages_and_delays_nobody_else() {
        run(async {
            let network = Network::default();
            let b = network.join(NodeId(2));
            let mut inbox = b.listen(Channel::Ordering);
            let back: Arc<dyn Carrier> = Arc::new(Deaf);
            let say = |from: u16, byte: u8| {
                let frame = Frame {
                    channel: Channel::Ordering,
                    kind: Kind::Message,
                    bytes: Bytes::copy_from_slice(&[byte; 9]),
                };
                b.desk.deliver(NodeId(from), frame, &back);
            };
            let flood = limits::CLUSTER_INBOUND_AHEAD + limits::CLUSTER_INBOUND_MESSAGES + 100;
            (0..flood).for_each(|_| say(1, 1));
            assert_eq!(b.dropped(), 100);
            (0..3).for_each(|_| say(3, 3));
            let mut place = Vec::new();
            for at in 0..limits::CLUSTER_INBOUND_AHEAD + limits::CLUSTER_INBOUND_MESSAGES + 3 {
                if inbox.recv().await.unwrap().from == NodeId(3) {
                    place.push(at);
                }
            }
            assert_eq!(place.len(), 3);
            assert!(place[2] <= limits::CLUSTER_INBOUND_AHEAD + 8, "{place:?}");
            // And when the flood is over, messages arrive as before.
            say(1, 7);
            assert_eq!(inbox.recv().await.unwrap().bytes[0], 7);
        });
    }

    struct Deaf;

    impl Carrier for Deaf {
        fn send(&self, _: NodeId, _: Frame) -> Result<(), NotSent> {
            Err(NotSent::Disconnected)
        }
    }

    #[test]
    fn a_cut_link_refuses_and_an_unheard_question_ends_at_its_deadline() {
        run(async {
            let network = Network::default();
            let (a, _b) = (network.join(NodeId(1)), network.join(NodeId(2)));
            let deadline = Duration::from_millis(10);
            let call = a.call(NodeId(2), Channel::Raft, Bytes::new(), deadline).await;
            assert_eq!(call, Err(CallError::Timeout));
            network.set_cut(NodeId(1), NodeId(2), true);
            assert_eq!(a.send(NodeId(2), Channel::Raft, Bytes::new()), Err(NotSent::Disconnected));
            assert_eq!(a.send(NodeId(3), Channel::Raft, Bytes::new()), Err(NotSent::Unknown));
            assert!(lock(&a.desk.open).is_empty(), "a place was not given back");
        });
    }
}
