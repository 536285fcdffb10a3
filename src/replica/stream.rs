//! Numbered frames from one shard to one node, until they have arrived.
//!
//!   sender     first ..= sent ..= next          in order, again after a while, forgotten when taken
//!   receiver   upto | bits of what came beyond  taken in any order, each once
//!
//! Records commute, so a frame is applied when it comes and nothing waits for what is missing before it. The numbers are
//! there to find out that something is missing. A sender that gets no answer keeps at most so many bytes: when they are
//! full it lets go of all of them and says so by the lowest number it still has. A receiver that sees that number pass
//! what it is waiting for knows that those frames will not come, and compares digests instead. So an outage costs a
//! bounded amount of memory however long it lasts, and no record is waited for that nobody has.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::base::limits;
use crate::replica::batch::pack;

/// What a receiver has taken: all numbers up to one, and some beyond it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// All up to this one.
    pub upto: u64,
    /// Bit n of these says that `upto + 1 + n` is taken as well.
    pub beyond: [u64; MASK_WORDS],
}

/// Words of the bits beyond.
pub const MASK_WORDS: usize = 16;

/// Frames that may be beyond.
const MASK_BITS: u64 = MASK_WORDS as u64 * 64;

/// What a frame carries.
#[derive(Debug)]
enum Body {
    /// Records that were not sent yet: the next ones may join them.
    Open(Vec<u8>),
    /// Packed, as they are sent.
    Packed(Bytes),
    /// They are taken.
    Taken,
}

/// The sending end.
#[derive(Debug, Default)]
pub struct Sender {
    frames: VecDeque<Outgoing>,
    bytes: usize,
    /// The number of the last frame; the first is one.
    last: u64,
    /// The number of the last frame that was taken from the front.
    cleared: u64,
    /// Frames let go of because nobody took them.
    pub let_go: u64,
    /// Frames that were sent again.
    pub sent_again: u64,
}

#[derive(Debug)]
struct Outgoing {
    sequence: u64,
    body: Body,
    queued_ms: u64,
    sent_ms: Option<u64>,
}

impl Sender {
    /// Queues records. When there is no room for them, they go with all others, and the receiver will know.
    pub fn push(&mut self, records: &[u8], now_ms: u64) {
        if self.bytes + FRAME_BYTES + records.len() > limits::REPLICATION_OUTBOX_BYTES_MAX {
            self.let_go += self.frames.iter().filter(|frame| !matches!(frame.body, Body::Taken)).count() as u64 + 1;
            self.frames.clear();
            self.bytes = 0;
            self.skip(now_ms);
            return;
        }
        // Whoever has not been sent the frames before gets fewer and larger ones.
        if let Some(Outgoing { body: Body::Open(open), .. }) = self.frames.back_mut()
            && open.len() + records.len() <= limits::REPLICATION_CHUNK_BYTES
        {
            open.extend_from_slice(records);
            self.bytes += records.len();
            return;
        }
        self.queue(Body::Open(records.to_vec()), now_ms);
    }

    /// Something was not even queued: a number nobody will get, and an empty frame behind it that tells so.
    pub fn skip(&mut self, now_ms: u64) {
        self.last += 1;
        self.queue(Body::Packed(EMPTY_BODY), now_ms);
    }

    /// Calls `send` with the lowest number kept, the number and the body of each frame that is due. It answers whether
    /// it took the frame; if not, the rest waits.
    pub fn send_due(&mut self, now_ms: u64, mut send: impl FnMut(u64, u64, &Bytes) -> bool) {
        let first = self.frames.front().map_or(self.last + 1, |frame| frame.sequence);
        let mut in_flight = 0;
        for frame in &mut self.frames {
            if frame.sequence - first >= MASK_BITS || in_flight > limits::REPLICATION_IN_FLIGHT_BYTES_MAX {
                break;
            }
            in_flight += frame.body.len();
            if let Body::Open(records) = &frame.body {
                let packed = Body::Packed(pack(records));
                self.bytes = self.bytes - frame.body.len() + packed.len();
                frame.body = packed;
            }
            let Body::Packed(body) = &frame.body else { continue };
            let is_due = frame.sent_ms.is_none_or(|sent| sent + limits::REPLICATION_RESEND_MS <= now_ms);
            if !is_due {
                continue;
            }
            if !send(first, frame.sequence, body) {
                break;
            }
            self.sent_again += u64::from(frame.sent_ms.is_some());
            frame.sent_ms = Some(now_ms);
        }
    }

