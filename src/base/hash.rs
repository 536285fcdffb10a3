//! The key hash: XXH3-64 with a seed that the server draws at start and tells clients at HELLO.
//!
//!   63                32 31                 0
//!   | shard, tag, ghost  | bucket            |
//!
//! One hash is computed per request and travels with it. A client computes the same one to find
//! the owner shard, which is why it is a published hash with a library in every language. The
//! seed keeps strangers from aiming all their keys at one shard or one bucket.

use crate::base::id::ShardId;

/// The hash of one key under one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub u64);

/// The seed of a running server's key hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSeed(pub u64);

impl HashSeed {
    /// Hashes `key`.
    #[inline]
    pub fn hash(self, key: &[u8]) -> KeyHash {
        KeyHash(xxhash_rust::xxh3::xxh3_64_with_seed(key, self.0))
    }
}

impl KeyHash {
    /// The shard that owns this hash when there are `shard_count` shards.
    ///
    /// `(hash >> 32) * shard_count >> 32`: a range partition of the upper half, so it needs no
    /// division and stays independent of the lower half, which picks the bucket.
    #[inline]
    pub fn shard(self, shard_count: u16) -> ShardId {
        ShardId((((self.0 >> 32) * u64::from(shard_count)) >> 32) as u16)
    }

    /// The bits that pick a bucket.
    #[inline]
    pub fn bucket_bits(self) -> u32 {
        self.0 as u32
    }

    /// The bucket in which near caches register their interest, of `count`, a power of two up to 65,536: the upper
    /// bits of the lower half, so that it depends neither on the shard choice nor on the tag.
    #[inline]
    pub fn near_bucket(self, count: u32) -> u32 {
        (self.0 as u32 >> 16) & (count - 1)
    }

    /// Eight bits, never zero, kept in the index slot, so that most misses never read an item. Taken
    /// from the low end of the upper half: the shard choice depends on the high end, the bucket on
    /// the other half.
    #[inline]
    pub fn tag(self) -> u8 {
        ((self.0 >> 32) as u8).max(1)
    }

    /// Twelve bits, never zero, that a ghost keeps of its key.
    #[inline]
    pub fn fingerprint(self) -> u32 {
        let bits = (self.0 >> 40) as u32 & 0xfff;
        if bits == 0 { 1 } else { bits }
    }
}

/// For maps whose keys are numbers already: one multiply-mix is hash enough.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildMix;

/// The hasher [`BuildMix`] builds.
#[derive(Default)]
pub struct MixHasher(u64);

impl std::hash::BuildHasher for BuildMix {
    type Hasher = MixHasher;
    fn build_hasher(&self) -> MixHasher {
        MixHasher::default()
    }
}

impl std::hash::Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = crate::base::prng::mix(self.0 ^ number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_published_xxh3() {
        // XXH3_64bits of the empty input with seed 0, from the reference implementation's vectors.
        assert_eq!(HashSeed(0).hash(b"").0, 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn shards_share_the_keys_evenly() {
        let mut counts = [0u32; 3];
        for i in 0..30_000u64 {
            counts[HashSeed(7).hash(&i.to_le_bytes()).shard(3).0 as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (9_500..10_500).contains(&n)), "{counts:?}");
    }
}
