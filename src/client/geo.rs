//! A client that asks the nearest healthy region.
//!
//! ```no_run
//! use spinetail::client::{Geo, RegionOptions};
//! use spinetail::cluster::route::Authorities;
//! let authorities = Authorities::read(&std::fs::read_to_string("cluster.toml")?)?;
//! let mut geo = Geo::connect(&["cache.example:7700".to_string()], authorities, RegionOptions::default())?;
//! geo.set(b"user:7", b"Ada", None)?;
//! assert_eq!(geo.get(b"user:7")?.as_deref(), Some(&b"Ada"[..]));
//! println!("{}", geo.stats());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `regions` says which region that is; here are the requests. They go over one connection, which any shard forwards for:
//! what the hop between cores costs is nothing on a way between regions, and a client that has to move has two round trips
//! before it, not two for each shard. A request ends in one of four ways, and none of them is silent:
//!
//! - It is answered.
//! - It could not be sent, because nobody of the region could be connected to, or the connection had ended before: the
//!   region is given up, and the request, whatever it is, goes to the next one.
//! - It was sent, and the connection broke, or the region went down before it answered. A *read* is made again elsewhere.
//!   A *write* is not: it may have been applied, and the answer is [`GeoError::Unknown`], for only the caller knows
//!   whether twice does harm. A SET made again would undo what somebody else has written in between.
//! - Its time is over.
//!
//! A reply is never taken for another request's: a connection on which something is still awaited is thrown away.
//!
//! Versions are each appliance's own, so there is no compare-and-set here; `Client` has it, for one server.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::id::SiteId;
use crate::client::connection::{Connection, Error};
use crate::client::native::milliseconds;
use crate::client::regions::{RegionOptions, Regions, View};
use crate::cluster::route::{Authorities, Health, RegionReport};
use crate::wire::{Command, Mode, Status};

/// A client of the nearest healthy region, for one thread. Many of one process share what they know of regions.
pub struct Geo {
    regions: Arc<Regions>,
    home: Option<Home>,
    request_timeout: Duration,
    counts: Counts,
    /// Requests answered by each region.
    answered: Vec<(SiteId, u64)>,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GeoError {
    /// Nobody gave out a map that is to be believed; the text says who was asked and what was wrong.
    NoMap(String),
    /// No region answers.
    NoRegion,
    /// The write was sent to this region and not answered: it may or may not have been applied.
    Unknown {
        /// The region.
        site: SiteId,
    },
    /// The read was not answered: not in time, or not however often it was made.
    Unanswered {
        /// The region asked last.
        site: SiteId,
    },
    /// The server refused.
    Refused {
        /// Its status.
        status: Status,
        /// Its words.
        text: String,
    },
}

/// What has come of a client so far. Shown as lines of `name value`.
#[derive(Clone, Debug, PartialEq)]
pub struct GeoStats {
    /// Requests made.
    pub requests: u64,
    /// Requests answered, by region.
    pub answered: Vec<(SiteId, u64)>,
    /// Reads made again elsewhere.
    pub repeated: u64,
    /// Writes whose outcome is unknown.
    pub unknown: u64,
    /// Connections made.
    pub connects: u64,
    /// Connections that broke, or were given up because nothing came.
    pub broken: u64,
    /// Times that another region was chosen, the first choice included; of all clients that share the regions.
    pub switches: u64,
    /// The region asked now.
    pub current: Option<SiteId>,
    /// The height of the map.
    pub map_height: u64,
    /// When it expires, Unix time.
    pub map_expires_ms: u64,
    /// Why no newer one was found, if the last look for one failed.
    pub map_failure: Option<String>,
    /// Each region as it was last measured.
    pub regions: Vec<RegionReport>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    repeated: u64,
    unknown: u64,
    connects: u64,
    broken: u64,
}

/// The connection to a region's node.
struct Home {
    site: SiteId,
    connection: Connection,
    /// The view it was chosen by.
    generation: u64,
}

/// A reply that has been read.
struct Answer {
    status: Status,
    value: Vec<u8>,
    number: u64,
}

/// How one attempt ended.
enum Attempt {
    Answered(Answer),
    Refused(Status, String),
    /// The connection had ended before anything was sent.
    NotSent,
    /// Sent, and not answered.
    Open,
}

impl Geo {
    /// Fetches the map from one of `seeds`, checks it by the validators' keys, and chooses a region.
    pub fn connect(seeds: &[String], authorities: Authorities, options: RegionOptions) -> Result<Geo, GeoError> {
        Ok(Geo::new(Arc::new(Regions::watch(seeds, authorities, options)?)))
    }

    /// A client of regions that are watched already.
    pub fn new(regions: Arc<Regions>) -> Geo {
        let counts = Counts::default();
        Geo { regions, home: None, request_timeout: REQUEST_TIMEOUT, counts, answered: Vec::new() }
    }

