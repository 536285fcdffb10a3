//! What may be chosen of a cache, and how its memory is divided.
//!
//!   capacity = cells + stripes × (fixed + region + arena)
//!
//! Regions and arenas are one mapping. Where it lies in huge pages its length is a whole number of them, since
//! they are touched whole; that, too, counts against the capacity.

use std::time::Duration;

use crate::base::limits;
use crate::cache::Store;
use crate::embedded::cache::Cache;
use crate::embedded::error::BuildError;
use crate::embedded::memory::PAGE_BYTES;
use crate::embedded::reads::Reads;
use crate::l0::Shape;

/// Chooses how a [`Cache`] is built; see [`Cache::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct Builder {
    pub(super) capacity_bytes: usize,
    pub(super) stripes: Option<usize>,
    pub(super) l0_bytes: Option<usize>,
    pub(super) entry_bytes_max: usize,
    pub(super) time_to_live: Option<Duration>,
    pub(super) populate: bool,
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            capacity_bytes: limits::EMBEDDED_CAPACITY_BYTES_DEFAULT,
            stripes: None,
            l0_bytes: None,
            entry_bytes_max: 0,
            time_to_live: None,
            populate: false,
        }
    }

    /// All the memory that the cache may hold: keys, values, index, L0 and what it learns. 64 MiB if nothing is
    /// said.
    ///
    /// There is no weigher: an entry weighs what it takes, and the mapping is the bound.
    pub fn capacity_bytes(mut self, bytes: usize) -> Builder {
        self.capacity_bytes = bytes;
        self
    }

    /// Stripes, a power of two. Threads that write, or that miss, in one stripe wait for each other; readers of
    /// hot entries never do. If nothing is said: four for each core, as far as each gets 8 MiB.
    pub fn stripes(mut self, stripes: usize) -> Builder {
        self.stripes = Some(stripes);
        self
    }

    /// How much of the capacity is L0, where hits take no lock. If nothing is said: an eighth. An entry takes
    /// 192 bytes there, and values over some 160 bytes a kibibyte more, up to a kibibyte; longer ones, and keys
    /// over 64 bytes, are always read under their stripe's lock. Held to at least 64 KiB a stripe.
    pub fn l0_bytes(mut self, bytes: usize) -> Builder {
        self.l0_bytes = Some(bytes);
        self
    }

    /// Longest entry that must fit, key and a header of at most 11 bytes included, up to 1 MiB. If nothing is
    /// said, some hundredth of a stripe: 32 KiB of the default capacity's. A cache of longer entries has fewer
    /// stripes.
    pub fn entry_bytes_max(mut self, bytes: usize) -> Builder {
        self.entry_bytes_max = bytes;
        self
    }

    /// How long entries are served that are inserted without a time of their own. If nothing is said: until they
    /// are evicted.
    pub fn time_to_live(mut self, ttl: Duration) -> Builder {
        self.time_to_live = Some(ttl);
        self
    }

    /// Touches all memory at once, so that no request pays for its pages. Building then takes some 0.1 s a
    /// gigabyte.
    pub fn populate(mut self, populate: bool) -> Builder {
        self.populate = populate;
        self
    }

    /// Builds the cache.
    ///
    /// # Errors
    /// If the parts do not fit each other, or the system refuses the memory; each says what to change.
    ///
    /// ```
    /// use spinetail::embedded::{BuildError, Cache};
    ///
    /// let refusal = Cache::builder().capacity_bytes(1 << 20).stripes(16).build().unwrap_err();
    /// assert!(matches!(refusal, BuildError::CapacityTooSmall { .. }));
    /// assert!(refusal.to_string().contains("give at least"));
    /// ```
    pub fn build(self) -> Result<Cache, BuildError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let plan = Plan::new(&self, cores)?;
        Cache::new(&self, &plan, cores)
    }
}

/// A cache's memory, divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub stripes: usize,
    /// Of each stripe's region.
    pub shape: Shape,
    pub arena_bytes: usize,
    pub segment_bytes: usize,
    /// Of the whole mapping.
    pub mapped_bytes: usize,
    pub huge_pages: bool,
}

