//! A sample as a page of metrics.
//!
//! Four questions in order: are requests hits, how long do they take, where is the memory, what leaves it and why. Then
//! what the process and the host are doing. Labels are bounded: shards, operations, tenants, reasons, nodes, and
//! the commands of RESP that were called.

use crate::cluster::host::status::Metric;
use crate::engine::Shared;
use crate::observe::calls::call_sums;
use crate::observe::exposition::{Exemplar, Exposition, Format, Kind};
use crate::observe::service::{OPERATIONS, STAGES};
use crate::observe::{Buckets, ShardFigures};
use crate::serve::admin::sample::{Facts, Sample};

/// What the admin listener counts of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdminFigures {
    /// Readers of events now.
    pub readers: u64,
    /// Readers dropped because they did not read.
    pub dropped: u64,
    /// Requests refused, by reason.
    pub refused: [(&'static str, u64); 5],
}

/// Writes the page.
pub fn page(
    sample: &Sample,
    facts: &Facts,
    shared: &Shared,
    admin: AdminFigures,
    slowest: Option<(String, f64)>,
    format: Format,
) -> String {
    let mut page = Exposition::new(format);
    let names: Vec<String> = (0..sample.shards.len()).map(|shard| shard.to_string()).collect();
    let mut writer = Writer { page: &mut page, names: &names, sample };
    page_of_requests(&mut writer);
    page_of_latency(&mut writer, slowest);
    page_of_memory(&mut writer, facts);
    page_of_evictions(&mut writer);
    page_of_tenants(&mut writer);
    page_of_connections(&mut writer);
    page_of_host(&mut writer, facts);
    let mut family = page.family(Kind::Counter, "spinetail_commands", "Commands of RESP that were called.");
    for (row, calls) in crate::engine::resp_commands().zip(call_sums(shared.calls.iter())) {
        if calls.count > 0 {
            family.add(&[("command", row)], calls.count);
        }
    }
    page.family(Kind::Gauge, "spinetail_event_readers", "Readers of the event stream.").add(&[], admin.readers);
    page.family(
        Kind::Counter,
        "spinetail_event_readers_dropped",
        "Readers of the event stream dropped because they did not read.",
    )
    .add(&[], admin.dropped);
    let mut family = page.family(Kind::Counter, "spinetail_admin_refused", "Requests that the admin listener refused.");
    for (reason, count) in admin.refused {
        family.add(&[("reason", reason)], count);
    }
    if let Some(cluster) = &facts.cluster {
        page_of_cluster(&mut page, &(cluster.0)().metrics());
    }
    page.family(Kind::Gauge, "spinetail_build_info", "1, with the version.")
        .add(&[("version", env!("CARGO_PKG_VERSION"))], 1u64);
    page.finish()
}

/// Families of the cluster's node: each one's values stand together already.
fn page_of_cluster(page: &mut Exposition, metrics: &[Metric]) {
    for family in metrics.chunk_by(|a, b| a.name == b.name) {
        let kind = if family[0].is_counter { Kind::Counter } else { Kind::Gauge };
        let mut written = page.family(kind, family[0].name, family[0].help);
        for metric in family {
            let labels: Vec<(&str, &str)> = metric.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            match metric.is_counter {
                true => written.add(&labels, metric.value as u64),
                false => written.add(&labels, metric.value),
            }
        }
    }
}

struct Writer<'a> {
    page: &'a mut Exposition,
    /// The shards' numbers as text.
    names: &'a [String],
    sample: &'a Sample,
}

impl Writer<'_> {
    /// A family with one sample a shard.
    fn by_shard(&mut self, kind: Kind, name: &str, help: &str, value: impl Fn(&ShardFigures) -> u64) {
        let mut family = self.page.family(kind, name, help);
        for (shard, figures) in self.names.iter().zip(&self.sample.shards) {
            family.add(&[("shard", shard)], value(figures));
        }
    }

    /// A family with several samples a shard, told apart by another label.
    fn by_shard_and<const N: usize>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        label: &str,
        values: impl Fn(&ShardFigures) -> [(&'static str, u64); N],
    ) {
        let mut family = self.page.family(kind, name, help);
        for (shard, figures) in self.names.iter().zip(&self.sample.shards) {
            for (text, value) in values(figures) {
                family.add(&[("shard", shard), (label, text)], value);
            }
        }
    }
}

