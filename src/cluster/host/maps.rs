//! The region map of a running cluster: made from what has been agreed on, signed by validators, kept fresh.
//!
//! Whoever gives out a map collects the signatures under it: it writes down what it has executed, asks the validators of
//! the genesis whether they say the same, and stops when f + 1 do. Each signs only a map that it would have written itself,
//! of a height that it has executed and an expiry that is not far away; so a lying collector gets nothing signed but the
//! truth, and a lying validator spoils nothing but its own signature, which is checked before it is used.
//!
//!   state changes, or half the validity has passed --> map --> "sign height h, expiry e" --> f + 1 signatures --> watch
//!
//! Expiries are rounded to whole renewals, so that all nodes give out maps of the same age and a client that asks one
//! after another is not told of older and newer ones. A height that changed nothing about regions needs no new map.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_malachitebft_signing_ed25519::PrivateKey;
use bytes::Bytes;
use tokio::sync::watch;

use crate::base::limits;
use crate::cluster::genesis::Genesis;
use crate::cluster::host::links::{Channel, Links};
use crate::cluster::host::probe::unix_us;
use crate::cluster::route::{Authorities, RegionMap, SignedMap};
use crate::cluster::state::State;

/// Signs maps of what this node has executed.
pub struct MapSigner {
    key: PrivateKey,
    /// Of recent heights, the last one last; their expiry is whoever asks' to choose.
    recent: Mutex<VecDeque<RegionMap>>,
}

impl MapSigner {
    /// A signer with a validator's key.
    pub fn new(key: PrivateKey) -> MapSigner {
        MapSigner { key, recent: Mutex::new(VecDeque::new()) }
    }

    /// A height was executed.
    pub fn learn(&self, state: &State) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.back().is_some_and(|last| last.height >= state.height) {
            return;
        }
        if recent.len() == limits::ROUTE_HEIGHTS_KEPT {
            recent.pop_front();
        }
        recent.push_back(RegionMap::of(state, 0));
    }

    /// Signs the map of a height with an expiry; not, if this node does not know the height, or the expiry is further
    /// away than a map may be believed.
    pub fn sign(&self, height: u64, expires_ms: u64, now_ms: u64) -> Option<[u8; 64]> {
        let latest_ms = now_ms.saturating_add(limits::ROUTE_MAP_VALID_MS + CLOCKS_APART_MS);
        if expires_ms <= now_ms || expires_ms > latest_ms {
            return None;
        }
        let map = {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.iter().find(|map| map.height == height)?.clone()
        };
        let bytes = RegionMap { expires_ms, ..map }.encode().ok()?;
        Some(SignedMap::sign(&bytes, &self.key))
    }

    /// Answers a question that came over a link: a signature, or nothing.
    pub(super) fn answer(&self, question: &[u8], now_ms: u64) -> Bytes {
        let Ok((height, expires_ms)) = <[u8; 16]>::try_from(question).map(|bytes| {
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
            (number(&bytes[..8]), number(&bytes[8..]))
        }) else {
            return Bytes::new();
        };
        self.sign(height, expires_ms, now_ms).map_or(Bytes::new(), |signature| Bytes::copy_from_slice(&signature))
    }
}

/// Keeps a signed map of the regions, until nobody looks at it any more. `signer` is this node's, if it is a validator;
/// the same one answers others by `probe::answer`. Must be called within a tokio runtime.
pub fn start(
    links: Links,
    genesis: Arc<Genesis>,
    authorities: Authorities,
    state: watch::Receiver<Arc<State>>,
    signer: Option<Arc<MapSigner>>,
) -> watch::Receiver<Option<Bytes>> {
    let (publish, map) = watch::channel(None);
    let keeper = Keeper { links, genesis, authorities, signer };
    tokio::spawn(keeper.run(state, publish));
    map
}

struct Keeper {
    links: Links,
    genesis: Arc<Genesis>,
    authorities: Authorities,
    signer: Option<Arc<MapSigner>>,
}

impl Keeper {
    async fn run(self, mut state: watch::Receiver<Arc<State>>, publish: watch::Sender<Option<Bytes>>) {
        let mut published: Option<RegionMap> = None;
        while !publish.is_closed() {
            let now_ms = unix_us() / 1_000;
            let map = {
                let state = state.borrow_and_update();
                if let Some(signer) = &self.signer {
                    signer.learn(&state);
                }
                RegionMap::of(&state, expiry_ms(now_ms))
            };
            let is_news = published
                .as_ref()
                .is_none_or(|before| before.regions != map.regions || before.expires_ms != map.expires_ms);
            if is_news && let Some(bytes) = self.collect(&map, now_ms).await {
                publish.send_replace(Some(bytes));
                published = Some(map);
            }
            // What could not be signed is asked for again: others may have executed fewer heights than this node.
            let pause = if published.is_some() { RENEWAL_CHECK } else { RETRY };
            tokio::time::sleep(RETRY).await;
            if let Ok(Err(_)) = tokio::time::timeout(pause, state.changed()).await {
                // Whoever executes has stopped; the map goes on until it expires.
                return;
            }
        }
    }

