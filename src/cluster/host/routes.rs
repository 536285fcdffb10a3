//! A node's part in routing: it measures its links, answers probes, signs the region map if it votes, and has a signed
//! one to give out.
//!
//!   Node ─┬─ state ──→ maps ──→ watch: the map, for the appliance's clients
//!         ├─ links ──→ probe ──→ table of links ──→ status, /metrics
//!         └─ key ────→ signer, for other nodes' maps
//!
//! Every node does it, with or without data: a witness signs maps that it is not on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::cluster::host::maps::{self, MapSigner};
use crate::cluster::host::node::Running;
use crate::cluster::host::probe::{self, LinkTable};
use crate::cluster::host::status::Status;
use crate::cluster::keys::SecretKey;
use crate::cluster::route::Authorities;

/// What a node's part in routing has found out so far.
pub struct Routes {
    /// Its links, as last measured.
    pub links: watch::Receiver<Arc<LinkTable>>,
    /// The region map, once enough validators have signed one.
    pub map: watch::Receiver<Option<Bytes>>,
}

/// Begins. Refused, if the genesis has no validators by whom a map could be signed.
pub fn start(node: &Running) -> Result<Routes, String> {
    let authorities = Authorities::of(&node.genesis)?;
    let me = node.links.me;
    let is_validator = node.genesis.sites.iter().any(|site| site.validator == me);
    let signer = is_validator.then(|| Arc::new(MapSigner::new(SecretKey::from(node.key.secret()))));
    let inside = node.runtime.enter();
    probe::answer(&node.links, signer.clone());
    let every = Duration::from_millis(node.genesis.timing.probe_ms.max(PROBE_MS_MIN));
    let links = probe::start(node.links.clone(), node.state.clone(), every);
    let map = maps::start(node.links.clone(), node.genesis.clone(), authorities, node.state.clone(), signer);
    drop(inside);
    let table = links.clone();
    node.shared.add_part(Box::new(move |status| fill_in(status, &table.borrow())));
    Ok(Routes { links, map })
}

/// Puts what probes know of links where a status has room for it.
fn fill_in(status: &mut Status, table: &LinkTable) {
    let ms = |us: f64| us / 1e3;
    for measured in &table.links {
        let Some(link) = status.link_mut(measured.node) else { continue };
        // The carrier's own round trip stays where no probe was answered yet.
        link.rtt_ms = measured.rtt_us.map(|us| ms(us as f64)).or(link.rtt_ms);
        link.rtt_p90_ms = measured.rtt_p90_us.map(|us| ms(us as f64));
        link.loss = Some(measured.loss);
        link.clock_offset_ms = measured.clock_offset_us.map(|us| ms(us as f64));
        link.clock_error_ms = measured.clock_error_us.map(|us| ms(us as f64));
    }
}

/// A genesis that says less would have nodes do nothing but probe.
const PROBE_MS_MIN: u64 = 10;
