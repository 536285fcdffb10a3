//! Round trips between nodes, measured.
//!
//! Every node asks every other one, twice a second or as the genesis says, on a channel that nothing else may fill. The
//! answer carries two readings of the peer's clock, so that one question tells how far the peer is and how far its clock
//! is off (`route::estimate`). Each peer has a task that asks, waits for the answer or the deadline, and sleeps: one
//! question a peer is open at most. Pauses are jittered, or nodes that started together would ask together for ever.
//!
//!   a task a peer -- outcome --> one table of all links --> watch: status, metrics, whoever chooses
//!
//! What is told of clocks is what peers say. A lying one can look late or early; nothing that must be right depends on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::base::prng::Prng;
use crate::cluster::host::links::{Channel, Links};
use crate::cluster::host::maps::{ASK_TO_SIGN, MapSigner};
use crate::cluster::route::{ClockOffset, Estimate, Stamps};
use crate::cluster::state::State;

/// The links of a node to all others, as last measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct LinkTable {
    /// One for each peer, by number.
    pub links: Vec<LinkStatus>,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkStatus {
    /// The peer.
    pub node: NodeId,
    /// Where it stands.
    pub site: SiteId,
    /// Fewer than three probes in a row were missed, and one was answered.
    pub is_up: bool,
    /// The smoothed round trip.
    pub rtt_us: Option<u64>,
    /// What nine of ten recent round trips did not exceed.
    pub rtt_p90_us: Option<u64>,
    /// Part of recent probes missed.
    pub loss: f64,
    /// How far the peer's clock is ahead of this node's.
    pub clock_offset_us: Option<i64>,
    /// By how much that may be wrong, either way.
    pub clock_error_us: Option<u64>,
    /// Probes answered since the node started.
    pub answered: u64,
    /// Probes missed since then.
    pub missed: u64,
}

/// Answers the probes of others; and, with a signer, their questions for a signature under the region map.
pub fn answer(links: &Links, signer: Option<Arc<MapSigner>>) {
    links.answer(
        Channel::Probe,
        Arc::new(move |_, bytes| {
            let received_us = unix_us();
            let answer = match bytes.first() {
                Some(&ROUND_TRIP) if bytes.len() == 1 => {
                    let mut answer = vec![ROUND_TRIP];
                    answer.extend_from_slice(&received_us.to_le_bytes());
                    answer.extend_from_slice(&unix_us().to_le_bytes());
                    Bytes::from(answer)
                }
                Some(&ASK_TO_SIGN) => {
                    let signer = signer.as_ref();
                    signer.map_or(Bytes::new(), |signer| signer.answer(&bytes[1..], received_us / 1_000))
                }
                // Whoever asks something else is told nothing.
                _ => Bytes::new(),
            };
            Box::pin(async move { answer })
        }),
    );
}

/// Probes every other node of the state, every so often, until nobody looks at the table any more. Must be called
/// within a tokio runtime.
pub fn start(links: Links, state: watch::Receiver<Arc<State>>, every: Duration) -> watch::Receiver<Arc<LinkTable>> {
    let (publish, table) = watch::channel(Arc::new(LinkTable::default()));
    tokio::spawn(supervise(links, state, every, publish));
    table
}

struct Peer {
    site: SiteId,
    estimate: Estimate,
    missed_in_a_row: u32,
    task: AbortHandle,
}

/// What became of a probe.
struct Outcome {
    peer: NodeId,
    /// None: missed.
    answered: Option<(u64, Option<ClockOffset>)>,
}

