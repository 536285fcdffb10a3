//! Cores and what they share: sockets, dies, caches, kinds.
//!
//!   socket ── die ── complex ── physical core ── hardware thread
//!                       │            └ shares the first and second levels of cache
//!                       └ shares the last level: a message between two of its cores stays on it
//!
//! The kernel numbers hardware threads only; the rest is read from what each says it shares. A *complex*
//! is what AMD calls CCX and Arm a cluster: a core in one reads a line that another core of it wrote
//! without asking the rest of the socket, which is what a ring between two shards wants.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::host::files::Files;
use crate::host::nodes::Node;
use crate::host::power::{self, Frequency, IdleState};

/// One core as the kernel numbers it: a hardware thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Core {
    /// The kernel's number, what affinity calls take.
    pub id: usize,
    /// Socket.
    pub package: usize,
    /// Number of the die, unique within the socket.
    pub die: usize,
    /// Lowest number among the cores that share the last level of cache with it, itself included. Where
    /// the machine shows no such cache, a socket is one complex.
    pub complex: usize,
    /// Number of the physical core, unique within the socket at best.
    pub core_id: usize,
    /// NUMA node.
    pub node: usize,
    /// The other hardware threads of the same physical core, ascending.
    pub siblings: Vec<usize>,
    /// What kind of core it is among those of this machine.
    pub kind: CoreKind,
    /// The scheduler's measure of it, 1024 for the strongest core of the machine; where shown.
    pub capacity: Option<u32>,
    /// Its caches, the nearest first.
    pub caches: Vec<Cache>,
    /// Frequency governor, where the machine shows one.
    pub governor: Option<String>,
    /// Its clock, where the machine shows one; the governor is in it too.
    pub frequency: Option<Frequency>,
    /// What it may do when idle, the lightest first; empty where the machine shows nothing.
    pub idle_states: Vec<IdleState>,
}

/// Kinds of cores in one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoreKind {
    /// One of the strong cores of a machine that has weak ones too.
    Performance,
    /// One of the weak ones.
    Efficient,
    /// All cores of the machine are alike.
    #[default]
    Alike,
}

impl Core {
    /// Its caches that hold data.
    pub fn data_caches(&self) -> impl Iterator<Item = &Cache> {
        self.caches.iter().filter(|cache| cache.kind != CacheKind::Instruction)
    }
}

/// One cache of a core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// 1 is nearest to the core.
    pub level: u32,
    /// What it holds.
    pub kind: CacheKind,
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes of a line, where shown.
    pub line_bytes: Option<u64>,
    /// Other cores that use it too, ascending.
    pub shared_with: Vec<usize>,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheKind {
    /// Data.
    Data,
    /// Instructions.
    Instruction,
    /// Both.
    Unified,
}

/// From this level on a cache that one core has to itself still makes it a complex of its own: a
/// virtual machine may be given one core of each complex.
const LAST_LEVEL_MIN: u32 = 3;

/// A core with this many percent of the strongest core's capacity is one of the strong ones: favoured cores
/// of one kind differ by a few percent, kinds by a third and more.
const STRONG_PERCENT_MIN: u64 = 90;

/// Reads the cores `online`; `nodes` were read before.
pub(crate) fn read(files: &Files, online: &[usize], nodes: &[Node]) -> Result<Vec<Core>, String> {
    let mut frequencies = power::read_frequencies(files)?;
    let mut cores = Vec::with_capacity(online.len());
    for &id in online {
        let directory = format!("sys/devices/system/cpu/cpu{id}");
        let topology = format!("{directory}/topology");
        let mut siblings = files.list(&format!("{topology}/thread_siblings_list"))?.unwrap_or_default();
        siblings.retain(|other| *other != id && online.binary_search(other).is_ok());
        let frequency = frequencies.remove(&id);
        let capacity = files.number(&format!("{directory}/cpu_capacity"))?;
        cores.push(Core {
            id,
            package: files.index(&format!("{topology}/physical_package_id"))?.unwrap_or(0),
            die: files.index(&format!("{topology}/die_id"))?.unwrap_or(0),
            complex: id,
            core_id: files.index(&format!("{topology}/core_id"))?.unwrap_or(id),
            node: nodes.iter().find(|node| node.cores.contains(&id)).map_or(nodes[0].id, |node| node.id),
            siblings,
            kind: CoreKind::Alike,
            capacity: capacity.and_then(|capacity| u32::try_from(capacity).ok()),
            caches: read_caches(files, &directory, id, online)?,
            governor: frequency.as_ref().and_then(|frequency| frequency.governor.clone()),
            frequency,
            idle_states: power::read_idle_states(files, &directory)?,
        });
    }
    find_complexes(&mut cores);
    find_kinds(files, &mut cores)?;
    Ok(cores)
}