    /// The receiver has said what it has taken.
    pub fn taken(&mut self, taken: &Taken) {
        let mut before = self.cleared;
        for frame in &mut self.frames {
            if frame.sequence > taken.upto.saturating_add(MASK_BITS) {
                break;
            }
            // Behind a number that nobody will get, a frame is done with only when the receiver has gone past that
            // number. It does so when it hears of it, from a frame that is the first there is; one that came while
            // those before the hole were still under way has not told it.
            let follows_hole = frame.sequence != before + 1;
            before = frame.sequence;
            if follows_hole && taken.upto < frame.sequence {
                continue;
            }
            // What was not sent cannot have been taken, whatever they say.
            if taken.has(frame.sequence) && matches!(frame.body, Body::Packed(_)) {
                self.bytes -= frame.body.len();
                frame.body = Body::Taken;
            }
        }
        while let Some(frame) = self.frames.front().filter(|frame| matches!(frame.body, Body::Taken)) {
            self.cleared = frame.sequence;
            self.frames.pop_front();
            self.bytes -= FRAME_BYTES;
        }
    }

    /// Frames that are not taken yet.
    pub fn waiting(&self) -> usize {
        self.frames.len()
    }

    /// How long the oldest of them has waited.
    pub fn lag_ms(&self, now_ms: u64) -> u64 {
        self.frames.front().map_or(0, |frame| now_ms.saturating_sub(frame.queued_ms))
    }

    /// Bytes of memory that those take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn queue(&mut self, body: Body, now_ms: u64) {
        self.last += 1;
        self.bytes += FRAME_BYTES + body.len();
        self.frames.push_back(Outgoing { sequence: self.last, body, queued_ms: now_ms, sent_ms: None });
    }
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Body::Open(records) => records.len(),
            Body::Packed(body) => body.len(),
            Body::Taken => 0,
        }
    }
}

/// The receiving end.
#[derive(Debug, Default)]
pub struct Receiver {
    incarnation: u64,
    taken: Taken,
    /// Frames that came twice.
    pub repeated: u64,
    /// Times that frames were missing which will not come.
    pub gaps: u64,
    /// There is something to say to the sender.
    pub owes_answer: bool,
}

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// It is new: apply it, then call [`Receiver::take`].
    pub is_new: bool,
    /// Frames are missing that will not come: compare digests.
    pub is_gap: bool,
    /// The sender was started anew. What it had not yet sent here is lost with it, and others may have it: compare
    /// digests with all of them, for they do not know that it is missing here.
    pub is_restart: bool,
}

impl Receiver {
    /// A frame has arrived; `first` is the lowest number that its sender still has.
    pub fn arrived(&mut self, incarnation: u64, first: u64, sequence: u64) -> Arrival {
        let (mut is_gap, mut is_restart) = (false, false);
        if incarnation != self.incarnation {
            if incarnation < self.incarnation {
                // Of a former life and late. Others have compared themselves with us since they heard of the restart,
                // and would not do so again for what it brings: it is as lost as what was never sent.
                self.repeated += 1;
                return Arrival { is_new: false, is_gap: false, is_restart: false };
            }
            // The sender was started anew, or we were. Numbers begin with one: if the first it has is another, we miss
            // something.
            is_restart = self.incarnation != 0;
            self.incarnation = incarnation;
            self.taken = Taken::default();
        }
        if first > self.taken.upto.saturating_add(1) {
            is_gap = self.taken.skip_to(first - 1);
            self.gaps += u64::from(is_gap);
        }
        self.owes_answer = true;
        let is_new = !self.taken.has(sequence) && sequence - self.taken.upto <= MASK_BITS; // `has` says so of all below
        self.repeated += u64::from(!is_new);
        Arrival { is_new, is_gap, is_restart }
    }

    /// A new frame has been applied.
    pub fn take(&mut self, sequence: u64) {
        self.taken.take(sequence);
    }

    /// What to tell the sender, if there is anything new.
    pub fn answer(&mut self) -> Option<(u64, Taken)> {
        std::mem::take(&mut self.owes_answer).then_some((self.incarnation, self.taken))
    }
}