async fn supervise(
    links: Links,
    mut state: watch::Receiver<Arc<State>>,
    every: Duration,
    publish: watch::Sender<Arc<LinkTable>>,
) {
    // A task whose outcome finds no room waits, and asks nothing meanwhile.
    let (report, mut outcomes) = mpsc::channel(limits::ROUTE_PEERS_MAX);
    let mut peers: BTreeMap<NodeId, Peer> = BTreeMap::new();
    let began = Instant::now();
    loop {
        // Outcomes arrive several times a second; that often is enough to see who has come and who has left.
        let wanted: BTreeMap<NodeId, SiteId> = {
            let state = state.borrow_and_update();
            let others = state.members.values().filter(|member| member.id != links.me);
            others.take(limits::ROUTE_PEERS_MAX).map(|member| (member.id, member.site)).collect()
        };
        peers.retain(|node, peer| {
            let stays = wanted.get(node) == Some(&peer.site);
            if !stays {
                peer.task.abort();
            }
            stays
        });
        for (&node, &site) in &wanted {
            peers.entry(node).or_insert_with(|| {
                let task = tokio::spawn(ask_for_ever(links.clone(), node, every, report.clone())).abort_handle();
                Peer { site, estimate: Estimate::default(), missed_in_a_row: 0, task }
            });
        }
        let outcome = tokio::time::timeout(every, outcomes.recv()).await;
        let now_ms = began.elapsed().as_millis() as u64;
        if let Ok(Some(outcome)) = outcome
            && let Some(peer) = peers.get_mut(&outcome.peer)
        {
            match outcome.answered {
                Some((rtt_us, clock)) => {
                    peer.estimate.answered(now_ms, rtt_us, clock);
                    peer.missed_in_a_row = 0;
                }
                None => {
                    peer.estimate.missed(now_ms);
                    peer.missed_in_a_row = peer.missed_in_a_row.saturating_add(1);
                }
            }
        }
        let table = peers.iter().map(|(node, peer)| peer.status(*node, now_ms)).collect();
        if publish.send(Arc::new(LinkTable { links: table })).is_err() {
            break;
        }
    }
    peers.values().for_each(|peer| peer.task.abort());
}

impl Peer {
    fn status(&self, node: NodeId, now_ms: u64) -> LinkStatus {
        let clock = self.estimate.clock(now_ms);
        let (answered, missed) = self.estimate.counts();
        LinkStatus {
            node,
            site: self.site,
            is_up: answered > 0 && self.missed_in_a_row < limits::ROUTE_MISSED_PROBES,
            rtt_us: self.estimate.rtt_us(),
            rtt_p90_us: self.estimate.rtt_p90_us(now_ms),
            loss: self.estimate.loss(now_ms),
            clock_offset_us: clock.map(|clock| clock.offset_us),
            clock_error_us: clock.map(|clock| clock.error_us),
            answered,
            missed,
        }
    }
}

async fn ask_for_ever(links: Links, peer: NodeId, every: Duration, report: mpsc::Sender<Outcome>) {
    let mut dice = Prng::new(u64::from(links.me.0) << 16 | u64::from(peer.0));
    loop {
        let answered = ask(&links, peer, every).await;
        if report.send(Outcome { peer, answered }).await.is_err() {
            return;
        }
        tokio::time::sleep(jittered(every, &mut dice)).await;
    }
}

async fn ask(links: &Links, peer: NodeId, deadline: Duration) -> Option<(u64, Option<ClockOffset>)> {
    let (sent_us, sent) = (unix_us(), Instant::now());
    let answer = links.call(peer, Channel::Probe, Bytes::from_static(&[ROUND_TRIP]), deadline).await.ok()?;
    let rtt_us = sent.elapsed().as_micros() as u64;
    // An answer that is none tells nothing of the link either.
    let [kind, times @ ..] = <[u8; 17]>::try_from(&answer[..]).ok()?;
    if kind != ROUND_TRIP {
        return None;
    }
    let (received_us, answered_us) = times.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    let (received_us, answered_us) = (number(received_us), number(answered_us));
    // Reckoned and not read anew: the clock may have been set meanwhile.
    let returned_us = sent_us.saturating_add(rtt_us);
    Some((rtt_us, ClockOffset::of(Stamps { sent_us, received_us, answered_us, returned_us })))
}

/// A pause that is longer or shorter than `every` by up to a fifth.
pub fn jittered(every: Duration, dice: &mut Prng) -> Duration {
    let (every_us, part_us) = (every.as_micros() as u64, every.as_micros() as u64 / limits::ROUTE_JITTER_SHARE);
    Duration::from_micros(every_us - part_us + dice.below(2 * part_us + 1))
}

