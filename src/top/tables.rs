//! The model as rows of text, once for the screen and for plain text.

use crate::base::limits;
use crate::base::units::{format_bytes, format_ns};
use crate::top::message::{Latency, Shard};
use crate::top::model::{Model, Stage};
use crate::top::text::{self, count, percent};
use crate::top::view::Sort;

/// Rows under names.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it is of.
    pub title: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, a cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether its cells begin at the left; figures end at the right.
    pub left: bool,
    /// The narrowest it is drawn, so that figures that change do not move their neighbours.
    pub width_min: usize,
    /// Where there is no room the column with the highest number goes first. Zero stays.
    pub rank: u8,
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// Its text, harmless to a terminal.
    pub text: String,
    /// A bar of this share of one beside it.
    pub bar: Option<f64>,
    /// How it is to strike the eye.
    pub tone: Tone,
}

/// How something is to strike the eye.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Tone {
    #[default]
    Plain,
    Quiet,
    Warning,
    Alarm,
}

/// A figure of the big line.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it is of.
    pub label: &'static str,
    /// What it is.
    pub value: String,
}

/// The big line.
pub fn figures(model: &Model) -> Vec<Figure> {
    let Some(tick) = model.tick() else { return Vec::new() };
    let rates = model.rates();
    let ns = |percentile| {
        let value = model.latency_ns("get", Stage::Total, percentile);
        value.map_or_else(|| "–".to_string(), format_ns)
    };
    let tiers = match rates.tiers() {
        Some(tiers) => {
            let [l0, l1, miss] = tiers.map(|share| format!("{:.1}", share * 100.0));
            format!("{} · {l0} / {l1} / {miss}", percent(tiers[0] + tiers[1]))
        }
        None => "–".to_string(),
    };
    let memory = match tick.memory.limit {
        0 => format_bytes(tick.memory.resident),
        limit => format!("{} / {}", format_bytes(tick.memory.resident), format_bytes(limit)),
    };
    vec![
        Figure { label: "requests/s", value: count(rates.requests) },
        Figure { label: "hits · L0 / L1 / miss", value: tiers },
        Figure { label: "GET p50 / p99 / p99.9", value: format!("{} / {} / {}", ns(50.0), ns(99.0), ns(99.9)) },
        Figure { label: "memory used / limit", value: memory },
        Figure { label: "evictions/s", value: count(rates.evicted) },
        Figure { label: "connections", value: count_whole(tick.connections.open) },
    ]
}

/// Latencies by operation and stage.
pub fn latency(model: &Model, percentiles: Percentiles) -> Table {
    let known = model.hello().map_or(&[][..], |hello| &hello.percentiles);
    let shown: Vec<(usize, f64)> =
        known.iter().copied().enumerate().filter(|(_, percentile)| percentiles.include(*percentile)).collect();
    let mut columns = vec![Column::left("operation", 9), Column::left("stage", 7), Column::right("req/s", 6, 4)];
    columns.extend(shown.iter().map(|&(_, percentile)| {
        let rank = if percentile == 50.0 || percentile == 99.0 {
            0
        } else if percentile == 99.9 || percentile == 100.0 {
            1
        } else if percentile == 90.0 {
            3
        } else {
            6
        };
        Column::right(percentile_name(percentile), 8, rank)
    }));
    let mut rows = Vec::new();
    if let (Some(tick), Some(hello)) = (model.tick(), model.hello()) {
        let mut operations: Vec<(&String, &Latency)> = tick.latency.iter().collect();
        let place = |name: &str| OPERATIONS.iter().position(|known| *known == name).unwrap_or(OPERATIONS.len());
        operations.sort_by_key(|(name, _)| (place(name), *name));
        let window_s = if hello.window_s > 0.0 { hello.window_s } else { 1.0 };
        for (name, latency) in operations {
            for stage in Stage::ALL {
                let first = stage == Stage::Total;
                let tone = if first { Tone::Plain } else { Tone::Quiet };
                let mut row = vec![
                    Cell::new(if first { text::name(name, 24) } else { String::new() }),
                    Cell::toned(stage.name(), tone),
                    Cell::new(if first { count(latency.count as f64 / window_s) } else { String::new() }),
                ];
                row.extend(shown.iter().map(|&(place, _)| match stage.of(latency).get(place) {
                    Some(&ns) => Cell::toned(format_ns(ns), tone),
                    None => Cell::toned("–", tone),
                }));
                rows.push(row);
            }
        }
    }
    Table { title: "latency".to_string(), columns, rows }
}