    /// How long a request may take, all that is tried for it included.
    pub fn set_request_timeout(&mut self, timeout: Duration) {
        self.request_timeout = timeout;
    }

    /// Reads a value.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, GeoError> {
        let answer = self.read(Command::Get { key })?;
        Ok((answer.status == Status::Ok).then_some(answer.value))
    }

    /// How long a key has left: `None` if it is not stored, `Some(None)` if it does not expire.
    pub fn ttl(&mut self, key: &[u8]) -> Result<Option<Option<Duration>>, GeoError> {
        let answer = self.read(Command::Ttl { key })?;
        Ok(match (answer.status, answer.number) {
            (Status::Ok, u64::MAX) => Some(None),
            (Status::Ok, left_ms) => Some(Some(Duration::from_millis(left_ms))),
            _ => None,
        })
    }

    /// Stores a value, for `ttl` or until it is evicted.
    pub fn set(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<(), GeoError> {
        self.store(key, value, ttl, Mode::Set).map(|_| ())
    }

    /// Stores a value if the key is not stored there. Answers whether it was.
    pub fn add(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool, GeoError> {
        Ok(self.store(key, value, ttl, Mode::Add)? == Status::Ok)
    }

    /// Stores a value if the key is stored there. Answers whether it was.
    pub fn replace(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool, GeoError> {
        Ok(self.store(key, value, ttl, Mode::Replace)? == Status::Ok)
    }

    /// Removes a key. Answers whether it was stored.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, GeoError> {
        Ok(self.write(Command::Delete { key })?.status == Status::Ok)
    }

    /// Adds to a counter, starting at `initial` if there is none. `None`: there is none and no start.
    pub fn increment(&mut self, key: &[u8], delta: i64, initial: Option<i64>) -> Result<Option<i64>, GeoError> {
        let answer = self.write(Command::Increment { key, delta, initial, ttl_ms: 0 })?;
        match answer.status {
            Status::Ok => Ok(Some(answer.number as i64)),
            Status::NotFound => Ok(None),
            status => Err(GeoError::Refused { status, text: String::new() }),
        }
    }

    /// Changes when a key expires. Answers whether it is stored.
    pub fn touch(&mut self, key: &[u8], ttl: Option<Duration>) -> Result<bool, GeoError> {
        Ok(self.write(Command::Touch { key, ttl_ms: milliseconds(ttl) })?.status == Status::Ok)
    }

    /// The region that would be asked now.
    pub fn current(&self) -> Option<SiteId> {
        self.regions.view().order.first().copied()
    }

    /// What has come of it so far.
    pub fn stats(&self) -> GeoStats {
        let view = self.regions.view();
        GeoStats {
            requests: self.counts.requests,
            answered: self.answered.clone(),
            repeated: self.counts.repeated,
            unknown: self.counts.unknown,
            connects: self.counts.connects,
            broken: self.counts.broken,
            switches: self.regions.switches(),
            current: view.order.first().copied(),
            map_height: view.map.height,
            map_expires_ms: view.map.expires_ms,
            map_failure: self.regions.map_failure(),
            regions: self.regions.report(),
        }
    }

    fn store(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>, mode: Mode) -> Result<Status, GeoError> {
        Ok(self.write(Command::Set { key, value, ttl_ms: milliseconds(ttl), mode })?.status)
    }

    fn read(&mut self, command: Command<'_>) -> Result<Answer, GeoError> {
        self.ask(command, false)
    }

    fn write(&mut self, command: Command<'_>) -> Result<Answer, GeoError> {
        self.ask(command, true)
    }

    fn ask(&mut self, command: Command<'_>, is_write: bool) -> Result<Answer, GeoError> {
        self.counts.requests += 1;
        let deadline = Instant::now() + self.request_timeout;
        let mut repeated = 0;
        loop {
            let site = self.go_home(deadline)?;
            match self.attempt(command, is_write, deadline) {
                Attempt::Answered(answer) => {
                    self.count(site);
                    return Ok(answer);
                }
                Attempt::Refused(status, text) => {
                    self.count(site);
                    return Err(GeoError::Refused { status, text });
                }
                Attempt::NotSent => self.leave(),
                Attempt::Open if is_write => {
                    self.leave();
                    self.counts.unknown += 1;
                    return Err(GeoError::Unknown { site });
                }
                Attempt::Open => {
                    self.leave();
                    repeated += 1;
                    if Instant::now() >= deadline || repeated > REPEATS_MAX {
                        return Err(GeoError::Unanswered { site });
                    }
                    self.counts.repeated += 1;
                }
            }
        }
    }

    /// Makes sure of connections to the region that is to be asked; answers which that is.
    fn go_home(&mut self, deadline: Instant) -> Result<SiteId, GeoError> {
        let generation = self.regions.generation();
        if let Some(home) = &self.home
            && home.generation == generation
        {
            return Ok(home.site);
        }
        loop {
            let view = self.regions.wait(deadline, |view| !view.order.is_empty())?;
            let Some(&site) = view.order.first() else { continue };
            if let Some(home) = self.home.as_mut().filter(|home| home.site == site && is_on(&view, site)) {
                home.generation = view.generation;
                return Ok(site);
            }
            self.home = None;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(GeoError::NoRegion);
            }
            for address in self.regions.addresses(site, |node| node.native.as_ref()) {
                if let Ok(connection) = Connection::open(address, None, left.min(CONNECT_TIMEOUT)) {
                    self.counts.connects += 1;
                    self.home = Some(Home { site, connection, generation: view.generation });
                    return Ok(site);
                }
            }
            // Refused or silent at every node: others may know already, the next probes will.
            self.regions.lost(site);
        }
    }

    fn leave(&mut self) {
        self.counts.broken += u64::from(self.home.take().is_some());
    }

    fn attempt(&mut self, command: Command<'_>, is_write: bool, deadline: Instant) -> Attempt {
        let Some(Home { connection, site, .. }) = &mut self.home else { return Attempt::NotSent };
        // A read on a dead connection is made again anyway; for a write this is worth three system calls.
        if is_write && connection.is_closed() {
            return Attempt::NotSent;
        }
        let id = connection.send(command, false);
        if connection.set_read_timeout(LOOK_UP_EVERY).is_err() || connection.flush().is_err() {
            return Attempt::Open;
        }
        loop {
            match connection.receive() {
                Ok(frame) if frame.id == id => {
                    let (status, number) = (frame.reply.status, frame.reply.number);
                    return Attempt::Answered(Answer { status, value: frame.reply.value.to_vec(), number });
                }
                Err(Error::Refused { status, text }) => return Attempt::Refused(status, text),
                Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline || !self.regions.is_up(*site) {
                        return Attempt::Open;
                    }
                }
                Ok(_) | Err(Error::Io(_) | Error::Protocol(_)) => return Attempt::Open,
            }
        }
    }

