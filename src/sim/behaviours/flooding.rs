//! Sends garbage: random bytes of random lengths, real messages with flipped bits or cut off, and the same real
//! message many times.

use std::rc::Rc;

use crate::sim::behaviours::{Behaviour, Message, Outbox, Tools};

/// The last message heard.
#[derive(Default)]
pub struct Flooding {
    heard: Option<Message>,
}

/// Messages to each site at each tick.
const MESSAGES: u64 = 6;
/// The longest garbage.
const GARBAGE_BYTES: u64 = 3_000;

impl Behaviour for Flooding {
    fn hear(&mut self, _: &mut Tools<'_>, _: usize, message: &Message, _: &mut Outbox) {
        self.heard = Some(message.clone());
    }

    fn tick(&mut self, tools: &mut Tools<'_>, outbox: &mut Outbox) {
        let me = tools.me;
        for to in (0..tools.sites).filter(|&to| to != me) {
            for _ in 0..MESSAGES {
                outbox.push((to, self.garbage(tools)));
            }
        }
    }
}

impl Flooding {
    fn garbage(&self, tools: &mut Tools<'_>) -> Message {
        let random = &mut *tools.random;
        match (&self.heard, random.below(4)) {
            (Some(heard), 0) => heard.clone(),
            (Some(heard), 1) if !heard.is_empty() => {
                let mut bytes = heard.to_vec();
                for _ in 0..=random.below(3) {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << random.below(8);
                }
                bytes.into()
            }
            (Some(heard), 2) => heard[..random.below(heard.len() as u64 + 1) as usize].into(),
            _ => {
                let bytes = random.below(GARBAGE_BYTES);
                (0..bytes).map(|_| random.next_u64() as u8).collect::<Rc<[u8]>>()
            }
        }
    }
}
