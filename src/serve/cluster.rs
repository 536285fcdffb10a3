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
use crate::cluster::host::parts::{self, Parts};
use crate::engine::Shared;
use crate::serve::log::{Line, Log};
use crate::serve::settle::Failure;

/// The cluster's part of an appliance.
pub struct Cluster {
    /// The node.
    pub node: Running,
    /// What runs beside its ordering.
    pub parts: Parts,
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
    let news = Arc::new(Told(log.clone()));
    let options = Options { news: news.clone(), part: None };
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
    let parts = parts::start(&node, news)
        .map_err(|reason| Failure { status: 78, reason: format!("--cluster {}: {reason}", folder.display()) })?;
    Ok(Cluster { node, parts })
}

impl Cluster {
    /// Gives shards each map of the regions that validators have signed, as long as the node runs.
    pub fn give_maps(&self, shared: Arc<Shared>) {
        let mut map = self.parts.routes.map.clone();
        self.node.runtime.spawn(async move {
            loop {
                let bytes = map.borrow_and_update().clone();
                if let Some(bytes) = bytes {
                    shared.region_map.set(Some(&bytes));
                }
                if map.changed().await.is_err() {
                    return;
                }
            }
        });
    }
}
