//! A near cache's subscriptions, and what they say of what is held.
//!
//! Each shard has a generation, and an epoch for each of its buckets. What is held carries a mark, the two as they
//! were *before* its GET was sent; it is served only while both are still the same and the shard's lease lasts:
//!
//!   push of a bucket       ->  its epoch + 1
//!   push of everything     ->  the shard's generation + 1
//!   a lease that ends      ->  every generation + 1
//!   a lost connection, a push missed  ->  the session is lost, with every mark made in it
//!
//! so an invalidation is one addition, however much is held. The order of loads and stores matters: a listener counts
//! epochs up and then stores when its renewal was sent, a reader loads that moment and then the epochs; so who sees
//! the moment sees every epoch that the lease of that moment rests on.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::base::hash::HashSeed;
use crate::base::limits;
use crate::client::connection::{Connection, Error};
use crate::client::transport::Endpoint;
use crate::wire::native::{OPCODE_PUSH, PUSH_EVERYTHING, Subscribed, pushed_buckets};
use crate::wire::{Command, Status};

/// Subscriptions at all shards of a server, from the moment they stand until the first of them is lost.
pub(super) struct Session {
    seed: HashSeed,
    shards: Vec<Watched>,
    lost: AtomicBool,
    clock: Instant,
}

/// What is known of one shard's keys.
struct Watched {
    token: u64,
    lease_ns: u64,
    /// When the last renewal that was answered had been sent, by the session's clock.
    heard_ns: AtomicU64,
    generation: AtomicU32,
    epochs: Vec<AtomicU32>,
}

/// What must stay the same for a value to be served.
#[derive(Clone)]
pub(super) struct Mark {
    session: Arc<Session>,
    shard: u16,
    bucket: u16,
    generation: u32,
    epoch: u32,
}

/// What a listener has to say.
pub(super) enum Event {
    /// So many buckets are no longer what they were.
    Invalidated(u64),
    /// The shard has changed as a whole.
    AllInvalidated,
    /// A lease has ended: nothing is served until it is renewed.
    Expired,
}

impl Session {
    /// Subscribes at every shard. `lease_max` shortens the server's lease.
    pub(super) fn open(
        endpoint: &Endpoint,
        lease_max: Option<Duration>,
        timeout: Duration,
        clock: Instant,
    ) -> Result<(Session, Vec<Connection>), Error> {
        let mut connections = vec![Connection::open(endpoint.clone(), Some(0), timeout)?];
        let hello = connections[0].hello().clone();
        for shard in 1..hello.shard_count {
            connections.push(Connection::open(endpoint.clone(), Some(shard), timeout)?);
        }
        let mut shards = Vec::new();
        for (number, connection) in connections.iter_mut().enumerate() {
            let told = connection.hello().clone();
            if (told.shard as usize, told.shard_count, told.hash_seed) != (number, hello.shard_count, hello.hash_seed) {
                return Err(Error::Protocol(format!(
                    "shard {number} was asked for, {} of another answered",
                    told.shard
                )));
            }
            // Nothing is held yet that a write before this could have changed: it is the first renewal.
            let asked_ns = clock.elapsed().as_nanos() as u64;
            let reply = connection.call(Command::Subscribe, false)?.reply;
            let subscribed = Subscribed::decode(reply.value).map_err(Error::Protocol)?;
            let lease = Duration::from_millis(subscribed.lease_ms.into());
            let lease = lease_max.unwrap_or(lease).min(lease).max(LEASE_MIN);
            shards.push(Watched {
                token: reply.number,
                lease_ns: lease.as_nanos() as u64,
                heard_ns: AtomicU64::new(asked_ns),
                generation: AtomicU32::new(0),
                epochs: (0..subscribed.bucket_count).map(|_| AtomicU32::new(0)).collect(),
            });
            connection.set_read_timeout(lease / (2 * limits::NEAR_RENEWALS_PER_LEASE))?;
        }
        Ok((Session { seed: HashSeed(hello.hash_seed), shards, lost: AtomicBool::new(false), clock }, connections))
    }

    /// What a value of `key` that is asked for from now on depends on, and the token to ask with. `None` while the
    /// shard's lease does not last.
    pub(super) fn mark(self: &Arc<Session>, key: &[u8]) -> Option<(Mark, u64)> {
        let (shard, bucket) = self.place(key);
        let watched = &self.shards[shard as usize];
        let mark = Mark {
            session: self.clone(),
            shard,
            bucket,
            generation: watched.generation.load(Ordering::Acquire),
            epoch: watched.epochs[bucket as usize].load(Ordering::Acquire),
        };
        mark.staleness_ns().map(|_| (mark, watched.token))
    }

    /// Takes away what is held of the bucket of `key`.
    pub(super) fn invalidate(&self, key: &[u8]) {
        let (shard, bucket) = self.place(key);
        self.shards[shard as usize].epochs[bucket as usize].fetch_add(1, Ordering::AcqRel);
    }

