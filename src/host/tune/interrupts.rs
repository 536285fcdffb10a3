//! Interrupts, and the kernel's own work, away from data cores.
//!
//! A card's queue goes to the core the placement gave it. Every other interrupt that may land on a data core loses
//! these from its list, and keeps the rest of it: whoever chose that had a reason. Those the kernel deals itself (one
//! NVMe queue for each core) refuse, which is said and is no failure: a shard that asks no disk is not interrupted.

use crate::host::cpu_list::parse_cpu_mask;
use crate::host::topology::{format_cpu_list, parse_cpu_list};
use crate::host::tune::change::{Kind, format_mask};
use crate::host::tune::plan::Draft;

pub(super) fn draft(draft: &mut Draft<'_>) {
    if draft.placement.irq.is_empty() {
        draft.leave_out("interrupts away from data cores", "every core has a shard: leave one out of cores.data");
        return;
    }
    queues(draft);
    others(draft);
    let default = "proc/irq/default_smp_affinity";
    mask_away(draft, default, "interrupts of devices to come do not begin on data cores");
    mask_away(draft, "sys/devices/virtual/workqueue/cpumask", "the kernel's unbound work runs elsewhere");
    for name in draft.names("sys/bus/workqueue/devices") {
        let reason = format!("the kernel's '{name}' work runs elsewhere");
        mask_away(draft, &format!("sys/bus/workqueue/devices/{name}/cpumask"), &reason);
    }
    if let Some(process) = draft.processes("irqbalance").first() {
        draft.note(format!(
            "irqbalance (process {process}) moves interrupts as it sees fit, also back to data cores: 'systemctl disable \
             --now irqbalance', or name the data cores in its IRQBALANCE_BANNED_CPULIST"
        ));
    }
}

fn queues(draft: &mut Draft<'_>) {
    for nic in &draft.placement.nics {
        for queue in &nic.queues {
            let Some(core) = queue.irq_core else { continue };
            for irq in &queue.irqs {
                let reason = format!("{} queue {} interrupts a core without a shard", nic.name, queue.queue);
                draft.change(Kind::List, &path_of(*irq), core.to_string(), reason);
            }
        }
        for (irq, core) in &nic.others {
            let reason = format!("{} interrupts a core without a shard", nic.name);
            draft.change(Kind::List, &path_of(*irq), core.to_string(), reason);
        }
    }
}

fn others(draft: &mut Draft<'_>) {
    let of_cards: Vec<usize> = draft
        .placement
        .nics
        .iter()
        .flat_map(|nic| {
            let queues = nic.queues.iter().filter(|queue| queue.irq_core.is_some());
            queues.flat_map(|queue| queue.irqs.clone()).chain(nic.others.iter().map(|(irq, _)| *irq))
        })
        .collect();
    for name in draft.names("proc/irq") {
        let Ok(irq) = name.parse::<usize>() else { continue };
        let path = path_of(irq);
        let Some(cores) = draft.untouched.text(&path).and_then(|text| parse_cpu_list(&text).ok()) else { continue };
        if of_cards.contains(&irq) || !cores.iter().any(|core| draft.data.contains(core)) {
            continue;
        }
        let want = format_cpu_list(&draft.away_from_data(&cores));
        let reason = match action_of(draft, irq) {
            Some(action) => format!("{action} does not interrupt shards"),
            None => "does not interrupt shards".to_owned(),
        };
        draft.change(Kind::List, &path, want, reason);
    }
}

/// A mask without data cores, where there is such a file and they are in it.
fn mask_away(draft: &mut Draft<'_>, path: &str, reason: &str) {
    let Some(cores) = draft.untouched.text(path).and_then(|text| parse_cpu_mask(&text)) else { return };
    // A mask may have all the bits a kernel was built for; writing is for those that are there.
    let present: Vec<usize> = cores.into_iter().filter(|&core| draft.machine.present.contains(&core)).collect();
    if present.iter().any(|core| draft.data.contains(core)) {
        let want = format_mask(&draft.away_from_data(&present));
        draft.change(Kind::Mask, path, want, reason);
    }
}

fn path_of(irq: usize) -> String {
    format!("proc/irq/{irq}/smp_affinity_list")
}

/// The device an interrupt is for: a folder beside its files.
fn action_of(draft: &Draft<'_>, irq: usize) -> Option<String> {
    let folder = format!("proc/irq/{irq}");
    draft.names(&folder).into_iter().find(|name| draft.untouched.root().join(&folder).join(name).is_dir())
}
