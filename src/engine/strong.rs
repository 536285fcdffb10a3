//! Requests about strong keys: they leave the shard for the region's holder of the key, and come back with its answer.
//!
//!   GET, SET, DEL, INCR of a strong key ─ shard ──→ ring ──→ desk (housekeeping cores) ──→ the region's holder
//!                          reply, in order ←─ shard ←── ring ←── answer ←──────────────────────┘
//!
//! Strong entries are not in the shard's store: a majority of the region's voters has them before anybody hears of
//! them, which takes a disk and a network, and neither has a place on a data core. To the shard such a request looks
//! like one that another shard owns: it goes out in a box and its connection's later replies wait behind it. Other
//! requests pay one comparison. What more than one key is asked for, or a transaction, or memcached's protocol, is
//! refused by name: each of these promises something that entries of several holders cannot keep.

use std::sync::{Arc, OnceLock};

use crate::base::limits;
use crate::engine::mailbox::{Consumer, Producer, mailbox};
use crate::engine::post::{Errand, Forward};
use crate::engine::session::Protocol;
use crate::net::Waker;
pub use crate::wire::Status;
use crate::wire::native::Native;
use crate::wire::resp::{Resp, Resp3};
use crate::wire::{Codec, Command, Decoded, Edit, Expiry, Mode, Reply};

/// A shard's end of its way to the holders of strong keys.
pub struct Desk {
    to: Producer<Box<Forward>>,
    from: Consumer<Box<Forward>>,
    bell: Bell,
    under_way: usize,
    is_due: bool,
}

/// The other end of one shard's.
pub struct DeskPort {
    from: Consumer<Box<Forward>>,
    to: Producer<Box<Forward>>,
    waker: Option<Waker>,
}

/// The other ends of all shards, and the bell that says that something has come.
pub struct DeskPorts {
    /// One for each shard.
    pub ports: Vec<DeskPort>,
    /// Rung by shards.
    pub bell: Bell,
}

/// Rung by shards; whoever shall hear it hangs up a clapper. Ringing never waits.
#[derive(Clone, Default)]
pub struct Bell(Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>);

/// A request about a strong key, with the box that its answer goes back in.
pub struct StrongRequest {
    /// The key.
    pub key: Vec<u8>,
    /// What is asked.
    pub ask: StrongAsk,
    forward: Box<Forward>,
}

/// What can be asked about a strong key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrongAsk {
    /// Its value.
    Read,
    /// That it have this value.
    Set(Vec<u8>),
    /// That it have this value, if it has none.
    Add(Vec<u8>),
    /// That it have none.
    Delete,
    /// That it be greater by this; none counts as zero.
    Increment(i64),
}

/// What is answered about one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrongAnswer {
    /// Its value, to a read.
    Value(Option<Vec<u8>>),
    /// Done.
    Done,
    /// Whether there was something to delete, or room for what was added.
    Was(bool),
    /// The sum.
    Sum(i64),
    /// Not done, or not known to be: the status says which, the text what to do.
    Refused(Status, &'static str),
}

/// Both ends for `count` shards.
pub fn connect(count: usize) -> (Vec<Desk>, DeskPorts) {
    let bell = Bell::default();
    let (mut desks, mut ports) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (to_desk, from_shard) = mailbox(limits::STRONG_UNDER_WAY_MAX);
        let (to_shard, from_desk) = mailbox(limits::STRONG_UNDER_WAY_MAX);
        desks.push(Desk { to: to_desk, from: from_desk, bell: bell.clone(), under_way: 0, is_due: false });
        ports.push(DeskPort { from: from_shard, to: to_shard, waker: None });
    }
    (desks, DeskPorts { ports, bell })
}

impl Bell {
    /// What ringing does from now on. Whoever was first stays.
    pub fn hang(&self, clapper: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(clapper));
    }

    fn ring(&self) {
        if let Some(clapper) = self.0.get() {
            clapper();
        }
    }
}

impl Desk {
    /// Whether another request may be sent.
    pub fn has_room(&self) -> bool {
        self.under_way < limits::STRONG_UNDER_WAY_MAX
    }

    /// Sends one; the caller has asked for room.
    pub(super) fn send(&mut self, forward: Box<Forward>) {
        let is_sent = self.to.send(forward).is_ok();
        assert!(is_sent, "fewer were under way than the ring has slots");
        (self.under_way, self.is_due) = (self.under_way + 1, true);
    }

    /// The next answer.
    pub(super) fn next_reply(&mut self) -> Option<Box<Forward>> {
        let forward = self.from.receive()?;
        self.under_way -= 1;
        Some(forward)
    }

    /// Whether an answer waits.
    pub(super) fn has_reply(&self) -> bool {
        self.from.has_message()
    }

    /// Requests under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Rings, if something was sent since it last rang.
    pub(super) fn wake(&mut self) {
        if std::mem::take(&mut self.is_due) {
            self.bell.ring();
        }
    }
}