fn page_of_requests(writer: &mut Writer<'_>) {
    let mut family = writer.page.family(
        Kind::Counter,
        "spinetail_requests",
        "Requests answered, by operation; a command about several keys is one.",
    );
    for (shard, counts) in writer.names.iter().zip(&writer.sample.requests) {
        for operation in OPERATIONS {
            family.add(&[("shard", shard), ("operation", operation.name())], counts[operation as usize]);
        }
    }
    writer.by_shard_and(
        Kind::Counter,
        "spinetail_hits",
        "Keys that were found, by tier: l0 is shared memory as its readers report it, l1 the shard.",
        "tier",
        |shard| [("l0", shard.l0_hits), ("l1", shard.get_hits)],
    );
    writer.by_shard(Kind::Counter, "spinetail_misses", "Keys that were asked for and not found.", |shard| {
        shard.get_misses
    });
    writer.by_shard_and(Kind::Counter, "spinetail_changes", "Changes that took effect.", "kind", |shard| {
        [
            ("stored", shard.sets),
            ("deleted", shard.deletes),
            ("incremented", shard.increments),
            ("decremented", shard.decrements),
            ("touched", shard.touches),
        ]
    });
    writer.by_shard_and(
        Kind::Counter,
        "spinetail_refused",
        "Requests refused: senseless or too large, for lack of buffer memory, with a condition that did not hold; too_large: \
         values of memcached's protocol.",
        "reason",
        |shard| {
            [
                ("invalid", shard.refused),
                ("busy", shard.refused_busy),
                ("condition", shard.sets_unmet),
                ("too_large", shard.too_large),
            ]
        },
    );
    writer.by_shard_and(
        Kind::Counter,
        "spinetail_forwarded",
        "Requests about one key sent on to the shard that owns it, and answered for other shards.",
        "direction",
        |shard| [("out", shard.forwarded_out), ("in", shard.forwarded_in)],
    );
}

fn page_of_latency(writer: &mut Writer<'_>, slowest: Option<(String, f64)>) {
    let mut family = writer.page.family(
        Kind::Histogram,
        "spinetail_request_duration_seconds",
        "Time of a request inside the appliance: total is from the beginning of the turn that received it to the end of \
         the turn that answered it, service its share of the turn, queue the rest. Exact to 0.8 %.",
    );
    let at = writer.sample.unix_ms as f64 / 1e3;
    for operation in OPERATIONS {
        for stage in STAGES {
            let buckets = &writer.sample.times[operation as usize][stage as usize];
            // The slowest of the last second, and which shard it was.
            let exemplar = slowest.as_ref().filter(|_| operation.name() == "get" && stage.name() == "total");
            let exemplar = exemplar.map(|(shard, value)| Exemplar { label: ("shard", shard), value: *value, at });
            let labels = [("operation", operation.name()), ("stage", stage.name()), ("path", "local")];
            add_times(&mut family, &labels, buckets, exemplar);
        }
        let labels = [("operation", operation.name()), ("stage", "total"), ("path", "forwarded")];
        add_times(&mut family, &labels, &writer.sample.forwarded[operation as usize], None);
    }
}

fn add_times(
    family: &mut crate::observe::exposition::Family<'_>,
    labels: &[(&str, &str)],
    buckets: &Buckets,
    exemplar: Option<Exemplar<'_>>,
) {
    let within: Vec<(f64, u64)> =
        BOUNDS_NS.iter().map(|bound| *bound as f64 / 1e9).zip(buckets.counts_within(&BOUNDS_NS)).collect();
    family.add_histogram(labels, &within, buckets.count, buckets.sum_ns as f64 / 1e9, exemplar);
}

fn page_of_memory(writer: &mut Writer<'_>, facts: &Facts) {
    writer.by_shard_and(
        Kind::Gauge,
        "spinetail_memory_bytes",
        "The arenas and their tables: keys and values, structure (index, ghosts, tables, headers), dead bytes in segments in \
         use, segments not in use.",
        "kind",
        Sample::memory_of,
    );
    writer.by_shard(Kind::Gauge, "spinetail_entries", "Entries stored.", |shard| shard.entries);
    let mut family = writer.page.family(Kind::Gauge, "spinetail_entry_overhead_bytes", "Structure for each entry.");
    for (shard, figures) in writer.names.iter().zip(&writer.sample.shards) {
        family.add(&[("shard", shard)], Sample::overhead_of(figures));
    }
    let page = &mut writer.page;
    page.family(Kind::Gauge, "spinetail_memory_limit_bytes", "What the whole process may take (--memory).")
        .add(&[], facts.memory_limit_bytes);
    page.family(Kind::Gauge, "spinetail_l0_memory_bytes", "What tables in shared memory take of it.")
        .add(&[], facts.l0_bytes);
    page.family(Kind::Gauge, "spinetail_huge_pages_bytes", "Memory of this process in huge pages of any kind.")
        .add(&[], writer.sample.memory.huge_bytes);
    let mut family =
        page.family(Kind::Gauge, "spinetail_numa_bytes", "Memory of this process by the NUMA node it lies on.");
    for (node, bytes) in &writer.sample.memory.node_bytes {
        family.add(&[("node", &node.to_string())], *bytes);
    }
}

