//! The appliance as a node of a cluster: the one place where the cluster's parts are wired to it.
//!
//!   --cluster DIR ──→ Node ─┬─ links, state, submitter ──→ (region, replication, probes, routes)
//!                           └─ status ──→ `cluster status`, /metrics
//!
//! All of it runs on threads of its own, which inherit the housekeeping cores; shards know nothing of it but what is
//! handed to them through rings and blobs that they look at in their turn.

use std::path::Path;
use std::sync::Arc;

use crate::cluster::host::news::{News, Weight};
use crate::cluster::host::node::{Node, Options, Running, StartError};
use crate::cluster::host::routes::{self, Routes};
use crate::engine::Shared;
use crate::serve::log::{Line, Log};
use crate::serve::settle::Failure;

/// The cluster's part of an appliance.
pub struct Cluster {
    /// The node.
    pub node: Running,
    /// Its part in routing.
    pub routes: Routes,
}

impl Cluster {
    /// Has shards give out the region map, and each newer one.
    pub fn give_out_maps(&self, shared: Arc<Shared>) {
        let mut map = self.routes.map.clone();
        self.node.runtime.spawn(async move {
            loop {
                let bytes = map.borrow_and_update().clone();
                if bytes.is_some() {
                    shared.region_map.set(bytes.as_deref());
                }
                if map.changed().await.is_err() {
                    return;
                }
            }
        });
    }
}

/// What a node has to say, as lines of the log.
pub struct Told(pub Log);

impl News for Told {
    fn tell(&self, weight: Weight, message: &'static str, fields: &[(&'static str, String)]) {
        let line = match weight {
            Weight::Info => Line::info(message),
            Weight::Warn => Line::warn(message),
            Weight::Error => Line::error(message),
        };
        self.0.write(&fields.iter().fold(line, |line, (name, value)| line.with(name, value.clone())));
    }
}

/// Starts the node of a folder.
pub fn start(folder: &Path, log: &Log) -> Result<Cluster, Failure> {
    let options = Options { news: Arc::new(Told(log.clone())), part: None };
    let node = Node::start(folder, options).map_err(|error| {
        let status = if matches!(error, StartError::Folder(_) | StartError::Unknown(_)) { 78 } else { 1 };
        Failure { status, reason: format!("--cluster {}: {error}", folder.display()) }
    })?;
    log.write(
        &Line::info("cluster")
            .with("node", u64::from(node.me.id.0))
            .with("site", u64::from(node.me.site.0))
            .with("address", node.me.address.as_str())
            .with("network", node.genesis.network().to_string())
            .with("height", node.state.borrow().height),
    );
    let routes = routes::start(&node).map_err(|reason| Failure {
        status: 78,
        reason: format!("--cluster {}: cluster.toml: {reason}", folder.display()),
    })?;
    Ok(Cluster { node, routes })
}
