//! One connection between two nodes, once both are known: frames in, frames out.
//!
//!   | length u32 | channel u8 | kind u8 | 0 u16 | number u64 | bytes … |     little-endian
//!
//! A pair of nodes has a connection for each *group* of channels, so that a stream of entries, which may fill a link
//! for seconds, stands in no queue with votes. Within a group, channels take turns frame by frame. What waits is
//! bounded for each channel by messages and by bytes, and a full queue refuses. When a connection ends, what waited
//! is dropped: every protocol above repeats what it still needs, and old votes are worth nothing.
//!
//! Nothing is trusted but whom it comes from. A frame's length is checked against its channel's bound before
//! anything is reserved for it, and memory grows with bytes that have arrived, not with bytes that were announced.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::base::id::NodeId;
use crate::base::limits;
use crate::cluster::host::links::{Channel, Frame, Kind, NotSent};
use crate::cluster::host::lock;
use crate::cluster::host::refusals::Refusal;

/// Channels that share a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Group {
    /// What sites agree on.
    Order = 0,
    /// What a region's nodes say to each other, and probes.
    Region = 1,
    /// Streams of entries.
    Bulk = 2,
}

/// Every group.
pub const GROUPS: [Group; 3] = [Group::Order, Group::Region, Group::Bulk];

/// Another node, as links see it.
pub struct Peer {
    /// Its number.
    pub id: NodeId,
    /// What waits to be sent to it, by group.
    outboxes: [Outbox; GROUPS.len()],
    /// The last round trip, in microseconds; 0 before the first.
    pub round_trip_us: AtomicU64,
    /// Connections made so far.
    pub connections: AtomicU64,
    /// Bytes of messages that came from it.
    pub received_bytes: AtomicU64,
    /// Bytes of messages that went to it.
    pub sent_bytes: AtomicU64,
    /// Whoever dials it: do so now.
    pub knocked: Notify,
}

/// How a connection ended.
#[derive(Debug)]
pub struct End {
    /// If somebody is to blame: why.
    pub refusal: Option<Refusal>,
    /// What is known of it.
    pub detail: String,
}

impl Peer {
    /// A node that is not connected yet.
    pub fn new(id: NodeId) -> Peer {
        Peer {
            id,
            outboxes: GROUPS.map(Outbox::new),
            round_trip_us: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            knocked: Notify::new(),
        }
    }

    /// Queues a frame.
    pub fn send(&self, frame: Frame) -> Result<(), NotSent> {
        self.outboxes[Group::of(frame.channel) as usize].push(frame)
    }

    /// Whether a group is connected.
    pub fn is_connected(&self, group: Group) -> bool {
        lock(&self.outboxes[group as usize].inner).is_connected
    }

    /// Bytes that wait to be sent.
    pub fn waiting_bytes(&self) -> usize {
        self.outboxes.iter().map(|outbox| lock(&outbox.inner).lanes.iter().map(|lane| lane.bytes).sum::<usize>()).sum()
    }

    /// Ends every connection it has.
    pub fn disconnect(&self) {
        for outbox in &self.outboxes {
            let mut inner = lock(&outbox.inner);
            inner.generation += 1;
            inner.forget();
            outbox.wake.notify_one();
        }
    }

