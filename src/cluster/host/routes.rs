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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::cluster::command::Command;
    use crate::cluster::host::control::Control;
    use crate::cluster::host::folder::{Folder, Plan};
    use crate::cluster::host::keys::Key;
    use crate::cluster::host::news::Kept;
    use crate::cluster::host::node::{Node, Options, tests::free_ports};
    use crate::cluster::host::probe::unix_us;
    use crate::cluster::route::{RegionMap, SignedMap};

    fn until<T>(told: &str, mut holds: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = holds() {
                return found;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{told}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    struct Root(PathBuf);

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Real nodes: keys, certificates, TLS, disks, an ordering.
    #[test]
    fn four_nodes_measure_each_other_and_sign_a_map_that_follows_what_is_agreed_on() {
        let root = Root(std::env::temp_dir().join(format!("st-routes-{}", std::process::id())));
        let _ = std::fs::remove_dir_all(&root.0);
        let plan = Plan::on_one_host("127.0.0.1", 4, 1, free_ports(4), true).unwrap();
        let genesis = plan.found(&root.0, Duration::from_secs(86_400)).unwrap();
        let folder = |node: usize| root.0.join(format!("node-{node}"));
        let start_node = |node: usize| {
            let options = Options { news: Arc::<Kept>::default(), part: None };
            Node::start(&folder(node), options).unwrap()
        };
        let nodes: Vec<Running> = (1..=4).map(start_node).collect();
        let routes: Vec<Routes> = nodes.iter().map(|node| start(node).unwrap()).collect();
        let authorities = Authorities::of(&genesis).unwrap();
        let believed = |routes: &Routes, seen: Option<&RegionMap>| {
            let bytes = routes.map.borrow().clone()?;
            assert!(SignedMap::decode(&bytes).unwrap().signatures.len() >= 2);
            authorities.verify(&bytes, unix_us() / 1_000, seen).ok()
        };
        // The fourth site is a witness: it signs and measures, and is on no map.
        for routes in &routes {
            let map = until("a signed map", || believed(routes, None));
            assert_eq!(map.regions.iter().map(|region| region.site.0).collect::<Vec<_>>(), [1, 2, 3]);
        }
        let first = believed(&routes[0], None).unwrap();
        for node in &nodes {
            let is_measured = |link: &crate::cluster::host::status::LinkReport| {
                link.rtt_p90_ms.is_some() && link.clock_error_ms.is_some_and(|error| error < 1_000.0)
            };
            until("round trips in the status", || {
                let status = (node.status)();
                (status.links.len() == 3 && status.links.iter().all(is_measured)).then_some(())
            });
            let metrics = (node.status)().metrics();
            for name in ["clock_offset_seconds", "clock_error_seconds", "link_rtt_seconds", "link_rtt_p90_seconds"] {
                assert!(metrics.iter().any(|metric| metric.name.ends_with(name)), "{name} is missing");
            }
        }
        // Region 2 moves: what is agreed on is on the next map, of every node.
        let mut member = genesis.members.iter().find(|member| member.site.0 == 2).unwrap().clone();
        member.clients = Some("elsewhere.example:7700".into());
        let operator = Key::read(&root.0.join("operator.key")).unwrap();
        assert!(Folder::control(&folder(1)).exists());
        Control::connect(&folder(1)).unwrap().propose(&operator, Command::SetMember { member }).unwrap();
        for routes in &routes {
            until("the new address on the map", || {
                let map = believed(routes, Some(&first))?;
                let region = map.regions.iter().find(|region| region.site.0 == 2)?;
                (region.nodes[0].native.as_deref() == Some("elsewhere.example:7700")).then_some(())
            });
        }
        nodes.into_iter().for_each(Running::stop);
    }
}
