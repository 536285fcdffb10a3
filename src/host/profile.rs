//! A profile: what the appliance takes of one kind of machine, and how it wishes that machine to be set.
//!
//! A profile is read from a file (`profile_file`) or made for the machine at hand ([`Profile::auto`]).
//! It is only a wish, and may leave the particulars open (`data = "rest"`, `housekeeping = "1/node"`,
//! `total = "60%"`), so that one file fits every size of a kind of machine. `placement` holds it against a
//! topology: that settles which core does what, and refuses what cannot work. What works and costs something is
//! the business of `check`; what the machine can be told to change, that of `tune`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::limits::{SHARD_COUNT_MAX, SHARD_MEMORY_BYTES_MIN};
use crate::base::units::{exact_bytes, format_bytes, parse_bytes};
use crate::host::calibration::Figures;
use crate::host::memory::PageWish;
use crate::host::placement::{Placement, place};
use crate::host::topology::{Topology, TransparentMode, format_cpu_list, parse_cpu_list};

/// Memory that [`Profile::auto`] takes at most, in bytes, unless the shards need more to start at
/// all: a guest does not help himself to the whole larder.
const AUTO_MEMORY_BYTES_MAX: u64 = 1 << 30;

/// Memory that [`Profile::auto`] takes at most where the machine does not say how much it has.
const AUTO_MEMORY_BYTES_UNKNOWN: u64 = 256 << 20;

/// Allowed cores from which on [`Profile::auto`] sets one aside for housekeeping and spins on the others.
const AUTO_HOUSEKEEPING_CORES_MIN: usize = 4;

/// The profiles that are shipped, by name: `hw-profiles/`.
pub const SHIPPED: [(&str, &str); 6] = [
    ("container", include_str!("../../hw-profiles/container.toml")),
    ("desktop", include_str!("../../hw-profiles/desktop.toml")),
    ("epyc-two-socket", include_str!("../../hw-profiles/epyc-two-socket.toml")),
    ("generic-vm", include_str!("../../hw-profiles/generic-vm.toml")),
    ("graviton-metal", include_str!("../../hw-profiles/graviton-metal.toml")),
    ("xeon-two-socket", include_str!("../../hw-profiles/xeon-two-socket.toml")),
];

/// What the appliance takes of a machine, and wishes of it. The fields are the keys of the file, documented there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What this profile is for.
    pub machine: Machine,
    /// How a machine of this kind is recognised.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// Which cores are whose.
    pub cores: Cores,
    /// How much memory, and in which pages.
    pub memory: Memory,
    /// How the network is waited for.
    #[serde(default)]
    pub network: Network,
    /// How network cards shall be set.
    #[serde(default)]
    pub nic: NicWish,
    /// How the data cores' frequency and sleep shall be set.
    #[serde(default)]
    pub power: Power,
    /// What the kernel shall be told.
    #[serde(default)]
    pub kernel: Kernel,
    /// Kernel parameters by their sysctl names.
    #[serde(default, with = "sysctl_values")]
    pub sysctl: BTreeMap<String, String>,
    /// What `host calibrate` measured of the machine it was written on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Figures>,
    /// Where each key stood.
    #[serde(skip)]
    pub source: Source,
}

/// What a profile is for, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Short name.
    pub name: String,
    /// A sentence for people.
    #[serde(default)]
    pub description: String,
}

/// How a machine of this kind is recognised; what is left out matches anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// `x86_64` or `aarch64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Text within the processor's model name; several with `|` between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// Sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<usize>,
    /// Whether it is a virtual machine.
    #[serde(skip_serializing_if = "Option::is_none", rename = "virtual")]
    pub virtualised: Option<bool>,
    /// Whether a control group limits core time or memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited: Option<bool>,
}

/// Which cores are whose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cores {
    /// Cores that run one shard each.
    pub data: CoreWish,
    /// Cores for everything else the appliance does; may be none.
    #[serde(default)]
    pub housekeeping: CoreWish,
    /// Cores that take interrupts; none means those for housekeeping.
    #[serde(default)]
    pub irq: CoreWish,
    /// Whether two shards may run on two threads of one physical core.
    #[serde(default)]
    pub siblings: bool,
}

