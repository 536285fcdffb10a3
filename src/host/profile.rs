//! A profile: what the appliance takes of one kind of machine, in a handful of decisions.
//!
//! A profile is read from a file (`profile_file`) or made for the machine at hand ([`Profile::auto`]).
//! Either way it is only a wish until [`Profile::validate`] has held it against a topology: that
//! refuses what cannot work. What works and costs something is the business of `check`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::limits::{SHARD_COUNT_MAX, SHARD_MEMORY_BYTES_MIN};
use crate::base::units::format_bytes;
use crate::host::memory::PageWish;
use crate::host::topology::{HUGE_PAGE_BYTES, Topology, TransparentMode, format_cpu_list};

/// Memory that [`Profile::auto`] takes at most, in bytes, unless the shards need more to start at
/// all: a guest does not help himself to the whole larder.
const AUTO_MEMORY_BYTES_MAX: u64 = 1 << 30;

/// Memory that [`Profile::auto`] takes at most where the machine does not say how much it has.
const AUTO_MEMORY_BYTES_UNKNOWN: u64 = 256 << 20;

/// Allowed cores from which on [`Profile::auto`] sets one aside for housekeeping and spins on the others.
const AUTO_HOUSEKEEPING_CORES_MIN: usize = 4;

/// What the appliance takes of a machine. The fields are the keys of the file, documented there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What this profile is for.
    pub machine: Machine,
    /// Which cores are whose.
    pub cores: Cores,
    /// How much memory, and in which pages.
    pub memory: Memory,
    /// How the network is waited for.
    #[serde(default)]
    pub network: Network,
}

/// What a profile is for, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Short name.
    pub name: String,
    /// A sentence for people.
    #[serde(default)]
    pub description: String,
}

/// Which cores are whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cores {
    /// Cores that run one shard each, ascending.
    #[serde(with = "core_list")]
    pub data: Vec<usize>,
    /// Cores for everything else, ascending; may be empty.
    #[serde(default, with = "core_list")]
    pub housekeeping: Vec<usize>,
}

/// How much memory, and in which pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Memory of the whole process in bytes.
    #[serde(rename = "total", with = "size_text")]
    pub total_bytes: u64,
    /// Pages to ask for.
    #[serde(default)]
    pub pages: PageWish,
    /// Whether all pages are touched at start.
    #[serde(default = "yes")]
    pub populate: bool,
    /// Whether each shard's memory is bound to its node.
    #[serde(default = "yes")]
    pub bind: bool,
}

/// How the network is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// What an idle shard does.
    pub poll: Poll,
    /// Which kernel interface carries the bytes.
    pub io: Io,
}

/// What an idle shard does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Poll {
    /// Looks again at once, and keeps its core busy.
    #[default]
    Spin,
    /// Spins as long as pauses are short, then sleeps.
    Adaptive,
    /// Sleeps until the kernel wakes it.
    Park,
}

/// Which kernel interface carries the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Io {
    /// io_uring where the kernel grants it, else epoll.
    #[default]
    Auto,
    /// io_uring or no start.
    IoUring,
    /// epoll.
    Epoll,
}

/// What is wrong with a profile, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileError {
    /// The file, if the profile came from one.
    pub file: Option<String>,
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// The key, like `cores.data`, if one is to blame.
    pub key: Option<String>,
    /// What is wrong, and the remedy.
    pub message: String,
}

impl ProfileError {
    pub(crate) fn of_key(key: &str, message: String) -> ProfileError {
        ProfileError { file: None, line: None, key: Some(key.to_owned()), message }
    }
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            match self.line {
                Some(line) => write!(f, "{line}: ")?,
                None => write!(f, " ")?,
            }
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ProfileError {}

/// What one NUMA node has to carry of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeShare {
    /// The node's number.
    pub node: usize,
    /// Shards on its cores.
    pub shards: usize,
    /// Their memory in bytes.
    pub bytes: u64,
}

