//! One stream of commands, two servers, every reply compared.
//!
//!   dialect.next() -> batch of ~100 for one connection --> both servers at once
//!                                                     <-- both replies -> dialect.judge()
//!
//! Both get a batch before either is read, so that what depends on the clock happens at nearly the same time. A
//! second connection follows the first in turns: what it does is done before the first goes on. After a difference
//! both servers are emptied and the stream goes on, so that one run shows differences independent of each other.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{self, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use spinetail::base::prng::Prng;

use crate::tolerances::Tolerance;

/// The keys of a run are few and numbered; a set of them is a word. Every bit: commands on the whole database.
pub type KeySet = u32;

pub const ALL_KEYS: KeySet = u32::MAX;

/// The connections of a run: the second one interferes.
pub const CONNECTIONS: usize = 2;

/// Which of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Reference = 0,
    Other = 1,
}

/// One command, or a few that are answered together.
#[derive(Clone, Debug)]
pub struct Request<B, R> {
    pub connection: usize,
    /// What differences are grouped by: the command's name.
    pub name: String,
    pub body: B,
    pub keys: KeySet,
    pub rule: R,
    /// It needs what earlier replies taught.
    pub after_replies: bool,
}

/// What the stream consists of.
#[derive(Clone, Debug)]
pub enum Act<B, R> {
    Send(Request<B, R>),
    /// Longer than what was set to expire soon.
    Pause(Duration),
    /// A conversation whose course is the server's own: [`Dialect::converse`] leads it with each.
    Converse(Request<B, R>),
}

/// What a dialect says of two replies.
#[derive(Clone, Debug)]
pub enum Judgement {
    Equal,
    /// Not equal, and the table says why that is right.
    Explained(&'static Tolerance),
    Different(String),
}

/// What judgement depends on beside the replies.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// How far apart in time the two servers may have done the same.
    pub skew: Duration,
    /// Since the run began.
    pub elapsed: Duration,
}

/// A protocol: what is sent, where a reply ends, what is equal.
pub trait Dialect {
    type Body: Clone;
    type Rule: Clone;

    fn next(&mut self) -> Act<Self::Body, Self::Rule>;

    fn render(&self, body: &Self::Body, side: Side) -> Vec<u8>;

    /// Reads one reply, as it came.
    fn read(&self, from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>>;

    fn judge(
        &mut self,
        request: &Request<Self::Body, Self::Rule>,
        reference: &[u8],
        other: &[u8],
        facts: Facts,
    ) -> Judgement;

    /// Leads a conversation with one server and says what came of it.
    fn converse(
        &self,
        request: &Request<Self::Body, Self::Rule>,
        ask: &mut dyn FnMut(&[u8]) -> io::Result<Vec<u8>>,
    ) -> io::Result<Vec<u8>>;

    /// Brings a connection of either server to the same beginning, whatever was before. Replies are not compared.
    fn reset(&mut self, connection: usize) -> Vec<Vec<u8>>;

    /// The request as a reader wants to see it.
    fn show(&self, request: &[u8]) -> String;
}

/// A run's length and seed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub commands: u64,
    pub seed: u64,
}

/// A server and what it is called in reports.
#[derive(Clone, Debug)]
pub struct Peer {
    pub name: String,
    pub address: SocketAddr,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub commands: u64,
    pub differences: Vec<Difference>,
    report: String,
}

/// Two replies that nothing explains.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Number of the command in its stream, from 1.
    pub number: u64,
    pub name: String,
    pub text: String,
}

impl Plan {
    /// From `SPINETAIL_DIFFERENTIAL=commands,seed`, or these defaults.
    pub fn from_environment(commands: u64, seed: u64) -> Plan {
        let Ok(text) = std::env::var("SPINETAIL_DIFFERENTIAL") else { return Plan { commands, seed } };
        let mut numbers = text.split(',').map(|word| word.trim().replace('_', "").parse::<u64>());
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(commands)), None, None) => Plan { commands, seed },
            (Some(Ok(commands)), Some(Ok(seed)), None) => Plan { commands, seed },
            _ => panic!("SPINETAIL_DIFFERENTIAL is 'commands,seed', not '{text}'"),
        }
    }
}