    /// Asks validators one after the other until enough have signed.
    async fn collect(&self, map: &RegionMap, now_ms: u64) -> Option<Bytes> {
        let bytes = map.encode().ok()?;
        let mut question = vec![ASK_TO_SIGN];
        question.extend_from_slice(&map.height.to_le_bytes());
        question.extend_from_slice(&map.expires_ms.to_le_bytes());
        let question = Bytes::from(question);
        let mut signed = SignedMap { map: bytes, signatures: Vec::new() };
        // This node's own first: it is there, and does not lie to itself.
        let mut sites = self.genesis.sites.clone();
        sites.sort_by_key(|site| (site.validator != self.links.me, site.id));
        for site in sites {
            let signature = match &self.signer {
                Some(signer) if site.validator == self.links.me => signer.sign(map.height, map.expires_ms, now_ms),
                _ => {
                    let asked = self.links.call(site.validator, Channel::Probe, question.clone(), DEADLINE);
                    asked.await.ok().and_then(|answer| <[u8; 64]>::try_from(&answer[..]).ok())
                }
            };
            let signature = signature.filter(|signature| self.authorities.holds(&signed.map, site.id, signature));
            signed.signatures.extend(signature.map(|signature| (site.id, signature)));
            if signed.signatures.len() >= self.authorities.needed() {
                signed.signatures.sort_by_key(|(site, _)| *site);
                return signed.encode().ok().map(Bytes::from);
            }
        }
        None
    }
}

/// When a map made now expires: at a whole renewal, a validity away at most.
fn expiry_ms(now_ms: u64) -> u64 {
    now_ms - now_ms % limits::ROUTE_MAP_RENEW_MS + limits::ROUTE_MAP_VALID_MS
}