impl DeskPorts {
    /// Who wakes each shard.
    pub(super) fn set_wakers(&mut self, waker: impl Fn(u16) -> Waker) {
        self.ports.iter_mut().zip(0..).for_each(|(port, shard)| port.waker = Some(waker(shard)));
    }
}

impl DeskPort {
    /// The next request. What cannot be asked about strong keys is answered here.
    pub fn next_request(&mut self) -> Option<StrongRequest> {
        loop {
            let forward = self.from.receive()?;
            match read(&forward) {
                Ok((key, ask)) => return Some(StrongRequest { key, ask, forward }),
                Err(why) => self.give_back(forward, &StrongAnswer::Refused(Status::Unsupported, why)),
            }
        }
    }

    /// Answers one.
    pub fn answer(&mut self, request: StrongRequest, answer: &StrongAnswer) {
        self.give_back(request.forward, answer);
    }

    fn give_back(&mut self, mut forward: Box<Forward>, answer: &StrongAnswer) {
        match forward.errand {
            Errand::Request(Protocol::Resp) => write::<Resp>(&mut forward, answer),
            Errand::Request(Protocol::Resp3) => write::<Resp3>(&mut forward, answer),
            _ => write::<Native>(&mut forward, answer),
        }
        let is_sent = self.to.send(forward).is_ok();
        assert!(is_sent, "a shard keeps fewer under way than this ring has slots");
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

/// What a box asks.
fn read(forward: &Forward) -> Result<(Vec<u8>, StrongAsk), &'static str> {
    match forward.errand {
        Errand::Request(Protocol::Resp) => read_as::<Resp>(&forward.frame),
        Errand::Request(Protocol::Resp3) => read_as::<Resp3>(&forward.frame),
        _ => read_as::<Native>(&forward.frame),
    }
}

fn read_as<C: Codec>(frame: &[u8]) -> Result<(Vec<u8>, StrongAsk), &'static str> {
    let Decoded::Request(request, _) = C::decode(frame, limits::VALUE_BYTES_MAX) else {
        return Err(ONE_KEY);
    };
    let Some(key) = request.command.key() else { return Err(ONE_KEY) };
    let store = |mode: Mode, value: &[u8]| match mode {
        Mode::Set => Ok(StrongAsk::Set(value.to_vec())),
        Mode::Add => Ok(StrongAsk::Add(value.to_vec())),
        Mode::Replace | Mode::CompareAndSet(_) => Err(WHAT_IS_SERVED),
    };
    let ask = match request.command {
        _ if request.want_version => Err(WHAT_IS_SERVED),
        Command::Get { .. } => Ok(StrongAsk::Read),
        Command::Set { ttl_ms: 0, mode, value, .. } => store(mode, value),
        Command::Edit { edit: Edit::Store { value, expiry: Expiry::Never, mode, old: false }, .. } => {
            store(mode, value)
        }
        Command::Set { .. } | Command::Edit { edit: Edit::Store { .. }, .. } => Err(NO_EXPIRY),
        Command::Delete { .. } => Ok(StrongAsk::Delete),
        Command::Increment { delta, initial: Some(initial), ttl_ms: 0, .. } if initial == delta => {
            Ok(StrongAsk::Increment(delta))
        }
        _ => Err(WHAT_IS_SERVED),
    }?;
    Ok((key.to_vec(), ask))
}

fn write<C: Codec>(forward: &mut Forward, answer: &StrongAnswer) {
    let Forward { frame, reply, .. } = forward;
    let Decoded::Request(request, _) = C::decode(frame, limits::VALUE_BYTES_MAX) else {
        panic!("a shard sent its desk what does not decode");
    };
    let plain = |status: Status| Reply::status(status);
    let is_add = matches!(
        request.command,
        Command::Set { mode: Mode::Add, .. } | Command::Edit { edit: Edit::Store { mode: Mode::Add, .. }, .. }
    );
    let answered = match answer {
        StrongAnswer::Value(Some(value)) => Reply { value, ..plain(Status::Ok) },
        StrongAnswer::Value(None) => plain(Status::NotFound),
        StrongAnswer::Done | StrongAnswer::Was(true) => plain(Status::Ok),
        StrongAnswer::Was(false) if is_add => plain(Status::Exists),
        StrongAnswer::Was(false) => plain(Status::NotFound),
        StrongAnswer::Sum(sum) => Reply { number: *sum as u64, ..plain(Status::Ok) },
        StrongAnswer::Refused(status, why) => Reply { value: why.as_bytes(), ..plain(*status) },
    };
    C::encode_reply(&request, &answered, reply);
}

