//! Which shard runs on which core, with memory of which node, fed by which queue: a pure function of a
//! topology and a profile.
//!
//!   shard ── core ── node ── arena (bound to it)
//!              │
//!              └── transmit queue of a card (XPS)          queue ── interrupt ── core for interrupts
//!
//! The rules, each a property that ten thousand random machines are held against (`placement_tests`):
//!
//! 1. A core has one job. It runs one shard, or keeps house or takes interrupts (or both), or is the idle thread
//!    beside one of these, or is left to the system.
//! 2. No two shards share a physical core unless `cores.siblings` says so: two threads of a core halve its caches
//!    and execution units, and a request that waits for its neighbour's divisions waits unseen.
//! 3. No interrupt of a card is sent to a data core. A shard is found by its packets through memory and need not
//!    be interrupted for them. Busy polling does without the interrupt altogether.
//! 4. A shard's memory fits its own node, next to that of the node's other shards.
//! 5. Cores for interrupts are the nearest to the card's node that there are, so that what the card writes into the
//!    node's last-level cache is read from there.
//!
//! Cores that a rule chooses (`"1/node"`, `"1/socket"`, `"rest"`) are dealt in this order: interrupts first, for they land on
//! the lowest cores already; then housekeeping; then shards, on all that is left. On a hybrid processor the first
//! two take efficient cores where there are any, and `rest` only performance cores: a shard on an efficient core
//! would be the slowest of its kind, and with it every request whose key it owns.
//!
//! Cores that are named are taken as named or refused, never moved.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::base::limits::{SHARD_COUNT_MAX, SHARD_MEMORY_BYTES_MIN};
use crate::base::units::format_bytes;
use crate::host::profile::{CoreWish, MemoryWish, Profile, ProfileError, QueueCores, share_of};
use crate::host::topology::{Core, CoreKind, HUGE_PAGE_BYTES, Nic, Node, Topology, format_cpu_list};

/// Distance of a node to itself, and to one whose distance nobody tells.
const NEAR: u32 = 10;
/// See [`NEAR`].
const FAR: u32 = u32::MAX;

/// Who runs where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// Shards, by their numbers.
    pub shards: Vec<ShardPlace>,
    /// Cores for all else the appliance does, ascending; none where the profile leaves it to the kernel.
    pub housekeeping: Vec<usize>,
    /// Cores for interrupts, ascending; none where every core has a shard.
    pub irq: Vec<usize>,
    /// Hardware threads beside a core that has a job, which the profile wants idle, ascending.
    pub idle: Vec<usize>,
    /// Cores nothing is said about, ascending.
    pub system: Vec<usize>,
    /// Cards the profile means.
    pub nics: Vec<NicPlace>,
    /// Memory of the whole process in bytes.
    pub memory_bytes: u64,
}

/// Where a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ShardPlace {
    /// Its number, which is its place in the list.
    pub shard: usize,
    /// The core it is pinned to.
    pub core: usize,
    /// That core's node, which its memory is bound to.
    pub node: usize,
    /// Its share of the memory in bytes.
    pub memory_bytes: u64,
}

/// How a card's queues are dealt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NicPlace {
    /// Name of the interface.
    pub name: String,
    /// The node it is attached to, where known.
    pub node: Option<usize>,
    /// Its queues, ascending.
    pub queues: Vec<QueuePlace>,
    /// Interrupts that belong to no queue, and the core that takes them.
    pub others: Vec<(usize, usize)>,
}

/// One queue: a receive and a transmit side of the same number, where the card has both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueuePlace {
    /// Its number.
    pub queue: usize,
    /// Numbers of its interrupts.
    pub irqs: Vec<usize>,
    /// The core that takes them; none where every core has a shard.
    pub irq_core: Option<usize>,
    /// Shards that send on it, by number.
    pub shards: Vec<usize>,
    /// The cores that send on it (XPS): those shards', or all others for a queue that is no shard's.
    pub xps_cores: Vec<usize>,
}

/// What one NUMA node has to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

