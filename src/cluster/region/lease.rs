//! Promises, assurance, leases: how a holder knows that nobody else serves its homes.
//!
//! Nobody's clock is compared with another's. Each duration is measured by whoever relies on it, from before the
//! question was sent; by whoever has promised it, from after the question arrived. The asker's interval therefore lies
//! within the other's, as long as their clocks run at nearly the same rate ([`limits::REGION_CLOCK_DRIFT_SHARE`]).
//!
//!   leader   |ask ------------------------------- assured until here|
//!   voter        |promise: votes for nobody else ----------------------- until here|
//!
//!   holder        |ask ------------------ lease until here|
//!   leader            |what is left of its assurance ----------------|
//!
//! A voter that has promised itself to a leader votes for no other, and does not stand itself, until the promise is
//! over. A leader that a majority has promised itself to is *assured*: nobody else can be elected, so nobody else can
//! give its homes away. It hands out leases within its assurance only. Hence a new leader need not wait for leases of
//! the one before it, they are over by the time it is elected; for leases of its own it keeps a book (C. Gray,
//! D. Cheriton, "Leases", SOSP 1989; the promise is what the Raft thesis, D. Ongaro 2014, §6.4.1, asks of voters).
//!
//! A process that starts anew has forgotten its promises. It therefore begins with one to everybody.
//!
//! Times are microseconds of the node's own monotonic clock.

use std::collections::BTreeMap;

use crate::base::id::NodeId;
use crate::base::limits;

/// A duration that, measured here, ends before `duration_us` does at a node whose clock runs at another rate.
pub fn shortened_us(duration_us: u64) -> u64 {
    // With e the drift of either clock: (1 - e) / (1 + e) > 1 - 2 e.
    duration_us - duration_us.div_ceil(limits::REGION_CLOCK_DRIFT_SHARE / 2).min(duration_us)
}

/// What a voter has promised.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    until_us: u64,
}

impl Promise {
    /// Of a process that has just started: it may have promised something before.
    pub fn after_start(now_us: u64, promise_us: u64) -> Promise {
        Promise { until_us: now_us.saturating_add(promise_us) }
    }

    /// Whether it may not vote for another than the one it was given to.
    pub fn stands(&self, now_us: u64) -> bool {
        now_us < self.until_us
    }

    /// Promises itself, or goes on with that.
    pub fn give(&mut self, now_us: u64, promise_us: u64) {
        self.until_us = self.until_us.max(now_us.saturating_add(promise_us));
    }
}

/// What a leader knows about its leadership, and what it has let others do within that.
#[derive(Clone, Debug, Default)]
pub struct Assurance {
    until_us: u64,
    /// When each node's lease is surely over; what is over is dropped.
    book: BTreeMap<NodeId, u64>,
}

impl Assurance {
    /// A majority, this node included, has promised itself for `promise_us` after a question that was sent not before
    /// `asked_us`.
    pub fn won(&mut self, asked_us: u64, promise_us: u64) {
        self.until_us = self.until_us.max(asked_us.saturating_add(shortened_us(promise_us)));
    }

    /// This node is no longer leader. What it has let others do stays in the book.
    pub fn lost(&mut self) {
        self.until_us = 0;
    }

    /// Whether nobody else can be leader.
    pub fn is_assured(&self, now_us: u64) -> bool {
        now_us < self.until_us
    }

    /// A lease for a node that asks now: how long it may run from before the node asked. None without assurance.
    pub fn lease(&mut self, node: NodeId, now_us: u64) -> Option<u64> {
        let left_us = self.until_us.checked_sub(now_us).filter(|left_us| *left_us > 0)?;
        let end = self.book.entry(node).or_default();
        *end = (*end).max(self.until_us);
        Some(left_us)
    }

    /// Whether whatever lease this leader has given to a node is surely over.
    pub fn is_over(&mut self, node: NodeId, now_us: u64) -> bool {
        self.book.retain(|_, end_us| now_us < *end_us);
        !self.book.contains_key(&node)
    }
}

/// What a holder has been given: for each home the token and when it ends, so that an answer that arrives late, from a
/// leader of before, prolongs nothing but what that leader had given.
#[derive(Clone, Debug)]
pub struct Lease {
    homes: Vec<(u64, u64)>,
}

impl Default for Lease {
    fn default() -> Lease {
        Lease { homes: vec![(0, 0); limits::REGION_HOMES] }
    }
}

impl Lease {
    /// A leader has answered a question sent not before `asked_us`: these homes, for `left_us`.
    pub fn renewed(&mut self, asked_us: u64, left_us: u64, homes: &[(u8, u64)]) {
        let left_us = left_us.min(limits::REGION_LEASE_MS_MAX * 1000);
        let until_us = asked_us.saturating_add(shortened_us(left_us));
        for (home, token) in homes {
            let Some(held) = self.homes.get_mut(usize::from(*home)) else { continue };
            if held.0 == *token {
                held.1 = held.1.max(until_us);
            } else if held.0 < *token {
                *held = (*token, until_us);
            }
        }
    }

    /// Whether a home may be served under a token now. To be asked after a value was read, not before: then nobody
    /// else had begun to serve when it was.
    pub fn is_held(&self, home: u8, token: u64, now_us: u64) -> bool {
        let held = self.homes.get(usize::from(home));
        token != 0 && held.is_some_and(|(held, until_us)| *held == token && now_us < *until_us)
    }