fn page_of_evictions(writer: &mut Writer<'_>) {
    writer.by_shard_and(
        Kind::Counter,
        "spinetail_evictions",
        "Entries dropped to make room: because they ranked lowest, or because a write found nothing free and took what \
         came next.",
        "reason",
        |shard| [("rank", shard.evicted.saturating_sub(shard.evicted_rushed)), ("rush", shard.evicted_rushed)],
    );
    writer.by_shard(Kind::Counter, "spinetail_expirations", "Entries dropped because their time had come.", |shard| {
        shard.expired
    });
    writer.by_shard(
        Kind::Counter,
        "spinetail_ghost_hits",
        "Evicted keys that came back while they were remembered: what a larger cache would have kept.",
        |shard| shard.ghost_hits,
    );
    writer.by_shard(
        Kind::Counter,
        "spinetail_eviction_copied_bytes",
        "Bytes of entries that eviction kept by copying them.",
        |shard| shard.copied_bytes,
    );
    let mut family = writer.page.family(
        Kind::Histogram,
        "spinetail_eviction_idle_seconds",
        "How long evicted entries had not been asked for; one in eight is looked at.",
    );
    let (places, sum_ms) = &writer.sample.evicted_idle;
    let mut seen = 0;
    let within: Vec<(f64, u64)> = places[..places.len().saturating_sub(1)]
        .iter()
        .enumerate()
        .map(|(place, count)| {
            seen += count;
            ((1u64 << place) as f64, seen)
        })
        .collect();
    family.add_histogram(&[], &within, places.iter().sum(), *sum_ms as f64 / 1e3, None);
}

fn page_of_tenants(writer: &mut Writer<'_>) {
    let tenants = &writer.sample.tenants;
    let page = &mut writer.page;
    let mut family = page.family(Kind::Counter, "spinetail_tenant_hits", "Keys of a tenant that were found, by tier.");
    for tenant in tenants {
        family.add(&[("tenant", &tenant.name), ("tier", "l0")], tenant.hits_l0);
        family.add(&[("tenant", &tenant.name), ("tier", "l1")], tenant.hits_l1);
    }
    type Of = fn(&crate::serve::admin::sample::TenantSample) -> u64;
    let families: [(Kind, &str, &str, Of); 4] = [
        (Kind::Counter, "spinetail_tenant_misses", "Keys of a tenant that were not found.", |it| it.misses),
        (Kind::Counter, "spinetail_tenant_changes", "Requests to change keys of a tenant.", |it| it.changes),
        (Kind::Gauge, "spinetail_tenant_l0_entries", "Entries of a tenant in shared memory.", |it| it.l0_entries),
        (Kind::Gauge, "spinetail_tenant_l0_bytes", "What a tenant's tables in shared memory take.", |it| it.l0_bytes),
    ];
    for (kind, name, help, value) in families {
        let mut family = page.family(kind, name, help);
        for tenant in tenants {
            family.add(&[("tenant", &tenant.name)], value(tenant));
        }
    }
    let help = "Time of a tenant's requests inside the appliance, the whole turn; where tenants are told apart by prefix, those \
                of its keys.";
    let mut family = page.family(Kind::Histogram, "spinetail_tenant_request_duration_seconds", help);
    for tenant in tenants {
        add_times(&mut family, &[("tenant", &tenant.name), ("kind", "read")], &tenant.read_times, None);
        add_times(&mut family, &[("tenant", &tenant.name), ("kind", "change")], &tenant.change_times, None);
    }
}

