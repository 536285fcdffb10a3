//! A node's folder, and how a cluster's folders come to be.
//!
//!   DIR/operator.key, DIR/authority.key     the operator's: membership and policy, certificates
//!   DIR/cluster.toml                        the genesis
//!   DIR/node-3/cluster.toml                 the same
//!   DIR/node-3/node.toml                    which node this is, where it listens, how it reaches others
//!   DIR/node-3/key.pem, cert.pem            who it is
//!   DIR/node-3/data/                        what it keeps (`disk`)
//!   DIR/node-3/control.sock                 where `cluster status` and `cluster propose` ask, while it runs
//!
//! `node.toml` holds what is this machine's own business: an address to listen on that differs from the one others
//! use (a container, a forwarded port), and ways to reach other nodes that differ from their addresses (a tunnel, a
//! proxy that delays). Everything else is agreed on, and stands in `cluster.toml` or in the state.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::id::{NodeId, SiteId};
use crate::base::time::unix_ms;
use crate::cluster::genesis::{Genesis, Member, Site, SiteKind, Timing};
use crate::cluster::host::keys::{self, Authority, Key, KeyError, certificates, fingerprint, write_private};

/// What a node's folder says.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// The beginning of its cluster.
    pub genesis: Genesis,
    /// What is its own business.
    pub own: NodeFile,
    /// Its key.
    pub key: Key,
    /// Its certificate, PEM.
    pub certificate: String,
}

/// `node.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// Which node this is.
    pub node: NodeId,
    /// Where it stands. Needed only while the cluster has not agreed on the node yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteId>,
    /// Where it listens, `host:port`, if not at its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// How it reaches other nodes, by their numbers, if not at their addresses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reach: BTreeMap<String, String>,
}

/// A cluster that is to be. As a file: `[[site]]` with `[[site.node]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// A name for people.
    #[serde(default = "default_name")]
    pub name: String,
    /// The clockwork.
    #[serde(default)]
    pub timing: Timing,
    /// Its sites.
    #[serde(rename = "site")]
    pub sites: Vec<SitePlan>,
}

/// A site of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SitePlan {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(default = "region")]
    pub kind: SiteKind,
    /// Its nodes; the first votes for it.
    #[serde(rename = "node")]
    pub nodes: Vec<NodePlan>,
}

/// A node of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePlan {
    /// Where other nodes reach it.
    pub address: String,
    /// Where clients reach it.
    #[serde(default)]
    pub clients: Option<String>,
    /// Where RESP clients reach it.
    #[serde(default)]
    pub resp: Option<String>,
    /// It votes in its region's Raft group; if nothing is said, the first 1, 3 or 5 do.
    #[serde(default)]
    pub voter: Option<bool>,
}

fn default_name() -> String {
    "spinetail".into()
}

fn region() -> SiteKind {
    SiteKind::Region
}

/// What is wrong with a folder or a plan.
#[derive(Debug)]
pub enum FolderError {
    /// A file cannot be read or written.
    File(PathBuf, io::Error),
    /// A file says something else than it should.
    Malformed(PathBuf, String),
    /// A key or certificate.
    Key(KeyError),
    /// The plan does not make a cluster.
    Plan(String),
}

impl Folder {
    /// Reads a node's folder.
    pub fn read(path: &Path) -> Result<Folder, FolderError> {
        let genesis = read_genesis(&path.join("cluster.toml"))?;
        let own: NodeFile = read_toml(&path.join("node.toml"))?;
        let key = Key::read(&path.join("key.pem")).map_err(FolderError::Key)?;
        let certificate = read_text(&path.join("cert.pem"))?;
        Ok(Folder { path: path.to_path_buf(), genesis, own, key, certificate })
    }

    /// How it reaches others, by number.
    pub fn reach(&self) -> Result<BTreeMap<NodeId, String>, FolderError> {
        let parsed = self.own.reach.iter().map(|(node, address)| match node.parse() {
            Ok(node) => Ok((NodeId(node), address.clone())),
            Err(_) => Err(FolderError::Malformed(
                self.path.join("node.toml"),
                format!("'{node}' under [reach] is no node's number"),
            )),
        });
        parsed.collect()
    }