/// The first byte of a question for a signature: height and expiry follow.
pub(super) const ASK_TO_SIGN: u8 = 2;
/// How long a validator may take.
const DEADLINE: Duration = Duration::from_secs(1);
/// At least so long between two maps, and after an attempt that failed.
const RETRY: Duration = Duration::from_millis(500);
/// How often it is looked whether a renewal is due.
const RENEWAL_CHECK: Duration = Duration::from_secs(10);
/// How much the clock of whoever asks may be ahead.
const CLOCKS_APART_MS: u64 = 60_000;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::id::{NodeId, SiteId};
    use crate::cluster::genesis::{Member, Site, SiteKind, Timing};
    use crate::cluster::host::links::memory::Network;
    use crate::cluster::host::probe;

    fn key(node: u16) -> PrivateKey {
        PrivateKey::from([node as u8 + 1; 32])
    }

    /// Four sites of one node each.
    pub(in crate::cluster::host) fn genesis() -> Genesis {
        let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let member = |number: u16| Member {
            id: NodeId(number),
            site: SiteId(number as u8),
            name: format!("node-{number}"),
            address: String::new(),
            clients: Some(format!("10.0.{number}.1:7700")),
            resp: None,
            key: hexadecimal(key(number).public_key().as_bytes()),
            certificate: String::new(),
            voter: true,
        };
        let site = |number: u16| Site {
            id: SiteId(number as u8),
            name: format!("site-{number}"),
            kind: SiteKind::Region,
            validator: NodeId(number),
        };
        Genesis {
            name: "test".into(),
            nonce: "1".into(),
            operator: String::new(),
            authority: String::new(),
            timing: Timing::default(),
            sites: (0..4).map(site).collect(),
            members: (0..4).map(member).collect(),
        }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    async fn map_of(receiver: &mut watch::Receiver<Option<Bytes>>) -> Bytes {
        let waited = tokio::time::timeout(Duration::from_secs(20), receiver.wait_for(Option::is_some)).await;
        waited.expect("in time").expect("the keeper lives").clone().unwrap()
    }

    #[test]
    fn a_map_is_signed_by_those_who_agree_and_a_liar_spoils_nothing() {
        run(async {
            let network = Network::default();
            let genesis = Arc::new(genesis());
            let authorities = Authorities::of(&genesis).unwrap();
            let state = Arc::new(State::new(&genesis));
            let (_publish, watched) = watch::channel(state.clone());
            // Node 0 is silent, node 1 signs something else, node 2 is honest, node 3 asks.
            let liar = network.join(NodeId(1));
            liar.answer(Channel::Probe, Arc::new(|_, _| Box::pin(std::future::ready(Bytes::from_static(&[7; 64])))));
            let honest = network.join(NodeId(2));
            let its = Arc::new(MapSigner::new(key(2)));
            its.learn(&state);
            probe::answer(&honest, Some(its));
            let signer = Arc::new(MapSigner::new(key(3)));
            let me = network.join(NodeId(3));
            let mut map = start(me, genesis.clone(), authorities.clone(), watched, Some(signer));
            let bytes = map_of(&mut map).await;
            let now_ms = unix_us() / 1_000;
            let verified = authorities.verify(&bytes, now_ms, None).unwrap();
            assert_eq!(verified.regions.len(), 4);
            let signers: Vec<u8> =
                SignedMap::decode(&bytes).unwrap().signatures.iter().map(|(site, _)| site.0).collect();
            assert_eq!(signers, [2, 3]);
        });
    }

    #[test]
    fn a_change_of_regions_makes_a_new_map_and_any_other_height_does_not() {
        run(async {
            let network = Network::default();
            let genesis = Arc::new(genesis());
            let authorities = Authorities::of(&genesis).unwrap();
            let mut state = State::new(&genesis);
            let (publish, watched) = watch::channel(Arc::new(state.clone()));
            let other = network.join(NodeId(1));
            let its = Arc::new(MapSigner::new(key(1)));
            its.learn(&state);
            probe::answer(&other, Some(its.clone()));
            let signer = Some(Arc::new(MapSigner::new(key(0))));
            let mut map = start(network.join(NodeId(0)), genesis, authorities.clone(), watched, signer);
            let first = map_of(&mut map).await;
            map.borrow_and_update();
            state.height = 1;
            publish.send_replace(Arc::new(state.clone()));
            its.learn(&state);
            assert!(
                tokio::time::timeout(Duration::from_millis(1_500), map.changed()).await.is_err(),
                "nothing changed"
            );
            state.height = 2;
            state.members.get_mut(&NodeId(2)).unwrap().clients = Some("elsewhere.example:7700".into());
            publish.send_replace(Arc::new(state.clone()));
            its.learn(&state);
            tokio::time::timeout(Duration::from_secs(20), map.changed()).await.unwrap().unwrap();
            let (now_ms, second) = (unix_us() / 1_000, map.borrow().clone().unwrap());
            let before = authorities.verify(&first, now_ms, None).unwrap();
            let after = authorities.verify(&second, now_ms, Some(&before)).unwrap();
            assert_eq!(after.regions[2].nodes[0].native.as_deref(), Some("elsewhere.example:7700"));
            assert!(authorities.verify(&first, now_ms, Some(&after)).is_err(), "the old one is played back");
        });
    }

    #[test]
    fn a_signer_signs_what_it_has_executed_for_a_while_and_nothing_else() {
        let signer = MapSigner::new(key(0));
        let mut state = State::new(&genesis());
        assert_eq!(signer.sign(0, 2_000, 1_000), None, "nothing was executed");
        for height in 0..100 {
            state.height = height;
            signer.learn(&state);
        }
        assert!(signer.sign(99, 2_000, 1_000).is_some() && signer.sign(90, 2_000, 1_000).is_some());
        assert_eq!(signer.sign(100, 2_000, 1_000), None, "not executed yet");
        assert_eq!(signer.sign(10, 2_000, 1_000), None, "too long ago");
        assert_eq!(signer.sign(99, 1_000, 1_000), None, "has expired");
        assert_eq!(signer.sign(99, 1_000 + limits::ROUTE_MAP_VALID_MS + 60_001, 1_000), None, "for too long");
        assert_eq!(signer.sign(99, u64::MAX, u64::MAX), None);
        for length in 0..40 {
            assert_eq!(signer.answer(&vec![0xff; length], 1_000), Bytes::new());
        }
    }

    #[test]
    fn expiries_are_whole_renewals_and_always_ahead() {
        for now_ms in [0, 1, limits::ROUTE_MAP_RENEW_MS, 1_800_000_000_000 + 12_345] {
            let expires_ms = expiry_ms(now_ms);
            assert_eq!((expires_ms - limits::ROUTE_MAP_VALID_MS) % limits::ROUTE_MAP_RENEW_MS, 0);
            assert!(expires_ms > now_ms + limits::ROUTE_MAP_VALID_MS - limits::ROUTE_MAP_RENEW_MS);
        }
    }
}