impl NodeShare {
    /// The share in whole 2 MiB pages, each shard rounded up on its own.
    pub fn huge_pages(&self) -> u64 {
        (self.bytes / self.shards as u64).div_ceil(HUGE_PAGE_BYTES) * self.shards as u64
    }
}

impl Profile {
    /// A profile that runs on `machine` within `allowed_cores` (those of this process).
    ///
    /// From four allowed cores on, the first keeps house and every other physical core gets a
    /// shard. Two or three: the first runs the only shard, the rest is for clients on the same
    /// machine, which would otherwise fight the spinning shard for its core. One: it does everything.
    pub fn auto(machine: &Topology, allowed_cores: &[usize]) -> Profile {
        let mut allowed: Vec<usize> =
            machine.core_ids().into_iter().filter(|core| allowed_cores.contains(core)).collect();
        if allowed.is_empty() {
            allowed = machine.core_ids(); // allowed cores unknown: better all than none
        }
        let roomy = allowed.len() >= AUTO_HOUSEKEEPING_CORES_MIN;
        let housekeeping = if roomy { vec![allowed[0]] } else { Vec::new() };
        let mut data = machine.one_per_physical_core(&allowed);
        if roomy {
            data.remove(0); // the housekeeping core, and with it its whole physical core
            if data.is_empty() {
                data.push(allowed[1]); // one physical core with four threads
            }
        } else {
            data.truncate(1);
        }
        // Shards beyond the quota of core time would stop each other for the rest of every period.
        if let Some(quota) = machine.control_group.cpu_cores {
            data.truncate((quota as usize).max(1));
        }
        data.truncate(SHARD_COUNT_MAX);
        let total_bytes = auto_memory(machine, data.len());
        data.truncate(((total_bytes / SHARD_MEMORY_BYTES_MIN) as usize).max(1));

        let park = machine.virtualised || !roomy || machine.control_group.cpu_cores.is_some();
        let mut profile = Profile {
            machine: Machine { name: "detected".to_owned(), description: describe(machine) },
            cores: Cores { data, housekeeping },
            memory: Memory { total_bytes, pages: PageWish::Small, populate: true, bind: true },
            network: Network { poll: if park { Poll::Park } else { Poll::Spin }, io: Io::Auto },
        };
        let enough = |share: &NodeShare| {
            machine.nodes.iter().any(|node| node.id == share.node && node.huge_pages_free >= share.huge_pages())
        };
        profile.memory.pages = if profile.node_shares(machine).iter().all(enough) {
            PageWish::Huge2M
        } else if matches!(machine.transparent, Some(TransparentMode::Always | TransparentMode::Madvise)) {
            PageWish::Transparent
        } else {
            PageWish::Small
        };
        profile
    }

    /// The cores that run one shard each, ascending.
    pub fn data_cores(&self) -> Vec<usize> {
        self.cores.data.clone()
    }

    /// What each node has to carry, ascending by node; cores that do not exist are left out.
    pub fn node_shares(&self, machine: &Topology) -> Vec<NodeShare> {
        let shard_bytes = self.memory.total_bytes / self.cores.data.len().max(1) as u64;
        let mut shares: Vec<NodeShare> = Vec::new();
        for node in &machine.nodes {
            let on_node = |core: &&usize| machine.core(**core).is_some_and(|core| core.node == node.id);
            let shards = self.cores.data.iter().filter(on_node).count();
            if shards > 0 {
                shares.push(NodeShare { node: node.id, shards, bytes: shard_bytes * shards as u64 });
            }
        }
        shares
    }