    /// A number for a life of the node that begins now, higher than those of all before: the time of day in milliseconds,
    /// or one more than the last where the clock was set back. It is on the disk before it is used.
    pub fn incarnation(&self) -> Result<u64, FolderError> {
        let data = self.path.join("data");
        let path = data.join("incarnation");
        let failed = |error| FolderError::File(path.clone(), error);
        let last = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse::<u64>().map_err(|error| {
                FolderError::Malformed(path.clone(), format!("{error}: it holds the number of the node's last start"))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(failed(error)),
        };
        let incarnation = unix_ms().max(last.saturating_add(1));
        make(&data)?;
        let next = data.join("incarnation.next");
        // Left by a start that did not come so far.
        let _ = fs::remove_file(&next);
        write(&next, &format!("{incarnation}\n"))?;
        fs::rename(&next, &path).map_err(failed)?;
        fs::File::open(&data).and_then(|data| data.sync_all()).map_err(failed)?;
        Ok(incarnation)
    }

    /// Where its control socket is.
    pub fn control(path: &Path) -> PathBuf {
        path.join("control.sock")
    }
}

/// Reads a `cluster.toml`.
pub fn read_genesis(path: &Path) -> Result<Genesis, FolderError> {
    let genesis: Genesis = read_toml(path)?;
    check(&genesis).map_err(|reason| FolderError::Malformed(path.to_path_buf(), reason))?;
    Ok(genesis)
}

impl Plan {
    /// `sites` sites of `nodes` nodes each on one host: node N listens at `port` + N, takes clients at `port` + 100 + N
    /// and RESP clients at `port` + 200 + N. With `has_witness`, the last site only votes and has one node.
    pub fn on_one_host(host: &str, sites: u8, nodes: u16, port: u16, has_witness: bool) -> Result<Plan, FolderError> {
        let last = u32::from(port) + 200 + u32::from(sites) * u32::from(nodes);
        if last > u32::from(u16::MAX) {
            return Err(FolderError::Plan(format!("ports up to {last} would be needed: give a lower --base-port")));
        }
        let mut number = 0;
        let sites = (1..=sites).map(|site| {
            let is_witness = has_witness && site == sites;
            let count = if is_witness { 1 } else { nodes };
            let nodes = (0..count).map(|_| {
                number += 1;
                let at = |offset: u16| format!("{host}:{}", port + offset + number);
                let (clients, resp) = if is_witness { (None, None) } else { (Some(at(100)), Some(at(200))) };
                NodePlan { address: at(0), clients, resp, voter: None }
            });
            let kind = if is_witness { SiteKind::Witness } else { SiteKind::Region };
            SitePlan { name: format!("site-{site}"), kind, nodes: nodes.collect() }
        });
        Ok(Plan { name: default_name(), timing: Timing::default(), sites: sites.collect() })
    }

    /// Reads a plan from a file.
    pub fn read(path: &Path) -> Result<Plan, FolderError> {
        read_toml(path)
    }

