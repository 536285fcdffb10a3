//! What has been agreed on: the same at every node that has executed the same heights.
//!
//! Only ordered commands change it, and only by `execute`, which looks at nothing but the state and the command:
//! that is what makes it the same everywhere. A command that may not be executed is refused the same way everywhere,
//! and says why.
//!
//!   batch of height h: [ command, command, … ]
//!     each: signature ─> number ─> right ─> sense ─> apply          (the first refusal refuses the batch)
//!
//! A refused command in a batch refuses all of it: proposers try every command before they propose, so a batch with a
//! refusal in it is a proposer's fault, and honest sites vote against it. In exchange, what is in the order has been
//! executed, without footnotes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::cluster::command::{Author, Command, Signed};
use crate::cluster::genesis::{Genesis, Member, NetworkId, Site, SiteKind};
use crate::cluster::keys;
use crate::replica::{Mode, Namespace, Rules};

/// What has been agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Which cluster.
    pub network: NetworkId,
    /// The last height whose commands are in it.
    pub height: u64,
    /// The operator's public key, hexadecimal.
    pub operator: String,
    /// Sites, by number.
    pub sites: BTreeMap<SiteId, Site>,
    /// Nodes, by number.
    pub members: BTreeMap<NodeId, Member>,
    /// Who proposes first.
    pub primary: SiteId,
    /// Namespaces.
    pub rules: Rules,
    /// Policies of tenants.
    pub tenants: BTreeMap<String, Vec<u8>>,
    /// Number and digest of the configuration.
    pub config: (u64, [u8; 32]),
    /// Entries and digest of each node's audit trail.
    pub audits: BTreeMap<NodeId, (u64, [u8; 32])>,
    /// Each region's leader and its term.
    pub leaders: BTreeMap<SiteId, (NodeId, u64)>,
    /// The highest executed number of each author.
    pub numbers: BTreeMap<Author, u64>,
}

