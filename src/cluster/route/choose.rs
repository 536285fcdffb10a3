//! The nearest healthy region, without flapping.
//!
//! Every region has a state of health; among the healthy ones the nearest is asked. Both have inertia, for different
//! reasons. *Health*: a lost probe is nothing, three in a row are a lost region, and one that comes back has to answer for
//! a while before it is trusted, longer each time it falls soon again.
//!
//! ```text
//!        first answer           3 missed, or its connections broke
//!   new --------------> up ------------------------------------------> down
//!                        ^                                              |
//!                        '------ 6 answered in a row, over 2.5 s -------'   (twice as many after each early fall)
//! ```
//!
//! *Nearness*: another healthy region replaces the present one if it is nearer by a share and by an absolute margin, for
//! several of its probes in a row, and not before the present one was kept for a while. Two regions that are equally far,
//! or a delay that swings, therefore cause no switch; a present region that is down is left at once. When nobody is
//! healthy, the nearest that answers at all is asked: one that comes back is better than none.
//!
//! What this promises, and the test with hostile series checks: two switches are at least a hold time apart unless the
//! region left is down; a region that is down is never asked while a healthy one is known; the same observations in the
//! same order give the same choices.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::id::SiteId;
use crate::base::limits;
use crate::cluster::route::estimate::Estimate;

/// Watches regions and chooses among them.
#[derive(Clone, Debug)]
pub struct Chooser {
    rules: Rules,
    regions: BTreeMap<SiteId, Watched>,
    current: Option<SiteId>,
    /// When the present region was chosen.
    switched_ms: Option<u64>,
    /// When the first region answered: the first choice waits for the others for a bounded time only.
    first_answer_ms: Option<u64>,
    switches: u64,
}

/// How it chooses. The reasons for the defaults stand beside the limits they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Missed in a row that make a region down.
    pub missed_probes: u32,
    /// Answered in a row that make it up again.
    pub return_probes: u32,
    /// Over at least this time.
    pub return_ms: u64,
    /// Share of the present cost by which another must be nearer, in percent.
    pub better_percent: u64,
    /// Time by which it must be nearer, too.
    pub better_us: u64,
    /// For so many of its probes in a row.
    pub better_probes: u32,
    /// How long a choice holds unless the chosen one is down.
    pub hold_ms: u64,
    /// How long the first choice waits for regions that have not answered.
    pub settle_ms: u64,
}

/// How a region fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not heard of yet.
    New,
    /// It answers.
    Up,
    /// It does not, or has not for long enough.
    Down,
}

/// Another region is asked from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// The one before.
    pub from: Option<SiteId>,
    /// The one now; none, if nobody answers.
    pub to: Option<SiteId>,
    /// Why.
    pub why: Why,
}

/// Why another region is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// There was none before.
    First,
    /// The one before is down, or no longer on the map.
    Down,
    /// The new one is nearer.
    Nearer,
}

/// A region as it is reported.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RegionReport {
    /// Which.
    pub site: SiteId,
    /// How it fares.
    pub health: Health,
    /// It is the one that is asked.
    pub is_current: bool,
    /// The smoothed round trip.
    pub rtt_us: Option<u64>,
    /// What nine of ten recent round trips did not exceed.
    pub rtt_p90_us: Option<u64>,
    /// Part of recent probes missed.
    pub loss: f64,
}

#[derive(Clone, Debug)]
struct Watched {
    estimate: Estimate,
    health: Health,
    missed_in_a_row: u32,
    answered_in_a_row: u32,
    /// When the first of those was answered.
    answering_since_ms: u64,
    up_since_ms: u64,
    /// Falls of which each came soon after the return from the one before.
    falls: u32,
    /// Own probes in a row at which it was nearer than the present region by more than the margins.
    better_in_a_row: u32,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            missed_probes: limits::ROUTE_MISSED_PROBES,
            return_probes: limits::ROUTE_RETURN_PROBES,
            return_ms: limits::ROUTE_RETURN_MS,
            better_percent: limits::ROUTE_BETTER_PERCENT,
            better_us: limits::ROUTE_BETTER_US,
            better_probes: limits::ROUTE_BETTER_PROBES,
            hold_ms: limits::ROUTE_HOLD_MS,
            settle_ms: limits::ROUTE_SETTLE_MS,
        }
    }
}

