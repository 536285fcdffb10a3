//! The map of regions: where clients reach them, signed so that one lying site cannot send them elsewhere.
//!
//! A client is given addresses to begin with and the keys of the sites' validators (`cluster.toml` has both). It asks any
//! appliance for the map and believes it if f + 1 validators have signed it, for of f + 1 at least one is honest, and an
//! honest one signs only what was agreed on. The appliance that passes the map on need not be trusted at all: it can keep
//! a newer map back, until the one it shows expires, and no more than that.
//!
//!   State at a height, an expiry --> RegionMap --> its one encoding --> signatures --> SignedMap --> clients
//!
//! *One encoding.* Two validators sign the same thing only if they write the same bytes, and a map that could be written in
//! two ways could be told apart by nobody but whoever made the second. So lists rise strictly, lengths are exact, nothing
//! follows the end, and a decoder that accepts anything else is wrong: what decodes encodes to the same bytes again. The
//! layout is for clients in any language and stands in `wire/native.md`, *regions*.
//!
//! *Age.* A map of a lower height than one already seen is a played-back one; of the same height one that expires earlier.
//! The keys are those of the genesis. When sites or keys of validators have changed, operators hand their clients a new
//! `cluster.toml`, as they would a new certificate authority: as long as f + 1 of the old keys are still used, old clients
//! go on.

use std::collections::BTreeMap;
use std::fmt;

use arc_malachitebft_signing_ed25519::{PrivateKey, PublicKey, Signature};

use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::cluster::genesis::{Genesis, NetworkId};
use crate::cluster::keys::public_key;
use crate::cluster::state::State;

/// Where clients reach the regions of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionMap {
    /// Of which cluster.
    pub network: NetworkId,
    /// The height whose state it shows.
    pub height: u64,
    /// Unix time until which it may be believed.
    pub expires_ms: u64,
    /// Its regions, by rising site.
    pub regions: Vec<Region>,
}

/// A region: a site that clients may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its site.
    pub site: SiteId,
    /// Its name.
    pub name: String,
    /// Its nodes, by rising number; at least one.
    pub nodes: Vec<Node>,
}

/// A node that clients may ask. At least one of its addresses is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// `host:port` of the native protocol.
    pub native: Option<String>,
    /// Of RESP.
    pub resp: Option<String>,
    /// Of memcached's protocol.
    pub memcached: Option<String>,
}

/// A map as it travels: its bytes, and who vouches for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedMap {
    /// The map, encoded.
    pub map: Vec<u8>,
    /// Signatures, by rising site.
    pub signatures: Vec<(SiteId, [u8; 64])>,
}

/// Whose signatures a map needs: the validators of a genesis.
#[derive(Clone, Debug)]
pub struct Authorities {
    network: NetworkId,
    keys: BTreeMap<SiteId, PublicKey>,
    needed: usize,
}

/// Why a map is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapRefused {
    /// It is longer than a map may be.
    TooLarge,
    /// It is none; the text says what is wrong.
    Malformed(&'static str),
    /// It is of another cluster.
    OtherNetwork(NetworkId),
    /// Too few validators have signed it.
    TooFewSignatures {
        /// Sites whose signature holds.
        have: usize,
        /// Sites needed.
        needed: usize,
    },
    /// It may no longer be believed.
    Expired {
        /// For so long.
        since_ms: u64,
    },
    /// It is older than one already seen.
    Stale {
        /// Its height.
        height: u64,
        /// The height of the one seen.
        seen: u64,
    },
}