impl Placement {
    /// The cores that run one shard each, by shard.
    pub fn data_cores(&self) -> Vec<usize> {
        self.shards.iter().map(|shard| shard.core).collect()
    }

    /// What each node has to carry, ascending by node.
    pub fn node_shares(&self) -> Vec<NodeShare> {
        let mut shares: BTreeMap<usize, NodeShare> = BTreeMap::new();
        for place in &self.shards {
            let share = shares.entry(place.node).or_insert(NodeShare { node: place.node, shards: 0, bytes: 0 });
            share.shards += 1;
            share.bytes += place.memory_bytes;
        }
        shares.into_values().collect()
    }

    /// The words that the profile wishes on the kernel's command line, its lists filled in; a word whose list is
    /// empty is left out.
    pub fn command_line(&self, profile: &Profile) -> Vec<String> {
        let data = self.data_cores();
        let lists = [("{data}", &data), ("{housekeeping}", &self.housekeeping), ("{irq}", &self.irq)];
        let mut words = Vec::new();
        for word in &profile.kernel.cmdline {
            if lists.iter().any(|(name, cores)| word.contains(name) && cores.is_empty()) {
                continue;
            }
            words.push(
                lists.iter().fold(word.clone(), |word, (name, cores)| word.replace(name, &format_cpu_list(cores))),
            );
        }
        words
    }
}

impl Profile {
    /// Refuses what cannot work on `machine` within `allowed_cores`: see [`place`].
    pub fn validate(&self, machine: &Topology, allowed_cores: &[usize]) -> Result<(), ProfileError> {
        place(machine, allowed_cores, self).map(|_| ())
    }
}

/// Places what `profile` wishes on `machine`, within `allowed_cores` (those of this process; none: unknown, all).
///
/// Refuses what [`Profile::validate_alone`] refuses anywhere, and: cores that are not online or not allowed; a core
/// with two jobs; shards on siblings; more memory than the machine, its control group or a node has; too little.
pub fn place(machine: &Topology, allowed_cores: &[usize], profile: &Profile) -> Result<Placement, ProfileError> {
    profile.validate_alone()?;
    let work = Work { machine, allowed: allowed(machine, allowed_cores), profile };
    let cores = work.deal_cores()?;
    let (memory_bytes, shard_count) = work.memory(&cores.data)?;
    let data = &cores.data[..shard_count];
    let shard_bytes = memory_bytes / shard_count as u64;
    let shard = |(shard, &core): (usize, &usize)| ShardPlace {
        shard,
        core,
        node: machine.core(core).map_or(0, |core| core.node),
        memory_bytes: shard_bytes,
    };
    let mut placement = Placement {
        shards: data.iter().enumerate().map(shard).collect(),
        housekeeping: cores.housekeeping,
        irq: cores.irq,
        idle: Vec::new(),
        system: Vec::new(),
        nics: Vec::new(),
        memory_bytes,
    };
    work.refuse_beyond_a_node(&placement)?;
    work.sort_the_others(&mut placement);
    placement.nics = work.deal_queues(&placement)?;
    Ok(placement)
}

/// The work of one placement.
struct Work<'w> {
    machine: &'w Topology,
    /// Cores this process may use, ascending.
    allowed: Vec<usize>,
    profile: &'w Profile,
}

/// What a rule counts cores of.
#[derive(Clone, Copy)]
enum Part {
    Node,
    Socket,
}

/// Cores by their job, as far as they have been dealt.
struct Dealt {
    data: Vec<usize>,
    housekeeping: Vec<usize>,
    irq: Vec<usize>,
}