impl Chooser {
    /// One that knows of no region yet.
    pub fn new(rules: Rules) -> Chooser {
        Chooser {
            rules,
            regions: BTreeMap::new(),
            current: None,
            switched_ms: None,
            first_answer_ms: None,
            switches: 0,
        }
    }

    /// The regions there are from now on. What is known of those that stay is kept.
    pub fn set_regions(&mut self, sites: impl IntoIterator<Item = SiteId>, now_ms: u64) -> Option<Switch> {
        let mut before = std::mem::take(&mut self.regions);
        let kept = sites.into_iter().map(|site| (site, before.remove(&site).unwrap_or_else(Watched::new)));
        self.regions = kept.collect();
        self.choose(now_ms)
    }

    /// A region answered a probe.
    pub fn answered(&mut self, site: SiteId, now_ms: u64, rtt_us: u64) -> Option<Switch> {
        let rules = self.rules;
        let region = self.regions.get_mut(&site)?;
        self.first_answer_ms.get_or_insert(now_ms);
        region.estimate.answered(now_ms, rtt_us, None);
        region.missed_in_a_row = 0;
        if region.answered_in_a_row == 0 {
            region.answering_since_ms = now_ms;
        }
        region.answered_in_a_row = region.answered_in_a_row.saturating_add(1);
        match region.health {
            Health::Up => {}
            Health::New => region.rise(now_ms),
            Health::Down => {
                let doublings = region.falls.saturating_sub(1).min(limits::ROUTE_FALLS_MAX);
                let probes = rules.return_probes.saturating_mul(1 << doublings);
                let lasted_ms = now_ms.saturating_sub(region.answering_since_ms);
                if region.answered_in_a_row >= probes && lasted_ms >= rules.return_ms {
                    region.rise(now_ms);
                }
            }
        }
        self.compare(site, now_ms);
        self.choose(now_ms)
    }

    /// A region did not answer a probe in time.
    pub fn missed(&mut self, site: SiteId, now_ms: u64) -> Option<Switch> {
        let rules = self.rules;
        let region = self.regions.get_mut(&site)?;
        region.estimate.missed(now_ms);
        region.missed_in_a_row = region.missed_in_a_row.saturating_add(1);
        (region.answered_in_a_row, region.better_in_a_row) = (0, 0);
        if region.missed_in_a_row >= rules.missed_probes && region.health != Health::Down {
            region.fall(now_ms);
        }
        self.choose(now_ms)
    }

    /// A region's connections broke, and new ones cannot be made: nothing is to be waited for.
    pub fn lost(&mut self, site: SiteId, now_ms: u64) -> Option<Switch> {
        let region = self.regions.get_mut(&site)?;
        (region.answered_in_a_row, region.better_in_a_row) = (0, 0);
        if region.health != Health::Down {
            region.fall(now_ms);
        }
        self.choose(now_ms)
    }

    /// Time has passed without anything being heard.
    pub fn tick(&mut self, now_ms: u64) -> Option<Switch> {
        self.choose(now_ms)
    }

    /// The region to ask.
    pub fn current(&self) -> Option<SiteId> {
        self.current
    }

    /// How a region fares; none, if it is not on the map.
    pub fn health(&self, site: SiteId) -> Option<Health> {
        self.regions.get(&site).map(|region| region.health)
    }

    /// Healthy regions, the present one first, then the nearest.
    pub fn in_order(&self, now_ms: u64) -> Vec<SiteId> {
        let up = self.regions.iter().filter(|(_, region)| region.health == Health::Up);
        let mut sites: Vec<SiteId> = up.map(|(site, _)| *site).collect();
        sites.sort_by_key(|site| (Some(*site) != self.current, self.cost_us(*site, now_ms), *site));
        sites
    }

    /// Times that another region was chosen, the first choice included.
    pub fn switches(&self) -> u64 {
        self.switches
    }

    /// Every region, for people.
    pub fn report(&self, now_ms: u64) -> Vec<RegionReport> {
        let one = |(site, region): (&SiteId, &Watched)| RegionReport {
            site: *site,
            health: region.health,
            is_current: self.current == Some(*site),
            rtt_us: region.estimate.rtt_us(),
            rtt_p90_us: region.estimate.rtt_p90_us(now_ms),
            loss: region.estimate.loss(now_ms),
        };
        self.regions.iter().map(one).collect()
    }

