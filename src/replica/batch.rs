//! Records to frames, and back.
//!
//!   records   | 1 | stream | incarnation | first | sequence | body |
//!   taken     | 2 | stream | incarnation | upto | sixteen words of what came out of order |
//!   body      | length of the records, how packed | records, lz4 if that is shorter |
//!
//! A shard gathers its records for a millisecond, or until they are 32 KiB; that is one body, packed when it is sent. What
//! a node has not been sent yet is gathered further (`stream`): a link that comes back carries few, full frames. A body says how long it will be when unpacked: that is checked against the bound before a byte of
//! memory is reserved for it, so a few bytes cannot become gigabytes.

use bytes::Bytes;

use crate::base::limits;
use crate::replica::record::{Malformed, Reader};
use crate::replica::stream::{MASK_WORDS, Taken};

/// A frame of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Some records.
    Records {
        /// The stream: the sender's shard.
        stream: u16,
        /// When the sender was started: with it numbers begin anew.
        incarnation: u64,
        /// The lowest number that the sender still has. What is missing below will not come.
        first: u64,
        /// The frame's number.
        sequence: u64,
        /// The records, packed.
        body: Bytes,
    },
    /// What has been taken.
    Taken {
        /// Of which stream.
        stream: u16,
        /// Of which incarnation of the sender.
        incarnation: u64,
        /// Which numbers.
        taken: Taken,
    },
}

impl Frame {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Frame::Records { stream, incarnation, first, sequence, body } => {
                out.reserve(HEAD_BYTES + body.len());
                out.push(RECORDS);
                out.extend_from_slice(&stream.to_le_bytes());
                [*incarnation, *first, *sequence]
                    .iter()
                    .for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
                out.extend_from_slice(body);
            }
            Frame::Taken { stream, incarnation, taken } => {
                out.push(TAKEN);
                out.extend_from_slice(&stream.to_le_bytes());
                [*incarnation, taken.upto].iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
                taken.beyond.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
            }
        }
        out.into()
    }

    /// The inverse.
    pub fn decode(bytes: &Bytes) -> Result<Frame, Malformed> {
        if bytes.len() > limits::REPLICATION_FRAME_BYTES_MAX {
            return Err(Malformed("a frame larger than any may be"));
        }
        let mut from = Reader(bytes);
        let (kind, stream, incarnation) = (from.u8()?, from.u16()?, from.u64()?);
        match kind {
            RECORDS => {
                let (first, sequence) = (from.u64()?, from.u64()?);
                if first > sequence {
                    return Err(Malformed("a frame that its sender does not have any more"));
                }
                Ok(Frame::Records { stream, incarnation, first, sequence, body: bytes.slice(HEAD_BYTES..) })
            }
            TAKEN => {
                let mut taken = Taken { upto: from.u64()?, beyond: [0; MASK_WORDS] };
                for word in &mut taken.beyond {
                    *word = from.u64()?;
                }
                Ok(Frame::Taken { stream, incarnation, taken })
            }
            _ => Err(Malformed("a frame of an unknown kind")),
        }
    }
}

/// Packs records.
pub fn pack(records: &[u8]) -> Bytes {
    let packed = if records.len() >= PACK_BYTES_MIN { lz4_flex::block::compress(records) } else { Vec::new() };
    let (is_packed, body) =
        if packed.is_empty() || packed.len() >= records.len() { (0, records) } else { (IS_PACKED, packed.as_slice()) };
    let mut out = Vec::with_capacity(4 + body.len());
    out.extend_from_slice(&(records.len() as u32 | is_packed).to_le_bytes());
    out.extend_from_slice(body);
    out.into()
}

/// The inverse.
pub fn unpack(body: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut from = Reader(body);
    let head = from.u32()?;
    let length = (head & !IS_PACKED) as usize;
    if length > limits::REPLICATION_FRAME_BYTES_MAX {
        return Err(Malformed("more records than a frame may hold"));
    }
    if head & IS_PACKED == 0 {
        return if from.0.len() == length { Ok(from.0.to_vec()) } else { Err(Malformed("it ends too early")) };
    }
    let mut records = vec![0; length];
    match lz4_flex::block::decompress_into(from.0, &mut records) {
        Ok(written) if written == length => Ok(records),
        _ => Err(Malformed("packed bytes that cannot be unpacked")),
    }
}

const RECORDS: u8 = 1;
const TAKEN: u8 = 2;
/// Before the body of records.
const HEAD_BYTES: usize = 1 + 2 + 8 + 8 + 8;
/// The top bit of a body's length.
const IS_PACKED: u32 = 1 << 31;
/// Fewer bytes are not worth the trouble.
const PACK_BYTES_MIN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    #[test]
    fn frames_and_bodies_are_read_as_they_were_written() {
        for length in [0, 1, 100, 127, 128, 5_000, limits::REPLICATION_FRAME_BYTES_MAX] {
            let alike = vec![b'a'; length];
            let mut prng = Prng::new(length as u64);
            let random: Vec<u8> = (0..length).map(|_| prng.next_u64() as u8).collect();
            for records in [alike, random] {
                let body = pack(&records);
                assert!(body.len() <= 4 + records.len());
                assert_eq!(unpack(&body).unwrap(), records);
            }
        }
        let frame = Frame::Records { stream: 3, incarnation: 4, first: 5, sequence: 6, body: pack(&[b'x'; 1000]) };
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        let frame = Frame::Taken { stream: 3, incarnation: 4, taken: Taken { upto: 9, beyond: [5; MASK_WORDS] } };
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }

    #[test]
    fn hostile_frames_and_bodies_are_refused_without_harm() {
        let mut prng = Prng::new(23);
        let frame = Frame::Records { stream: 3, incarnation: 4, first: 5, sequence: 6, body: pack(&[b'x'; 300]) };
        let whole = frame.encode();
        for _ in 0..100_000 {
            let mut bytes = whole[..prng.below(whole.len() as u64 + 1) as usize].to_vec();
            for _ in 0..prng.below(4) {
                if !bytes.is_empty() {
                    let at = prng.below(bytes.len() as u64) as usize;
                    bytes[at] = prng.next_u64() as u8;
                }
            }
            if let Ok(Frame::Records { body, .. }) = Frame::decode(&bytes.into()) {
                let _ = unpack(&body);
            }
        }
    }

    #[test]
    fn a_body_that_would_grow_beyond_the_bound_is_refused_before_it_does() {
        let bomb = pack(&vec![0; 64 << 20]);
        assert!(bomb.len() < limits::REPLICATION_FRAME_BYTES_MAX);
        assert!(unpack(&bomb).is_err());
        let mut lie = pack(&[0; 4096]).to_vec();
        lie[0] ^= 1;
        assert!(unpack(&lie).is_err(), "another length than it says");
    }
}