    /// Takes away everything for good. Answers whether this was the first call.
    pub(super) fn lose(&self) -> bool {
        !self.lost.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Hears what shard `number` pushes and renews its lease, until the connection or the session is lost or
    /// `stopping` is set.
    pub(super) fn listen(
        &self,
        number: usize,
        mut connection: Connection,
        stopping: &AtomicBool,
        mut tell: impl FnMut(Event),
    ) -> Result<(), Error> {
        let watched = &self.shards[number];
        let renewal_ns = watched.lease_ns / u64::from(limits::NEAR_RENEWALS_PER_LEASE);
        let (mut sequence, mut under_way) = (0u32, None);
        let mut renewed_ns = watched.heard_ns.load(Ordering::Relaxed);
        let (mut answered_ns, mut expired) = (self.now_ns(), false);
        while !stopping.load(Ordering::Relaxed) && !self.is_lost() {
            let now_ns = self.now_ns();
            if under_way.is_none() && now_ns - renewed_ns >= renewal_ns {
                under_way = Some(connection.send(Command::Noop, false));
                renewed_ns = now_ns;
            }
            match connection.receive() {
                Ok(frame) if frame.opcode == OPCODE_PUSH => {
                    sequence = sequence.wrapping_add(1);
                    if frame.id != sequence {
                        return Err(Error::Protocol(format!("push {} where {sequence} was due", frame.id)));
                    }
                    self.take(watched, frame.reply.value, &mut tell)?;
                }
                Ok(frame) if Some(frame.id) == under_way && frame.reply.status == Status::Ok => {
                    under_way = None;
                    watched.heard_ns.store(renewed_ns, Ordering::Release);
                    (answered_ns, expired) = (self.now_ns(), false);
                }
                Ok(frame) => return Err(Error::Protocol(format!("reply {} that nobody awaits", frame.id))),
                Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
            let now_ns = self.now_ns();
            if !expired && now_ns - watched.heard_ns.load(Ordering::Relaxed) >= watched.lease_ns {
                expired = true;
                self.shards.iter().for_each(Watched::invalidate);
                tell(Event::Expired);
            }
            if Duration::from_nanos(now_ns - answered_ns) > SILENCE {
                return Err(Error::Io(ErrorKind::TimedOut.into()));
            }
        }
        Ok(())
    }

    fn take(&self, watched: &Watched, value: &[u8], tell: &mut impl FnMut(Event)) -> Result<(), Error> {
        let mut count = 0;
        for bucket in pushed_buckets(value) {
            if bucket == PUSH_EVERYTHING {
                watched.invalidate();
                tell(Event::AllInvalidated);
                continue;
            }
            let epoch = watched.epochs.get(bucket as usize);
            let epoch = epoch.ok_or_else(|| Error::Protocol(format!("a push about bucket {bucket}")))?;
            epoch.fetch_add(1, Ordering::AcqRel);
            count += 1;
        }
        tell(Event::Invalidated(count));
        Ok(())
    }

    fn place(&self, key: &[u8]) -> (u16, u16) {
        let hash = self.seed.hash(key);
        let shard = hash.shard(self.shards.len() as u16).0;
        (shard, hash.near_bucket(self.shards[shard as usize].epochs.len() as u32) as u16)
    }

    fn now_ns(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }
}

impl Watched {
    fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

impl Mark {
    /// How long ago, at most, what carries this mark was what the server had. `None` if it may be served no more.
    #[inline]
    pub(super) fn staleness_ns(&self) -> Option<u64> {
        let watched = &self.session.shards[self.shard as usize];
        // First of all, see the head of the file.
        let heard_ns = watched.heard_ns.load(Ordering::Acquire);
        let same = watched.generation.load(Ordering::Acquire) == self.generation
            && watched.epochs[self.bucket as usize].load(Ordering::Acquire) == self.epoch
            && !self.session.is_lost();
        let staleness_ns = self.session.now_ns().saturating_sub(heard_ns);
        (same && staleness_ns < watched.lease_ns).then_some(staleness_ns)
    }
}

const LEASE_MIN: Duration = Duration::from_millis(10);
const SILENCE: Duration = Duration::from_millis(limits::NEAR_SILENCE_MS);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A session without a server, whose lease lasts.
    pub(crate) fn session() -> Arc<Session> {
        let watched = || Watched {
            token: 64,
            lease_ns: u64::MAX,
            heard_ns: AtomicU64::new(0),
            generation: AtomicU32::new(0),
            epochs: (0..256).map(|_| AtomicU32::new(0)).collect(),
        };
        let shards = vec![watched(), watched()];
        Arc::new(Session { seed: HashSeed(3), shards, lost: AtomicBool::new(false), clock: Instant::now() })
    }

    #[test]
    fn a_push_takes_away_what_was_asked_for_before_it() {
        let session = session();
        let (before, token) = session.mark(b"key").unwrap();
        assert_eq!(token, 64);
        let (shard, bucket) = session.place(b"key");
        let watched = &session.shards[shard as usize];
        let other = (0..255u8).map(|number| [number]).find(|key| session.place(key).1 != bucket).unwrap();
        let (untouched, _) = session.mark(&other).unwrap();
        let mut told = 0;
        let push = u32::from(bucket).to_le_bytes();
        let mut tell = |event| told += u64::from(matches!(event, Event::Invalidated(1)));
        session.take(watched, &push, &mut tell).unwrap();
        assert_eq!(told, 1);
        assert!(before.staleness_ns().is_none() && untouched.staleness_ns().is_some());
        let (after, _) = session.mark(b"key").unwrap();
        assert!(after.staleness_ns().is_some());
        session.take(watched, &PUSH_EVERYTHING.to_le_bytes(), &mut |_| {}).unwrap();
        assert!(after.staleness_ns().is_none());
        assert!(session.take(watched, &256u32.to_le_bytes(), &mut |_| {}).is_err(), "no such bucket");
    }

    #[test]
    fn nothing_is_served_after_the_lease_nor_after_a_loss() {
        let mut short = session();
        let shards = &mut Arc::get_mut(&mut short).unwrap().shards;
        shards.iter_mut().for_each(|watched| watched.lease_ns = 1);
        assert!(short.mark(b"key").is_none());
        let session = session();
        let (mark, _) = session.mark(b"key").unwrap();
        assert!(mark.staleness_ns().is_some());
        assert!(session.lose() && !session.lose());
        assert!(mark.staleness_ns().is_none() && session.mark(b"key").is_none());
    }
}