/// Cores, by number or by rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum CoreWish {
    /// These, ascending.
    List(Vec<usize>),
    /// So many physical cores of each NUMA node, the first that are free.
    PerNode(usize),
    /// So many of each socket.
    PerSocket(usize),
    /// One thread of every physical core that nothing else was given.
    Rest,
}

/// How much memory, and in which pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Memory of the whole process; this or `per_shard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<MemoryWish>,
    /// Memory of each shard in bytes; this or `total`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "per_shard", with = "size_text")]
    pub per_shard_bytes: Option<u64>,
    /// Pages to ask for.
    #[serde(default)]
    pub pages: PageWish,
    /// Whether all pages are touched at start.
    #[serde(default = "yes")]
    pub populate: bool,
    /// Whether each shard's memory is bound to its node.
    #[serde(default = "yes")]
    pub bind: bool,
    /// Whether a shard starts although its memory lies on another node.
    #[serde(default)]
    pub remote: bool,
}

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum MemoryWish {
    /// In bytes.
    Bytes(u64),
    /// In hundredths of what the machine has, or its control group allows.
    Percent(u8),
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

/// How network cards shall be set. What is left out is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NicWish {
    /// Names, `*` for any ending, with commas between them; empty: every physical card that is up.
    pub interfaces: String,
    /// Which core takes which queue's interrupts.
    pub queue_cores: QueueCores,
    /// Whether each shard sends on a queue of its own (XPS).
    pub xps: bool,
    /// Whether the kernel spreads received packets over the cores for interrupts (RPS).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rps: Option<bool>,
    /// Flows that the kernel steers to the core that reads them (RFS).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rfs_entries: Option<u32>,
    /// Descriptors of each receive queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_ring: Option<u32>,
    /// Descriptors of each send queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_ring: Option<u32>,
    /// Microseconds for which a shard that waits polls its card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_poll_us: Option<u32>,
    /// Nanoseconds for which a card's interrupt stays off while polls find packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gro_flush_timeout_ns: Option<u64>,
    /// Empty polls before the interrupt is switched on again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub napi_defer_hard_irqs: Option<u32>,
}

/// Which core takes which queue's interrupts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum QueueCores {
    /// The cores for interrupts in turn, those on the card's node first.
    #[default]
    Auto,
    /// These in turn, beginning with queue 0, in this order.
    List(Vec<usize>),
}

/// How the data cores' frequency and sleep shall be set. What is left out is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Power {
    /// The frequency governor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// The longest time in microseconds that an idle data core may need to wake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_us_max: Option<u32>,
}

/// What the kernel shall be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kernel {
    /// Words of its command line; `{data}`, `{housekeeping}` and `{irq}` stand for these lists of cores.
    pub cmdline: Vec<String>,
    /// Whether the appliance's cores become a partition that the scheduler leaves alone.
    pub partition: bool,
}

/// Where the keys of a profile stood in its file. No part of what the profile says: two profiles are
/// equal wherever they were read.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file, if there is one.
    pub file: Option<String>,
    /// Lines by key, from 1.
    pub lines: BTreeMap<String, usize>,
}

impl PartialEq for Source {
    fn eq(&self, _: &Source) -> bool {
        true
    }
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

impl Default for CoreWish {
    fn default() -> CoreWish {
        CoreWish::List(Vec::new())
    }
}

impl CoreWish {
    /// Whether no core is wished.
    pub fn is_none(&self) -> bool {
        matches!(self, CoreWish::List(list) if list.is_empty())
    }
}

impl From<CoreWish> for String {
    fn from(wish: CoreWish) -> String {
        match wish {
            CoreWish::List(cores) => format_cpu_list(&cores),
            CoreWish::PerNode(count) => format!("{count}/node"),
            CoreWish::PerSocket(count) => format!("{count}/socket"),
            CoreWish::Rest => "rest".to_owned(),
        }
    }
}

impl TryFrom<String> for CoreWish {
    type Error = String;