impl Work<'_> {
    fn refuse<T>(&self, key: &str, message: String) -> Result<T, ProfileError> {
        Err(self.profile.blame(ProfileError::of_key(key, message)))
    }

    fn siblings(&self, core: usize) -> &[usize] {
        self.machine.core(core).map_or(&[], |core| &core.siblings)
    }

    /// Whether no thread of the physical core of `core` is among `taken`.
    fn is_untouched(&self, core: usize, taken: &[usize]) -> bool {
        !taken.contains(&core) && !self.siblings(core).iter().any(|sibling| taken.contains(sibling))
    }

    fn deal_cores(&self) -> Result<Dealt, ProfileError> {
        let wishes = &self.profile.cores;
        let data = self.named("cores.data", &wishes.data, true)?;
        let housekeeping = self.named("cores.housekeeping", &wishes.housekeeping, true)?;
        // Interrupts need no permission of this process: the kernel serves them on any core that is online.
        let irq = self.named("cores.irq", &wishes.irq, false)?;
        self.refuse_shards_on_siblings(&data)?;

        let mut taken: Vec<usize> = [&data[..], &housekeeping, &irq].concat();
        let irq = self.by_rule(&wishes.irq, irq, &mut taken);
        let housekeeping = self.by_rule(&wishes.housekeeping, housekeeping, &mut taken);
        let data = match wishes.data {
            CoreWish::List(_) => data,
            CoreWish::PerNode(count) => self.first_of_each(Part::Node, count, &taken, false),
            CoreWish::PerSocket(count) => self.first_of_each(Part::Socket, count, &taken, false),
            CoreWish::Rest => self.rest(&taken),
        };
        if data.len() > SHARD_COUNT_MAX {
            let message = format!("that is {} cores, {SHARD_COUNT_MAX} is the most: ask for fewer", data.len());
            return self.refuse("cores.data", message);
        }
        if data.is_empty() {
            let message = "no core is left for a shard: ask for fewer cores in cores.housekeeping and cores.irq";
            return self.refuse("cores.data", message.to_owned());
        }
        let irq = if !irq.is_empty() {
            irq
        } else if !housekeeping.is_empty() {
            housekeeping.clone()
        } else {
            self.away_from(&data)
        };
        Ok(Dealt { data, housekeeping, irq })
    }

    /// The cores of a wish that names them: online, and allowed if they have to be.
    fn named(&self, key: &str, wish: &CoreWish, must_be_allowed: bool) -> Result<Vec<usize>, ProfileError> {
        let CoreWish::List(cores) = wish else { return Ok(Vec::new()) };
        let missing: Vec<usize> = cores.iter().copied().filter(|&core| self.machine.core(core).is_none()).collect();
        if !missing.is_empty() {
            return self.refuse(
                key,
                format!(
                    "core {} is not online, this machine has {}: name cores it has, or use the profile 'auto'",
                    format_cpu_list(&missing),
                    format_cpu_list(&self.machine.core_ids())
                ),
            );
        }
        let forbidden: Vec<usize> = cores.iter().copied().filter(|core| !self.allowed.contains(core)).collect();
        if must_be_allowed && !forbidden.is_empty() {
            return self.refuse(
                key,
                format!(
                    "core {} is not among those this process may use ({}): allow it (taskset, cpuset, CPUAffinity=), \
                     or name others",
                    format_cpu_list(&forbidden),
                    format_cpu_list(&self.allowed)
                ),
            );
        }
        Ok(cores.clone())
    }

    fn refuse_shards_on_siblings(&self, data: &[usize]) -> Result<(), ProfileError> {
        if self.profile.cores.siblings {
            return Ok(());
        }
        let one_each = self.machine.one_per_physical_core(data);
        let Some(second) = data.iter().find(|core| !one_each.contains(core)) else { return Ok(()) };
        let first = self.siblings(*second).iter().find(|sibling| data.contains(sibling)).copied().unwrap_or(*second);
        let extra: Vec<usize> = data.iter().copied().filter(|core| !one_each.contains(core)).collect();
        self.refuse(
            "cores.data",
            format!(
                "cores {first} and {second} are two threads of one physical core, two shards would share it: take {} \
                 out, or set cores.siblings = true",
                format_cpu_list(&extra)
            ),
        )
    }

    /// `named`, or what the rule chooses; marks them as taken.
    fn by_rule(&self, wish: &CoreWish, named: Vec<usize>, taken: &mut Vec<usize>) -> Vec<usize> {
        let chosen = match *wish {
            CoreWish::PerNode(count) => self.first_of_each(Part::Node, count, taken, true),
            CoreWish::PerSocket(count) => self.first_of_each(Part::Socket, count, taken, true),
            CoreWish::List(_) | CoreWish::Rest => return named,
        };
        taken.extend(&chosen);
        chosen
    }

    /// The first `count` physical cores of each part that are untouched. Where shards take the rest, each part keeps
    /// one core for them: what a small machine can do without first is a core for something else.
    fn first_of_each(&self, part: Part, count: usize, taken: &[usize], keeps_house: bool) -> Vec<usize> {
        let mut chosen = Vec::new();
        let number = |core: &Core| match part {
            Part::Node => core.node,
            Part::Socket => core.package,
        };
        let parts: BTreeSet<usize> = self.machine.cores.iter().map(number).collect();
        for part in parts {
            let mut free = self.free_of(|core| number(core) == part, taken);
            // Sorting is stable: ascending within a kind. A shard wants the fast cores, the rest does with others.
            free.sort_by_key(|&core| self.is_efficient(core) != keeps_house);
            let kept = if keeps_house && !matches!(self.profile.cores.data, CoreWish::List(_)) { 1 } else { 0 };
            free.truncate(count.min(free.len().saturating_sub(kept)));
            chosen.extend(free);
        }
        chosen.sort_unstable();
        chosen
    }

    /// A thread of every physical core that is untouched, or all threads where shards may be siblings; performance
    /// cores only where there are both kinds.
    fn rest(&self, taken: &[usize]) -> Vec<usize> {
        let mut rest = if self.profile.cores.siblings {
            self.allowed.iter().copied().filter(|core| !taken.contains(core)).collect()
        } else {
            self.free_of(|_| true, taken)
        };
        if rest.iter().any(|&core| !self.is_efficient(core)) {
            rest.retain(|&core| !self.is_efficient(core));
        }
        // Shards beyond the quota of core time would stop each other for the rest of every period.
        if let Some(quota) = self.machine.control_group.cpu_cores {
            rest.truncate((quota as usize).max(1));
        }
        rest.truncate(SHARD_COUNT_MAX);
        rest
    }

    /// The first allowed thread of each untouched physical core, ascending.
    fn free_of(&self, is_meant: impl Fn(&Core) -> bool, taken: &[usize]) -> Vec<usize> {
        let meant = |id: &usize| self.machine.core(*id).is_some_and(&is_meant) && self.is_untouched(*id, taken);
        let free: Vec<usize> = self.allowed.iter().copied().filter(meant).collect();
        self.machine.one_per_physical_core(&free)
    }

    fn is_efficient(&self, core: usize) -> bool {
        self.machine.core(core).is_some_and(|core| core.kind == CoreKind::Efficient)
    }

    /// All cores that have no shard; not the siblings of those that have, if there are others.
    fn away_from(&self, data: &[usize]) -> Vec<usize> {
        let others: Vec<usize> = self.machine.core_ids().into_iter().filter(|core| !data.contains(core)).collect();
        let far: Vec<usize> = others.iter().copied().filter(|&core| self.is_untouched(core, data)).collect();
        if far.is_empty() { others } else { far }
    }

    /// Memory of the process, and for how many of the data cores it is enough.
    fn memory(&self, data: &[usize]) -> Result<(u64, usize), ProfileError> {
        let (machine, shards) = (self.machine, data.len());
        let limit_bytes = machine.control_group.memory_bytes;
        let bound_bytes = [machine.memory_total_bytes, limit_bytes].into_iter().flatten().min();
        let memory = &self.profile.memory;
        let (key, total_bytes) = match (memory.per_shard_bytes, memory.total) {
            (Some(bytes), _) => ("memory.per_shard", bytes.saturating_mul(shards as u64)),
            (None, Some(wish)) => match wish.bytes(bound_bytes) {
                Some(bytes) => ("memory.total", bytes),
                None => {
                    let message = "a share of memory is asked for, and this machine does not say how much it has: \
                                   give an amount, like \"1GiB\"";
                    return self.refuse("memory.total", message.to_owned());
                }
            },
            (None, None) => {
                let message = "is missing: add a line like 'total = \"1GiB\"' or 'per_shard = \"4GiB\"' under [memory]";
                return self.refuse("memory.total", message.to_owned());
            }
        };
        // A rule asks for as many shards as there is room for; a list means what it says.
        let fitting = usize::try_from(total_bytes / SHARD_MEMORY_BYTES_MIN).unwrap_or(usize::MAX).max(1);
        let shards = match self.profile.cores.data {
            CoreWish::List(_) => shards,
            CoreWish::PerNode(_) | CoreWish::PerSocket(_) | CoreWish::Rest => shards.min(fitting),
        };
        self.profile.refuse_too_little(shards, total_bytes)?;
        let bounds = [(machine.memory_total_bytes, "this machine has"), (limit_bytes, "the control group allows")];
        for (bound, whose) in bounds {
            if let Some(bound) = bound.filter(|&bound| total_bytes > bound) {
                let (wanted, bound) = (format_bytes(total_bytes), format_bytes(bound));
                return self.refuse(key, format!("{wanted} is more than the {bound} {whose}: lower {key}"));
            }
        }
        let within_nodes = match memory.total {
            Some(MemoryWish::Percent(share)) => self.share_within_nodes(share, &data[..shards]),
            _ => u64::MAX,
        };
        Ok((total_bytes.min(within_nodes), shards))
    }

    /// A share of memory means of each node's as well: a node with more shards than others sets the measure for all.
    fn share_within_nodes(&self, hundredths: u8, data: &[usize]) -> u64 {
        let memory = &self.profile.memory;
        if !memory.bind || memory.remote || self.machine.nodes.len() < 2 {
            return u64::MAX;
        }
        let of_node = |node: &Node| {
            let on_node = |core: &&usize| self.machine.core(**core).is_some_and(|core| core.node == node.id);
            let shards = data.iter().filter(on_node).count() as u64;
            let bytes = node.memory_bytes.filter(|_| shards > 0)?;
            Some(share_of(bytes, hundredths) / shards)
        };
        let shard_bytes = self.machine.nodes.iter().filter_map(of_node).min();
        shard_bytes.map_or(u64::MAX, |bytes| bytes.max(SHARD_MEMORY_BYTES_MIN).saturating_mul(data.len() as u64))
    }

    fn refuse_beyond_a_node(&self, placement: &Placement) -> Result<(), ProfileError> {
        let memory = &self.profile.memory;
        if !memory.bind || memory.remote || self.machine.nodes.len() < 2 {
            return Ok(());
        }
        let key = if memory.per_shard_bytes.is_some() { "memory.per_shard" } else { "memory.total" };
        for share in placement.node_shares() {
            let node = self.machine.nodes.iter().find(|node| node.id == share.node);
            let Some(has) = node.and_then(|node| node.memory_bytes).filter(|&has| share.bytes > has) else { continue };
            return self.refuse(
                key,
                format!(
                    "{} for the {} shards of node {} is more than the {} it has: lower {key}, deal cores.data more \
                     evenly to the nodes, or set memory.remote = true",
                    format_bytes(share.bytes),
                    share.shards,
                    share.node,
                    format_bytes(has)
                ),
            );
        }
        Ok(())
    }

    fn sort_the_others(&self, placement: &mut Placement) {
        let data = placement.data_cores();
        let busy: Vec<usize> = [&data[..], &placement.housekeeping, &placement.irq].concat();
        for id in self.machine.core_ids() {
            if busy.contains(&id) {
                continue;
            }
            // Beside a shard nothing shall run; beside other work the system may.
            let beside_a_shard = self.siblings(id).iter().any(|sibling| data.contains(sibling));
            if beside_a_shard { placement.idle.push(id) } else { placement.system.push(id) }
        }
    }

    fn deal_queues(&self, placement: &Placement) -> Result<Vec<NicPlace>, ProfileError> {
        let wish = &self.profile.nic;
        if let QueueCores::List(cores) = &wish.queue_cores {
            let data = placement.data_cores();
            if let Some(core) = cores.iter().find(|&&core| self.machine.core(core).is_none()) {
                let has = format_cpu_list(&self.machine.core_ids());
                let message =
                    format!("core {core} is not online, this machine has {has}: name cores it has, or \"auto\"");
                return self.refuse("nic.queue_cores", message);
            }
            if let Some(core) = cores.iter().find(|core| data.contains(core)) {
                let message = format!("core {core} runs a shard, which would stop for every interrupt: name another");
                return self.refuse("nic.queue_cores", message);
            }
        }
        let meant = self.machine.nics.iter().filter(|nic| wish.means(&nic.name, nic.physical && nic.up));
        Ok(meant.map(|nic| self.deal_queues_of(nic, placement)).collect())
    }

    /// How far a core is from a node, as the firmware counts it: 10 is on it. Nothing is known: everything is near.
    fn distance(&self, core: usize, node: Option<usize>) -> u32 {
        let Some((core, node)) = self.machine.core(core).zip(node) else { return NEAR };
        if core.node == node {
            return NEAR;
        }
        let row = self.machine.nodes.iter().find(|row| row.id == core.node);
        let told = row.and_then(|row| row.distances.iter().find(|(to, _)| *to == node));
        told.map_or(FAR, |&(_, distance)| distance)
    }

    fn deal_queues_of(&self, nic: &Nic, placement: &Placement) -> NicPlace {
        let is_local = |core: &usize| nic.node.is_none() || self.machine.core(*core).map(|core| core.node) == nic.node;
        let irq_cores = match &self.profile.nic.queue_cores {
            QueueCores::List(cores) => cores.clone(),
            QueueCores::Auto => {
                let nearest = placement.irq.iter().map(|&core| self.distance(core, nic.node)).min();
                placement.irq.iter().copied().filter(|&core| Some(self.distance(core, nic.node)) == nearest).collect()
            }
        };
        let irq_core = |queue: usize| (!irq_cores.is_empty()).then(|| irq_cores[queue % irq_cores.len()]);
        let queue_count = nic.rx_queues.len().max(nic.tx_queues.len());
        // Shards on the card's node come first: if there are more shards than queues, those on other nodes share.
        let mut shards: Vec<&ShardPlace> = placement.shards.iter().collect();
        shards.sort_by_key(|shard| !is_local(&shard.core));
        let data = placement.data_cores();
        let others: Vec<usize> = self.machine.core_ids().into_iter().filter(|core| !data.contains(core)).collect();
        let queue = |queue: usize| {
            let senders: Vec<&ShardPlace> = shards.iter().copied().skip(queue).step_by(queue_count).collect();
            let mut xps_cores: Vec<usize> = senders.iter().map(|shard| shard.core).collect();
            if xps_cores.is_empty() || queue_count == 1 {
                xps_cores.extend(&others);
            }
            xps_cores.sort_unstable();
            let irqs = nic.irqs.iter().filter(|irq| irq.queue == Some(queue)).map(|irq| irq.number).collect();
            let shards = senders.iter().map(|shard| shard.shard).collect();
            QueuePlace { queue, irqs, irq_core: irq_core(queue), shards, xps_cores }
        };
        let loose = nic.irqs.iter().filter(|irq| irq.queue.is_none_or(|queue| queue >= queue_count));
        NicPlace {
            name: nic.name.clone(),
            node: nic.node,
            queues: (0..queue_count).map(queue).collect(),
            others: loose.filter_map(|irq| Some((irq.number, *irq_cores.first()?))).collect(),
        }
    }
}

/// Cores online that this process may use, ascending; all if that is not known.
fn allowed(machine: &Topology, allowed_cores: &[usize]) -> Vec<usize> {
    let online = machine.core_ids();
    let allowed: Vec<usize> = online.iter().copied().filter(|core| allowed_cores.contains(core)).collect();
    if allowed.is_empty() { online } else { allowed }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