fn page_of_connections(writer: &mut Writer<'_>) {
    writer.by_shard(Kind::Gauge, "spinetail_connections", "Connections open.", |shard| {
        shard.connections_opened.saturating_sub(shard.connections_closed)
    });
    writer.by_shard(
        Kind::Counter,
        "spinetail_connections_opened",
        "Connections accepted, and taken over from the shard that had accepted them.",
        |shard| shard.connections_opened,
    );
    writer.by_shard_and(
        Kind::Counter,
        "spinetail_connections_dropped",
        "Connections closed for what their peer did: took nothing for too long, sent nonsense, did not read messages or \
         invalidations.",
        "reason",
        |shard| {
            [
                ("stalled", shard.connections_stalled),
                ("malformed", shard.malformed),
                ("listener", shard.listeners_dropped),
                ("near", shard.near_dropped),
            ]
        },
    );
    writer.by_shard_and(
        Kind::Counter,
        "spinetail_network_bytes",
        "Bytes of requests and replies.",
        "direction",
        |shard| [("received", shard.received_bytes), ("sent", shard.sent_bytes)],
    );
    writer.by_shard(Kind::Gauge, "spinetail_l0_entries", "Entries published in shared memory.", |shard| {
        shard.l0_published
    });
    let sum = writer.sample.sum;
    let readers = writer.sample.shards.iter().map(|shard| shard.l0_readers).max().unwrap_or(0);
    writer.page.family(Kind::Gauge, "spinetail_l0_readers", "Programs that read in shared memory.").add(&[], readers);
    writer
        .page
        .family(Kind::Gauge, "spinetail_near_caches", "Near caches that are pushed to, by shard summed.")
        .add(&[], sum.near_subscribers);
    writer.by_shard(Kind::Counter, "spinetail_near_pushes", "Pushes to near caches.", |shard| shard.near_pushes);
    writer.by_shard(
        Kind::Counter,
        "spinetail_near_invalidations",
        "Buckets of keys that near caches were told to drop; \"everything\" counts as one.",
        |shard| shard.near_invalidations,
    );
    writer.by_shard(Kind::Counter, "spinetail_published", "Messages published (RESP).", |shard| shard.published);
}

fn page_of_host(writer: &mut Writer<'_>, facts: &Facts) {
    let mut family = writer.page.family(
        Kind::Counter,
        "spinetail_busy_seconds",
        "Time of turns in which there was something to do.",
    );
    for (shard, figures) in writer.names.iter().zip(&writer.sample.shards) {
        family.add(&[("shard", shard)], figures.busy_ns as f64 / 1e9);
    }
    writer.by_shard(
        Kind::Counter,
        "spinetail_buffers_exhausted",
        "Receives that found no buffer free and were tried again.",
        |shard| shard.buffers_exhausted,
    );
    writer.by_shard(
        Kind::Gauge,
        "spinetail_ring_depth",
        "Most completions (or events of epoll) that one turn found lately.",
        |shard| shard.ring_depth,
    );
    writer.by_shard(Kind::Gauge, "spinetail_mailbox_depth", "Requests under way at other shards.", |shard| {
        shard.mailbox_depth
    });
    let sample = writer.sample;
    let mut family = writer.page.family(
        Kind::Gauge,
        "spinetail_shard_turn_age_seconds",
        "How long ago the shard last said that it takes turns, which it does four times a second.",
    );
    for (shard, age) in writer.names.iter().zip(&sample.turn_ages) {
        family.add(&[("shard", shard)], age.as_secs_f64());
    }
    let cores: Vec<String> = facts.cores.iter().map(usize::to_string).collect();
    let mut family = writer.page.family(
        Kind::Counter,
        "spinetail_core_steal_seconds",
        "Time that the hypervisor gave to others than the shard's core.",
    );
    for ((shard, core), vitals) in writer.names.iter().zip(&cores).zip(&sample.cores) {
        family.add(&[("shard", shard), ("core", core)], vitals.steal_s);
    }
    let mut family = writer.page.family(
        Kind::Counter,
        "spinetail_core_switches",
        "Times the shard's thread left its core: involuntary, taken off while it wanted to run; voluntary, asleep.",
    );
    for ((shard, core), vitals) in writer.names.iter().zip(&cores).zip(&sample.cores) {
        family.add(&[("shard", shard), ("core", core), ("kind", "involuntary")], vitals.involuntary);
        family.add(&[("shard", shard), ("core", core), ("kind", "voluntary")], vitals.voluntary);
    }
    let (page, process) = (&mut writer.page, &sample.process);
    page.family(Kind::Counter, "process_cpu_seconds", "Processor time used, user and system.").add(&[], process.cpu_s);
    page.family(Kind::Gauge, "process_resident_memory_bytes", "Memory in use.").add(&[], process.resident_bytes);
    page.family(Kind::Gauge, "process_open_fds", "Open files, connections included.").add(&[], process.open_files);
    page.family(Kind::Gauge, "process_max_fds", "Files that may be open.").add(&[], process.open_files_max);
    page.family(Kind::Gauge, "process_start_time_seconds", "When the process started, Unix time.")
        .add(&[], process.started_unix_s);
}

/// Upper ends of the buckets that are told of: 1, 2, 5 from 250 ns to ten seconds.
const BOUNDS_NS: [u64; 24] = [
    250,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];