    /// Carries frames until the connection ends, or another takes its place. `deliver` gets what arrives.
    pub async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        group: Group,
        stream: S,
        epoch: Instant,
        deliver: impl Fn(Frame),
    ) -> End {
        let outbox = &self.outboxes[group as usize];
        let generation = outbox.open();
        self.connections.fetch_add(1, Ordering::Relaxed);
        let (reader, writer) = tokio::io::split(stream);
        let end = tokio::select! {
            end = self.read(group, reader, epoch, deliver) => end,
            end = self.write(outbox, generation, writer, epoch) => end,
        };
        outbox.close(generation);
        end
    }

    async fn read<S: AsyncRead + Unpin>(
        &self,
        group: Group,
        mut reader: ReadHalf<S>,
        epoch: Instant,
        deliver: impl Fn(Frame),
    ) -> End {
        let silence = Duration::from_millis(limits::CLUSTER_SILENCE_MS);
        let mut buffer = BytesMut::new();
        loop {
            loop {
                match take(&mut buffer, group) {
                    Ok(None) => break,
                    Ok(Some(Arrived::Frame(frame))) => {
                        self.received_bytes.fetch_add(frame.bytes.len() as u64, Ordering::Relaxed);
                        deliver(frame);
                    }
                    Ok(Some(Arrived::Ping(number))) => self.outboxes[group as usize].answer(number),
                    Ok(Some(Arrived::Pong(number))) => {
                        let now_us = epoch.elapsed().as_micros() as u64;
                        // A pong for a ping that was never sent is a lie about its own round trip, no more.
                        self.round_trip_us.store(now_us.saturating_sub(number).max(1), Ordering::Relaxed);
                    }
                    Err(refusal) => return End { refusal: Some(refusal), detail: "after the greeting".into() },
                }
            }
            buffer.reserve(READ_BYTES);
            match timeout(silence, reader.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => return End { refusal: None, detail: "closed by the peer".into() },
                Ok(Ok(_)) => {}
                // The end of a process says no goodbye in TLS's terms.
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return End { refusal: None, detail: "closed by the peer".into() };
                }
                Ok(Err(error)) => return End { refusal: None, detail: error.to_string() },
                Err(_) => {
                    let detail = format!("nothing for {} ms", limits::CLUSTER_SILENCE_MS);
                    return End { refusal: Some(Refusal::Silent), detail };
                }
            }
        }
    }

    async fn write<S: AsyncWrite + Unpin>(
        &self,
        outbox: &Outbox,
        generation: u64,
        mut writer: WriteHalf<S>,
        epoch: Instant,
    ) -> End {
        let patience = Duration::from_millis(limits::CLUSTER_WRITE_MS);
        let pause = Duration::from_millis(limits::CLUSTER_PING_MS);
        let mut next_ping = tokio::time::Instant::now();
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            if tokio::time::Instant::now() >= next_ping {
                next_ping = tokio::time::Instant::now() + pause;
                put_head(&mut buffer, 0, 0, PING, epoch.elapsed().as_micros() as u64);
            }
            let Some(sent_bytes) = outbox.fill(generation, &mut buffer) else {
                // Somebody else's turn; the wake-up that came here may have been meant for it.
                outbox.wake.notify_one();
                return End { refusal: None, detail: "another connection has taken its place".into() };
            };
            if buffer.is_empty() {
                tokio::select! {
                    () = outbox.wake.notified() => {}
                    () = tokio::time::sleep_until(next_ping) => {}
                }
                continue;
            }
            self.sent_bytes.fetch_add(sent_bytes, Ordering::Relaxed);
            match timeout(patience, write_all(&mut writer, &buffer)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return End { refusal: None, detail: error.to_string() },
                Err(_) => {
                    let detail = format!("took nothing for {} ms", limits::CLUSTER_WRITE_MS);
                    return End { refusal: Some(Refusal::Slow), detail };
                }
            }
            buffer.shrink_to(2 * limits::CLUSTER_WRITE_BYTES);
        }
    }
}