impl RegionMap {
    /// The map of what has been agreed on. Nodes that clients cannot reach, and sites without others, are not on it.
    pub fn of(state: &State, expires_ms: u64) -> RegionMap {
        let nodes = |site: SiteId| {
            let here = state.members.values().filter(move |member| member.site == site);
            let nodes = here.map(|member| Node {
                id: member.id,
                native: member.clients.clone(),
                resp: member.resp.clone(),
                memcached: None,
            });
            nodes.filter(Node::is_reachable).take(limits::ROUTE_NODES_MAX).collect::<Vec<Node>>()
        };
        let region = |(id, site): (&SiteId, &crate::cluster::genesis::Site)| Region {
            site: *id,
            name: site.name.clone(),
            nodes: nodes(*id),
        };
        let regions = state.sites.iter().map(region).filter(|region| !region.nodes.is_empty());
        RegionMap {
            network: state.network,
            height: state.height,
            expires_ms,
            regions: regions.take(limits::ROUTE_REGIONS_MAX).collect(),
        }
    }

    /// Its one encoding. What cannot be encoded is refused, with the reason.
    pub fn encode(&self) -> Result<Vec<u8>, MapRefused> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.network.0);
        out.extend_from_slice(&self.height.to_le_bytes());
        out.extend_from_slice(&self.expires_ms.to_le_bytes());
        out.push(u8::try_from(self.regions.len()).map_err(|_| MapRefused::TooLarge)?);
        for region in &self.regions {
            out.push(region.site.0);
            put_text(&region.name, &mut out)?;
            out.push(u8::try_from(region.nodes.len()).map_err(|_| MapRefused::TooLarge)?);
            for node in &region.nodes {
                out.extend_from_slice(&node.id.0.to_le_bytes());
                for address in [&node.native, &node.resp, &node.memcached] {
                    put_text(address.as_deref().unwrap_or_default(), &mut out)?;
                }
            }
        }
        // Whoever decodes has the same rules; what they refuse is not written in the first place.
        RegionMap::decode(&out)?;
        Ok(out)
    }

    /// Reads a map. Nothing is reserved for what a length promises.
    pub fn decode(bytes: &[u8]) -> Result<RegionMap, MapRefused> {
        if bytes.len() > limits::ROUTE_MAP_BYTES_MAX {
            return Err(MapRefused::TooLarge);
        }
        let mut rest = Rest(bytes);
        let network = NetworkId(rest.array()?);
        let (height, expires_ms) = (u64::from_le_bytes(rest.array()?), u64::from_le_bytes(rest.array()?));
        let region_count = rest.byte()?;
        if usize::from(region_count) > limits::ROUTE_REGIONS_MAX {
            return Err(MapRefused::Malformed("it has more regions than there can be"));
        }
        let mut regions: Vec<Region> = Vec::new();
        for _ in 0..region_count {
            let site = SiteId(rest.byte()?);
            if regions.last().is_some_and(|before| before.site >= site) {
                return Err(MapRefused::Malformed("its regions do not rise"));
            }
            let name = rest.text()?;
            let node_count = rest.byte()?;
            if node_count == 0 || usize::from(node_count) > limits::ROUTE_NODES_MAX {
                return Err(MapRefused::Malformed("a region has no nodes, or more than there can be"));
            }
            let mut nodes: Vec<Node> = Vec::new();
            for _ in 0..node_count {
                let id = NodeId(u16::from_le_bytes(rest.array()?));
                if nodes.last().is_some_and(|before| before.id >= id) {
                    return Err(MapRefused::Malformed("the nodes of a region do not rise"));
                }
                let node = Node { id, native: rest.address()?, resp: rest.address()?, memcached: rest.address()? };
                if !node.is_reachable() {
                    return Err(MapRefused::Malformed("a node has no address"));
                }
                nodes.push(node);
            }
            regions.push(Region { site, name, nodes });
        }
        rest.end()?;
        Ok(RegionMap { network, height, expires_ms, regions })
    }

    /// A region by its site.
    pub fn region(&self, site: SiteId) -> Option<&Region> {
        self.regions.iter().find(|region| region.site == site)
    }

    /// What a map must be later than.
    fn age(&self) -> (u64, u64) {
        (self.height, self.expires_ms)
    }
}

impl Node {
    fn is_reachable(&self) -> bool {
        self.native.is_some() || self.resp.is_some() || self.memcached.is_some()
    }
}

