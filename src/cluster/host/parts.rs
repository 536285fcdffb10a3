//! What runs beside the ordering of every node: its region, its probes, the map it gives out.
//!
//!   node ──┬── probes ──→ round trips, clock offsets ──→ status
//!          ├── map    ──→ signed by f + 1 validators  ──→ clients, by MAP
//!          └── region ──→ Raft, leases, strong entries ──→ shards' strong keys, status
//!
//! A node that the cluster has not agreed on yet has no region: its part there begins when it is a member. Replication
//! is not here, because only an appliance with shards has something to replicate.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_malachitebft_signing_ed25519::PrivateKey;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch;

use crate::base::id::SiteId;
use crate::base::limits;
use crate::cluster::genesis::SiteKind;
use crate::cluster::host::links::Links;
use crate::cluster::host::maps::{self, MapSigner};
use crate::cluster::host::news::{News, Weight};
use crate::cluster::host::node::Running;
use crate::cluster::host::probe::{self, LinkTable};
use crate::cluster::host::region::report::submit_through;
use crate::cluster::host::region::{Region, RegionHandle, Setup, monotonic_us};
use crate::cluster::host::status::Status;
use crate::cluster::region::MemoryStore;
use crate::cluster::route::Authorities;
use crate::cluster::state::State;

/// A node's parts. They end with the node's runtime.
pub struct Parts {
    /// Its part in its region, once it is a member.
    pub region: watch::Receiver<Option<RegionHandle>>,
    /// Its links as they were last measured.
    pub links: watch::Receiver<Arc<LinkTable>>,
    /// The map of regions, once enough validators have signed one.
    pub map: watch::Receiver<Option<Bytes>>,
}

/// Starts a node's parts.
pub fn start(node: &Running, news: Arc<dyn News>) -> Result<Parts, String> {
    let _runtime = node.runtime.enter();
    let authorities = Authorities::of(&node.genesis)?;
    let is_validator = node.genesis.sites.iter().any(|site| site.validator == node.me.id);
    let signer = is_validator.then(|| Arc::new(MapSigner::new(PrivateKey::from(node.key.secret()))));
    probe::answer(&node.links, signer.clone());
    let every = Duration::from_millis(node.genesis.timing.probe_ms);
    let links = probe::start(node.links.clone(), node.state.clone(), every);
    let map = maps::start(node.links.clone(), node.genesis.clone(), authorities, node.state.clone(), signer);
    let (publish, region) = watch::channel(None);
    node.runtime.spawn(join_region(Joining::of(node), news, publish));
    let (told, measured) = (region.clone(), links.clone());
    node.shared.add_part(Box::new(move |status| {
        tell_links(status, &measured.borrow());
        if let Some(region) = told.borrow().as_ref() {
            tell_region(status, region);
        }
    }));
    Ok(Parts { region, links, map })
}

/// What is needed of a node to join its region.
struct Joining {
    site: SiteId,
    links: Links,
    state: watch::Receiver<Arc<State>>,
    /// Where the node's control socket finds it.
    place: Arc<OnceLock<RegionHandle>>,
    setup: Setup,
}

impl Joining {
    fn of(node: &Running) -> Joining {
        let setup = Setup {
            folder: node.data.join("region"),
            timing: node.genesis.timing,
            store: Box::new(MemoryStore::new(limits::STRONG_STORE_BYTES_DEFAULT)),
            clock: monotonic_us(),
            submit: submit_through(node.submitter.clone()),
        };
        Joining {
            site: node.me.site,
            links: node.links.clone(),
            state: node.state.clone(),
            place: node.region.clone(),
            setup,
        }
    }
}

/// Waits until the node is a member, then takes its part.
async fn join_region(joining: Joining, news: Arc<dyn News>, publish: watch::Sender<Option<RegionHandle>>) {
    let Joining { site, links, mut state, place, setup } = joining;
    let me = links.me;
    let is_member = state.wait_for(|state| state.members.contains_key(&me)).await;
    let Ok(kind) = is_member.map(|state| state.sites.get(&site).map(|site| site.kind)) else { return };
    // A witness has no data to agree about.
    if kind != Some(SiteKind::Region) {
        return;
    }
    match Region::start(links, state, setup).await {
        Ok(region) => {
            // Only the first would be answered by the socket; there is only one.
            let _ = place.set(region.clone());
            publish.send_replace(Some(region));
            publish.closed().await;
        }
        Err(error) => news.tell(
            Weight::Error,
            "no part in the region: strong namespaces are not served here",
            &[("reason", error.to_string())],
        ),
    }
}

fn tell_links(status: &mut Status, table: &LinkTable) {
    for measured in &table.links {
        if let Some(link) = status.link_mut(measured.node) {
            link.clock_offset_ms = measured.clock_offset_us.map(|us| us as f64 / 1e3);
            link.rtt_ms = measured.rtt_us.map(|us| us as f64 / 1e3).or(link.rtt_ms);
        }
    }
    status.parts.insert("probes".into(), json!(table));
}

fn tell_region(status: &mut Status, region: &RegionHandle) {
    // What the region itself knows is newer than what the cluster has agreed on.
    if let Some(leader) = region.leader() {
        status.leader = Some(leader.0);
        status.term = Some(region.term());
    }
    status.parts.insert("region".into(), region.report());
}
