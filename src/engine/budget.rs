//! How a server's memory is divided, so that `--memory` means all of it.
//!
//!   memory = process + L0 + admin + shards × (fixed + connections + arena)
//!
//! The same division is used by `replay --charge all`, which is why a server and a replay of the
//! same size see the same arena.

use crate::base::limits;
use crate::base::units::format_bytes;
use crate::cache::Store;

/// The parts of one server's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of each shard's arena, a whole number of segments.
    pub arena_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: usize,
    /// Bytes that each shard's connections may buffer.
    pub connection_bytes: u64,
    /// Connections of a shard.
    pub connection_count_max: usize,
}

impl Budget {
    /// Divides `memory_bytes` among `shards` shards.
    /// Rings of shared-memory connections are set aside if there may be any, and what L0 and the admin listener take.
    pub fn new(memory_bytes: u64, shards: u16, shm: bool, set_aside_bytes: u64) -> Result<Budget, String> {
        let shards = u64::from(shards.max(1));
        let shm_bytes = if shm { limits::SHM_BYTES } else { 0 };
        let process_bytes = limits::PROCESS_BYTES + set_aside_bytes;
        let least = process_bytes + shards * (limits::SHARD_MEMORY_BYTES_MIN + shm_bytes);
        if memory_bytes < least {
            return Err(format!(
                "--memory {} is too little for {shards} shard(s): give at least {}",
                format_bytes(memory_bytes),
                format_bytes(least),
            ));
        }
        let share = (memory_bytes - process_bytes) / shards - shm_bytes;
        let connection_bytes = (share / limits::CONNECTION_MEMORY_SHARE)
            .clamp(limits::CONNECTION_MEMORY_BYTES_MIN, limits::CONNECTION_MEMORY_BYTES_MAX);
        let arena = (share - limits::SHARD_FIXED_BYTES - connection_bytes).min(limits::ARENA_BYTES_MAX);
        let segment_bytes = Store::<Vec<u8>>::segment_bytes_for(arena);
        let arena_bytes = arena / segment_bytes as u64 * segment_bytes as u64;
        let table = connection_bytes / limits::CONNECTION_TABLE_SHARE;
        let connection_count_max = limits::CONNECTION_COUNT_MAX.min((table / limits::CONNECTION_BYTES) as usize);
        let connection_bytes = connection_bytes - connection_count_max as u64 * limits::CONNECTION_BYTES;
        Ok(Budget { arena_bytes, segment_bytes, connection_bytes, connection_count_max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_never_exceed_the_whole() {
        for memory in [16u64 << 20, 24 << 20, 100 << 20, 1 << 30, 64 << 30] {
            for shards in [1u16, 2, 16, 200] {
                let Ok(budget) = Budget::new(memory, shards, false, 0) else { continue };
                let table = budget.connection_count_max as u64 * limits::CONNECTION_BYTES;
                let shard = budget.arena_bytes + budget.connection_bytes + table + limits::SHARD_FIXED_BYTES;
                assert!(limits::PROCESS_BYTES + u64::from(shards) * shard <= memory);
                assert!(budget.arena_bytes / budget.segment_bytes as u64 >= limits::SEGMENT_COUNT_MIN as u64);
            }
        }
    }

    #[test]
    fn too_little_memory_is_refused_with_the_least_that_works() {
        let refusal = Budget::new(4 << 20, 1, false, 0).unwrap_err();
        assert!(refusal.contains("16.0 MiB"), "{refusal}");
    }
}