fn read_caches(files: &Files, directory: &str, id: usize, online: &[usize]) -> Result<Vec<Cache>, String> {
    let mut caches = Vec::new();
    for index in files.numbered(&format!("{directory}/cache"), "index") {
        let cache = format!("{directory}/cache/index{index}");
        let Some(level) = files.number(&format!("{cache}/level"))? else { continue };
        let kind = match files.text(&format!("{cache}/type")).as_deref() {
            Some("Data") => CacheKind::Data,
            Some("Instruction") => CacheKind::Instruction,
            _ => CacheKind::Unified,
        };
        let size = format!("{cache}/size");
        let bytes = match files.text(&size) {
            Some(text) => cache_bytes(&text).ok_or_else(|| files.senseless(&size, &text, "a size like 32K"))?,
            None => 0,
        };
        let mut shared_with = files.list(&format!("{cache}/shared_cpu_list"))?.unwrap_or_default();
        shared_with.retain(|other| *other != id && online.binary_search(other).is_ok());
        caches.push(Cache {
            level: level.min(u64::from(u32::MAX)) as u32,
            kind,
            bytes,
            line_bytes: files.number(&format!("{cache}/coherency_line_size"))?,
            shared_with,
        });
    }
    caches.sort_by_key(|cache| cache.level);
    Ok(caches)
}

/// `32K`, `266240K`, `32M`.
fn cache_bytes(text: &str) -> Option<u64> {
    let (number, scale) = match text.strip_suffix('K') {
        Some(number) => (number, 1 << 10),
        None => text.strip_suffix('M').map_or((text, 1), |number| (number, 1 << 20)),
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

/// Sets every core's complex.
fn find_complexes(cores: &mut [Core]) {
    let complexes: Vec<usize> = cores.iter().map(|core| complex_of(core, cores)).collect();
    for (core, complex) in cores.iter_mut().zip(complexes) {
        core.complex = complex;
    }
}

fn complex_of(core: &Core, cores: &[Core]) -> usize {
    let last = core.caches.iter().rfind(|cache| cache.kind != CacheKind::Instruction);
    // Shared beyond the physical core, or far enough from it to be the last there is.
    let complex = last.filter(|cache| {
        cache.level >= LAST_LEVEL_MIN || cache.shared_with.iter().any(|other| !core.siblings.contains(other))
    });
    match complex {
        Some(cache) => cache.shared_with.iter().copied().chain([core.id]).min(),
        None => cores.iter().find(|other| other.package == core.package).map(|other| other.id),
    }
    .unwrap_or(core.id)
}

/// Sets every core's kind: hybrid Intel processors list their cores by kind, Arm tells their capacity.
fn find_kinds(files: &Files, cores: &mut [Core]) -> Result<(), String> {
    let strong = files.list("sys/devices/cpu_core/cpus")?.unwrap_or_default();
    let weak = files.list("sys/devices/cpu_atom/cpus")?.unwrap_or_default();
    if !strong.is_empty() && !weak.is_empty() {
        for core in cores.iter_mut() {
            core.kind = if weak.contains(&core.id) { CoreKind::Efficient } else { CoreKind::Performance };
        }
        return Ok(());
    }
    let strongest = cores.iter().filter_map(|core| core.capacity).max().unwrap_or(0);
    let is_weak =
        |core: &Core| core.capacity.is_some_and(|own| u64::from(own) * 100 < u64::from(strongest) * STRONG_PERCENT_MIN);
    if cores.iter().any(is_weak) {
        for core in cores.iter_mut() {
            core.kind = if is_weak(core) { CoreKind::Efficient } else { CoreKind::Performance };
        }
    }
    Ok(())
}

/// Values of `key` over `cores`, each once, ascending.
pub(crate) fn distinct<K: Ord>(cores: &[Core], key: impl Fn(&Core) -> K) -> Vec<K> {
    cores.iter().map(key).collect::<BTreeSet<K>>().into_iter().collect()
}
