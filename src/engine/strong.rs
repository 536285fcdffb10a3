//! Requests about strong keys: they leave the shard for the region's holder of the key, and come back with its answer.
//!
//!   GET, SET, DEL, INCR of a strong key ─ shard ──→ ring ──→ desk (housekeeping cores) ──→ the region's holder
//!                          reply, in order ←─ shard ←── ring ←── answer ←──────────────────────┘
//!
//! Strong entries are not in the shard's store: a majority of the region's voters has them before anybody hears of
//! them, which takes a disk and a network, and neither has a place on a data core. To the shard such a request looks
//! like one that another shard owns: it goes out in a box and its connection's later replies wait behind it. Other
//! requests pay one comparison. What the holder does not do itself takes a look and a replacement (`strong_edit`). What
//! more than one key is asked for, or a transaction, or memcached's protocol, is refused by name: each of these promises
//! something that entries of several holders cannot keep.

use std::sync::{Arc, OnceLock};

use crate::base::limits;
use crate::engine::mailbox::{Consumer, Producer, mailbox};
use crate::engine::post::{Errand, Forward};
use crate::engine::session::Protocol;
use crate::engine::strong_edit::{self, Edited, Held};
use crate::net::Waker;
use crate::wire::native::Native;
use crate::wire::resp::{Resp, encode, single_request};
use crate::wire::{Codec, Command, Decoded, Edit, Mode, Reply, Request};
pub use crate::wire::{Expiry, Status};

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
    /// That it have this value until then.
    Set(Vec<u8>, Expiry),
    /// That it have this value until then, if it has none.
    Add(Vec<u8>, Expiry),
    /// That it have none.
    Delete,
    /// That it be greater by this; none counts as zero.
    Increment(i64),
    /// Something that depends on what it holds: see [`StrongRequest::edit`].
    Edit,
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
    /// What came of an edit.
    Edited(Edited),
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
        let reply = match forward.errand {
            Errand::Request(Protocol::Resp | Protocol::Resp3) => write::<Resp>(&forward, answer),
            _ => write::<Native>(&forward, answer),
        };
        forward.reply.extend_from_slice(&reply);
        let is_sent = self.to.send(forward).is_ok();
        assert!(is_sent, "a shard keeps fewer under way than this ring has slots");
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

impl StrongRequest {
    /// What comes of it if the key holds this, at that time of its holder's.
    pub fn edit(&self, held: Option<Held>, now_ms: u64) -> Edited {
        let request = request_in(&self.forward).expect("it was understood when it was read");
        strong_edit::edit(&request.command, held, now_ms)
    }
}

/// The request in a box, if it is about one key.
fn request_in(forward: &Forward) -> Option<Request<'_>> {
    match forward.errand {
        Errand::Request(Protocol::Resp) => single_request(&forward.frame, false),
        Errand::Request(Protocol::Resp3) => single_request(&forward.frame, true),
        _ => match Native::decode(&forward.frame, limits::VALUE_BYTES_MAX) {
            Decoded::Request(request, _) => Some(request),
            _ => None,
        },
    }
}

/// What a box asks.
fn read(forward: &Forward) -> Result<(Vec<u8>, StrongAsk), &'static str> {
    let request = request_in(forward).ok_or(ONE_KEY)?;
    let key = request.command.key().ok_or(ONE_KEY)?;
    let direct = |mode: Mode, expiry: Expiry, value: &[u8]| match (mode, expiry) {
        (Mode::Set, Expiry::Never | Expiry::In(_)) => Some(StrongAsk::Set(value.to_vec(), expiry)),
        (Mode::Add, Expiry::Never | Expiry::In(_)) => Some(StrongAsk::Add(value.to_vec(), expiry)),
        _ => None,
    };
    let ask = match request.command {
        _ if request.want_version => return Err(WHAT_IS_SERVED),
        Command::Get { .. } => Some(StrongAsk::Read),
        Command::Set { ttl_ms, mode, value, .. } => {
            direct(mode, if ttl_ms == 0 { Expiry::Never } else { Expiry::In(ttl_ms) }, value)
        }
        Command::Edit { edit: Edit::Store { value, expiry, mode, old: false }, .. } => direct(mode, expiry, value),
        Command::Delete { .. } => Some(StrongAsk::Delete),
        Command::Increment { delta, initial: Some(initial), ttl_ms: 0, .. } if initial == delta => {
            Some(StrongAsk::Increment(delta))
        }
        _ => None,
    };
    match ask {
        Some(ask) => Ok((key.to_vec(), ask)),
        None if strong_edit::is_edit(&request.command) => Ok((key.to_vec(), StrongAsk::Edit)),
        None => Err(WHAT_IS_SERVED),
    }
}