impl SignedMap {
    /// What a validator signs, of a map's bytes. The beginning keeps it apart from everything else that is signed with
    /// the same key; the network is part of the map.
    pub fn signed_bytes(map: &[u8]) -> Vec<u8> {
        [DOMAIN, map].concat()
    }

    /// Signs a map's bytes.
    pub fn sign(map: &[u8], key: &PrivateKey) -> [u8; 64] {
        key.sign(&SignedMap::signed_bytes(map)).to_bytes()
    }

    /// A map signed by these sites' keys.
    pub fn new(map: &RegionMap, keys: &[(SiteId, PrivateKey)]) -> Result<SignedMap, MapRefused> {
        let map = map.encode()?;
        let mut signatures: Vec<_> = keys.iter().map(|(site, key)| (*site, SignedMap::sign(&map, key))).collect();
        signatures.sort_by_key(|(site, _)| *site);
        signatures.dedup_by_key(|(site, _)| *site);
        Ok(SignedMap { map, signatures })
    }

    /// The bytes to pass on.
    pub fn encode(&self) -> Result<Vec<u8>, MapRefused> {
        let mut out = MAGIC.to_vec();
        out.push(u8::try_from(self.signatures.len()).map_err(|_| MapRefused::TooLarge)?);
        out.extend_from_slice(&(self.map.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.map);
        for (site, signature) in &self.signatures {
            out.push(site.0);
            out.extend_from_slice(signature);
        }
        SignedMap::decode(&out)?;
        Ok(out)
    }

    /// Reads what was passed on. Says nothing about whether to believe it: see [`Authorities::verify`].
    pub fn decode(bytes: &[u8]) -> Result<SignedMap, MapRefused> {
        if bytes.len() > limits::ROUTE_MAP_BYTES_MAX {
            return Err(MapRefused::TooLarge);
        }
        let mut rest = Rest(bytes);
        if rest.array()? != MAGIC {
            return Err(MapRefused::Malformed("it does not begin as a map of version 1 does"));
        }
        let signature_count = rest.byte()?;
        let map_bytes = u32::from_le_bytes(rest.array()?) as usize;
        let map = rest.take(map_bytes)?.to_vec();
        RegionMap::decode(&map)?;
        let mut signatures: Vec<(SiteId, [u8; 64])> = Vec::new();
        for _ in 0..signature_count {
            let site = SiteId(rest.byte()?);
            if signatures.last().is_some_and(|(before, _)| *before >= site) {
                return Err(MapRefused::Malformed("its signatures do not rise"));
            }
            signatures.push((site, rest.array()?));
        }
        rest.end()?;
        Ok(SignedMap { map, signatures })
    }
}

impl Authorities {
    /// The validators of a genesis. Refused if one has no usable key, or two have the same: they would be one.
    pub fn of(genesis: &Genesis) -> Result<Authorities, String> {
        let mut keys = BTreeMap::new();
        for site in &genesis.sites {
            let told = |what: &str| format!("site {} ('{}'): {what}", site.id, site.name);
            let member = genesis.member(site.validator).ok_or_else(|| told("its validator is no node of the file"))?;
            let key = public_key(&member.key).ok_or_else(|| told("the key of its validator is no ed25519 key"))?;
            if keys.values().any(|other| *other == key) {
                return Err(told("its validator has the key of another site's"));
            }
            if keys.insert(site.id, key).is_some() {
                return Err(told("it is there twice"));
            }
        }
        if keys.is_empty() {
            return Err("it has no sites".to_string());
        }
        Ok(Authorities { network: genesis.network(), keys, needed: genesis.tolerates() + 1 })
    }

    /// The same, from the text of a `cluster.toml`.
    pub fn read(cluster_toml: &str) -> Result<Authorities, String> {
        let genesis: Genesis = toml::from_str(cluster_toml).map_err(|error| error.to_string())?;
        Authorities::of(&genesis)
    }