    /// A home is given back: it is not served under this token any more, whatever comes.
    pub fn release(&mut self, home: u8, token: u64) {
        if let Some(held) = self.homes.get_mut(usize::from(home)).filter(|held| held.0 <= token) {
            // The next token is a higher one; a renewal of this one finds another and changes nothing.
            *held = (token + 1, 0);
        }
    }

    /// How long a home may be served from now on.
    pub fn left_us(&self, home: u8, now_us: u64) -> u64 {
        self.homes.get(usize::from(home)).map_or(0, |(_, until_us)| until_us.saturating_sub(now_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    /// A clock that starts anywhere and runs up to half the bound too fast or too slow, changing its rate as it goes.
    struct Clock {
        shown: f64,
        rate: f64,
    }

    impl Clock {
        fn new(random: &mut Prng) -> Clock {
            Clock { shown: random.below(1 << 40) as f64, rate: 1.0 }
        }
        fn pass(&mut self, us: u64, random: &mut Prng) {
            let drift = 1.0 / limits::REGION_CLOCK_DRIFT_SHARE as f64;
            if random.below(8) == 0 {
                self.rate = 1.0 + drift * (2.0 * random.unit() - 1.0);
            }
            self.shown += us as f64 * self.rate;
        }
        fn us(&self) -> u64 {
            self.shown as u64
        }
    }

    const PROMISE_US: u64 = 100_000;

    /// One leader, a voter whose promise makes its majority, a holder; messages take what they take. Then the voter
    /// votes for somebody else as soon as it may: nobody may still believe in anything by then.
    #[test]
    fn no_lease_outlives_the_promise_it_stands_on_whatever_clocks_and_delays_do() {
        for seed in 0..2_000 {
            let mut random = Prng::new(seed);
            let mut clocks: Vec<Clock> = (0..3).map(|_| Clock::new(&mut random)).collect();
            let pass = |clocks: &mut Vec<Clock>, random: &mut Prng, most: u64| {
                let us = random.below(most);
                clocks.iter_mut().for_each(|clock| clock.pass(us, random));
            };
            let (mut assurance, mut lease) = (Assurance::default(), Lease::default());
            let mut promise = Promise::after_start(clocks[1].us(), PROMISE_US);
            for _ in 0..random.below(6) + 1 {
                let asked = clocks[0].us();
                pass(&mut clocks, &mut random, 60_000);
                promise.give(clocks[1].us(), PROMISE_US);
                pass(&mut clocks, &mut random, 60_000);
                assurance.won(asked, PROMISE_US);
                let asked = clocks[2].us();
                pass(&mut clocks, &mut random, 30_000);
                if let Some(left) = assurance.lease(NodeId(3), clocks[0].us()) {
                    pass(&mut clocks, &mut random, 30_000);
                    lease.renewed(asked, left, &[(1, 9)]);
                }
            }
            while promise.stands(clocks[1].us()) {
                clocks.iter_mut().for_each(|clock| clock.pass(500, &mut random));
            }
            assert!(!assurance.is_assured(clocks[0].us()), "seed {seed}: a leader is assured without its voter");
            assert!(!lease.is_held(1, 9, clocks[2].us()), "seed {seed}: a lease outlives its leader's assurance");
        }
    }

    #[test]
    fn a_clock_beyond_the_bound_breaks_it_so_the_test_above_can_see() {
        let (mut assurance, mut promise) = (Assurance::default(), Promise::after_start(0, 0));
        promise.give(0, PROMISE_US);
        assurance.won(0, PROMISE_US);
        // The leader's clock runs at half the rate.
        assert!(!promise.stands(PROMISE_US) && assurance.is_assured(PROMISE_US / 2));
    }

    #[test]
    fn a_home_is_not_given_away_before_the_lease_given_is_over() {
        let mut assurance = Assurance::default();
        assurance.won(0, PROMISE_US);
        let left = assurance.lease(NodeId(1), 10_000).unwrap();
        assert_eq!(left, shortened_us(PROMISE_US) - 10_000);
        assurance.lost();
        assert!(!assurance.is_over(NodeId(1), 10_000 + left - 1), "also when leadership was lost in between");
        assert_eq!(assurance.lease(NodeId(1), 20_000), None);
        assert!(assurance.is_over(NodeId(1), 10_000 + left) && assurance.is_over(NodeId(2), 0));
    }

    #[test]
    fn a_lease_is_for_the_homes_and_tokens_it_names_and_ends() {
        let mut lease = Lease::default();
        assert!(!lease.is_held(0, 0, 0));
        lease.renewed(1_000, u64::MAX, &[(3, 7), (200, 1)]);
        assert!(lease.is_held(3, 7, 2_000));
        assert!(!lease.is_held(3, 8, 2_000) && !lease.is_held(4, 7, 2_000) && !lease.is_held(200, 1, 2_000));
        lease.release(3, 7);
        lease.renewed(1_000, 1_000_000, &[(3, 7)]);
        assert!(!lease.is_held(3, 7, 2_000), "what was given back is not renewed");
        lease.renewed(1_000, 100, &[(3, 9)]);
        assert!(lease.is_held(3, 9, 1_050) && !lease.is_held(3, 9, 1_100));
        lease.renewed(1_000, 1_000_000, &[(3, 7)]);
        assert!(!lease.is_held(3, 9, 1_100) && !lease.is_held(3, 7, 1_050), "a late answer prolongs nothing");
    }
}