    fn try_from(text: String) -> Result<CoreWish, String> {
        if text.trim() == "rest" {
            return Ok(CoreWish::Rest);
        }
        if let Some((count, what)) = text.trim().split_once('/') {
            let count = count.trim().parse().ok().filter(|&count| 0 < count && count <= SHARD_COUNT_MAX);
            return match (count, what.trim()) {
                (Some(count), "node") => Ok(CoreWish::PerNode(count)),
                (Some(count), "socket") => Ok(CoreWish::PerSocket(count)),
                _ => Err(format!(
                    "'{text}' does not say how many cores of what: write a number, like \"1/node\" or \"1/socket\""
                )),
            };
        }
        let cores = parse_cpu_list(&text).map_err(|_| {
            format!("'{text}' is not a list of cores: write numbers and ranges, like 0-3,8, or \"1/node\", \"1/socket\" or \"rest\"")
        })?;
        // The list is sorted and rid of doubles by then; whoever names a core twice may have meant another.
        let mut seen: Vec<usize> = Vec::new();
        for part in text.split(',') {
            let part = parse_cpu_list(part)?;
            if let Some(twice) = part.iter().find(|core| seen.contains(core)) {
                return Err(format!("core {twice} is named twice in '{text}': a core has one job, remove one of them"));
            }
            seen.extend(part);
        }
        Ok(CoreWish::List(cores))
    }
}

impl MemoryWish {
    /// In bytes, of `bound_bytes` there are; `None` if that must be known and is not.
    pub fn bytes(self, bound_bytes: Option<u64>) -> Option<u64> {
        match self {
            MemoryWish::Bytes(bytes) => Some(bytes),
            MemoryWish::Percent(share) => bound_bytes.map(|bytes| share_of(bytes, share)),
        }
    }
}

impl From<MemoryWish> for String {
    fn from(wish: MemoryWish) -> String {
        match wish {
            MemoryWish::Bytes(bytes) => exact_bytes(bytes),
            MemoryWish::Percent(share) => format!("{share}%"),
        }
    }
}

impl TryFrom<String> for MemoryWish {
    type Error = String;

    fn try_from(text: String) -> Result<MemoryWish, String> {
        let Some(share) = text.trim().strip_suffix('%') else { return parse_bytes(&text).map(MemoryWish::Bytes) };
        let share = share.trim().parse().ok().filter(|share| (1..=100).contains(share));
        share.map(MemoryWish::Percent).ok_or_else(|| format!("'{text}' is no share: write 1% to 100%"))
    }
}

impl From<QueueCores> for String {
    fn from(cores: QueueCores) -> String {
        match cores {
            QueueCores::Auto => "auto".to_owned(),
            QueueCores::List(cores) => cores.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
        }
    }
}

impl TryFrom<String> for QueueCores {
    type Error = String;

    fn try_from(text: String) -> Result<QueueCores, String> {
        if text.trim() == "auto" {
            return Ok(QueueCores::Auto);
        }
        let mut cores = Vec::new();
        for part in text.split(',') {
            cores.extend(parse_cpu_list(part)?);
        }
        if cores.is_empty() {
            return Err("no core is named: write \"auto\", or a core for each queue, like \"0,2,4\"".to_owned());
        }
        Ok(QueueCores::List(cores))
    }
}

impl NicWish {
    /// Whether a card of this name is meant; `is_usual` says whether it is one that is meant when none is named.
    pub fn means(&self, name: &str, is_usual: bool) -> bool {
        let mut patterns = self.interfaces.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()).peekable();
        if patterns.peek().is_none() {
            return is_usual;
        }
        patterns.any(|pattern| pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start)))
    }
}