impl Plan {
    /// Divides what `builder` says on a machine of `cores` cores.
    pub fn new(builder: &Builder, cores: usize) -> Result<Plan, BuildError> {
        if builder.entry_bytes_max > limits::SEGMENT_BYTES_MAX {
            return Err(BuildError::EntryTooLarge { entry_bytes: builder.entry_bytes_max });
        }
        if let Some(stripes) = builder.stripes {
            if !stripes.is_power_of_two() || stripes > limits::EMBEDDED_STRIPES_MAX {
                return Err(BuildError::Stripes { stripes });
            }
            return Plan::for_stripes(builder, cores, stripes);
        }
        let wished = (cores * limits::EMBEDDED_STRIPES_PER_CORE).next_power_of_two();
        let in_memory = (builder.capacity_bytes / limits::EMBEDDED_STRIPE_BYTES_AIM).max(1);
        let in_memory = 1 << in_memory.ilog2();
        let mut stripes = wished.min(in_memory).min(limits::EMBEDDED_STRIPES_MAX);
        loop {
            // Fewer stripes, each larger, may have room for entries that are longer.
            match Plan::for_stripes(builder, cores, stripes) {
                Err(BuildError::CapacityTooSmall { .. }) if stripes > 1 => stripes /= 2,
                Err(BuildError::StripeTooLarge { .. }) if stripes < limits::EMBEDDED_STRIPES_MAX => stripes *= 2,
                plan => return plan,
            }
        }
    }

    fn for_stripes(builder: &Builder, cores: usize, stripes: usize) -> Result<Plan, BuildError> {
        let capacity = builder.capacity_bytes;
        let segment_bytes_min = match builder.entry_bytes_max {
            0 => limits::SEGMENT_BYTES_MIN,
            bytes => bytes.next_power_of_two().max(limits::SEGMENT_BYTES_MIN),
        };
        let arena_bytes_min =
            limits::EMBEDDED_ARENA_BYTES_MIN.max(limits::EMBEDDED_SEGMENT_COUNT_MIN * segment_bytes_min);
        let region_bytes_min = match builder.l0_bytes {
            Some(bytes) => pages_of((bytes / stripes).max(limits::L0_REGION_BYTES_MIN as usize)),
            None => limits::L0_REGION_BYTES_MIN as usize,
        };
        let fixed_bytes = Reads::bytes(cores) + stripes * limits::EMBEDDED_STRIPE_FIXED_BYTES;
        let mapped_bytes_min = stripes.saturating_mul(region_bytes_min.saturating_add(arena_bytes_min));

        let huge_pages = capacity >= limits::EMBEDDED_HUGE_PAGES_FROM_BYTES;
        let page_bytes = if huge_pages { HUGE_PAGE_BYTES } else { PAGE_BYTES };
        let mapped_bytes = capacity.saturating_sub(fixed_bytes) / page_bytes * page_bytes;
        if mapped_bytes < mapped_bytes_min {
            let mut needed_bytes = mapped_bytes_min.saturating_add(fixed_bytes);
            if needed_bytes >= limits::EMBEDDED_HUGE_PAGES_FROM_BYTES {
                // There the last page may be lost.
                needed_bytes = needed_bytes.saturating_add(HUGE_PAGE_BYTES);
            }
            return Err(BuildError::CapacityTooSmall { capacity_bytes: capacity, needed_bytes, stripes });
        }
        let share = mapped_bytes / stripes;
        // What nobody asked for gives way to what somebody did.
        let region_bytes = match builder.l0_bytes {
            Some(_) => region_bytes_min,
            None => pages_of(share / limits::L0_MEMORY_SHARE as usize)
                .min(limits::L0_MEMORY_BYTES_DEFAULT_MAX as usize / stripes)
                .min(share - arena_bytes_min)
                .max(region_bytes_min),
        };
        let share = share - region_bytes;
        if share as u64 > limits::ARENA_BYTES_MAX {
            return Err(BuildError::StripeTooLarge { arena_bytes: share as u64 });
        }
        let segment_bytes = Store::<&'static mut [u8]>::segment_bytes_for(share as u64).max(segment_bytes_min);
        // Pieces begin at pages.
        let arena_bytes = pages_of(share) / segment_bytes * segment_bytes;
        let shape = Shape::for_bytes(region_bytes);
        Ok(Plan { stripes, shape, arena_bytes, segment_bytes, mapped_bytes, huge_pages })
    }
}

