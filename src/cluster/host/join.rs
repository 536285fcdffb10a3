//! How a node comes to a cluster that exists, and how one gets a new key.
//!
//!   at the node      join      key.pem, request.toml
//!   at the operator  sign      cert.pem, member.toml          the authority's key stays there
//!   anywhere         propose set-member --file member.toml    and the node is one as soon as that is executed
//!
//! A node whose folder was lost, copied or restored from an older copy may not go on with its key: what that key has
//! signed is not known any more. It gets a new one, and the cluster agrees on it; nothing else has to be believed.
//! A certificate that is about to end is renewed for the same key.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::id::{NodeId, SiteId};
use crate::cluster::genesis::{Genesis, Member};
use crate::cluster::host::folder::{
    Folder, FolderError, NodeFile, make, pinned, read_genesis, read_toml, write, write_toml,
};
use crate::cluster::host::keys::{Authority, Key};

/// What a new node wants to be.
pub struct Wish {
    /// Its number.
    pub node: NodeId,
    /// Where it stands.
    pub site: SiteId,
    /// Where other nodes reach it.
    pub address: String,
    /// Where it listens, if elsewhere.
    pub listen: Option<String>,
    /// Where clients reach it.
    pub clients: Option<String>,
    /// Where RESP clients reach it.
    pub resp: Option<String>,
    /// It votes in its region's Raft group.
    pub voter: bool,
}

/// Makes the folder of a new node. With the authority's key it is complete, and the member to be proposed is
/// returned; without, it holds a request.
pub fn join(
    folder: &Path,
    cluster: &Path,
    authority: Option<&Path>,
    wish: Wish,
    valid: Duration,
) -> Result<Option<Member>, FolderError> {
    let genesis = read_genesis(cluster)?;
    if genesis.member(wish.node).is_some() {
        return Err(FolderError::Plan(format!(
            "node {} is there already: give another --id, or --renew it",
            wish.node
        )));
    }
    let key = Key::generate().map_err(FolderError::Key)?;
    let request = Member {
        id: wish.node,
        site: wish.site,
        name: format!("node-{}", wish.node),
        address: wish.address.clone(),
        clients: wish.clients,
        resp: wish.resp,
        key: key.public(),
        certificate: String::new(),
        voter: wish.voter,
    };
    make(folder)?;
    key.write(&folder.join("key.pem")).map_err(FolderError::Key)?;
    write_toml(&folder.join("cluster.toml"), &genesis)?;
    let listen = Some(wish.listen.unwrap_or(wish.address));
    write_toml(
        &folder.join("node.toml"),
        &NodeFile { node: wish.node, site: Some(wish.site), listen, reach: Default::default() },
    )?;
    write_toml(&folder.join("request.toml"), &request)?;
    match authority {
        None => Ok(None),
        Some(authority) => issue(folder, &genesis, authority, request, valid).map(Some),
    }
}

/// Signs a request: `cert.pem` and `member.toml` appear beside it. Returns the member and where that is.
pub fn sign(
    request: &Path,
    cluster: &Path,
    authority: &Path,
    valid: Duration,
) -> Result<(Member, PathBuf), FolderError> {
    let genesis = read_genesis(cluster)?;
    let wanted: Member = read_toml(request)?;
    let folder = request.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let member = issue(folder, &genesis, authority, wanted, valid)?;
    Ok((member, folder.to_path_buf()))
}

/// Gives a node a new certificate, and a new key unless it keeps its own. What was there is kept with `.old` behind
/// its name. Returns the member to be proposed.
pub fn renew(folder: &Path, authority: &Path, keeps_key: bool, valid: Duration) -> Result<Member, FolderError> {
    let node = Folder::read(folder)?;
    // What it was agreed to be: as it joined, if it did, or as the cluster began.
    let agreed = match folder.join("member.toml") {
        path if path.exists() => read_toml(&path)?,
        _ => node.genesis.member(node.own.node).cloned().ok_or_else(|| {
            FolderError::Plan(format!("node {} never was a member: 'cluster join' it", node.own.node))
        })?,
    };
    let old = |name: &str| -> Result<(), FolderError> {
        let (path, old) = (folder.join(name), folder.join(format!("{name}.old")));
        match fs::rename(&path, &old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FolderError::File(path, error)),
            _ => Ok(()),
        }
    };
    let key = if keeps_key {
        node.key.public()
    } else {
        let key = Key::generate().map_err(FolderError::Key)?;
        old("key.pem")?;
        key.write(&folder.join("key.pem")).map_err(FolderError::Key)?;
        key.public()
    };
    old("cert.pem")?;
    old("member.toml")?;
    issue(folder, &node.genesis, authority, Member { key, ..agreed }, valid)
}

fn issue(
    folder: &Path,
    genesis: &Genesis,
    authority: &Path,
    request: Member,
    valid: Duration,
) -> Result<Member, FolderError> {
    let authority = Authority::new(Key::read(authority).map_err(FolderError::Key)?, &genesis.nonce);
    // The same key and the same words make the same certificate: nothing in it is drawn, and ed25519 draws nothing.
    if pinned(&authority.certificate().map_err(FolderError::Key)?)? != pinned(&genesis.authority)? {
        return Err(FolderError::Plan("that is not the key of this cluster's authority".into()));
    }
    let pem = authority.issue(request.id, &request.key, valid).map_err(FolderError::Key)?;
    let member = Member { certificate: pinned(&pem)?, ..request };
    write(&folder.join("cert.pem"), &pem)?;
    write_toml(&folder.join("member.toml"), &member)?;
    Ok(member)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::host::folder::Plan;
    use crate::cluster::host::trust::{Trust, Validity};

    #[test]
    fn a_node_joins_by_request_and_is_renewed_with_a_new_key() {
        let root = std::env::temp_dir().join(format!("spinetail-join-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let day = Duration::from_secs(86_400);
        let plan = Plan::on_one_host("127.0.0.1", 4, 1, 7800, false).unwrap();
        let genesis = plan.found(&root, day).unwrap();
        let (cluster, authority) = (root.join("cluster.toml"), root.join("authority.key"));
        let wish = |node| Wish {
            node: NodeId(node),
            site: SiteId(1),
            address: "127.0.0.1:9000".into(),
            listen: None,
            clients: None,
            resp: None,
            voter: false,
        };
        let folder = root.join("node-5");
        assert!(join(&folder, &cluster, None, wish(1), day).is_err(), "node 1 is there already");
        assert_eq!(join(&folder, &cluster, None, wish(5), day).unwrap(), None);
        let other = root.join("operator.key");
        assert!(sign(&folder.join("request.toml"), &cluster, &other, day).is_err(), "another key signs nothing");
        let (member, at) = sign(&folder.join("request.toml"), &cluster, &authority, day).unwrap();
        assert_eq!(at, folder);
        let node = Folder::read(&folder).unwrap();
        let trust = Trust::new(&node.key, &node.certificate, &genesis.authority).unwrap();
        assert_eq!(trust.validity(NodeId(5), Duration::ZERO), Ok(Validity::Good));
        assert_eq!((trust.fingerprint(), node.key.public()), (member.certificate.clone(), member.key.clone()));
        let same_key = renew(&folder, &authority, true, day * 3).unwrap();
        assert!(same_key.key == member.key && same_key.certificate != member.certificate);
        let new_key = renew(&folder, &authority, false, day).unwrap();
        assert!(new_key.key != member.key && new_key.address == member.address);
        assert_eq!(Folder::read(&folder).unwrap().key.public(), new_key.key);
        fs::remove_dir_all(root).unwrap();
    }
}