impl State {
    /// The state before the first height.
    pub fn new(genesis: &Genesis) -> State {
        State {
            network: genesis.network(),
            height: 0,
            operator: genesis.operator.clone(),
            sites: genesis.sites.iter().map(|site| (site.id, site.clone())).collect(),
            members: genesis.members.iter().map(|member| (member.id, member.clone())).collect(),
            primary: genesis.sites.iter().map(|site| site.id).min().unwrap_or(SiteId(0)),
            rules: Rules::default(),
            tenants: BTreeMap::new(),
            config: (0, [0; 32]),
            audits: BTreeMap::new(),
            leaders: BTreeMap::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// Executes a whole height: `proposer` is who first proposed its batch. All or nothing.
    ///
    /// The primary is whoever proposed last: a primary that failed has been replaced by the site whose proposal was
    /// decided instead, for as long as it does not fail itself. This follows from the *value* that was decided and
    /// never from the round in which this node saw it decided, which may differ from node to node.
    pub fn execute_height(&self, height: u64, proposer: SiteId, batch: &[Signed]) -> Result<State, (usize, Refused)> {
        self.execute_height_by(height, proposer, batch, &keys::verifies)
    }

    /// The same with another way to find out whether a signature holds: one that remembers.
    pub fn execute_height_by(
        &self,
        height: u64,
        proposer: SiteId,
        batch: &[Signed],
        verifies: Verifies<'_>,
    ) -> Result<State, (usize, Refused)> {
        let mut next = self.clone();
        next.height = height;
        if next.sites.contains_key(&proposer) {
            next.primary = proposer;
        }
        for (index, signed) in batch.iter().enumerate() {
            next.execute_by(signed, verifies).map_err(|refused| (index, refused))?;
        }
        Ok(next)
    }

    /// Executes a command, or refuses it and stays as it is.
    pub fn execute(&mut self, signed: &Signed) -> Result<(), Refused> {
        self.execute_by(signed, &keys::verifies)
    }

    /// The same with another way to find out whether a signature holds.
    pub fn execute_by(&mut self, signed: &Signed, verifies: Verifies<'_>) -> Result<(), Refused> {
        self.check_signature_by(signed, verifies)?;
        self.permits(signed)?;
        self.apply(signed);
        Ok(())
    }

    /// Whether the command is its author's: the operator's key is of the genesis or was handed over since, a node's of the
    /// members.
    pub fn check_signature(&self, signed: &Signed) -> Result<(), Refused> {
        self.check_signature_by(signed, &keys::verifies)
    }

    /// The same with another way to find out whether a signature holds.
    pub fn check_signature_by(&self, signed: &Signed, verifies: Verifies<'_>) -> Result<(), Refused> {
        let key = match signed.author {
            Author::Operator => keys::public_key(&self.operator),
            Author::Node(node) => {
                keys::public_key(&self.members.get(&node).ok_or(Refused::UnknownAuthor { author: signed.author })?.key)
            }
        };
        let bytes = Signed::bytes(self.network, signed.author, signed.number, &signed.command);
        let is_proven = match &signed.command {
            Command::SetOperator { key, proof } => {
                let bytes = Command::handover(&self.operator, key);
                keys::public_key(key).is_some_and(|key| verifies(&key, &bytes, proof))
            }
            _ => true,
        };
        match is_proven && key.is_some_and(|key| verifies(&key, &bytes, &signed.signature)) {
            true => Ok(()),
            false => Err(Refused::Signature),
        }
    }

    /// Whether it could be executed now, its signature aside.
    pub fn permits(&self, signed: &Signed) -> Result<(), Refused> {
        let last = self.numbers.get(&signed.author).copied().unwrap_or(0);
        if signed.number <= last {
            return Err(Refused::Number { number: signed.number, last });
        }
        match signed.author {
            Author::Operator => match &signed.command {
                // These two say something about the node that signs them.
                Command::AuditRoot { .. } | Command::RegionLeader { .. } => Err(Refused::Right),
                _ => self.makes_sense(None, &signed.command),
            },
            Author::Node(node) => {
                let site = self.site_of(node).ok_or(Refused::UnknownAuthor { author: signed.author })?;
                let votes = self.sites.get(&site).is_some_and(|site| site.validator == node);
                match &signed.command {
                    command if command.is_operators() => Err(Refused::Right),
                    Command::SetPrimary { .. } if !votes => Err(Refused::Right),
                    command => self.makes_sense(Some((node, site)), command),
                }
            }
        }
    }

    /// SHA-256 of the canonical bytes: maps are sorted, so equal states have equal bytes.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(b"spinetail/state/1");
        digest.update(self.encode());
        digest.finalize().into()
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain data always encodes")
    }

    /// A state from its bytes, if they are those of one.
    pub fn decode(bytes: &[u8]) -> Option<State> {
        let (state, rest) = postcard::take_from_bytes::<State>(bytes).ok()?;
        // Canonical or nothing: two encodings of one state would be two digests.
        (rest.is_empty() && state.encode() == bytes).then_some(state)
    }

    /// The site of a node.
    pub fn site_of(&self, node: NodeId) -> Option<SiteId> {
        self.members.get(&node).map(|member| member.site)
    }

    /// The site a node votes for, if it does.
    pub fn votes_for(&self, node: NodeId) -> Option<SiteId> {
        let site = self.site_of(node)?;
        (self.sites.get(&site)?.validator == node).then_some(site)
    }

    fn makes_sense(&self, author: Option<(NodeId, SiteId)>, command: &Command) -> Result<(), Refused> {
        match command {
            Command::SetPrimary { site } => require(self.sites.contains_key(site), "there is no such site"),
            Command::SetMember { member } => self.sensible_member(member),
            Command::RemoveMember { node } => {
                require(self.members.contains_key(node), "there is no such node")?;
                require(self.votes_for(*node).is_none(), "it votes for its site: name another with SetSites first")
            }
            Command::SetSites { sites } => self.sensible_sites(sites),
            Command::SetNamespace { namespace } => self.sensible_namespace(namespace),
            Command::RemoveNamespace { prefix } | Command::Purge { prefix } => {
                require(self.rules.named(prefix).is_some(), "there is no namespace of that prefix")
            }
            Command::SetTenant { name, policy } => {
                require(is_name(name), "a tenant's name is empty or too long")?;
                let bytes = policy.as_ref().map_or(0, Vec::len);
                require(bytes <= limits::POLICY_BYTES_MAX, "the policy is too long")?;
                let fits = self.tenants.contains_key(name) || self.tenants.len() < limits::TENANTS_MAX;
                require(policy.is_none() || fits, "there are too many tenants: remove one first")
            }
            Command::AuditRoot { entries, .. } => {
                let (node, _) = author.ok_or(Refused::Right)?;
                let covered = self.audits.get(&node).map_or(0, |(entries, _)| *entries);
                require(*entries > covered, "an audit trail only grows")
            }
            Command::SetConfig { version, .. } => {
                require(*version > self.config.0, "a later configuration is agreed on")
            }
            Command::RegionLeader { term } => {
                let (_, site) = author.ok_or(Refused::Right)?;
                let known = self.leaders.get(&site).map_or(0, |(_, term)| *term);
                require(*term > known, "a leader of that or a later term is known")
            }
            Command::SetOperator { key, .. } => {
                // One key, one hand: what a node may not do it could do with the operator's number.
                let is_nodes = self.members.values().any(|member| member.key.eq_ignore_ascii_case(key));
                require(!is_nodes, "a node has that key")
            }
        }
    }

    fn sensible_member(&self, member: &Member) -> Result<(), Refused> {
        let names = [&member.name, &member.address].into_iter().chain(&member.clients).chain(&member.resp);
        require(names.into_iter().all(|name| is_name(name)), "a name or an address is empty or too long")?;
        require(keys::public_key(&member.key).is_some(), "its key is not an ed25519 key in hexadecimal")?;
        require(keys::bytes32(&member.certificate).is_some(), "its certificate is not a SHA-256 in hexadecimal")?;
        let others = || self.members.values().filter(|other| other.id != member.id);
        // Two nodes with one key would be one witness that counts twice.
        require(others().all(|other| !other.key.eq_ignore_ascii_case(&member.key)), "another node has that key")?;
        let is_room = self.members.contains_key(&member.id) || self.members.len() < limits::MEMBERS_MAX;
        require(is_room, "there are too many nodes: remove one first")?;
        let moves = self.votes_for(member.id).is_some_and(|site| site != member.site);
        require(!moves, "it votes for another site: name another there with SetSites first")
    }

    fn sensible_sites(&self, sites: &[Site]) -> Result<(), Refused> {
        // 3f + 1: with any other number, a site more costs messages and bears no liar more.
        require([1, 4, 7, 10].contains(&sites.len()), "there are 1, 4, 7 or 10 sites")?;
        let ids: BTreeSet<SiteId> = sites.iter().map(|site| site.id).collect();
        require(ids.len() == sites.len(), "two sites have the same number")?;
        require(sites.iter().all(|site| is_name(&site.name)), "a site's name is empty or too long")?;
        let validators_are_members = sites.iter().all(|site| self.site_of(site.validator) == Some(site.id));
        require(validators_are_members, "a validator is no node of its site: SetMember comes first")
    }

    fn sensible_namespace(&self, namespace: &Namespace) -> Result<(), Refused> {
        require(namespace.prefix.len() <= limits::PREFIX_BYTES_MAX, "the prefix is too long")?;
        let is_region = |site: &SiteId| self.sites.get(site).is_some_and(|site| site.kind == SiteKind::Region);
        let regions: BTreeSet<SiteId> = namespace.regions.iter().copied().collect();
        require(regions.len() == namespace.regions.len(), "a region is named twice")?;
        require(regions.iter().all(is_region), "it is pinned to something that is no region")?;
        require(namespace.home.as_ref().is_none_or(is_region), "its home is no region")?;
        require(namespace.home.is_none_or(|home| namespace.may_be_at(home)), "its home is not among its regions")?;
        let needs_home = namespace.mode == Mode::Strong && namespace.home.is_none();
        require(!needs_home, "a strong namespace needs a home")?;
        let known = self.rules.named(&namespace.prefix).is_some();
        require(known || self.rules.all().len() < limits::NAMESPACES_MAX, "there are too many namespaces")
    }

    fn apply(&mut self, signed: &Signed) {
        self.numbers.insert(signed.author, signed.number);
        match signed.command.clone() {
            Command::SetPrimary { site } => self.primary = site,
            Command::SetMember { member } => {
                self.members.insert(member.id, member);
            }
            Command::RemoveMember { node } => {
                self.members.remove(&node);
                self.audits.remove(&node);
                self.leaders.retain(|_, (leader, _)| *leader != node);
                // Its number stays: a node of that id that comes back cannot be made to repeat itself.
            }
            Command::SetSites { sites } => {
                self.sites = sites.into_iter().map(|site| (site.id, site)).collect();
                self.leaders.retain(|site, _| self.sites.contains_key(site));
                if !self.sites.contains_key(&self.primary) {
                    self.primary = self.sites.keys().next().copied().unwrap_or(self.primary);
                }
            }
            Command::SetNamespace { namespace } => {
                let epoch = self.rules.named(&namespace.prefix).map_or(0, |known| known.epoch);
                self.rules.set(Namespace { epoch, ..namespace });
            }
            Command::RemoveNamespace { prefix } => self.rules.remove(&prefix),
            Command::Purge { prefix } => {
                if let Some(known) = self.rules.named(&prefix).cloned() {
                    // At least the height: a namespace that was removed and made anew begins at zero again, while
                    // entries of its former life carry whatever epoch they were written in. No epoch so far can
                    // exceed a height so far, so this one is above them all.
                    let epoch = self.height.max(known.epoch + 1);
                    self.rules.set(Namespace { epoch, ..known });
                }
            }
            Command::SetTenant { name, policy: Some(policy) } => {
                self.tenants.insert(name, policy);
            }
            Command::SetTenant { name, policy: None } => {
                self.tenants.remove(&name);
            }
            Command::AuditRoot { entries, root } => {
                if let Author::Node(node) = signed.author {
                    self.audits.insert(node, (entries, root));
                }
            }
            Command::SetConfig { version, digest } => self.config = (version, digest),
            Command::RegionLeader { term } => {
                if let Author::Node(node) = signed.author
                    && let Some(site) = self.site_of(node)
                {
                    self.leaders.insert(site, (node, term));
                }
            }
            Command::SetOperator { key, .. } => self.operator = key,
        }
    }
}

/// Whether a signature over bytes is that of a key's owner.
pub type Verifies<'a> = &'a dyn Fn(&keys::PublicKey, &[u8], &[u8]) -> bool;

/// Why a command is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nobody of that number is a member.
    UnknownAuthor {
        /// Who it says it is.
        author: Author,
    },
    /// It is not its author's.
    Signature,
    /// That or a later number of its author was executed: a repetition, or an old command brought back.
    Number {
        /// Its number.
        number: u64,
        /// The author's last one.
        last: u64,
    },
    /// Its author may not ask for this.
    Right,
    /// It makes no sense as the state is; the text says why.
    Senseless(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::UnknownAuthor { author } => write!(f, "{author:?} is not a member"),
            Refused::Signature => f.write_str("its author's signature does not hold"),
            Refused::Number { number, last } => write!(f, "number {number} does not follow the author's last, {last}"),
            Refused::Right => f.write_str("its author may not ask for this"),
            Refused::Senseless(why) => f.write_str(why),
        }
    }
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(Refused::Senseless(otherwise)) }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