/// Which percentiles of those the server tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percentiles {
    /// p50, p90, p99, p99.9 and the greatest.
    Few,
    /// All.
    All,
}

impl Percentiles {
    fn include(self, percentile: f64) -> bool {
        self == Percentiles::All || [50.0, 90.0, 99.0, 99.9, 100.0].contains(&percentile)
    }
}

/// Memory by kind.
pub fn memory(model: &Model) -> Table {
    let columns = vec![Column::left("kind", 13), Column::right("bytes", 10, 0), Column::left("of the limit", 18)];
    let mut table = Table { title: "memory".to_string(), columns, rows: Vec::new() };
    let Some(tick) = model.tick() else { return table };
    let memory = &tick.memory;
    let kinds = [
        ("payload", memory.payload),
        ("structure", memory.structure),
        ("fragmentation", memory.fragmentation),
        ("free", memory.free),
        ("L0", memory.l0),
    ];
    let known = kinds.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    // Arenas that are not yet touched are not resident: then there is no rest to be shown.
    let rest = ("other", memory.resident.saturating_sub(known));
    for (kind, bytes) in kinds.into_iter().chain([rest]) {
        let share = if memory.limit > 0 { bytes as f64 / memory.limit as f64 } else { 0.0 };
        table.rows.push(vec![Cell::new(kind), Cell::new(format_bytes(bytes)), Cell::bar(share, Tone::Plain)]);
    }
    table
}

/// What else there is to say of memory, in short lines.
pub fn memory_remarks(model: &Model) -> Vec<String> {
    let Some(tick) = model.tick() else { return Vec::new() };
    let (memory, rates) = (&tick.memory, model.rates());
    let mut remarks = vec![format!("entries {}", count_whole(memory.entries))];
    if let Some(overhead) = memory.overhead_per_entry.filter(|overhead| overhead.is_finite()) {
        remarks.push(format!("{overhead:.1} B of structure an entry"));
    }
    if memory.huge_pages > 0 {
        remarks.push(format!("huge pages {}", format_bytes(memory.huge_pages)));
    }
    if let (Some(p50), Some(p90)) = (tick.evictions.idle_p50_s, tick.evictions.idle_p90_s) {
        remarks.push(format!("evicted after idling p50 {} p90 {}", text::idle(p50), text::idle(p90)));
    }
    remarks.push(format!("expired {}/s, ghost hits {}/s", count(rates.expired), count(rates.ghost_hits)));
    remarks
}

/// Shards in the order wanted.
pub fn shards(model: &Model, sort: Sort, reversed: bool) -> Table {
    let mut shards = model.shards();
    // Figures from the greatest down, numbers from zero up; equal ones by number, so that rows do not dance.
    let by = |shard: &Shard| match sort {
        Sort::Shard => -(shard.shard as f64),
        Sort::Busy => shard.busy,
        Sort::Requests => shard.requests,
        Sort::P99 => shard.p99_ns.unwrap_or(0) as f64,
        Sort::Entries => shard.entries as f64,
        Sort::Mailbox => shard.mailbox as f64,
    };
    shards.sort_by(|a, b| by(b).total_cmp(&by(a)).then(a.shard.cmp(&b.shard)));
    if reversed {
        shards.reverse();
    }
    let mark = if reversed { '▲' } else { '▼' };
    let named = |name: &str, of: Sort| if of == sort { format!("{name}{mark}") } else { name.to_string() };
    let columns = vec![
        Column::right(named("shard", Sort::Shard), 5, 0),
        Column::right("core", 4, 2),
        Column::left(named("busy", Sort::Busy), 18),
        Column::right(named("req/s", Sort::Requests), 6, 0),
        Column::right(named("p99", Sort::P99), 8, 0),
        Column::right(named("entries", Sort::Entries), 7, 1),
        Column::right("conns", 5, 6),
        Column::right("steal", 7, 3),
        Column::right("switches", 8, 4),
        Column::right(named("mailbox", Sort::Mailbox), 7, 5),
        Column::right("no buffer", 9, 7),
    ];
    let row = |shard: &Shard| {
        let busy = if shard.busy > 0.95 { Tone::Warning } else { Tone::Plain };
        let steal = if shard.steal >= 0.01 { Tone::Alarm } else { Tone::Plain };
        let short = if shard.buffers_exhausted > 0.0 { Tone::Alarm } else { Tone::Plain };
        vec![
            Cell::new(count_whole(shard.shard)),
            Cell::new(shard.core.map_or_else(|| "–".to_string(), count_whole)),
            Cell::bar(shard.busy, busy),
            Cell::new(count(shard.requests)),
            Cell::new(shard.p99_ns.map_or_else(|| "–".to_string(), format_ns)),
            Cell::new(count_whole(shard.entries)),
            Cell::new(count_whole(shard.connections)),
            Cell::toned(percent(shard.steal), steal),
            Cell::new(count(shard.switches)),
            Cell::new(count_whole(shard.mailbox)),
            Cell::toned(count(shard.buffers_exhausted), short),
        ]
    };
    Table { title: "shards".to_string(), columns, rows: shards.iter().map(row).collect() }
}

