//! Four nodes in one process, with real links, keys, disks and threads.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Instant;

use super::*;
use crate::base::id::{NodeId, SiteId};
use crate::cluster::command::Command;
use crate::cluster::host::control::Control;
use crate::cluster::host::folder::Plan;
use crate::cluster::host::news::Kept;
use crate::cluster::host::submit::SubmitError;

struct Cluster {
    root: PathBuf,
    nodes: Vec<Option<Running>>,
    news: Vec<Arc<Kept>>,
}

/// A port with `count` free ones above it.
pub fn free_ports(count: u16) -> u16 {
    for base in (20_000..32_000).step_by(usize::from(count) + 300) {
        let base = base + (std::process::id() % 97) as u16;
        let all: Result<Vec<_>, _> = (1..=count).map(|port| TcpListener::bind(("127.0.0.1", base + port))).collect();
        if all.is_ok() {
            return base;
        }
    }
    panic!("no free ports");
}

impl Cluster {
    fn new(name: &str, nodes_per_site: u16) -> Cluster {
        let root = std::env::temp_dir().join(format!("st-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        let plan = Plan::on_one_host("127.0.0.1", 4, nodes_per_site, free_ports(4 * nodes_per_site), false).unwrap();
        plan.found(&root, Duration::from_secs(86_400 * 365)).unwrap();
        let count = usize::from(4 * nodes_per_site);
        Cluster { root, nodes: (0..count).map(|_| None).collect(), news: (0..count).map(|_| Arc::default()).collect() }
    }

    fn folder(&self, node: usize) -> PathBuf {
        self.root.join(format!("node-{node}"))
    }

    fn start(&mut self, node: usize) {
        let options = Options { news: self.news[node - 1].clone(), part: None };
        self.nodes[node - 1] = Some(Node::start(&self.folder(node), options).unwrap());
    }

    fn stop(&mut self, node: usize) {
        self.nodes[node - 1].take().unwrap().stop();
    }

    fn node(&self, node: usize) -> &Running {
        self.nodes[node - 1].as_ref().unwrap()
    }

    fn operator(&self) -> Key {
        Key::read(&self.root.join("operator.key")).unwrap()
    }

    fn propose(&self, node: usize, command: Command) -> Result<u64, String> {
        Control::connect(&self.folder(node)).unwrap().propose(&self.operator(), command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        if std::thread::panicking() {
            self.news.iter().for_each(|news| eprintln!("{:#?}", news.lines()));
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn tenant(name: &str) -> Command {
    Command::SetTenant { name: name.into(), policy: Some(name.into()) }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn four_nodes_agree_lose_one_and_get_it_back() {
    let mut cluster = Cluster::new("four", 1);
    (1..=4).for_each(|node| cluster.start(node));
    // Through the primary and through another; refusals come back in words.
    cluster.propose(1, tenant("one")).unwrap();
    cluster.propose(3, tenant("two")).unwrap();
    let refused = cluster.propose(2, Command::SetPrimary { site: SiteId(9) }).unwrap_err();
    assert!(refused.contains("no such site"), "{refused}");
    let wrong = Control::connect(&cluster.folder(1)).unwrap().propose(&Key::generate().unwrap(), tenant("x"));
    assert!(wrong.unwrap_err().contains("signature"));
    let leads = Control::connect(&cluster.folder(2)).unwrap().say(&Command::RegionLeader { term: 3 });
    leads.unwrap();
    assert_eq!(cluster.node(2).state.borrow().leaders[&SiteId(2)], (NodeId(2), 3));
    // A node is away; the others go on; it comes back and has everything.
    cluster.stop(4);
    for name in ["three", "four", "five"] {
        cluster.propose(1, tenant(name)).unwrap();
    }
    cluster.start(4);
    eventually("catching up", || cluster.node(4).state.borrow().tenants.len() == 5);
    let height = cluster.node(1).state.borrow().height;
    eventually("equal heights", || (1..=4).all(|node| cluster.node(node).state.borrow().height >= height));
    let digests: Vec<_> = (1..=4).map(|node| cluster.node(node).state.borrow().digest()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    // What was agreed on is still there when all have been away.
    (1..=4).for_each(|node| cluster.stop(node));
    (1..=4).for_each(|node| cluster.start(node));
    assert_eq!(cluster.node(2).state.borrow().digest(), digests[0]);
    cluster.propose(4, tenant("six")).unwrap();
    let status = (cluster.node(4).status)();
    assert_eq!((status.boot, status.evidence_count, status.tolerates), (3, 0, 1));
    assert!(status.links.iter().all(|link| link.connected) && status.decision.unwrap().count == 1);
    assert!(status.refusals.values().all(|count| *count == 0), "{:?}", status.refusals);
    assert!(status.metrics().iter().any(|metric| metric.name == "spinetail_cluster_link_rtt_seconds"));
}

#[test]
fn a_node_that_does_not_vote_follows_and_submits_through_its_site() {
    let mut cluster = Cluster::new("follow", 2);
    // Of every site one votes; node 2 follows at site 1.
    [1, 2, 3, 5, 7].into_iter().for_each(|node| cluster.start(node));
    cluster.propose(1, tenant("one")).unwrap();
    cluster.propose(2, tenant("two")).unwrap();
    let follower = cluster.node(2);
    let submitted =
        follower.runtime.block_on(follower.submitter.submit(Command::AuditRoot { entries: 7, root: [1; 32] }));
    submitted.unwrap();
    assert_eq!(follower.state.borrow().audits[&NodeId(2)].0, 7);
    assert!(!(follower.status)().votes);
    let refused = follower.runtime.block_on(follower.submitter.submit(tenant("mine")));
    assert!(matches!(refused, Err(SubmitError::Refused(_))), "{refused:?}");
}

#[test]
fn a_folder_that_runs_already_or_is_another_networks_is_refused_by_name() {
    let mut cluster = Cluster::new("refuse", 1);
    cluster.start(1);
    let start = |folder: &Path| {
        let options = Options { news: Arc::new(Kept::default()), part: None };
        Node::start(folder, options).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(start(&cluster.folder(1)).contains("in use by another process"));
    cluster.stop(1);
    // Another cluster's description over the same data.
    let other = Cluster::new("other", 1);
    for name in ["cluster.toml", "key.pem", "cert.pem"] {
        std::fs::copy(other.folder(1).join(name), cluster.folder(1).join(name)).unwrap();
    }
    assert!(start(&cluster.folder(1)).contains("wrong network"));
    // A certificate of another node.
    std::fs::copy(other.folder(2).join("cert.pem"), other.folder(1).join("cert.pem")).unwrap();
    let refused = start(&other.folder(1));
    assert!(refused.contains("cert.pem"), "{refused}");
}