    fn count(&mut self, site: SiteId) {
        match self.answered.iter_mut().find(|(other, _)| *other == site) {
            Some((_, count)) => *count += 1,
            None => self.answered.push((site, 1)),
        }
    }
}

/// Whether a region is still on the map; its addresses may have changed, which a broken connection will tell.
fn is_on(view: &View, site: SiteId) -> bool {
    view.map.region(site).is_some()
}

impl fmt::Display for GeoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GeoError::NoMap(reason) => write!(f, "no map of regions: {reason}"),
            GeoError::NoRegion => {
                write!(f, "no region answers; see 'spinetail cluster regions', and the network between here and there")
            }
            GeoError::Unknown { site } => write!(
                f,
                "region {site} was sent the write and did not answer: it may have been applied; read the key, or write again if twice does no harm"
            ),
            GeoError::Unanswered { site } => write!(f, "region {site} did not answer"),
            GeoError::Refused { status, text } if text.is_empty() => write!(f, "refused: {status}"),
            GeoError::Refused { status, text } => write!(f, "refused: {status}: {text}"),
        }
    }
}

impl std::error::Error for GeoError {}

impl fmt::Display for GeoStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let site = |site: Option<SiteId>| site.map_or("-".to_string(), |site| site.to_string());
        writeln!(f, "geo_requests {}", self.requests)?;
        for (site, count) in &self.answered {
            writeln!(f, "geo_answered_{site} {count}")?;
        }
        writeln!(f, "geo_repeated {}", self.repeated)?;
        writeln!(f, "geo_unknown {}", self.unknown)?;
        writeln!(f, "geo_connects {}", self.connects)?;
        writeln!(f, "geo_broken {}", self.broken)?;
        writeln!(f, "geo_switches {}", self.switches)?;
        writeln!(f, "geo_current {}", site(self.current))?;
        writeln!(f, "geo_map_height {}", self.map_height)?;
        writeln!(f, "geo_map_expires_ms {}", self.map_expires_ms)?;
        for region in &self.regions {
            let up = u8::from(region.health == Health::Up);
            let us = |us: Option<u64>| us.map_or("-".to_string(), |us| us.to_string());
            let name = region.site;
            writeln!(f, "geo_region_{name}_up {up}")?;
            writeln!(f, "geo_region_{name}_rtt_us {}", us(region.rtt_us))?;
            writeln!(f, "geo_region_{name}_rtt_p90_us {}", us(region.rtt_p90_us))?;
            writeln!(f, "geo_region_{name}_loss {:.4}", region.loss)?;
        }
        Ok(())
    }
}

/// How long a request may take if nothing else is said: a region goes down within three seconds, and what is asked
/// meanwhile is to be answered by another.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Times a read is made again: should it be the request itself that ends connections, not every region gets it for ever.
const REPEATS_MAX: u32 = 3;
/// How long a connection to a node may take, each round trip of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a request that waits looks whether its region is still there.
const LOOK_UP_EVERY: Duration = Duration::from_millis(50);