/// The most read keys.
pub fn hot_keys(model: &Model) -> Table {
    let columns = vec![Column::left("key", 17), Column::left("share of reads", 18)];
    let keys = model.tick().map_or(&[][..], |tick| &tick.hot_keys);
    let row = |key: &crate::top::message::HotKey| {
        vec![Cell::new(text::name(&key.key, limits::TOP_NAME_CHARACTERS_MAX)), Cell::bar(key.share, Tone::Plain)]
    };
    Table { title: "hot keys".to_string(), columns, rows: keys.iter().map(row).collect() }
}

/// Each tenant.
pub fn tenants(model: &Model) -> Table {
    let columns = vec![
        Column::left("tenant", 10),
        Column::right("reads/s", 7, 0),
        Column::right("hits", 7, 0),
        Column::right("of L0", 7, 3),
        Column::right("sets/s", 6, 1),
        Column::right("GET p99", 8, 0),
        Column::right("L0 entries", 10, 4),
        Column::right("L0 bytes", 10, 5),
    ];
    let tenants = model.tick().map_or(&[][..], |tick| &tick.tenants);
    let row = |tenant: &crate::top::message::Tenant| {
        let hits = tenant.hits_l0 + tenant.hits_l1;
        let reads = hits + tenant.misses;
        let share = |part: f64| if reads > 0.0 { percent(part / reads) } else { "–".to_string() };
        vec![
            Cell::new(text::name(&tenant.tenant, limits::TOP_NAME_CHARACTERS_MAX / 2)),
            Cell::new(count(reads)),
            Cell::new(share(hits)),
            Cell::new(share(tenant.hits_l0)),
            Cell::new(count(tenant.sets)),
            Cell::new(tenant.get_p99_ns.map_or_else(|| "–".to_string(), format_ns)),
            Cell::new(count_whole(tenant.l0_entries)),
            Cell::new(format_bytes(tenant.l0_bytes)),
        ]
    };
    Table { title: "tenants".to_string(), columns, rows: tenants.iter().map(row).collect() }
}

impl Column {
    fn left(name: impl Into<String>, width_min: usize) -> Column {
        Column { name: name.into(), left: true, width_min, rank: 0 }
    }

    fn right(name: impl Into<String>, width_min: usize, rank: u8) -> Column {
        Column { name: name.into(), left: false, width_min, rank }
    }
}

impl Cell {
    fn new(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }

    fn toned(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { text: text.into(), bar: None, tone }
    }

    fn bar(share: f64, tone: Tone) -> Cell {
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        Cell { text: percent(share), bar: Some(share), tone }
    }
}

/// `p99.9`; the ends by their names.
pub fn percentile_name(percentile: f64) -> String {
    match percentile {
        0.0 => "min".to_string(),
        100.0 => "max".to_string(),
        _ => format!("p{percentile}"),
    }
}

/// A number of things: exact while that is short.
fn count_whole(value: u64) -> String {
    if value < 10_000 { value.to_string() } else { count(value as f64) }
}