    /// The network they vouch for.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Signatures that a map needs.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// The map in `bytes`, if it is to be believed now: of this network, signed by enough validators, not expired, and
    /// not older than `seen`. Signatures that do not hold, or of unknown sites, count for nothing; that they are there is
    /// no reason to refuse what enough others have signed.
    pub fn verify(&self, bytes: &[u8], now_unix_ms: u64, seen: Option<&RegionMap>) -> Result<RegionMap, MapRefused> {
        let signed = SignedMap::decode(bytes)?;
        let map = RegionMap::decode(&signed.map)?;
        if map.network != self.network {
            return Err(MapRefused::OtherNetwork(map.network));
        }
        if map.expires_ms <= now_unix_ms {
            return Err(MapRefused::Expired { since_ms: now_unix_ms - map.expires_ms });
        }
        if let Some(seen) = seen.filter(|seen| map.age() < seen.age()) {
            return Err(MapRefused::Stale { height: map.height, seen: seen.height });
        }
        // Each site counts once: sites of signatures rise, and no two sites have the same key.
        let holds = |(site, signature): &&(SiteId, [u8; 64])| self.holds(&signed.map, *site, signature);
        // No more signatures are looked at than there are sites: unknown ones cost no mathematics.
        let have = signed.signatures.iter().filter(holds).take(self.needed).count();
        if have < self.needed {
            return Err(MapRefused::TooFewSignatures { have, needed: self.needed });
        }
        Ok(map)
    }

    /// Whether a signature is that site's, of that map's bytes.
    pub fn holds(&self, map: &[u8], site: SiteId, signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(*signature);
        let message = || SignedMap::signed_bytes(map);
        self.keys.get(&site).is_some_and(|key| key.verify(&message(), &signature).is_ok())
    }
}

impl fmt::Display for MapRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapRefused::TooLarge => {
                write!(f, "the map is larger than {} bytes or names too much", limits::ROUTE_MAP_BYTES_MAX)
            }
            MapRefused::Malformed(what) => write!(f, "this is no region map: {what}"),
            MapRefused::OtherNetwork(network) => write!(f, "the map is of another cluster, {network}"),
            MapRefused::TooFewSignatures { have, needed } => write!(
                f,
                "{have} of the known validators have signed the map, {needed} are needed; if the cluster's validators have changed, use its present cluster.toml"
            ),
            MapRefused::Expired { since_ms } => {
                write!(f, "the map expired {} s ago; check this machine's clock", since_ms / 1_000)
            }
            MapRefused::Stale { height, seen } => {
                write!(f, "the map of height {height} is older than one already seen, of height {seen}")
            }
        }
    }
}

impl std::error::Error for MapRefused {}

/// What of the bytes has not been read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], MapRefused> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(MapRefused::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MapRefused> {
        self.take(N)?.try_into().map_err(|_| MapRefused::Malformed("it ends too early"))
    }

    fn byte(&mut self) -> Result<u8, MapRefused> {
        Ok(self.array::<1>()?[0])
    }

    fn text(&mut self) -> Result<String, MapRefused> {
        let length = self.byte()?;
        let text = std::str::from_utf8(self.take(length.into())?);
        Ok(text.map_err(|_| MapRefused::Malformed("a text is not UTF-8"))?.to_string())
    }

    fn address(&mut self) -> Result<Option<String>, MapRefused> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        let is_address = text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && port.parse::<u16>().is_ok_and(|port| port > 0)
                && text.bytes().all(|b| b.is_ascii_graphic())
        });
        if is_address { Ok(Some(text)) } else { Err(MapRefused::Malformed("an address is not host:port")) }
    }

    fn end(&self) -> Result<(), MapRefused> {
        if self.0.is_empty() { Ok(()) } else { Err(MapRefused::Malformed("something follows its end")) }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) -> Result<(), MapRefused> {
    out.push(u8::try_from(text.len()).map_err(|_| MapRefused::TooLarge)?);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// How a map as it travels begins, its version last.
const MAGIC: [u8; 5] = *b"SPRM\x01";
/// What stands before a map in what is signed.
const DOMAIN: &[u8] = b"spinetail/region-map/1\0";

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