/// Why several keys at once are refused.
pub const ONE_KEY: &str = "keys of a strong namespace are asked for one at a time, outside MULTI and tracking";
/// Why anything else is.
pub const WHAT_IS_SERVED: &str = "a strong namespace has GET, SET, SET NX, DEL and INCRBY: ask for one of these";
/// Why an expiry is.
pub const NO_EXPIRY: &str = "keys of a strong namespace do not expire: SET without a time to live";
/// Why memcached's requests are.
pub const NOT_MEMCACHED: &str = "SERVER_ERROR keys of a strong namespace are served by the native protocol and RESP";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::KeyHash;
    use crate::base::id::ConnectionId;
    use crate::wire::{Request, native};

    fn boxed(errand: Errand, frame: &[u8]) -> Box<Forward> {
        let mut forward = Box::new(Forward::empty());
        (forward.errand, forward.hash, forward.connection) = (errand, KeyHash(0), ConnectionId::default());
        forward.frame.extend_from_slice(frame);
        forward
    }

    fn resp(words: &[&str]) -> Box<Forward> {
        let mut frame = format!("*{}\r\n", words.len()).into_bytes();
        words.iter().for_each(|word| frame.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
        boxed(Errand::Request(Protocol::Resp), &frame)
    }

    fn native(command: Command<'_>) -> Box<Forward> {
        let mut frame = Vec::new();
        native::encode_request(&Request { id: 7, want_version: false, command }, &mut frame);
        boxed(Errand::Request(Protocol::Native), &frame)
    }

    #[test]
    fn one_key_requests_of_both_protocols_are_understood() {
        let ask = |forward: Box<Forward>| read(&forward).map(|(_, ask)| ask);
        assert_eq!(ask(resp(&["GET", "k"])), Ok(StrongAsk::Read));
        assert_eq!(ask(resp(&["SET", "k", "v"])), Ok(StrongAsk::Set(b"v".to_vec())));
        assert_eq!(ask(resp(&["SET", "k", "v", "NX"])), Ok(StrongAsk::Add(b"v".to_vec())));
        assert_eq!(ask(resp(&["DEL", "k"])), Ok(StrongAsk::Delete));
        assert_eq!(ask(resp(&["INCRBY", "k", "-3"])), Ok(StrongAsk::Increment(-3)));
        assert_eq!(ask(resp(&["SET", "k", "v", "EX", "3"])), Err(NO_EXPIRY));
        assert_eq!(ask(resp(&["APPEND", "k", "v"])), Err(WHAT_IS_SERVED));
        assert_eq!(ask(native(Command::Get { key: b"k" })), Ok(StrongAsk::Read));
        let set = |ttl_ms, mode| native(Command::Set { key: b"k", value: b"v", ttl_ms, mode });
        assert_eq!(ask(set(0, Mode::Set)), Ok(StrongAsk::Set(b"v".to_vec())));
        assert_eq!(ask(set(5, Mode::Set)), Err(NO_EXPIRY));
        assert_eq!(ask(set(0, Mode::CompareAndSet(3))), Err(WHAT_IS_SERVED));
    }

    #[test]
    fn answers_go_back_in_the_protocol_they_were_asked_in() {
        let (mut desks, mut ports) = connect(1);
        let mut answered = |forward: Box<Forward>, answer: StrongAnswer| {
            desks[0].send(forward);
            let request = ports.ports[0].next_request().unwrap();
            ports.ports[0].answer(request, &answer);
            String::from_utf8(desks[0].next_reply().unwrap().reply).unwrap()
        };
        assert_eq!(answered(resp(&["GET", "k"]), StrongAnswer::Value(Some(b"v".to_vec()))), "$1\r\nv\r\n");
        assert_eq!(answered(resp(&["GET", "k"]), StrongAnswer::Value(None)), "$-1\r\n");
        assert_eq!(answered(resp(&["SET", "k", "v"]), StrongAnswer::Done), "+OK\r\n");
        assert_eq!(answered(resp(&["SET", "k", "v", "NX"]), StrongAnswer::Was(false)), "$-1\r\n");
        assert_eq!(answered(resp(&["INCR", "k"]), StrongAnswer::Sum(-4)), ":-4\r\n");
        assert_eq!(answered(resp(&["DEL", "k"]), StrongAnswer::Was(true)), ":1\r\n");
        let refused = StrongAnswer::Refused(Status::NoPrimary, "try again");
        assert_eq!(answered(resp(&["GET", "k"]), refused), "-TRYAGAIN try again\r\n");
        let unknown = StrongAnswer::Refused(Status::OutcomeUnknown, "look");
        assert_eq!(answered(resp(&["INCR", "k"]), unknown), "-UNKNOWN look\r\n");
    }

    #[test]
    fn what_strong_keys_do_not_have_is_answered_at_the_desk() {
        let (mut desks, mut ports) = connect(1);
        desks[0].send(resp(&["APPEND", "k", "v"]));
        assert!(ports.ports[0].next_request().is_none());
        let reply = String::from_utf8(desks[0].next_reply().unwrap().reply).unwrap();
        assert!(reply.starts_with("-ERR a strong namespace has"), "{reply}");
        assert_eq!(desks[0].under_way(), 0);
    }
}