/// Microseconds of Unix time by this machine's clock.
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// The first byte of a question for the time, and of its answer.
const ROUND_TRIP: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::host::links::memory::Network;
    use crate::cluster::host::maps::tests::genesis;

    /// Also the deadline: far above every delay of these tests, for machines that are busy.
    const EVERY: Duration = Duration::from_millis(200);

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    fn link(table: &LinkTable, node: u16) -> LinkStatus {
        table.links.iter().find(|link| link.node == NodeId(node)).unwrap().clone()
    }

    /// Waits until the table is as it should be.
    async fn until(table: &mut watch::Receiver<Arc<LinkTable>>, holds: impl Fn(&LinkTable) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(20), table.wait_for(|table| holds(table))).await;
        waited.expect("in time").expect("the prober lives");
    }

    #[test]
    fn round_trips_are_as_long_as_the_links_and_a_cut_one_goes_down_and_comes_back() {
        run(async {
            let network = Network::default();
            let all: Vec<Links> = (0..4).map(|node| network.join(NodeId(node))).collect();
            all.iter().for_each(|links| answer(links, None));
            network.set_delay(NodeId(0), NodeId(1), Duration::from_millis(3));
            network.set_delay(NodeId(0), NodeId(2), Duration::from_millis(30));
            let (_state, watched) = watch::channel(Arc::new(State::new(&genesis())));
            let mut table = start(all[0].clone(), watched, EVERY);
            let measured =
                |table: &LinkTable| table.links.len() == 3 && table.links.iter().all(|link| link.answered >= 5);
            until(&mut table, measured).await;
            let now = table.borrow().clone();
            let (near, far) = (link(&now, 1), link(&now, 2));
            assert!(near.is_up && far.is_up);
            assert!(near.rtt_us >= Some(6_000) && far.rtt_us >= Some(60_000) && far.rtt_p90_us >= Some(60_000));
            assert!(near.rtt_us < far.rtt_us, "{near:?} {far:?}");
            // Both clocks are the same one: the offset is nothing, within its error.
            let (offset_us, error_us) = (far.clock_offset_us.unwrap(), far.clock_error_us.unwrap());
            assert!(offset_us.unsigned_abs() <= error_us && error_us >= 30_000, "{offset_us} ± {error_us}");
            network.set_cut(NodeId(0), NodeId(2), true);
            until(&mut table, |table| !link(table, 2).is_up && link(table, 1).is_up).await;
            assert!(link(&table.borrow(), 2).loss > 0.0);
            network.set_cut(NodeId(0), NodeId(2), false);
            until(&mut table, |table| link(table, 2).is_up).await;
        });
    }

    #[test]
    fn whoever_joins_is_probed_and_whoever_leaves_is_not() {
        run(async {
            let network = Network::default();
            let links = network.join(NodeId(0));
            let mut state = State::new(&genesis());
            state.members.remove(&NodeId(3));
            let (publish, watched) = watch::channel(Arc::new(state.clone()));
            let mut table = start(links, watched, EVERY);
            until(&mut table, |table| table.links.len() == 2).await;
            state.members = State::new(&genesis()).members;
            state.members.remove(&NodeId(1));
            publish.send_replace(Arc::new(state));
            until(&mut table, |table| table.links.iter().map(|link| link.node.0).eq([2, 3])).await;
        });
    }

    #[test]
    fn answers_that_are_none_are_misses_and_no_question_causes_a_panic() {
        run(async {
            let network = Network::default();
            let (me, liar) = (network.join(NodeId(0)), network.join(NodeId(1)));
            for bytes in [vec![], vec![1; 16], vec![2; 17], vec![1; 18]] {
                let bytes = Bytes::from(bytes);
                let lie = bytes.clone();
                liar.answer(Channel::Probe, Arc::new(move |_, _| Box::pin(std::future::ready(lie.clone()))));
                assert_eq!(ask(&me, NodeId(1), EVERY).await, None, "{bytes:?}");
            }
            // Times from the end of days are a round trip all the same, and no clock.
            let lie = Bytes::from([&[1][..], &[0xff; 16]].concat());
            liar.answer(Channel::Probe, Arc::new(move |_, _| Box::pin(std::future::ready(lie.clone()))));
            let (_, clock) = ask(&me, NodeId(1), EVERY).await.unwrap();
            assert_eq!(clock, None);
            answer(&liar, None);
            let mut prng = Prng::new(3);
            for _ in 0..200 {
                let question: Vec<u8> = (0..prng.below(40)).map(|_| prng.below(4) as u8).collect();
                let _ = me.call(NodeId(1), Channel::Probe, question.into(), EVERY).await;
            }
        });
    }

    #[test]
    fn pauses_differ_by_a_fifth_at_most() {
        let mut dice = Prng::new(1);
        let every = Duration::from_millis(500);
        let pauses: Vec<Duration> = (0..1_000).map(|_| jittered(every, &mut dice)).collect();
        assert!(pauses.iter().all(|pause| (400..=600).contains(&pause.as_millis())));
        assert!(
            pauses.iter().any(|pause| pause.as_millis() < 420) && pauses.iter().any(|pause| pause.as_millis() > 580)
        );
        assert_eq!(jittered(Duration::ZERO, &mut dice), Duration::ZERO);
    }
}
