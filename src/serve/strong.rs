//! Strong keys wired: shards' desks to the region of the node.
//!
//!   shard ─ ring ─→ desk task ─ one task a request ─→ RegionHandle::execute ─→ answer ─ ring ─→ shard
//!
//! One task looks at all shards' rings whenever their bell rings. Each request then waits on its own, so that a slow
//! key does not hold up another; the rings bound how many there are.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};

use crate::base::id::SiteId;
use crate::base::limits;
use crate::cluster::State;
use crate::cluster::host::node::Running;
use crate::cluster::host::region::RegionHandle;
use crate::cluster::region::{Expires, StrongOp, StrongRefused, StrongReply};
use crate::engine::strong::{DeskPorts, Expiry, Status, StrongAnswer, StrongAsk, StrongRequest};
use crate::engine::strong_edit::Held;

/// Serves strong keys as long as the node runs.
pub fn start(node: &Running, region: watch::Receiver<Option<RegionHandle>>, ports: DeskPorts) {
    node.runtime.spawn(serve(ports, Place { site: node.me.site, state: node.state.clone(), region }));
}

/// Where this node stands, and what it can ask.
#[derive(Clone)]
struct Place {
    site: SiteId,
    state: watch::Receiver<Arc<State>>,
    region: watch::Receiver<Option<RegionHandle>>,
}

async fn serve(ports: DeskPorts, place: Place) {
    let DeskPorts { mut ports, bell } = ports;
    let rung = Arc::new(Notify::new());
    let clapper = rung.clone();
    bell.hang(move || clapper.notify_one());
    let (done, mut answered) = mpsc::channel(limits::STRONG_UNDER_WAY_MAX);
    loop {
        for (shard, port) in ports.iter_mut().enumerate() {
            while let Some(request) = port.next_request() {
                let (place, done) = (place.clone(), done.clone());
                tokio::spawn(async move {
                    let answer = place.ask(&request).await;
                    let _ = done.send((shard, request, answer)).await;
                });
            }
        }
        tokio::select! {
            () = rung.notified() => {}
            Some((shard, request, answer)) = answered.recv() => ports[shard].answer(request, &answer),
        }
    }
}

impl Place {
    async fn ask(&self, request: &StrongRequest) -> StrongAnswer {
        let home = self.state.borrow().rules.of(&request.key).home;
        if home.is_some_and(|home| home != self.site) {
            return StrongAnswer::Refused(Status::NoPrimary, ELSEWHERE);
        }
        let region = self.region.borrow().clone();
        let Some(region) = region else { return StrongAnswer::Refused(Status::NoPrimary, NO_REGION) };
        let op = match request.ask.clone() {
            StrongAsk::Read => StrongOp::Read,
            StrongAsk::Set(value, expiry) => StrongOp::Set(value, expires(expiry)),
            StrongAsk::Add(value, expiry) => StrongOp::Add(value, expires(expiry)),
            StrongAsk::Delete => StrongOp::Delete,
            StrongAsk::Increment(by) => StrongOp::Increment(by),
            StrongAsk::Edit => return edit(&region, request).await,
        };
        answer(region.execute(request.key.clone(), op).await)
    }
}

/// Looks, decides, and replaces what was seen, until nobody else was faster.
async fn edit(region: &RegionHandle, request: &StrongRequest) -> StrongAnswer {
    for _ in 0..limits::STRONG_TRIES_MAX {
        let (seen, now_ms) = match region.execute(request.key.clone(), StrongOp::Look).await {
            StrongReply::Seen(seen, now_ms) => (seen, now_ms),
            other => return answer(other),
        };
        let held = seen.value.map(|value| Held { value, expires_ms: seen.expires_ms });
        let mut edited = request.edit(held, now_ms);
        let Some(change) = edited.change.take() else { return StrongAnswer::Edited(edited) };
        let new = change.map(|held| match held.expires_ms {
            0 => (held.value, Expires::Never),
            at => (held.value, Expires::At(at)),
        });
        let replace = StrongOp::Replace { seen: seen.version, new };
        match region.execute(request.key.clone(), replace).await {
            StrongReply::Was(true) => return StrongAnswer::Edited(edited),
            StrongReply::Was(false) => {}
            other => return answer(other),
        }
    }
    StrongAnswer::Refused(Status::Busy, "others write this key all the time: try again")
}

fn expires(expiry: Expiry) -> Expires {
    match expiry {
        Expiry::In(ms) => Expires::In(ms),
        _ => Expires::Never,
    }
}

fn answer(reply: StrongReply) -> StrongAnswer {
    match reply {
        StrongReply::Value(value) => StrongAnswer::Value(value),
        StrongReply::Done => StrongAnswer::Done,
        StrongReply::Was(was) => StrongAnswer::Was(was),
        StrongReply::Sum(sum) => StrongAnswer::Sum(sum),
        StrongReply::Seen(entry, _) => StrongAnswer::Value(entry.value),
        StrongReply::Unknown => StrongAnswer::Refused(Status::OutcomeUnknown, UNKNOWN),
        StrongReply::Refused(refused) => {
            let (status, why) = match refused {
                StrongRefused::NotHolder | StrongRefused::NotReady | StrongRefused::Unreachable => {
                    (Status::NoPrimary, NOBODY)
                }
                StrongRefused::Stranger => (Status::NoPrimary, NO_REGION),
                StrongRefused::Busy => (Status::Busy, "too many strong operations are under way: try again"),
                StrongRefused::Full => (Status::Busy, "the region's store of strong entries is full: delete some"),
                StrongRefused::TooLarge => (Status::ValueTooLarge, "strong values have 256 KiB at most"),
                StrongRefused::NotAnInteger => (Status::NotANumber, ""),
                StrongRefused::Overflow => (Status::Overflow, ""),
            };
            StrongAnswer::Refused(status, why)
        }
    }
}

const NOBODY: &str = "nobody holds this key just now: nothing was done, try again";
const UNKNOWN: &str = "the write may have been done or not: read the key to find out";
const ELSEWHERE: &str =
    "this namespace is at home in another region: ask one of its nodes ('spinetail cluster regions')";
const NO_REGION: &str = "this node has no part in its region yet: its log says why";
const _: () = assert!(limits::STRONG_VALUE_BYTES_MAX == 256 << 10, "what the refusal says");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_surely_not_done_and_what_nobody_knows_are_told_apart() {
        let status = |reply| match answer(reply) {
            StrongAnswer::Refused(status, _) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status(StrongReply::Unknown), Status::OutcomeUnknown);
        for refused in [StrongRefused::NotHolder, StrongRefused::NotReady, StrongRefused::Unreachable] {
            assert_eq!(status(StrongReply::Refused(refused)), Status::NoPrimary);
        }
        assert_eq!(status(StrongReply::Refused(StrongRefused::Overflow)), Status::Overflow);
        assert_eq!(answer(StrongReply::Sum(-3)), StrongAnswer::Sum(-3));
    }
}