    /// Counts at how many probes in a row others were nearer than the present region. A probe of another speaks for that
    /// one; one of the present region speaks against all that are no longer nearer.
    fn compare(&mut self, probed: SiteId, now_ms: u64) {
        let Some(present_us) = self.current.and_then(|current| self.regions.get(&current)?.estimate.cost_us(now_ms))
        else {
            return;
        };
        let rules = self.rules;
        let is_nearer = |cost_us: u64| {
            let gain_us = present_us.saturating_sub(cost_us);
            gain_us >= rules.better_us
                && u128::from(gain_us) * 100 >= u128::from(present_us) * rules.better_percent as u128
        };
        for (site, region) in self.regions.iter_mut().filter(|(site, _)| Some(**site) != self.current) {
            match region.estimate.cost_us(now_ms) {
                Some(cost_us) if is_nearer(cost_us) => region.better_in_a_row += u32::from(*site == probed),
                _ => region.better_in_a_row = 0,
            }
        }
    }

    fn choose(&mut self, now_ms: u64) -> Option<Switch> {
        let present = self.current.and_then(|current| self.regions.get(&current));
        if present.is_some_and(|region| region.health == Health::Up) {
            let held_ms = now_ms.saturating_sub(self.switched_ms.unwrap_or(now_ms));
            if held_ms < self.rules.hold_ms {
                return None;
            }
            let needed = self.rules.better_probes;
            let to = self.nearest(now_ms, |region| region.health == Health::Up && region.better_in_a_row >= needed)?;
            return self.switch(Some(to), Why::Nearer, now_ms);
        }
        if self.switched_ms.is_none() && self.is_settling(now_ms) {
            return None;
        }
        let to = self.nearest(now_ms, |region| region.health == Health::Up).or_else(|| {
            // Nobody healthy: whoever answers. Having been chosen, it counts as up, or every probe would ask anew.
            let to = self.nearest(now_ms, |region| region.answered_in_a_row > 0)?;
            self.regions.get_mut(&to)?.rise(now_ms);
            Some(to)
        });
        if to == self.current {
            return None;
        }
        let why = if self.switched_ms.is_none() { Why::First } else { Why::Down };
        self.switch(to, why, now_ms)
    }

    /// Whether the first choice should wait for regions that may be nearer.
    fn is_settling(&self, now_ms: u64) -> bool {
        let is_open =
            |region: &Watched| region.missed_in_a_row == 0 && region.answered_in_a_row < limits::ROUTE_FIRST_PROBES;
        let since = self.first_answer_ms.map_or(0, |first_ms| now_ms.saturating_sub(first_ms));
        since < self.rules.settle_ms && self.regions.values().any(is_open)
    }

    fn nearest(&self, now_ms: u64, is_eligible: impl Fn(&Watched) -> bool) -> Option<SiteId> {
        let eligible = self.regions.iter().filter(|(_, region)| is_eligible(region));
        eligible.map(|(site, _)| *site).min_by_key(|site| (self.cost_us(*site, now_ms), *site))
    }

    fn cost_us(&self, site: SiteId, now_ms: u64) -> u64 {
        self.regions.get(&site).and_then(|region| region.estimate.cost_us(now_ms)).unwrap_or(u64::MAX)
    }

    fn switch(&mut self, to: Option<SiteId>, why: Why, now_ms: u64) -> Option<Switch> {
        let from = std::mem::replace(&mut self.current, to);
        self.regions.values_mut().for_each(|region| region.better_in_a_row = 0);
        self.switched_ms = Some(now_ms);
        self.switches += 1;
        Some(Switch { from, to, why })
    }
}

impl Watched {
    fn new() -> Watched {
        Watched {
            estimate: Estimate::default(),
            health: Health::New,
            missed_in_a_row: 0,
            answered_in_a_row: 0,
            answering_since_ms: 0,
            up_since_ms: 0,
            falls: 0,
            better_in_a_row: 0,
        }
    }

    fn rise(&mut self, now_ms: u64) {
        (self.health, self.up_since_ms) = (Health::Up, now_ms);
    }

    fn fall(&mut self, now_ms: u64) {
        if self.health == Health::Up {
            let was_up_ms = now_ms.saturating_sub(self.up_since_ms);
            let is_early = was_up_ms < limits::ROUTE_FORGIVE_MS;
            self.falls = if is_early { (self.falls + 1).min(limits::ROUTE_FALLS_MAX + 1) } else { 1 };
        }
        self.health = Health::Down;
        self.estimate.forget();
    }
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