impl Match {
    /// In what `machine` is another kind of machine: a sentence each.
    pub fn differences(&self, machine: &Topology) -> Vec<String> {
        let mut found = Vec::new();
        let mut differ = |what: &str, wanted: String, is: String| {
            found.push(format!("{what} is {is}, the profile is for {wanted}"));
        };
        if let Some(wanted) = &self.architecture
            && *wanted != machine.architecture
        {
            differ("the architecture", wanted.clone(), machine.architecture.clone());
        }
        if let Some(wanted) = &self.processor {
            let is = machine.cpu_model.as_deref().unwrap_or("not shown");
            if !wanted.split('|').any(|wanted| is.contains(wanted.trim())) {
                differ("the processor", format!("'{wanted}'"), format!("'{is}'"));
            }
        }
        if let Some(wanted) = self.sockets
            && wanted != machine.sockets().len()
        {
            differ("the number of sockets", wanted.to_string(), machine.sockets().len().to_string());
        }
        let kind = |is: bool| if is { "a virtual machine" } else { "bare metal" }.to_owned();
        if let Some(wanted) = self.virtualised
            && wanted != machine.virtualised
        {
            differ("this", kind(wanted), kind(machine.virtualised));
        }
        let kind = |is: bool| if is { "limited" } else { "not limited" }.to_owned();
        let group = &machine.control_group;
        let is_limited = group.cpu_cores.is_some() || group.memory_bytes.is_some();
        if let Some(wanted) = self.limited
            && wanted != is_limited
        {
            differ("the control group", format!("one that is {}", kind(wanted)), kind(is_limited));
        }
        found
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
        let memory = Memory {
            total: Some(MemoryWish::Bytes(total_bytes)),
            per_shard_bytes: None,
            pages: PageWish::Small,
            populate: true,
            bind: true,
            // It shall run anywhere, and say what that costs.
            remote: true,
        };
        let mut profile = Profile {
            machine: Machine { name: "detected".to_owned(), description: describe(machine) },
            matches: Match::default(),
            cores: Cores {
                data: CoreWish::List(data),
                housekeeping: CoreWish::List(housekeeping),
                irq: CoreWish::default(),
                siblings: false,
            },
            memory,
            network: Network { poll: if park { Poll::Park } else { Poll::Spin }, io: Io::Auto },
            nic: NicWish::default(),
            power: Power::default(),
            kernel: Kernel::default(),
            sysctl: BTreeMap::new(),
            calibration: None,
            source: Source::default(),
        };
        let enough = |placed: &Placement| {
            placed.node_shares().iter().all(|share| {
                machine.nodes.iter().any(|node| node.id == share.node && node.huge_pages_free >= share.huge_pages())
            })
        };
        profile.memory.pages = if place(machine, &allowed, &profile).is_ok_and(|placed| enough(&placed)) {
            PageWish::Huge2M
        } else if matches!(machine.transparent, Some(TransparentMode::Always | TransparentMode::Madvise)) {
            PageWish::Transparent
        } else {
            PageWish::Small
        };
        profile
    }

