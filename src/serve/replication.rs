//! Replication wired: the node's place in the cluster to the shards before they start, their rings to its links after.
//!
//!   --cluster DIR -> who we are -> shards, each with its end of a ring
//!                                    |  the other ends
//!   node: links, state ------------> carrier -> report -> `cluster status`, /metrics
//!
//! The seed of the key hash is drawn from the cluster's genesis, so that all its nodes name keys alike.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::base::limits;
use crate::cluster::genesis::SiteKind;
use crate::cluster::host::folder::Folder;
use crate::cluster::host::node::Running;
use crate::cluster::host::replication::{Replication, Setup, seed_of};
use crate::engine::replica::{ShardPorts, versions_max};
use crate::replica;
use crate::serve::settle::Failure;

/// What the shards of the node of a folder are told; none if it is a witness, which has no data.
pub fn config(folder: &Path, arena_bytes: u64) -> Result<Option<replica::Config>, Failure> {
    // The node reads it again when it starts, and says all that may be wrong with it.
    let failure = |reason: String| Failure { status: 78, reason: format!("--cluster {}: {reason}", folder.display()) };
    let read = Folder::read(folder).map_err(|error| failure(error.to_string()))?;
    let node = read.own.node;
    let site = read.genesis.member(node).map(|member| member.site).or(read.own.site);
    let site =
        site.ok_or_else(|| failure(format!("node {node} is not in cluster.toml: node.toml must say its 'site'")))?;
    let kind = read.genesis.sites.iter().find(|other| other.id == site).map(|site| site.kind);
    if kind == Some(SiteKind::Witness) {
        return Ok(None);
    }
    Ok(Some(replica::Config {
        node,
        site,
        incarnation: read.incarnation().map_err(|error| failure(error.to_string()))?,
        seed: seed_of(read.genesis.network()),
        versions_max: versions_max(arena_bytes),
        counters_max: limits::REPLICATION_COUNTERS_MAX,
    }))
}

/// Carries the streams of shards that were started with `config`.
pub fn start(node: &Running, ports: ShardPorts, config: &replica::Config) -> Replication {
    let _runtime = node.runtime.enter();
    let setup = Setup { site: config.site, incarnation: config.incarnation, seed: config.seed };
    let replication = Replication::start(node.links.clone(), node.state.clone(), Box::new(ports), setup);
    let told = replication.clone();
    node.shared.add_part(Box::new(move |status| {
        let report = told.report();
        let lags: BTreeMap<u16, f64> = report.peers.iter().map(|(node, peer)| (*node, peer.lag_ms as f64)).collect();
        status.lag_ms = Some(lags);
        status.parts.insert("replication".into(), json!(report));
    }));
    replication
}
