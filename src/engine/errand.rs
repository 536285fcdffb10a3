//! What other shards ask of this one.

use std::ops::DerefMut;

use crate::base::id::ShardId;
use crate::engine::apply::apply;
use crate::engine::core::Core;
use crate::engine::post::{Caller, Errand, Forward, Hold};
use crate::engine::session::Protocol;
use crate::wire::memcached::Memcached;
use crate::wire::memcached::part::Part;
use crate::wire::native::Native;
use crate::wire::resp::{Resp, Resp3};
use crate::wire::{Codec, Decoded};

/// What came of an errand.
pub enum Errands {
    /// It goes back with its reply.
    Answered,
    /// It follows replies that have not been taken in yet.
    Late,
}

impl<M: DerefMut<Target = [u8]>> Core<M> {
    /// Does what `from` has sent a box for.
    pub(super) fn run_errand(&mut self, from: ShardId, forward: &mut Forward) -> Errands {
        match forward.errand {
            Errand::Request(Protocol::Native) => self.answer_request::<Native>(forward),
            Errand::Request(Protocol::Resp) => self.answer_request::<Resp>(forward),
            Errand::Request(Protocol::Resp3) => self.answer_request::<Resp3>(forward),
            Errand::Request(Protocol::Memcached) => self.answer_request::<Memcached>(forward),
            Errand::Key => self.answer_request::<Part>(forward),
            Errand::Parts(hold) => {
                let mut reply = std::mem::take(&mut forward.reply);
                self.do_parts(&forward.frame, forward.caller, &mut reply);
                forward.reply = reply;
                match hold {
                    Hold::No => {}
                    Hold::Begin | Hold::Keep => self.holder = Some(from),
                    Hold::End => self.holder = None,
                }
            }
            Errand::News
                if self.post.replies_taken(from) < forward.after
                    || self.late_news.iter().any(|(other, _)| *other == from) =>
            {
                return Errands::Late;
            }
            Errand::News => self.hear(forward),
        }
        Errands::Answered
    }

    /// Tells clients of this shard what another shard has sent for them.
    pub(super) fn hear(&mut self, forward: &mut Forward) {
        let mut ignored = Vec::new();
        self.do_parts(&forward.frame, Caller::default(), &mut ignored);
    }

    fn answer_request<C: Codec>(&mut self, forward: &mut Forward) {
        match C::decode(&forward.frame, self.value_bytes_max) {
            Decoded::Request(request, _) => {
                if C::IS_COUNTED {
                    self.calls.count(request.id as u8);
                }
                let counters = &self.shared.counters[self.id.0 as usize];
                apply::<C, M>(&mut self.keys, counters, &request, forward.hash, &mut forward.reply);
                counters.forwarded_in.add(1);
            }
            other => panic!("a shard forwarded what does not decode: {other:?}"),
        }
    }
}
