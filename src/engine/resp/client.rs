//! A client of RESP, as CLIENT LIST tells of it, and the state that its commands leave behind.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;

use crate::base::hash::KeyHash;
use crate::base::id::ConnectionId;
use crate::base::time::Instant;

/// A client of RESP.
pub struct Client {
    /// Its number: unique in the process, later ones are larger.
    pub id: u64,
    pub connection: ConnectionId,
    pub address: Option<SocketAddr>,
    pub local_address: Option<SocketAddr>,
    pub descriptor: i32,
    pub is_resp3: bool,
    pub connected: Instant,
    pub last_active: Instant,
    pub last_command: String,
    /// Bytes of the command that is being done.
    pub frame_bytes: usize,
    pub name: Vec<u8>,
    pub library: Vec<u8>,
    pub library_version: Vec<u8>,
    pub reply_mode: ReplyMode,
    pub no_evict: bool,
    pub no_touch: bool,
    /// What is remembered for it: commands in MULTI, watched keys, channels.
    pub remembered_bytes: usize,
    /// To be closed at the end of the turn.
    pub is_killed: bool,
    /// What few clients have.
    pub rare: Box<Rare>,
}

/// The state that few clients have.
#[derive(Default)]
pub struct Rare {
    pub transaction: Option<Queue>,
    pub watched: Vec<WatchedKey>,
    pub channels: BTreeSet<Vec<u8>>,
    pub patterns: BTreeSet<Vec<u8>>,
    pub tracking: Option<TrackingMode>,
}

/// Commands that wait for EXEC.
#[derive(Default)]
pub struct Queue {
    pub commands: Vec<Vec<Vec<u8>>>,
    pub bytes: usize,
    /// One of them was refused: EXEC will be.
    pub is_bad: bool,
}

/// A key that the next EXEC depends on.
pub struct WatchedKey {
    pub key: Vec<u8>,
    pub hash: KeyHash,
    /// What its shard answered.
    pub token: u64,
}

/// Which replies a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    #[default]
    On,
    Off,
    /// Not the next one.
    SkipNext,
    /// Not this one.
    Skip,
}

/// How a client wants to be told what changes.
#[derive(Clone, Debug, Default)]
pub struct TrackingMode {
    pub receiver: u64,
    pub is_broadcast: bool,
    pub opt_in: bool,
    pub opt_out: bool,
    pub no_loop: bool,
    pub prefixes: Vec<Vec<u8>>,
    /// What CLIENT CACHING said about the next command.
    pub caching: Option<bool>,
    /// The receiver is gone.
    pub is_broken: bool,
}

impl WatchedKey {
    /// What it takes, here and at its shard.
    pub fn bytes(&self) -> usize {
        WatchedKey::bytes_of(&self.key)
    }

    /// What a watched key takes.
    pub fn bytes_of(key: &[u8]) -> usize {
        key.len() + WATCHED_BYTES
    }
}

/// What a watched key takes beside its own bytes.
const WATCHED_BYTES: usize = 128;

impl Client {
    pub fn new(id: u64, connection: ConnectionId, now: Instant) -> Client {
        Client {
            id,
            connection,
            address: None,
            local_address: None,
            descriptor: -1,
            is_resp3: false,
            connected: now,
            last_active: now,
            last_command: "NULL".into(),
            frame_bytes: 0,
            name: Vec::new(),
            library: Vec::new(),
            library_version: Vec::new(),
            reply_mode: ReplyMode::On,
            no_evict: false,
            no_touch: false,
            remembered_bytes: 0,
            is_killed: false,
            rare: Box::default(),
        }
    }

    /// Channels and patterns it listens to.
    pub fn subscriptions(&self) -> usize {
        self.rare.channels.len() + self.rare.patterns.len()
    }

    /// Whether its commands must be looked at one by one.
    pub fn is_stateful(&self) -> bool {
        self.rare.transaction.is_some()
            || self.rare.tracking.is_some()
            || self.reply_mode != ReplyMode::On
            || (!self.is_resp3 && self.subscriptions() > 0)
    }

    /// Whether it is to be told about what it reads with its next command.
    pub fn tracks_next(&self) -> bool {
        self.rare.tracking.as_ref().is_some_and(|mode| {
            let is_left_out =
                (mode.opt_in && mode.caching != Some(true)) || (mode.opt_out && mode.caching == Some(false));
            !mode.is_broadcast && !is_left_out
        })
    }

    /// As CLIENT LIST shows it.
    pub fn line(&self, now: Instant) -> String {
        let mut line = String::new();
        let address = |address: Option<SocketAddr>| address.map_or("?:0".to_string(), |address| address.to_string());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let rare = &self.rare;
        // Writing to a string cannot fail.
        let _ = writeln!(
            line,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db=0 sub={} psub={} ssub=0 multi={} qbuf={} \
             qbuf-free=0 argv-mem=0 multi-mem={} rbs=1024 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={} \
             user=default redir={} resp={} lib-name={} lib-ver={}",
            self.id,
            address(self.address),
            address(self.local_address),
            self.descriptor,
            text(&self.name),
            self.connected.ms_until(now) / 1000,
            self.last_active.ms_until(now) / 1000,
            self.flags(),
            rare.channels.len(),
            rare.patterns.len(),
            rare.transaction.as_ref().map_or(-1, |queue| queue.commands.len() as i64),
            self.frame_bytes,
            rare.transaction.as_ref().map_or(0, |queue| queue.bytes),
            self.last_command,
            match &rare.tracking {
                None => -1,
                Some(mode) if mode.receiver == self.id => 0,
                Some(mode) => mode.receiver as i64,
            },
            if self.is_resp3 { 3 } else { 2 },
            text(&self.library),
            text(&self.library_version),
        );
        line
    }

    fn flags(&self) -> String {
        let mut flags = String::new();
        let rare = &self.rare;
        let tracking = rare.tracking.as_ref();
        let all = [
            ('P', self.subscriptions() > 0),
            ('x', rare.transaction.is_some()),
            ('t', tracking.is_some()),
            ('R', tracking.is_some_and(|mode| mode.is_broken)),
            ('B', tracking.is_some_and(|mode| mode.is_broadcast)),
            ('e', self.no_evict),
            ('T', self.no_touch),
        ];
        flags.extend(all.iter().filter(|(_, is_set)| *is_set).map(|(letter, _)| letter));
        if flags.is_empty() { "N".to_string() } else { flags }
    }

    /// The kind that CLIENT LIST TYPE and CLIENT KILL TYPE ask for.
    pub fn kind(&self) -> &'static str {
        if self.subscriptions() > 0 { "pubsub" } else { "normal" }
    }
}