    /// Makes the cluster's folders below `folder`: keys, certificates valid for `valid`, genesis. Nothing that is
    /// there is overwritten.
    pub fn found(&self, folder: &Path, valid: Duration) -> Result<Genesis, FolderError> {
        let nonce = keys::random::<16>().map_err(|error| FolderError::File("/dev/urandom".into(), error))?;
        let nonce = keys::hex(&nonce);
        let operator = Key::generate().map_err(FolderError::Key)?;
        let authority_key = Key::generate().map_err(FolderError::Key)?;
        let authority = Authority::new(authority_key, &nonce);
        let (mut sites, mut members, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for (index, site) in self.sites.iter().enumerate() {
            let id = SiteId(u8::try_from(index + 1).map_err(|_| FolderError::Plan("too many sites".into()))?);
            let first = NodeId(members.len() as u16 + 1);
            sites.push(Site { id, name: site.name.clone(), kind: site.kind, validator: first });
            // An even number of voters bears no more losses than one less.
            let voters = [5, 3, 1].into_iter().find(|voters| *voters <= site.nodes.len()).unwrap_or(0);
            for (place, node) in site.nodes.iter().enumerate() {
                let id_of_node = NodeId(members.len() as u16 + 1);
                let key = Key::generate().map_err(FolderError::Key)?;
                let pem = authority.issue(id_of_node, &key.public(), valid).map_err(FolderError::Key)?;
                members.push(Member {
                    id: id_of_node,
                    site: id,
                    name: format!("node-{id_of_node}"),
                    address: node.address.clone(),
                    clients: node.clients.clone(),
                    resp: node.resp.clone(),
                    key: key.public(),
                    certificate: pinned(&pem)?,
                    voter: node.voter.unwrap_or(place < voters),
                });
                own.push((key, pem));
            }
        }
        let genesis = Genesis {
            name: self.name.clone(),
            nonce,
            operator: operator.public(),
            authority: authority.certificate().map_err(FolderError::Key)?,
            timing: self.timing,
            sites,
            members,
        };
        check(&genesis).map_err(FolderError::Plan)?;
        make(folder)?;
        operator.write(&folder.join("operator.key")).map_err(FolderError::Key)?;
        authority.key().write(&folder.join("authority.key")).map_err(FolderError::Key)?;
        for (member, (key, pem)) in genesis.members.iter().zip(own) {
            let file = NodeFile { node: member.id, site: None, listen: None, reach: BTreeMap::new() };
            write_folder(&folder.join(&member.name), &genesis, &file, &key, &pem)?;
        }
        write_toml(&folder.join("cluster.toml"), &genesis)?;
        Ok(genesis)
    }
}

/// Makes a node's folder.
pub fn write_folder(
    folder: &Path,
    genesis: &Genesis,
    own: &NodeFile,
    key: &Key,
    certificate: &str,
) -> Result<(), FolderError> {
    make(folder)?;
    write_toml(&folder.join("cluster.toml"), genesis)?;
    write_toml(&folder.join("node.toml"), own)?;
    key.write(&folder.join("key.pem")).map_err(FolderError::Key)?;
    write(&folder.join("cert.pem"), certificate)
}

/// The fingerprint of the first certificate in a PEM text.
pub fn pinned(pem: &str) -> Result<String, FolderError> {
    let found = certificates(pem).map_err(|reason| FolderError::Malformed("cert.pem".into(), reason))?;
    Ok(fingerprint(&found[0]))
}

/// What must hold of every genesis, whoever wrote it.
fn check(genesis: &Genesis) -> Result<(), String> {
    if ![1, 4, 7, 10].contains(&genesis.sites.len()) {
        return Err(format!("{} sites: a cluster has 1, 4, 7 or 10 (3f + 1, to bear f that lie)", genesis.sites.len()));
    }
    for site in &genesis.sites {
        let is_there = |member: &&Member| member.id == site.validator && member.site == site.id;
        if genesis.members.iter().find(is_there).is_none() {
            return Err(format!("site {}: node {} votes for it and is none of its nodes", site.id, site.validator));
        }
        let voters = genesis.members.iter().filter(|member| member.site == site.id && member.voter).count();
        if ![1, 3, 5].contains(&voters) {
            return Err(format!("site {}: {voters} Raft voters: there are 1, 3 or 5", site.id));
        }
    }
    for (index, member) in genesis.members.iter().enumerate() {
        let others = &genesis.members[..index];
        let same =
            |other: &&Member| other.id == member.id || other.address == member.address || other.key == member.key;
        if let Some(other) = others.iter().find(same) {
            return Err(format!("nodes {} and {} share a number, an address or a key", other.id, member.id));
        }
        if !genesis.sites.iter().any(|site| site.id == member.site) {
            return Err(format!("node {}: there is no site {}", member.id, member.site));
        }
    }
    let ids: std::collections::BTreeSet<SiteId> = genesis.sites.iter().map(|site| site.id).collect();
    if ids.len() != genesis.sites.len() {
        return Err("two sites share a number".into());
    }
    let timing = genesis.timing;
    let figures = [
        timing.propose_ms,
        timing.vote_ms,
        timing.rebroadcast_ms,
        timing.heartbeat_ms,
        timing.election_ms,
        timing.probe_ms,
    ];
    if figures.contains(&0) {
        return Err("no figure under [timing] may be 0".into());
    }
    Ok(())
}

/// Makes a folder.
pub(crate) fn make(folder: &Path) -> Result<(), FolderError> {
    fs::create_dir_all(folder).map_err(|error| FolderError::File(folder.to_path_buf(), error))
}

/// Writes a text to a file that must not exist yet.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), FolderError> {
    write_private(path, text.as_bytes()).map_err(|error| FolderError::Key(KeyError::File(path.to_path_buf(), error)))
}

/// Writes a value to a file that must not exist yet.
pub(crate) fn write_toml(path: &Path, value: &impl Serialize) -> Result<(), FolderError> {
    let text = toml::to_string(value).map_err(|error| FolderError::Malformed(path.to_path_buf(), error.to_string()))?;
    write(path, &text)
}

fn read_text(path: &Path) -> Result<String, FolderError> {
    fs::read_to_string(path).map_err(|error| FolderError::File(path.to_path_buf(), error))
}

/// Reads a value from a file.
pub(crate) fn read_toml<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, FolderError> {
    toml::from_str(&read_text(path)?)
        .map_err(|error| FolderError::Malformed(path.to_path_buf(), error.to_string().trim().replace('\n', " ")))
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FolderError::File(path, error) if error.kind() == io::ErrorKind::NotFound => {
                write!(
                    f,
                    "{} is missing: folders of nodes are made by 'spinetail cluster init' or 'join'",
                    path.display()
                )
            }
            FolderError::File(path, error) => write!(f, "{}: {error}", path.display()),
            FolderError::Malformed(path, reason) => write!(f, "{}: {reason}", path.display()),
            FolderError::Key(error) => error.fmt(f),
            FolderError::Plan(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for FolderError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::host::trust::{Trust, Validity};

    fn temporary(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("spinetail-folder-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_founded_cluster_has_a_folder_for_each_node_that_reads_back() {
        let folder = temporary("found");
        let day = Duration::from_secs(86_400);
        let genesis = Plan::on_one_host("127.0.0.1", 4, 3, 7800, true).unwrap().found(&folder, day * 400).unwrap();
        assert_eq!((genesis.sites.len(), genesis.members.len(), genesis.tolerates()), (4, 10, 1));
        assert_eq!(genesis.sites[3].kind, SiteKind::Witness);
        assert_eq!(read_genesis(&folder.join("cluster.toml")).unwrap().network(), genesis.network());
        for member in &genesis.members {
            let node = Folder::read(&folder.join(&member.name)).unwrap();
            assert_eq!((node.own.node, &node.genesis), (member.id, &genesis));
            assert_eq!(
                (node.key.public(), pinned(&node.certificate).unwrap()),
                (member.key.clone(), member.certificate.clone())
            );
            let lives = [node.incarnation().unwrap(), node.incarnation().unwrap()];
            assert!(lives[0] < lives[1], "two within a millisecond, too: {lives:?}");
            let trust = Trust::new(&node.key, &node.certificate, &genesis.authority).unwrap();
            assert_eq!(trust.validity(member.id, day), Ok(Validity::Good));
            assert_eq!(trust.validity(member.id, day * 500), Ok(Validity::EndsSoon));
            assert!(trust.validity(NodeId(99), day).is_err(), "a certificate is one node's");
        }
        let again = Plan::on_one_host("127.0.0.1", 4, 1, 7800, false).unwrap().found(&folder, day);
        assert!(again.unwrap_err().to_string().contains("nothing is overwritten"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn plans_and_files_that_make_no_cluster_are_refused_with_the_reason() {
        let folder = temporary("refused");
        let refused = |sites: u8, nodes: u16, port: u16| {
            let plan = Plan::on_one_host("h", sites, nodes, port, false);
            plan.and_then(|plan| plan.found(&folder, Duration::from_secs(60))).unwrap_err().to_string()
        };
        assert!(refused(3, 1, 7800).contains("1, 4, 7 or 10"));
        assert!(refused(4, 1, 65_500).contains("--base-port"));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("plan.toml");
        fs::write(&path, "[[site]]\nname = 'a'\ncolour = 'red'\n").unwrap();
        assert!(Plan::read(&path).unwrap_err().to_string().contains("colour"));
        assert!(Folder::read(&folder).err().unwrap().to_string().contains("cluster init"));
        fs::remove_dir_all(folder).unwrap();
    }
}