    /// Names of the shipped profiles that are for such a machine.
    pub fn shipped_for(machine: &Topology) -> Vec<&'static str> {
        let fits = |text: &str| Profile::parse(text).is_ok_and(|it| it.matches.differences(machine).is_empty());
        SHIPPED.iter().filter(|(_, text)| fits(text)).map(|(name, _)| *name).collect()
    }

    /// Refuses what cannot work on any machine: no data core or too many, a core with two jobs,
    /// no amount of memory or two, or too little for a shard.
    pub fn validate_alone(&self) -> Result<(), ProfileError> {
        let refuse = |key: &str, message: String| Err(self.blame(ProfileError::of_key(key, message)));
        for (key, wish) in [("cores.housekeeping", &self.cores.housekeeping), ("cores.irq", &self.cores.irq)] {
            if *wish == CoreWish::Rest {
                let message = "\"rest\" is for cores.data: write a list, or \"1/node\"".to_owned();
                return refuse(key, message);
            }
            let (CoreWish::List(data), CoreWish::List(cores)) = (&self.cores.data, wish) else { continue };
            let both: Vec<usize> = cores.iter().copied().filter(|core| data.contains(core)).collect();
            if !both.is_empty() {
                let message = format!("core {} is in cores.data too: remove it from one list", format_cpu_list(&both));
                return refuse(key, message);
            }
        }
        if let (CoreWish::List(data), QueueCores::List(queues)) = (&self.cores.data, &self.nic.queue_cores)
            && let Some(core) = queues.iter().find(|core| data.contains(core))
        {
            let message =
                format!("core {core} is in cores.data: its shard would stop for every interrupt, name another");
            return refuse("nic.queue_cores", message);
        }
        let shards = match &self.cores.data {
            CoreWish::List(data) => data.len(),
            CoreWish::PerNode(_) | CoreWish::PerSocket(_) | CoreWish::Rest => 1,
        };
        if shards == 0 {
            return refuse("cores.data", "no core is named: name at least one, like data = \"1\"".to_owned());
        }
        if shards > SHARD_COUNT_MAX {
            let message = format!("{shards} cores are named, {SHARD_COUNT_MAX} is the most: shorten the list");
            return refuse("cores.data", message);
        }
        for name in self.sysctl.keys() {
            // It becomes a path below /proc/sys, written by root.
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
            if !plain || name.split(['.', '/']).any(str::is_empty) {
                let message = "is no name of a kernel parameter: write it as 'sysctl -a' does, like vm.swappiness";
                return refuse(&format!("sysctl.{name}"), message.to_owned());
            }
        }
        if self.memory.total.is_some() && self.memory.per_shard_bytes.is_some() {
            let message = "memory.total is given too, and one follows from the other: remove one of them".to_owned();
            return refuse("memory.per_shard", message);
        }
        if let Some(MemoryWish::Bytes(total_bytes)) = self.memory.total {
            self.refuse_too_little(shards, total_bytes)?;
        }
        if let Some(bytes) = self.memory.per_shard_bytes.filter(|&bytes| bytes < SHARD_MEMORY_BYTES_MIN) {
            let (bytes, least) = (format_bytes(bytes), format_bytes(SHARD_MEMORY_BYTES_MIN));
            return refuse("memory.per_shard", format!("{bytes} is too little for a shard: raise it to {least}"));
        }
        Ok(())
    }

    pub(crate) fn refuse_too_little(&self, shards: usize, total_bytes: u64) -> Result<(), ProfileError> {
        let least = SHARD_MEMORY_BYTES_MIN * shards as u64;
        if total_bytes >= least {
            return Ok(());
        }
        let message = format!(
            "{} is too little for {shards} shards of at least {}: raise it to {} or name fewer cores in cores.data",
            format_bytes(total_bytes),
            format_bytes(SHARD_MEMORY_BYTES_MIN),
            format_bytes(least)
        );
        Err(self.blame(ProfileError::of_key("memory.total", message)))
    }

    /// The error with the file and line that its key stood in, where they are known.
    pub(crate) fn blame(&self, error: ProfileError) -> ProfileError {
        let line = error.key.as_ref().and_then(|key| self.source.lines.get(key).copied());
        ProfileError { file: error.file.or_else(|| self.source.file.clone()), line: error.line.or(line), ..error }
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

/// So many hundredths, in whole MiB: a page more or less is no loss, and the figure reads better.
pub(crate) fn share_of(bytes: u64, hundredths: u8) -> u64 {
    (u128::from(bytes) * u128::from(hundredths) / 100) as u64 & !((1 << 20) - 1)
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

mod size_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::base::units::{exact_bytes, parse_bytes};

    /// Exact, in the largest unit that divides it.
    pub(super) fn serialize<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&exact_bytes(*bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        parse_bytes(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
    }
}

/// Values of kernel parameters: numbers may stand without quotes, what is written is always text.
mod sysctl_values {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Number(i64),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(
        values: &BTreeMap<String, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        values.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, String>, D::Error> {
        let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
        let text = |value| match value {
            Value::Number(number) => number.to_string(),
            Value::Text(text) => text,
        };
        Ok(values.into_iter().map(|(name, value)| (name, text(value))).collect())
    }
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
