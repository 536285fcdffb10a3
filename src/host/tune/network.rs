//! Queues of the cards that the profile means.

use crate::host::placement::NicPlace;
use crate::host::topology::Nic;
use crate::host::tune::change::{Kind, format_mask};
use crate::host::tune::plan::Draft;

/// Ring sizes come before the interrupts: a driver asks for these anew when its rings change, and the kernel then
/// deals them as it likes.
pub(super) fn draft_rings(draft: &mut Draft<'_>) {
    let placed = draft.placement;
    for nic in placed.nics.iter().filter_map(|place| draft.machine.nic(&place.name)) {
        rings(draft, nic);
    }
}

pub(super) fn draft(draft: &mut Draft<'_>) {
    let wish = &draft.profile.nic;
    if let Some(entries) = wish.rfs_entries {
        let path = "proc/sys/net/core/rps_sock_flow_entries";
        if draft.untouched.text(path).is_some() {
            draft.change(Kind::Value, path, entries.to_string(), rfs_reason(entries));
        } else if entries > 0 {
            draft.leave_out(
                "nic.rfs_entries",
                "this kernel does not show it here: it belongs to the first network namespace",
            );
        }
    }
    let placed = draft.placement.nics.clone();
    for place in &placed {
        let Some(nic) = draft.machine.nic(&place.name).cloned() else { continue };
        receive(draft, &nic);
        send(draft, place, &nic);
        polling(draft, &nic);
    }
    if placed.is_empty() && !wish.interfaces.is_empty() {
        draft.leave_out(format!("nic.interfaces = \"{}\"", wish.interfaces), "this machine has no card of that name");
    }
}

fn rings(draft: &mut Draft<'_>, nic: &Nic) {
    let wish = &draft.profile.nic;
    if wish.rx_ring.is_none() && wish.tx_ring.is_none() {
        return;
    }
    let Some(rings) = nic.rings else {
        draft.leave_out(format!("rings of {}", nic.name), "its driver has none that can be set");
        return;
    };
    // A card gives what it has: more than that cannot be had.
    let (wanted_rx, wanted_tx) = (wish.rx_ring.unwrap_or(rings.rx), wish.tx_ring.unwrap_or(rings.tx));
    let (rx, tx) = (wanted_rx.min(rings.rx_max.max(rings.rx)), wanted_tx.min(rings.tx_max.max(rings.tx)));
    if (rx, tx) != (wanted_rx, wanted_tx) {
        let what = format!("rings of {}: rx {wanted_rx} tx {wanted_tx}", nic.name);
        draft.leave_out(what, format!("the card has rx {} tx {} at most, and gets that", rings.rx_max, rings.tx_max));
    }
    let reason = "room for a burst, as the profile has it (the link may go down for a moment)";
    draft.change(Kind::Rings, &folder(nic), format!("rx {rx} tx {tx}"), reason);
}

/// RPS hands packets on to other cores, RFS to the core that reads them.
fn receive(draft: &mut Draft<'_>, nic: &Nic) {
    let (rps, rfs_entries) = (draft.profile.nic.rps, draft.profile.nic.rfs_entries);
    let flows_each = rfs_entries.map(|entries| entries as usize / nic.rx_queues.len().max(1));
    for queue in &nic.rx_queues {
        let folder = format!("{}/queues/rx-{}", folder(nic), queue.index);
        if let Some(on) = rps {
            let cores = if on { draft.placement.irq.clone() } else { Vec::new() };
            let reason = if on {
                "packets are spread over the cores for interrupts"
            } else {
                "packets take no detour over another core"
            };
            draft.change(Kind::Mask, &format!("{folder}/rps_cpus"), format_mask(&cores), reason);
        }
        if let Some(flows) = flows_each {
            let reason = rfs_reason(flows as u32);
            draft.change(Kind::Value, &format!("{folder}/rps_flow_cnt"), flows.to_string(), reason);
        }
    }
}

fn send(draft: &mut Draft<'_>, place: &NicPlace, nic: &Nic) {
    // A card with one queue has nothing to deal, and the kernel no file to say it in.
    if !draft.profile.nic.xps || nic.tx_queues.len() < 2 {
        return;
    }
    for queue in &place.queues {
        if !nic.tx_queues.iter().any(|has| has.index == queue.queue) {
            continue;
        }
        let path = format!("{}/queues/tx-{}/xps_cpus", folder(nic), queue.queue);
        let reason = match queue.shards.len() {
            0 => "a queue that no shard sends on: for all other cores".to_owned(),
            1 => format!("shard {} sends without waiting for another's queue lock", queue.shards[0]),
            count => format!("{count} shards share a queue: the card has fewer than there are shards"),
        };
        draft.change(Kind::Mask, &path, format_mask(&queue.xps_cores), reason);
    }
}

fn polling(draft: &mut Draft<'_>, nic: &Nic) {
    let wish = &draft.profile.nic;
    let (defer, flush_ns) = (wish.napi_defer_hard_irqs, wish.gro_flush_timeout_ns);
    // The timer first: with deferral on and no timer, nothing would wake a card whose polls have ended.
    if let Some(ns) = flush_ns {
        let reason = "while a shard polls the card, this timer is the net below, and no interrupt";
        draft.change(Kind::Value, &format!("{}/gro_flush_timeout", folder(nic)), ns.to_string(), reason);
    }
    if let Some(polls) = defer {
        let reason = "so many empty polls before the card interrupts again";
        draft.change(Kind::Value, &format!("{}/napi_defer_hard_irqs", folder(nic)), polls.to_string(), reason);
    }
}

fn folder(nic: &Nic) -> String {
    format!("sys/class/net/{}", nic.name)
}

fn rfs_reason(entries: u32) -> &'static str {
    if entries == 0 {
        "packets are worked on where the card's hash sends them, not on a data core"
    } else {
        "packets are worked on by the core that reads them"
    }
}