    /// Refuses what cannot work on `machine`: cores that do not exist, more memory than there is,
    /// and what [`Profile::validate_alone`] refuses on any.
    pub fn validate(&self, machine: &Topology) -> Result<(), ProfileError> {
        self.validate_alone()?;
        for (key, cores) in [("cores.data", &self.cores.data), ("cores.housekeeping", &self.cores.housekeeping)] {
            let missing: Vec<usize> = cores.iter().copied().filter(|&core| machine.core(core).is_none()).collect();
            if !missing.is_empty() {
                return Err(ProfileError::of_key(
                    key,
                    format!(
                        "core {} is not online, this machine has {}: name cores it has, or use the profile 'auto'",
                        format_cpu_list(&missing),
                        format_cpu_list(&machine.core_ids())
                    ),
                ));
            }
        }
        let total_bytes = self.memory.total_bytes;
        let bounds = [
            (machine.memory_total_bytes, "this machine has"),
            (machine.control_group.memory_bytes, "the control group allows"),
        ];
        for (bound, whose) in bounds {
            if let Some(bound) = bound.filter(|&bound| total_bytes > bound) {
                let (wanted, bound) = (format_bytes(total_bytes), format_bytes(bound));
                let message = format!("{wanted} is more than the {bound} {whose}: lower memory.total");
                return Err(ProfileError::of_key("memory.total", message));
            }
        }
        Ok(())
    }

    /// Refuses what cannot work on any machine: no data core or too many, a core with two jobs,
    /// too little memory for a shard.
    pub fn validate_alone(&self) -> Result<(), ProfileError> {
        let shards = self.cores.data.len();
        if shards == 0 {
            let message = "no core is named: name at least one, like data = \"1\"".to_owned();
            return Err(ProfileError::of_key("cores.data", message));
        }
        if shards > SHARD_COUNT_MAX {
            let message = format!("{shards} cores are named, {SHARD_COUNT_MAX} is the most: shorten the list");
            return Err(ProfileError::of_key("cores.data", message));
        }
        let both: Vec<usize> =
            self.cores.housekeeping.iter().copied().filter(|core| self.cores.data.contains(core)).collect();
        if !both.is_empty() {
            let message = format!("core {} is in cores.data too: remove it from one list", format_cpu_list(&both));
            return Err(ProfileError::of_key("cores.housekeeping", message));
        }
        let least = SHARD_MEMORY_BYTES_MIN * shards as u64;
        if self.memory.total_bytes < least {
            let message = format!(
                "{} is too little for {shards} shards of at least {}: raise it to {} or name fewer cores in cores.data",
                format_bytes(self.memory.total_bytes),
                format_bytes(SHARD_MEMORY_BYTES_MIN),
                format_bytes(least)
            );
            return Err(ProfileError::of_key("memory.total", message));
        }
        Ok(())
    }
}

/// A gigabyte, a quarter of what is available, half of what the control group allows: the least
/// of them, in whole MiB, and never less than one shard needs.
fn auto_memory(machine: &Topology, shards: usize) -> u64 {
    let ceiling = AUTO_MEMORY_BYTES_MAX.max(SHARD_MEMORY_BYTES_MIN * shards as u64);
    let available = machine.memory_available_bytes.or(machine.memory_total_bytes);
    let quarter = available.map_or(AUTO_MEMORY_BYTES_UNKNOWN, |bytes| bytes / 4);
    let half = machine.control_group.memory_bytes.map_or(u64::MAX, |bytes| bytes / 2);
    let bytes = ceiling.min(quarter).min(half);
    (bytes & !((1 << 20) - 1)).max(SHARD_MEMORY_BYTES_MIN)
}

fn describe(machine: &Topology) -> String {
    let model = machine.cpu_model.as_deref().unwrap_or("unknown processor");
    let (cores, nodes) = (machine.cores.len(), machine.nodes.len());
    let kind = if machine.virtualised { ", virtual" } else { "" };
    format!("{model}, {cores} hardware threads, NUMA nodes: {nodes}{kind}")
}

fn yes() -> bool {
    true
}

mod core_list {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::host::topology::{format_cpu_list, parse_cpu_list};

    pub(super) fn serialize<S: Serializer>(cores: &[usize], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_cpu_list(cores))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
        parse_cpu_list(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

mod size_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::base::units::{exact_bytes, parse_bytes};

    /// Exact, in the largest unit that divides it.
    pub(super) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&exact_bytes(*bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        parse_bytes(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