impl Taken {
    /// Whether a number is taken.
    pub fn has(&self, sequence: u64) -> bool {
        match sequence.checked_sub(self.upto.saturating_add(1)) {
            _ if sequence <= self.upto => true,
            None => true,
            Some(place) => place < MASK_BITS && self.beyond[(place / 64) as usize] >> (place % 64) & 1 == 1,
        }
    }

    fn take(&mut self, sequence: u64) {
        let Some(place) = sequence.checked_sub(self.upto.saturating_add(1)).filter(|place| *place < MASK_BITS) else {
            return;
        };
        self.beyond[(place / 64) as usize] |= 1 << (place % 64);
        self.close_up();
    }

    /// What is below is given up. Answers whether any of it was missing.
    fn skip_to(&mut self, upto: u64) -> bool {
        let distance = upto - self.upto;
        let is_missing = distance > MASK_BITS || (self.upto + 1..=upto).any(|sequence| !self.has(sequence));
        self.shift(distance);
        self.close_up();
        is_missing
    }

    fn close_up(&mut self) {
        loop {
            let ones = self.beyond[0].trailing_ones();
            if ones == 0 {
                return;
            }
            self.shift(u64::from(ones));
        }
    }

    fn shift(&mut self, distance: u64) {
        self.upto = self.upto.saturating_add(distance);
        if distance >= MASK_BITS {
            self.beyond = [0; MASK_WORDS];
            return;
        }
        let (words, bits) = ((distance / 64) as usize, distance % 64);
        for place in 0..MASK_WORDS {
            let low = self.beyond.get(place + words).copied().unwrap_or(0);
            let high = self.beyond.get(place + words + 1).copied().unwrap_or(0);
            self.beyond[place] = if bits == 0 { low } else { low >> bits | high << (64 - bits) };
        }
    }
}