async fn write_all<S: AsyncWrite + Unpin>(writer: &mut WriteHalf<S>, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

impl Group {
    /// The group of a channel.
    pub fn of(channel: Channel) -> Group {
        match channel {
            Channel::Ordering | Channel::Submit => Group::Order,
            Channel::Raft | Channel::Probe | Channel::Strong => Group::Region,
            Channel::Replication => Group::Bulk,
        }
    }

    /// The group of that number.
    pub fn from_number(number: u8) -> Option<Group> {
        GROUPS.into_iter().find(|group| *group as u8 == number)
    }
}

impl Channel {
    /// Bytes a message of it may have.
    pub fn bytes_max(self) -> usize {
        match self {
            Channel::Ordering => limits::CLUSTER_ORDERING_BYTES_MAX,
            Channel::Raft => limits::CLUSTER_RAFT_BYTES_MAX,
            Channel::Replication => limits::CLUSTER_REPLICATION_BYTES_MAX,
            Channel::Probe => limits::CLUSTER_PROBE_BYTES_MAX,
            Channel::Strong => limits::CLUSTER_STRONG_BYTES_MAX,
            Channel::Submit => limits::CLUSTER_SUBMIT_BYTES_MAX,
        }
    }
}

/// What waits to be sent on one connection.
struct Outbox {
    inner: Mutex<Lanes>,
    wake: Notify,
}

struct Lanes {
    is_connected: bool,
    /// Rises with every connection: an older one sees that it has been replaced.
    generation: u64,
    lanes: Vec<Lane>,
    /// Whose turn is next.
    turn: usize,
    /// Numbers of pings to answer.
    pongs: VecDeque<u64>,
}

struct Lane {
    channel: Channel,
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Outbox {
    fn new(group: Group) -> Outbox {
        let channels = crate::cluster::host::links::CHANNELS.into_iter().filter(|channel| Group::of(*channel) == group);
        let lanes = channels.map(|channel| Lane { channel, frames: VecDeque::new(), bytes: 0 }).collect();
        let inner = Lanes { is_connected: false, generation: 0, lanes, turn: 0, pongs: VecDeque::new() };
        Outbox { inner: Mutex::new(inner), wake: Notify::new() }
    }

    /// A new connection takes over.
    fn open(&self) -> u64 {
        let mut inner = lock(&self.inner);
        inner.generation += 1;
        inner.forget();
        inner.is_connected = true;
        self.wake.notify_one();
        inner.generation
    }

    fn close(&self, generation: u64) {
        let mut inner = lock(&self.inner);
        if inner.generation == generation {
            inner.forget();
        }
    }

    fn push(&self, frame: Frame) -> Result<(), NotSent> {
        if frame.bytes.len() > frame.channel.bytes_max() {
            return Err(NotSent::TooLarge);
        }
        let mut inner = lock(&self.inner);
        if !inner.is_connected {
            return Err(NotSent::Disconnected);
        }
        let lane = inner.lanes.iter_mut().find(|lane| lane.channel == frame.channel).ok_or(NotSent::Unknown)?;
        let is_full = lane.frames.len() >= limits::CLUSTER_OUTBOUND_MESSAGES
            || lane.bytes + frame.bytes.len() > limits::CLUSTER_OUTBOUND_BYTES;
        if is_full {
            return Err(NotSent::Full);
        }
        lane.bytes += frame.bytes.len();
        lane.frames.push_back(frame);
        self.wake.notify_one();
        Ok(())
    }

    /// Queues the answer to a ping, unless that node has sent more than it waits for.
    fn answer(&self, number: u64) {
        let mut inner = lock(&self.inner);
        if inner.pongs.len() < PONGS_MAX {
            inner.pongs.push_back(number);
            self.wake.notify_one();
        }
    }

    /// Moves frames to `buffer`, up to about what one write takes; how many bytes of messages that was, or `None` if
    /// another connection has taken over.
    fn fill(&self, generation: u64, buffer: &mut Vec<u8>) -> Option<u64> {
        let mut inner = lock(&self.inner);
        if inner.generation != generation {
            return None;
        }
        while let Some(number) = inner.pongs.pop_front() {
            put_head(buffer, 0, 0, PONG, number);
        }
        let mut sent_bytes = 0;
        while buffer.len() < limits::CLUSTER_WRITE_BYTES {
            let count = inner.lanes.len();
            let turn = inner.turn;
            let Some(at) = (0..count).map(|step| (turn + step) % count).find(|at| !inner.lanes[*at].frames.is_empty())
            else {
                break;
            };
            inner.turn = at + 1;
            let lane = &mut inner.lanes[at];
            let Some(frame) = lane.frames.pop_front() else { break };
            lane.bytes -= frame.bytes.len();
            sent_bytes += frame.bytes.len() as u64;
            let (kind, number) = match frame.kind {
                Kind::Message => (MESSAGE, 0),
                Kind::Request(number) => (REQUEST, number),
                Kind::Response(number) => (RESPONSE, number),
            };
            put_head(buffer, frame.bytes.len() as u32, frame.channel as u8, kind, number);
            buffer.extend_from_slice(&frame.bytes);
        }
        Some(sent_bytes)
    }
}

impl Lanes {
    fn forget(&mut self) {
        self.is_connected = false;
        self.pongs.clear();
        for lane in &mut self.lanes {
            lane.frames.clear();
            lane.bytes = 0;
        }
    }
}

/// What came.
enum Arrived {
    Frame(Frame),
    Ping(u64),
    Pong(u64),
}

const MESSAGE: u8 = 0;
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;
const HEAD_BYTES: usize = 16;
/// Room made for each read.
const READ_BYTES: usize = 32 << 10;
/// Pings of one connection that wait for their answer.
const PONGS_MAX: usize = 16;

fn put_head(buffer: &mut Vec<u8>, length: u32, channel: u8, kind: u8, number: u64) {
    buffer.extend(length.to_le_bytes());
    buffer.extend([channel, kind, 0, 0]);
    buffer.extend(number.to_le_bytes());
}

/// Takes a whole frame from the front of `buffer`, if one is there.
fn take(buffer: &mut BytesMut, group: Group) -> Result<Option<Arrived>, Refusal> {
    let Some(head) = buffer.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let (channel, kind, rest) = (head[4], head[5], [head[6], head[7]]);
    let number = u64::from_le_bytes([head[8], head[9], head[10], head[11], head[12], head[13], head[14], head[15]]);
    if rest != [0, 0] {
        return Err(Refusal::Malformed);
    }
    if kind == PING || kind == PONG {
        if length != 0 || channel != 0 {
            return Err(Refusal::Malformed);
        }
        buffer.advance(HEAD_BYTES);
        return Ok(Some(if kind == PING { Arrived::Ping(number) } else { Arrived::Pong(number) }));
    }
    // A channel of another group would step around its queues.
    let channel = Channel::from_number(channel).filter(|channel| Group::of(*channel) == group);
    let channel = channel.ok_or(Refusal::Malformed)?;
    let kind = match kind {
        MESSAGE => Kind::Message,
        REQUEST => Kind::Request(number),
        RESPONSE => Kind::Response(number),
        _ => return Err(Refusal::Malformed),
    };
    if length > channel.bytes_max() {
        return Err(Refusal::Oversized);
    }
    if buffer.len() < HEAD_BYTES + length {
        return Ok(None);
    }
    buffer.advance(HEAD_BYTES);
    // Small messages are copied: a slice would keep the whole buffer alive for as long as somebody keeps the message.
    let bytes = if length <= READ_BYTES {
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        buffer.advance(length);
        bytes
    } else {
        buffer.split_to(length).freeze()
    };
    Ok(Some(Arrived::Frame(Frame { channel, kind, bytes })))
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