/// Operations in the order of their weight; others follow by name.
const OPERATIONS: [&str; 6] = ["get", "set", "delete", "increment", "touch", "other"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::message::examples;
    use std::time::Duration;

    fn model(change: impl FnOnce(&mut crate::top::message::Tick)) -> Model {
        let mut model = Model::new(Duration::ZERO);
        model.hear_hello(examples::hello(), Duration::ZERO);
        let mut tick = examples::tick();
        change(&mut tick);
        model.hear_tick(tick, Duration::ZERO);
        model
    }

    fn column(table: &Table, number: usize) -> Vec<&str> {
        table.rows.iter().map(|row| row[number].text.as_str()).collect()
    }

    #[test]
    fn figures_of_the_page() {
        let values: Vec<_> = figures(&model(|_| {})).into_iter().map(|figure| figure.value).collect();
        let expected =
            ["120k", "89.8 % · 0.0 / 89.8 / 10.2", "4.5 µs / 8.0 µs / 19.0 µs", "124.0 MiB / 4.0 GiB", "10", "50"];
        assert_eq!(values, expected);
    }

    #[test]
    fn latencies_of_the_page() {
        let table = latency(&model(|_| {}), Percentiles::Few);
        assert_eq!(column(&table, 1), ["total", "service", "queue"]);
        let total: Vec<_> = table.rows[0].iter().map(|cell| cell.text.as_str()).collect();
        assert_eq!(total, ["get", "total", "108k", "4.5 µs", "5.1 µs", "8.0 µs", "19.0 µs", "82.0 µs"]);
        assert_eq!(latency(&model(|_| {}), Percentiles::All).columns.len(), 15);
        let names =
            latency(&model(|_| {}), Percentiles::All).columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        assert_eq!(names[3..6], ["min", "p50", "p75"]);
    }

    #[test]
    fn operations_stand_in_order_and_strangers_last() {
        let table = latency(
            &model(|tick| {
                let get = tick.latency["get"].clone();
                for name in ["a\x1b[2J", "touch", "set"] {
                    tick.latency.insert(name.to_string(), get.clone());
                }
            }),
            Percentiles::Few,
        );
        let names: Vec<_> = column(&table, 0).into_iter().filter(|name| !name.is_empty()).collect();
        assert_eq!(names, ["get", "set", "touch", r"a\x1b[2J"]);
    }

    #[test]
    fn shards_are_sorted() {
        let model = model(|tick| {
            tick.shards = (0..4)
                .map(|shard| Shard { shard, busy: [0.1, 0.9, 0.1, 0.5][shard as usize], ..Shard::default() })
                .collect();
        });
        assert_eq!(column(&shards(&model, Sort::Shard, false), 0), ["0", "1", "2", "3"]);
        assert_eq!(column(&shards(&model, Sort::Shard, true), 0), ["3", "2", "1", "0"]);
        assert_eq!(column(&shards(&model, Sort::Busy, false), 0), ["1", "3", "0", "2"]);
        assert_eq!(shards(&model, Sort::Busy, false).columns[2].name, "busy▼");
    }

    #[test]
    fn names_of_clients_are_escaped() {
        let model = model(|tick| {
            tick.hot_keys[0].key = "k\x1b]0;owned\x07".to_string();
            tick.tenants[0].tenant = "t\r\n".to_string();
        });
        assert_eq!(column(&hot_keys(&model), 0), [r"k\x1b]0;owned\x07"]);
        assert_eq!(column(&tenants(&model), 0), [r"t\r\n"]);
    }

    #[test]
    fn memory_has_a_rest_only_where_there_is_one() {
        let table = memory(&model(|tick| tick.memory.resident = 0));
        assert_eq!(column(&table, 1), ["100.0 MiB", "1.8 MiB", "1.9 MiB", "878.9 KiB", "0 B", "0 B"]);
        let table = memory(&model(|tick| (tick.memory.limit, tick.memory.payload) = (0, u64::MAX)));
        assert_eq!(table.rows[0][2].bar, Some(0.0));
    }

    #[test]
    fn nothing_heard_gives_empty_tables() {
        let model = Model::new(Duration::ZERO);
        assert!(figures(&model).is_empty() && memory_remarks(&model).is_empty());
        for table in [latency(&model, Percentiles::All), memory(&model), shards(&model, Sort::P99, true)] {
            assert!(table.rows.is_empty());
        }
    }
}