/// What a frame takes beside its body: a place in the queue, and what the allocator and the body's owner keep of it.
const FRAME_BYTES: usize = size_of::<Outgoing>() + 48;
/// No records, packed.
const EMPTY_BODY: Bytes = Bytes::from_static(&[0; 4]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use crate::replica::batch::unpack;

    /// Frames are lost, doubled and reordered, both ways: each is taken once, and in the end nothing waits.
    #[test]
    fn every_frame_is_taken_once_whatever_the_network_does() {
        for seed in 0..50 {
            let mut prng = Prng::new(seed);
            let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
            let (mut there, mut back) = (Vec::new(), Vec::new());
            let (mut taken, mut pushed) = (Vec::new(), 0u64);
            for step in 0..6_000u64 {
                let now_ms = step * 20;
                if step < 3_000 && prng.below(2) == 0 {
                    pushed += 1;
                    sender.push(&pushed.to_le_bytes(), now_ms);
                }
                sender.send_due(now_ms, |first, sequence, body| {
                    (0..prng.below(3)).for_each(|_| there.push((first, sequence, body.clone())));
                    true
                });
                for _ in 0..prng.below(4) {
                    if there.is_empty() {
                        break;
                    }
                    let (first, sequence, body) = there.swap_remove(prng.below(there.len() as u64) as usize);
                    let arrival = receiver.arrived(1, first, sequence);
                    assert!(!arrival.is_gap, "nothing was let go of");
                    if arrival.is_new {
                        let records = unpack(&body).unwrap();
                        taken.extend(records.chunks(8).map(|number| u64::from_le_bytes(number.try_into().unwrap())));
                        receiver.take(sequence);
                    }
                }
                if let Some(answer) = receiver.answer().filter(|_| prng.below(3) > 0) {
                    back.push(answer.1);
                }
                if !back.is_empty() && prng.below(2) == 0 {
                    sender.taken(&back.swap_remove(prng.below(back.len() as u64) as usize));
                }
            }
            taken.sort_unstable();
            assert_eq!(taken, (1..=pushed).collect::<Vec<_>>(), "seed {seed}");
            assert_eq!((sender.waiting(), sender.bytes()), (0, 0), "seed {seed}");
        }
    }

    #[test]
    fn a_stream_nobody_takes_from_is_bounded_and_the_receiver_learns_of_the_gap() {
        let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
        let body = vec![0; 64 << 10];
        for _ in 0..1_000 {
            sender.push(&body, 0);
            assert!(sender.bytes() <= limits::REPLICATION_OUTBOX_BYTES_MAX);
        }
        assert!(sender.let_go > 800);
        let mut gaps = 0;
        for now_ms in [0, 1_000, 2_000] {
            let mut arrived = Vec::new();
            sender.send_due(now_ms, |first, sequence, _| {
                arrived.push((first, sequence));
                true
            });
            for (first, sequence) in arrived {
                let arrival = receiver.arrived(1, first, sequence);
                gaps += u32::from(arrival.is_gap);
                receiver.take(sequence);
            }
            sender.taken(&receiver.answer().map_or(Taken::default(), |answer| answer.1));
        }
        assert_eq!(gaps, 1);
        // Small ones join, so that those who come back late get them in few frames.
        let mut sender = Sender::default();
        (0..100_000).for_each(|_| sender.push(b"record", 0));
        assert!(sender.waiting() <= 600_000 / limits::REPLICATION_CHUNK_BYTES + 1, "{}", sender.waiting());
    }

    #[test]
    fn a_number_skipped_is_a_gap_also_in_the_middle() {
        let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
        let mut gaps = 0;
        for round in 0..4u64 {
            match round {
                1 => sender.skip(0),
                _ => sender.push(b"x", 0),
            }
            let mut arrived = Vec::new();
            sender.send_due(round * 1_000, |first, sequence, _| {
                arrived.push((first, sequence));
                true
            });
            for (first, sequence) in arrived {
                gaps += u32::from(receiver.arrived(1, first, sequence).is_gap);
                receiver.take(sequence);
            }
            if let Some((_, taken)) = receiver.answer() {
                sender.taken(&taken);
            }
        }
        assert_eq!((gaps, sender.waiting()), (1, 0));
    }

    /// Found by the simulation (scenario `replication-gaps`, seed 218).
    #[test]
    fn a_number_skipped_is_a_gap_also_if_nothing_is_pushed_after_it() {
        let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
        sender.push(b"x", 0);
        sender.skip(0);
        let mut gaps = 0;
        for now_ms in [0, 1_000, 2_000] {
            let mut arrived = Vec::new();
            sender.send_due(now_ms, |first, sequence, _| {
                arrived.push((first, sequence));
                true
            });
            for (first, sequence) in arrived {
                let arrival = receiver.arrived(1, first, sequence);
                gaps += u32::from(arrival.is_gap);
                if arrival.is_new {
                    receiver.take(sequence);
                }
            }
            if let Some((_, taken)) = receiver.answer() {
                sender.taken(&taken);
            }
        }
        assert_eq!((gaps, sender.waiting(), sender.bytes()), (1, 0, 0));
    }

    #[test]
    fn a_sender_started_anew_begins_anew_and_a_receiver_started_anew_misses_something() {
        let mut receiver = Receiver::default();
        let arrival = |is_new, is_gap, is_restart| Arrival { is_new, is_gap, is_restart };
        assert_eq!(receiver.arrived(1, 1, 1), arrival(true, false, false));
        receiver.take(1);
        assert_eq!(receiver.arrived(2, 1, 1), arrival(true, false, true));
        receiver.take(1);
        assert_eq!(receiver.arrived(1, 2, 2), arrival(false, false, false), "a late one of before");
        assert_eq!(receiver.arrived(2, 2, 2), arrival(true, false, false), "which has changed nothing");
        assert_eq!(Receiver::default().arrived(2, 2, 2), arrival(true, true, false));
    }

    #[test]
    fn hostile_numbers_do_no_harm() {
        let mut prng = Prng::new(2);
        let mut receiver = Receiver::default();
        let mut sender = Sender::default();
        (0..100).for_each(|_| sender.push(b"x", 0));
        for _ in 0..100_000 {
            let number = |prng: &mut Prng| match prng.below(8) {
                0 => u64::MAX - prng.below(3),
                _ => prng.next_u64() >> prng.below(64),
            };
            let (first, sequence) = (number(&mut prng), number(&mut prng));
            if first <= sequence && receiver.arrived(number(&mut prng), first, sequence).is_new {
                receiver.take(sequence);
            }
            let beyond = std::array::from_fn(|_| prng.next_u64());
            sender.taken(&Taken { upto: number(&mut prng), beyond });
        }
    }
}
