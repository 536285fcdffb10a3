//! What runs beside the ordering of every node: its region, its probes, the map it gives out.
//!
//!   node ──┬── probes ──→ round trips, clock offsets ──→ status
//!          ├── map    ──→ signed by f + 1 validators  ──→ clients, by MAP
//!          └── region ──→ Raft, leases, strong entries ──→ shards' strong keys, status
//!
//! A node that the cluster has not agreed on yet has no region: its part there begins when it is a member. Replication
//! is not here, because only an appliance with shards has something to replicate.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::base::id::SiteId;
use crate::base::limits;
use crate::cluster::genesis::SiteKind;
use crate::cluster::host::links::Links;
use crate::cluster::host::news::{News, Weight};
use crate::cluster::host::node::Running;
use crate::cluster::host::region::report::submit_through;
use crate::cluster::host::region::{Region, RegionHandle, Setup, monotonic_us};
use crate::cluster::host::routes::{self, Routes};
use crate::cluster::host::status::Status;
use crate::cluster::region::MemoryStore;
use crate::cluster::state::State;

/// A node's parts. They end with the node's runtime.
pub struct Parts {
    /// Its part in its region, once it is a member.
    pub region: watch::Receiver<Option<RegionHandle>>,
    /// Its part in routing: links as measured, the map to give out.
    pub routes: Routes,
}

/// Starts a node's parts.
pub fn start(node: &Running, news: Arc<dyn News>) -> Result<Parts, String> {
    let routes = routes::start(node)?;
    let (publish, region) = watch::channel(None);
    node.runtime.spawn(join_region(Joining::of(node), news, publish));
    let told = region.clone();
    node.shared.add_part(Box::new(move |status| {
        if let Some(region) = told.borrow().as_ref() {
            tell_region(status, region);
        }
    }));
    Ok(Parts { region, routes })
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

fn tell_region(status: &mut Status, region: &RegionHandle) {
    // What the region itself knows is newer than what the cluster has agreed on.
    if let Some(leader) = region.leader() {
        status.leader = Some(leader.0);
        status.term = Some(region.term());
    }
    status.parts.insert("region".into(), region.report());
}
