//! The rows of the screen as plain text, for pipes and for people who want one look.

use std::fmt::Write;

use crate::top::model::Model;
use crate::top::tables::{self, Percentiles, Table};
use crate::top::text;
use crate::top::view::Sort;

/// Everything of `model`, a line each.
pub fn snapshot(model: &Model, admin: &str) -> String {
    let mut out = String::new();
    let (Some(hello), Some(tick)) = (model.hello(), model.tick()) else { return out };
    // Writing to a string does not fail.
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(out, "{label:<22} {value}");
    };
    line("server", &format!("{} {} at {admin}", text::name(&hello.host, 64), text::name(&hello.version, 24)));
    line("up", &text::age(tick.uptime_s));
    for figure in tables::figures(model) {
        line(figure.label, &figure.value);
    }
    for remark in tables::memory_remarks(model) {
        line("", &remark);
    }
    let all = [
        tables::latency(model, Percentiles::Few),
        tables::memory(model),
        tables::shards(model, Sort::Shard, false),
        tables::hot_keys(model),
        tables::tenants(model),
    ];
    for table in all.iter().filter(|table| !table.rows.is_empty()) {
        write_table(&mut out, table);
    }
    out
}

fn write_table(out: &mut String, table: &Table) {
    let _ = writeln!(out, "\n{}", table.title);
    let names = table.columns.iter().map(|column| column.name.trim_end_matches(['▼', '▲']));
    let rows = table.rows.iter().map(|row| row.iter().map(|cell| cell.text.as_str()).collect::<Vec<_>>());
    let lines: Vec<Vec<&str>> = std::iter::once(names.collect()).chain(rows).collect();
    let width = |place: usize| lines.iter().map(|line| line[place].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    for line in &lines {
        let mut text = String::new();
        for ((cell, column), width) in line.iter().zip(&table.columns).zip(&widths) {
            // Bars are cells that begin at the left; their figures alone are better read from the right.
            let left = column.left && !column.name.contains(' ') && !column.name.starts_with("busy");
            let _ = if left { write!(text, "  {cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::message::examples;
    use std::time::Duration;

    #[test]
    fn the_page_as_plain_text() {
        let mut model = Model::new(Duration::ZERO);
        model.hear_hello(examples::hello(), Duration::ZERO);
        let mut tick = examples::tick();
        tick.hot_keys[0].key.push('\x1b');
        model.hear_tick(tick, Duration::ZERO);
        let text = snapshot(&model, "127.0.0.1:7790");
        assert!(
            text.starts_with("server                 cache-7 0.1.0 at 127.0.0.1:7790\nup                     2m 03s\n")
        );
        for expected in ["requests/s             120k\n", "latency\n", "19.0 µs", "shards\n", r"#5f1c03a09be2d7c4\x1b"]
        {
            assert!(text.contains(expected), "{expected} is missing:\n{text}");
        }
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()));
    }
}