fn write<C: Codec>(forward: &Forward, answer: &StrongAnswer) -> Vec<u8> {
    let plain = |status: Status| Reply::status(status);
    let Some(request) = request_in(forward) else {
        // What is no request was refused, and no other answer has come.
        let mut reply = Vec::new();
        encode::error(&format!("ERR {ONE_KEY}"), &mut reply);
        return reply;
    };
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
        StrongAnswer::Edited(edited) => Reply { status: edited.status, value: &edited.value, number: edited.number },
        StrongAnswer::Refused(status, why) => Reply { value: why.as_bytes(), ..plain(*status) },
    };
    let mut reply = Vec::new();
    C::encode_reply(&request, &answered, &mut reply);
    reply
}

/// Why several keys at once are refused.
pub const ONE_KEY: &str = "keys of a strong namespace are asked for one at a time, outside MULTI and tracking";
/// Why anything else is.
pub const WHAT_IS_SERVED: &str =
    "a strong namespace has GET, SET, DEL, INCRBY, EXPIRE, TTL, APPEND and their kin (docs/regions.md), and not this";
/// Why memcached's requests are.
pub const NOT_MEMCACHED: &str = "SERVER_ERROR keys of a strong namespace are served by the native protocol and RESP";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::KeyHash;
    use crate::base::id::ConnectionId;
    use crate::wire::native;

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
        assert_eq!(ask(resp(&["SET", "k", "v"])), Ok(StrongAsk::Set(b"v".to_vec(), Expiry::Never)));
        let lock = StrongAsk::Add(b"v".to_vec(), Expiry::In(30_000));
        assert_eq!(ask(resp(&["SET", "k", "v", "PX", "30000", "NX"])), Ok(lock));
        assert_eq!(ask(resp(&["DEL", "k"])), Ok(StrongAsk::Delete));
        assert_eq!(ask(resp(&["INCRBY", "k", "-3"])), Ok(StrongAsk::Increment(-3)));
        assert_eq!(ask(resp(&["SET", "k", "v", "EXAT", "4000000000"])), Ok(StrongAsk::Edit));
        assert_eq!(ask(resp(&["APPEND", "k", "v"])), Ok(StrongAsk::Edit));
        assert_eq!(ask(resp(&["SETRANGE", "k", "3", "v"])), Err(WHAT_IS_SERVED));
        assert_eq!(ask(native(Command::Get { key: b"k" })), Ok(StrongAsk::Read));
        let set = |ttl_ms, mode| native(Command::Set { key: b"k", value: b"v", ttl_ms, mode });
        assert_eq!(ask(set(0, Mode::Set)), Ok(StrongAsk::Set(b"v".to_vec(), Expiry::Never)));
        assert_eq!(ask(set(5, Mode::Set)), Ok(StrongAsk::Set(b"v".to_vec(), Expiry::In(5))));
        assert_eq!(ask(set(5, Mode::Replace)), Ok(StrongAsk::Edit));
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
        desks[0].send(resp(&["SETRANGE", "k", "3", "v"]));
        assert!(ports.ports[0].next_request().is_none());
        let reply = String::from_utf8(desks[0].next_reply().unwrap().reply).unwrap();
        assert!(reply.starts_with("-ERR a strong namespace has"), "{reply}");
        assert_eq!(desks[0].under_way(), 0);
    }
}