/// As much of it as is whole pages.
fn pages_of(bytes: usize) -> usize {
    bytes / PAGE_BYTES * PAGE_BYTES
}

const HUGE_PAGE_BYTES: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(builder: &Builder, cores: usize) -> Result<Plan, BuildError> {
        let plan = Plan::new(builder, cores)?;
        let stripe = (plan.shape.words() * 8).next_multiple_of(PAGE_BYTES) + plan.arena_bytes;
        assert!(plan.stripes * stripe <= plan.mapped_bytes, "{plan:?}");
        let fixed = Reads::bytes(cores) + plan.stripes * limits::EMBEDDED_STRIPE_FIXED_BYTES;
        assert!(plan.mapped_bytes + fixed <= builder.capacity_bytes, "{plan:?}");
        assert!(plan.arena_bytes / plan.segment_bytes >= limits::EMBEDDED_SEGMENT_COUNT_MIN, "{plan:?}");
        assert!(plan.segment_bytes >= builder.entry_bytes_max, "{plan:?}");
        Ok(plan)
    }

    #[test]
    fn the_parts_never_exceed_the_whole() {
        for capacity in [1 << 20, 3_333_333, 8 << 20, 31 << 20, 32 << 20, 64 << 20, 1 << 30, 100 << 30] {
            for cores in [1, 2, 3, 64, 500] {
                for entry_bytes_max in [0, 1, 5000, 100 << 10, 1 << 20] {
                    let builder = Builder::new().capacity_bytes(capacity).entry_bytes_max(entry_bytes_max);
                    match plan(&builder, cores) {
                        Ok(plan) => assert!(plan.stripes <= (cores * 4).next_power_of_two() || capacity > 32 << 30),
                        Err(error) => assert!(matches!(error, BuildError::CapacityTooSmall { .. }), "{error}"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_refusal_names_what_suffices() {
        for (stripes, entry_bytes_max) in [(1, 0), (16, 0), (4, 1 << 20), (1024, 0)] {
            let builder = Builder::new().capacity_bytes(100).stripes(stripes).entry_bytes_max(entry_bytes_max);
            let Err(BuildError::CapacityTooSmall { needed_bytes, .. }) = plan(&builder, 2) else {
                panic!("100 bytes were enough");
            };
            plan(&builder.clone().capacity_bytes(needed_bytes), 2).unwrap();
            let less = builder.capacity_bytes(needed_bytes - (2 * HUGE_PAGE_BYTES).min(needed_bytes / 4));
            plan(&less, 2).unwrap_err();
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let error = |builder: Builder| plan(&builder, 2).unwrap_err();
        assert_eq!(error(Builder::new().stripes(3)), BuildError::Stripes { stripes: 3 });
        assert_eq!(error(Builder::new().stripes(0)), BuildError::Stripes { stripes: 0 });
        assert_eq!(error(Builder::new().stripes(2048)), BuildError::Stripes { stripes: 2048 });
        assert!(matches!(error(Builder::new().entry_bytes_max(2 << 20)), BuildError::EntryTooLarge { .. }));
        assert!(matches!(error(Builder::new().capacity_bytes(0)), BuildError::CapacityTooSmall { .. }));
        assert!(matches!(error(Builder::new().l0_bytes(usize::MAX)), BuildError::CapacityTooSmall { .. }));
        let large = Builder::new().capacity_bytes(100 << 30).stripes(1);
        assert!(matches!(error(large), BuildError::StripeTooLarge { .. }));
    }
}
