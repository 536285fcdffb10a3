//! Cards, their queues and interrupts: a few lines for each card that the profile means.

use crate::host::check::cores::or_none;
use crate::host::check::line::{Line, Source};
use crate::host::check::subject::Subject;
use crate::host::placement::{NicPlace, Placement, QueuePlace};
use crate::host::topology::{Irq, Nic, format_cpu_list};

/// Queues that a line names before it says "and so on".
const NAMED_MAX: usize = 4;

pub(super) fn lines(subject: &Subject<'_>, placed: &Placement) -> Vec<Line> {
    let mut lines = Vec::new();
    for place in &placed.nics {
        let Some(nic) = subject.machine.nic(&place.name) else { continue };
        let card = Card { subject, placed, place, nic };
        lines.extend([card.interrupts(), card.xps(), card.rps(), card.rings(), card.polling()].into_iter().flatten());
    }
    lines.extend(flow_steering(subject));
    lines
}

/// One card, where its queues are meant to go, and where they do.
struct Card<'c> {
    subject: &'c Subject<'c>,
    placed: &'c Placement,
    place: &'c NicPlace,
    nic: &'c Nic,
}

impl Card<'_> {
    fn item(&self, what: &str) -> String {
        format!("{}: {what}", self.nic.name)
    }

    fn interrupts(&self) -> Option<Line> {
        if self.nic.irqs.is_empty() {
            return None;
        }
        let data = self.placed.data_cores();
        // Where the kernel tells only what is allowed, any of those cores may be meant. One that is in force and no
        // longer allowed has a move before it, which the kernel makes with the next interrupt.
        let goes_to = |irq: &Irq| {
            let settled: Vec<usize> =
                irq.effective.iter().copied().filter(|core| irq.affinity.contains(core)).collect();
            if settled.is_empty() { irq.affinity.clone() } else { settled }
        };
        let wanted: Vec<usize> = {
            let queues = self.place.queues.iter().filter_map(|queue| queue.irq_core);
            let mut cores: Vec<usize> = queues.chain(self.place.others.iter().map(|(_, core)| *core)).collect();
            cores.sort_unstable();
            cores.dedup();
            cores
        };
        let mut have: Vec<usize> = self.nic.irqs.iter().flat_map(goes_to).collect();
        have.sort_unstable();
        have.dedup();
        let on_data: Vec<usize> = have.iter().copied().filter(|core| data.contains(core)).collect();
        let line =
            Line::ok(self.item("interrupts"), format!("on {}", or_none(&have)), format!("on {}", or_none(&wanted)));
        if wanted.is_empty() {
            return Some(Line { want: "as they are: every core has a shard".to_owned(), ..line });
        }
        if on_data.is_empty() {
            return Some(line);
        }
        Some(line.costs(
            format!("an interrupt and its softirq stop shards (cores {})", format_cpu_list(&on_data)),
            Source::NotMeasured,
            "'spinetail host apply' (stop irqbalance first: it would move them back)",
        ))
    }

    /// Queues whose setting is not the one wanted, in words.
    fn wrong(&self, is_wrong: impl Fn(&QueuePlace) -> Option<String>) -> Vec<String> {
        let mut wrong: Vec<String> = self.place.queues.iter().filter_map(is_wrong).collect();
        if wrong.len() > NAMED_MAX {
            wrong.truncate(NAMED_MAX);
            wrong.push("and so on".to_owned());
        }
        wrong
    }

    fn xps(&self) -> Option<Line> {
        // A card with one queue has nothing to deal, and the kernel no file to say it in.
        if !self.subject.profile.nic.xps || self.nic.tx_queues.len() < 2 {
            return None;
        }
        let wrong = self.wrong(|place| {
            let queue = self.nic.tx_queues.iter().find(|queue| queue.index == place.queue)?;
            (queue.xps_cpus != place.xps_cores).then(|| format!("tx-{}: {}", place.queue, or_none(&queue.xps_cpus)))
        });
        let have = if wrong.is_empty() { "a queue for each shard".to_owned() } else { wrong.join(", ") };
        let line = Line::ok(self.item("send queues (XPS)"), have, "a queue for each shard");
        if wrong.is_empty() {
            return Some(line);
        }
        Some(line.costs("shards wait for each other's queue lock", Source::NotMeasured, "'spinetail host apply'"))
    }

    fn rps(&self) -> Option<Line> {
        let wanted = self.subject.profile.nic.rps?;
        let cores = if wanted { self.placed.irq.clone() } else { Vec::new() };
        let found: Vec<String> = self
            .nic
            .rx_queues
            .iter()
            .filter(|queue| queue.rps_cpus != cores)
            .map(|queue| format!("rx-{}: {}", queue.index, or_none(&queue.rps_cpus)))
            .take(NAMED_MAX)
            .collect();
        let want = if wanted { format!("on {}", or_none(&cores)) } else { "off".to_owned() };
        let have = if found.is_empty() { want.clone() } else { found.join(", ") };
        let line = Line::ok(self.item("receive steering (RPS)"), have, want);
        if found.is_empty() {
            return Some(line);
        }
        Some(line.costs(
            "packets take a detour over another core's queue",
            Source::NotMeasured,
            "'spinetail host apply'",
        ))
    }

    fn rings(&self) -> Option<Line> {
        let wish = &self.subject.profile.nic;
        if wish.rx_ring.is_none() && wish.tx_ring.is_none() {
            return None;
        }
        let Some(rings) = self.nic.rings else {
            return Some(Line::ok(self.item("rings"), "not shown", "not settable"));
        };
        // A card gives what it has: more than that cannot be had.
        let (rx, tx) = (
            wish.rx_ring.unwrap_or(rings.rx).min(rings.rx_max.max(rings.rx)),
            wish.tx_ring.unwrap_or(rings.tx).min(rings.tx_max.max(rings.tx)),
        );
        let line =
            Line::ok(self.item("rings"), format!("rx {}, tx {}", rings.rx, rings.tx), format!("rx {rx}, tx {tx}"));
        if (rings.rx, rings.tx) == (rx, tx) {
            return Some(line);
        }
        Some(line.costs(
            "smaller drop in bursts, larger fall out of the cache",
            Source::NotMeasured,
            format!(
                "'spinetail host apply', or ethtool -G {} rx {rx} tx {tx} (the link goes down for a moment)",
                self.nic.name
            ),
        ))
    }

    fn polling(&self) -> Option<Line> {
        let wish = &self.subject.profile.nic;
        if wish.gro_flush_timeout_ns.is_none() && wish.napi_defer_hard_irqs.is_none() {
            return None;
        }
        let shown = |value: Option<u64>| value.map_or("not shown".to_owned(), |value| value.to_string());
        let have = (self.nic.gro_flush_timeout_ns, self.nic.napi_defer_hard_irqs);
        let want = (wish.gro_flush_timeout_ns.or(have.0), wish.napi_defer_hard_irqs.map(u64::from).or(have.1));
        let text = |(flush, defer)| format!("timer {} ns, {} polls", shown(flush), shown(defer));
        let line = Line::ok(self.item("deferred interrupts"), text(have), text(want));
        if have == want && want.0.is_some_and(|ns| ns > 0) && wish.busy_poll_us.is_none_or(|us| us == 0) {
            let cost = format!("nobody polls the card: packets wait up to {} ns for its timer", shown(want.0));
            return Some(line.costs(cost, Source::Follows, "set nic.busy_poll_us, or leave both out"));
        }
        if have == want {
            return Some(line);
        }
        Some(line.costs("the card interrupts although a shard polls it", Source::NotMeasured, "'spinetail host apply'"))
    }
}

fn flow_steering(subject: &Subject<'_>) -> Option<Line> {
    let wanted = u64::from(subject.profile.nic.rfs_entries?);
    let have = subject.machine.rps_sock_flow_entries?;
    let line = Line::ok("flow steering (RFS)", format!("{have} flows"), format!("{wanted} flows"));
    if have == wanted {
        return Some(line);
    }
    let cost = if wanted == 0 {
        "packets are worked on where they are read, which is a data core"
    } else {
        "packets are worked on where the card's hash sends them"
    };
    Some(line.costs(cost, Source::NotMeasured, "'spinetail host apply'"))
}