impl Outcome {
    /// Everything there is to say, for people.
    pub fn report(&self) -> &str {
        &self.report
    }
}

/// Runs the plan. Returns what differed; panics only where the reference itself fails.
pub fn run<D: Dialect>(dialect: D, reference: &Peer, other: &Peer, plan: Plan) -> Outcome {
    let title = format!("{} against {}, seed {}", other.name, reference.name, plan.seed);
    let mut run = Run {
        dialect,
        peers: [reference.clone(), other.clone()],
        wires: Vec::new(),
        prng: Prng::new(plan.seed ^ 0xba7c),
        batch: Batch { connection: 0, requests: Vec::new(), bytes: 0, limit: BATCH_MEAN },
        started: Instant::now(),
        slowest: Duration::ZERO,
        number: 0,
        past: VecDeque::new(),
        differences: Vec::new(),
        explained: BTreeMap::new(),
    };
    let ended_early = run.go(plan.commands).err();
    let mut report = format!("{title}: {} commands, {} unexplained\n", run.number, run.differences.len());
    for (name, (reason, count)) in &run.explained {
        let _ = writeln!(report, "  explained {count} times: {name} ({reason})");
    }
    let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
    for difference in &run.differences {
        *by_name.entry(&difference.name).or_default() += 1;
    }
    if !by_name.is_empty() {
        let counts: Vec<String> = by_name.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(report, "  by command: {}", counts.join(", "));
    }
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for difference in &run.differences {
        let count = shown.entry(&difference.name).or_default();
        *count += 1;
        if *count <= SHOWN_OF_A_COMMAND {
            report.push_str(&difference.text);
        }
    }
    if let Some(why) = ended_early {
        let _ = writeln!(report, "ended early: {why}");
    }
    if !run.differences.is_empty() {
        let _ = writeln!(report, "again: SPINETAIL_DIFFERENTIAL={},{}", plan.commands, plan.seed);
    }
    Outcome { commands: run.number, differences: run.differences, report }
}

struct Run<D: Dialect> {
    dialect: D,
    peers: [Peer; 2],
    /// By connection, then by side.
    wires: Vec<[Wire; 2]>,
    prng: Prng,
    batch: Batch<D::Body, D::Rule>,
    started: Instant,
    /// The longest any batch took: the two servers did the same within this.
    slowest: Duration,
    number: u64,
    past: VecDeque<Past>,
    differences: Vec<Difference>,
    /// How often each row of the table was needed, with its reason.
    explained: BTreeMap<&'static str, (&'static str, u64)>,
}

struct Batch<B, R> {
    connection: usize,
    requests: Vec<Request<B, R>>,
    bytes: usize,
    limit: u64,
}

struct Wire {
    write: TcpStream,
    read: BufReader<TcpStream>,
}

/// A command that has been answered, as far as reports need it.
struct Past {
    number: u64,
    connection: usize,
    keys: KeySet,
    request: String,
    replies: [Vec<u8>; 2],
}

impl<D: Dialect> Run<D> {
    fn go(&mut self, commands: u64) -> Result<(), String> {
        self.begin()?;
        while self.number + (self.batch.requests.len() as u64) < commands {
            match self.dialect.next() {
                Act::Send(request) => {
                    let bytes = self.dialect.render(&request.body, Side::Reference).len();
                    let full = self.batch.requests.len() as u64 >= self.batch.limit
                        || self.batch.bytes + bytes > BATCH_BYTES_MAX
                        || self.batch.connection != request.connection
                        || request.after_replies;
                    if full {
                        self.flush()?;
                    }
                    self.batch.connection = request.connection;
                    self.batch.bytes += bytes;
                    self.batch.requests.push(request);
                }
                Act::Pause(pause) => {
                    self.flush()?;
                    thread::sleep(pause);
                }
                Act::Converse(request) => {
                    self.flush()?;
                    self.converse(&request)?;
                }
            }
            if self.differences.len() >= DIFFERENCES_MAX {
                return Err(format!("{DIFFERENCES_MAX} differences are enough"));
            }
        }
        self.flush()
    }

    /// New connections, and both servers in the same state.
    fn begin(&mut self) -> Result<(), String> {
        self.wires.clear();
        for connection in 0..CONNECTIONS {
            let wires: Vec<Wire> = self.peers.iter().map(Wire::connect).collect::<Result<_, _>>()?;
            let wires: [Wire; 2] = wires.try_into().ok().expect("two peers");
            self.wires.push(wires);
            for line in self.dialect.reset(connection) {
                for side in 0..2 {
                    self.ask(connection, side, &line).map_err(|error| format!("{}: {error}", self.peers[side].name))?;
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, connection: usize, side: usize, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let wire = &mut self.wires[connection][side];
        wire.write.write_all(bytes)?;
        self.dialect.read(&mut wire.read)
    }

    fn flush(&mut self) -> Result<(), String> {
        let requests = std::mem::take(&mut self.batch.requests);
        let connection = self.batch.connection;
        self.batch.bytes = 0;
        self.batch.limit = 1 + self.prng.below(2 * BATCH_MEAN);
        if requests.is_empty() {
            return Ok(());
        }
        let mut lines: [Vec<Vec<u8>>; 2] = [Vec::new(), Vec::new()];
        for (side, lines) in [Side::Reference, Side::Other].into_iter().zip(&mut lines) {
            lines.extend(requests.iter().map(|request| self.dialect.render(&request.body, side)));
        }
        let sent = Instant::now();
        // A server that has closed says so where its reply is read.
        for (wire, lines) in self.wires[connection].iter_mut().zip(&lines) {
            let _ = wire.write.write_all(&lines.concat());
        }
        let mut replies: [Vec<io::Result<Vec<u8>>>; 2] = [Vec::new(), Vec::new()];
        for (wire, replies) in self.wires[connection].iter_mut().zip(&mut replies) {
            for _ in &requests {
                let reply = self.dialect.read(&mut wire.read);
                let failed = reply.is_err();
                replies.push(reply);
                if failed {
                    break;
                }
            }
        }
        self.slowest = self.slowest.max(sent.elapsed());
        let [reference, other] = replies;
        let [lines, _] = lines;
        let (mut reference, mut other) = (reference.into_iter(), other.into_iter());
        for (request, line) in requests.iter().zip(&lines) {
            let (Some(reference), Some(other)) = (reference.next(), other.next()) else { break };
            if !self.settle(request, line, reference, other)? {
                break;
            }
        }
        Ok(())
    }

    fn converse(&mut self, request: &Request<D::Body, D::Rule>) -> Result<(), String> {
        let mut results = Vec::new();
        for side in 0..2 {
            let wire = &mut self.wires[request.connection][side];
            let dialect = &self.dialect;
            let mut ask = |bytes: &[u8]| {
                wire.write.write_all(bytes)?;
                dialect.read(&mut wire.read)
            };
            results.push(dialect.converse(request, &mut ask));
        }
        let line = self.dialect.render(&request.body, Side::Reference);
        let other = results.pop().expect("two");
        let reference = results.pop().expect("two");
        self.settle(request, &line, reference, other).map(|_| ())
    }

    /// Compares two replies; answers whether those behind them are worth comparing.
    fn settle(
        &mut self,
        request: &Request<D::Body, D::Rule>,
        line: &[u8],
        reference: io::Result<Vec<u8>>,
        other: io::Result<Vec<u8>>,
    ) -> Result<bool, String> {
        self.number += 1;
        let reference = reference.unwrap_or_else(|error| {
            panic!("{} does not answer {}: {error}", self.peers[0].name, self.dialect.show(line))
        });
        let facts = Facts { skew: 2 * self.slowest, elapsed: self.started.elapsed() };
        let (other, judgement) = match other {
            Ok(other) => {
                let judgement = self.dialect.judge(request, &reference, &other, facts);
                (other, judgement)
            }
            Err(error) => (Vec::new(), Judgement::Different(format!("no reply: {error}"))),
        };
        let request_shown = self.dialect.show(line);
        let equal = match judgement {
            Judgement::Equal => true,
            Judgement::Explained(row) => {
                self.explained.entry(row.name).or_insert((row.reason, 0)).1 += 1;
                true
            }
            Judgement::Different(why) => {
                let text = self.describe(request, &request_shown, [&reference, &other], &why);
                self.differences.push(Difference { number: self.number, name: request.name.clone(), text });
                false
            }
        };
        if self.past.len() == PAST_MAX {
            self.past.pop_front();
        }
        self.past.push_back(Past {
            number: self.number,
            connection: request.connection,
            keys: request.keys,
            request: request_shown,
            replies: [reference, other].map(|mut reply| {
                reply.truncate(SHOWN_BYTES_MAX + 1);
                reply
            }),
        });
        if !equal {
            self.begin()?;
        }
        Ok(equal)
    }

    fn describe(
        &self,
        request: &Request<D::Body, D::Rule>,
        shown: &str,
        [reference, other]: [&[u8]; 2],
        why: &str,
    ) -> String {
        let mut text = format!("#{} connection {} {shown}\n", self.number, request.connection);
        let at = reference.iter().zip(other).take_while(|(one, two)| one == two).count();
        for (peer, reply) in self.peers.iter().zip([reference, other]) {
            let _ = writeln!(text, "    {:>12}: {}", peer.name, shown_around(reply, at));
        }
        if !why.is_empty() {
            let _ = writeln!(text, "    {why}");
        }
        let before = self.past.iter().rev().filter(|past| past.keys & request.keys != 0);
        for past in before.take(CONTEXT_COMMANDS).collect::<Vec<_>>().into_iter().rev() {
            let [reference, other] = past.replies.each_ref().map(|reply| shown_bytes(reply));
            let _ = write!(
                text,
                "        #{} connection {} {}  ->  {reference}",
                past.number, past.connection, past.request
            );
            let _ = if reference == other { writeln!(text) } else { writeln!(text, "  |  {other}") };
        }
        text
    }
}

impl Wire {
    fn connect(peer: &Peer) -> Result<Wire, String> {
        let write = TcpStream::connect_timeout(&peer.address, REPLY_PATIENCE)
            .map_err(|error| format!("{} takes no connection: {error}", peer.name))?;
        write.set_nodelay(true).unwrap();
        write.set_read_timeout(Some(REPLY_PATIENCE)).unwrap();
        write.set_write_timeout(Some(REPLY_PATIENCE)).unwrap();
        let read = BufReader::with_capacity(64 << 10, write.try_clone().expect("a descriptor"));
        Ok(Wire { write, read })
    }
}

/// Equal bytes are equal; what is not may be explained by a row of the table.
pub fn judge_by(tolerance: Option<&'static Tolerance>, reference: &[u8], other: &[u8], facts: Facts) -> Judgement {
    if reference == other {
        return Judgement::Equal;
    }
    let mut row = tolerance;
    while let Some(asked) = row {
        if (asked.accepts)(reference, other, facts) {
            return Judgement::Explained(asked);
        }
        row = asked.or;
    }
    Judgement::Different(tolerance.map(|row| format!("beyond what '{}' explains", row.name)).unwrap_or_default())
}

/// Bytes as text, cut where they are long.
pub fn shown_bytes(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN_BYTES_MAX {
        return bytes.escape_ascii().to_string();
    }
    format!("{}... ({} bytes or more)", bytes[..SHOWN_BYTES_MAX].escape_ascii(), bytes.len())
}

/// Bytes as text, with the place where they begin to differ in sight.
fn shown_around(bytes: &[u8], at: usize) -> String {
    if at < SHOWN_BYTES_MAX {
        return shown_bytes(bytes);
    }
    let from = (at - 40).min(bytes.len());
    format!("{}... {} bytes ...{}", bytes[..20].escape_ascii(), from - 20, shown_bytes(&bytes[from..]))
}

/// Commands of a batch on average; their number varies between one and twice this.
const BATCH_MEAN: u64 = 100;

/// Bytes of a batch: what the sockets' own buffers hold, so that writing ends before anything is read.
const BATCH_BYTES_MAX: usize = 48 << 10;

/// A server that takes longer than this for a reply has lost it.
const REPLY_PATIENCE: Duration = Duration::from_secs(10);

/// Commands with the same keys shown before a difference.
const CONTEXT_COMMANDS: usize = 5;

/// Commands remembered for that.
const PAST_MAX: usize = 2000;

/// Differences after which a run ends.
const DIFFERENCES_MAX: usize = 300;

/// Differences of one command shown in full.
const SHOWN_OF_A_COMMAND: usize = 8;

/// Bytes of a request or reply shown.
const SHOWN_BYTES_MAX: usize = 200;
