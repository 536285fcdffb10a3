//! The screen: what stands where, from a corner of a terminal to a wall of one.
//!
//!   header    who, since when, how the link is
//!   figures   the big line, in as many rows as it takes
//!   body      the page; in two columns from 120 characters on
//!   foot      pages and keys
//!
//! Colour only stresses what is also said in words or by position: a terminal without it loses nothing.
//! Where the locale has no Unicode, signs are replaced at the very end, cell by cell.

use std::time::Duration;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Widget};

use crate::base::units::format_ns;
use crate::top::model::{Link, Model, Second};
use crate::top::panels::{self, Chart};
use crate::top::tables::{self, Percentiles, Table};
use crate::top::text;
use crate::top::view::{KEYS, Page, View};

/// What the terminal can show.
#[derive(Clone, Debug)]
pub struct Look {
    /// Colours.
    pub colour: bool,
    /// Signs beyond ASCII.
    pub unicode: bool,
}

impl Look {
    /// From the environment: `NO_COLOR` set and not empty takes colours away, a locale without UTF-8 the signs.
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Look {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
        // No locale at all is what containers and minimal ssh sessions have; their terminals know Unicode.
        let unicode = locale.is_none_or(|locale| locale.to_lowercase().replace('-', "").contains("utf8"));
        Look { colour: set("NO_COLOR").is_none(), unicode }
    }

    pub(crate) fn quiet(&self) -> Style {
        if self.colour { Style::new().fg(Color::DarkGray) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    pub(crate) fn strong(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(crate) fn title(&self) -> Style {
        if self.colour { Style::new().fg(Color::Cyan) } else { Style::new() }
    }

    pub(crate) fn chart(&self) -> Style {
        if self.colour { Style::new().fg(Color::Green) } else { Style::new() }
    }

    pub(crate) fn warning(&self) -> Style {
        if self.colour { Style::new().fg(Color::Yellow) } else { self.strong() }
    }

    pub(crate) fn alarm(&self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED);
        if self.colour { style.fg(Color::Red) } else { style }
    }
}

/// What is drawn beside the model.
pub struct Scene<'a> {
    /// What was heard, or what stands still of it.
    pub model: &'a Model,
    /// How the link is now, also where figures stand still.
    pub link: &'a Link,
    /// How old the figures of the link are, if they are old.
    pub stale: Option<Duration>,
    /// Where it comes from.
    pub admin: &'a str,
    /// What was chosen.
    pub view: &'a View,
    /// What the terminal can show.
    pub look: &'a Look,
}

/// Draws everything; gives how many rows of the page could be scrolled away.
pub fn draw(frame: &mut Frame, scene: &Scene) -> usize {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    let scroll_max = screen(buffer, area, scene);
    if scene.view.help {
        help(buffer, area, scene.look);
    }
    if !scene.look.unicode {
        to_ascii(buffer);
    }
    scroll_max
}

fn screen(buffer: &mut Buffer, area: Rect, scene: &Scene) -> usize {
    if area.width == 0 || area.height == 0 {
        return 0;
    }
    header(buffer, rows(area, 0, 1), scene);
    let figures = tables::figures(scene.model);
    if figures.is_empty() {
        let text = "waiting for the first figures";
        buffer.set_stringn(area.x, area.y + 1.min(area.height - 1), text, area.width.into(), scene.look.quiet());
        return 0;
    }
    let figures_height = panels::figures_height(&figures, area.width);
    if area.width < 60 || area.height < figures_height + 2 {
        // A corner: a line each, as many as there is room for.
        for (y, figure) in (1..area.height).zip(&figures) {
            let text = format!("{} {}", figure.label.split(' ').next().unwrap_or_default(), figure.value);
            buffer.set_stringn(area.x, area.y + y, text, area.width.into(), Style::new());
        }
        return 0;
    }
    panels::figures(buffer, rows(area, 1, figures_height), &figures, scene.look);
    let body = rows(area, 1 + figures_height, area.height.saturating_sub(2 + figures_height));
    foot(buffer, rows(area, area.height - 1, 1), scene);
    match scene.view.page {
        Page::Overview => overview(buffer, body, scene),
        Page::Latency => latency_page(buffer, body, scene),
        Page::Shards => {
            let view = scene.view;
            let shards = tables::shards(scene.model, view.sort, view.reversed);
            panels::table(buffer, body, &shards, scene.look, view.scroll())
        }
        Page::Memory => memory_page(buffer, body, scene),
    }
}

fn header(buffer: &mut Buffer, area: Rect, scene: &Scene) {
    let look = scene.look;
    let (state, style) = match (scene.link, scene.stale) {
        (Link::Lost(reason), stale) => {
            let seconds = stale.unwrap_or_default().as_secs();
            (format!("stale for {seconds} s: {}", text::name(reason, 120)), look.alarm())
        }
        (_, Some(stale)) => (format!("stale for {} s", stale.as_secs()), look.alarm()),
        (Link::Connecting, None) => ("connecting".to_string(), look.warning()),
        (Link::Live, None) => (format!("live {}", scene.admin), look.title()),
    };
    let mut left = vec![Span::styled("spinetail", look.strong())];
    if let Some(hello) = scene.model.hello() {
        let host = text::name(&hello.host, 40);
        left = vec![Span::styled(if host.is_empty() { "spinetail".to_string() } else { host }, look.strong())];
        left.push(Span::raw(format!("  spinetail {}", text::name(&hello.version, 20))));
        if let Some(tick) = scene.model.tick() {
            left.push(Span::raw(format!("  up {}", text::age(tick.uptime_s))));
        }
        let kind = [&hello.poll, &hello.io, &hello.profile].map(|word| text::name(word, 24)).join(" ");
        left.push(Span::styled(format!("  {kind}"), look.quiet()));
    }
    let mut right = Vec::new();
    if scene.view.paused {
        right.push(Span::styled("PAUSED", look.alarm()));
        right.push(Span::raw("  "));
    }
    right.push(Span::styled(state, style));
    let (left, right) = (Line::from(left), Line::from(right));
    buffer.set_line(area.x, area.y, &left, area.width);
    // How the link is matters more than what the server is called.
    let width = (right.width() as u16).min(area.width);
    let x = area.right() - width;
    if x > area.x && usize::from(x - area.x) <= left.width() {
        buffer.set_string(x - 1, area.y, " ", Style::new());
    }
    buffer.set_line(x, area.y, &right, width);
}

fn foot(buffer: &mut Buffer, area: Rect, scene: &Scene) {
    let mut spans = Vec::new();
    for (number, page) in Page::ALL.into_iter().enumerate() {
        let style = if page == scene.view.page { look_of_current(scene.look) } else { scene.look.quiet() };
        spans.push(Span::styled(format!(" {} {} ", number + 1, page.name()), style));
    }
    spans.push(Span::styled("  ? help  p pause  q quit", scene.look.quiet()));
    buffer.set_line(area.x, area.y, &Line::from(spans), area.width);
}

fn look_of_current(look: &Look) -> Style {
    look.strong().add_modifier(Modifier::REVERSED)
}

fn overview(buffer: &mut Buffer, area: Rect, scene: &Scene) -> usize {
    let (model, view, look) = (scene.model, scene.view, scene.look);
    let latency = tables::latency(model, Percentiles::Few);
    let shards = tables::shards(model, view.sort, view.reversed);
    let (memory, keys, tenants) = (tables::memory(model), tables::hot_keys(model), tables::tenants(model));
    let wanted = |table: &Table| table.rows.len().min(40) as u16 + 2;
    if area.width >= TWO_COLUMNS_FROM {
        let [left, right] = halves(area);
        let heights = share_out(left.height, &[(3, 4), (3, 4), (5, wanted(&latency))], Some(0..2));
        let [throughput_area, p99_area, latency_area] = stacked(left, &heights);
        chart(buffer, throughput_area, scene, &THROUGHPUT);
        chart(buffer, p99_area, scene, &GET_P99);
        panels::table(buffer, latency_area, &latency, look, 0);
        // Shards grow last: of them there may be hundreds, and they scroll.
        let wishes = [(3, wanted(&memory)), (3, wanted(&keys)), (3, wanted(&tenants)), (3, wanted(&shards))];
        let heights = share_out(right.height, &wishes, None);
        let [memory_area, keys_area, tenants_area, shards_area] = stacked(right, &heights);
        panels::table(buffer, memory_area, &memory, look, 0);
        panels::table(buffer, keys_area, &keys, look, 0);
        panels::table(buffer, tenants_area, &tenants, look, 0);
        panels::table(buffer, shards_area, &shards, look, view.scroll())
    } else {
        // In a small terminal rather fewer tables than tables of a row each.
        let wishes = [
            (4, 5),
            (wanted(&latency).min(8), wanted(&latency)),
            (wanted(&shards).min(4), wanted(&shards).min(12)),
            (wanted(&memory), wanted(&memory)),
            (wanted(&keys).min(5), wanted(&keys)),
        ];
        let heights = share_out(area.height, &wishes, Some(0..1));
        let [charts_area, latency_area, shards_area, memory_area, keys_area] = stacked(area, &heights);
        let [left, right] = halves(charts_area);
        chart(buffer, left, scene, &THROUGHPUT);
        chart(buffer, right, scene, &GET_P99);
        panels::table(buffer, latency_area, &latency, look, 0);
        panels::table(buffer, memory_area, &memory, look, 0);
        panels::table(buffer, keys_area, &keys, look, 0);
        panels::table(buffer, shards_area, &shards, look, view.scroll())
    }
}

fn latency_page(buffer: &mut Buffer, area: Rect, scene: &Scene) -> usize {
    let table = tables::latency(scene.model, Percentiles::All);
    let wanted = table.rows.len() as u16 + 2;
    let heights = share_out(area.height, &[(5, wanted), (4, 5), (4, 5)], Some(1..3));
    let [table_area, upper, lower] = stacked(area, &heights);
    for (pair, charts) in [(upper, [&GET_P50, &GET_P99]), (lower, [&GET_P999, &SET_P99])] {
        for (place, what) in halves(pair).into_iter().zip(charts) {
            chart(buffer, place, scene, what);
        }
    }
    panels::table(buffer, table_area, &table, scene.look, scene.view.scroll())
}

fn memory_page(buffer: &mut Buffer, area: Rect, scene: &Scene) -> usize {
    let (model, look) = (scene.model, scene.look);
    let (memory, keys, tenants) = (tables::memory(model), tables::hot_keys(model), tables::tenants(model));
    let remarks = tables::memory_remarks(model);
    let top_height = 2 + memory.rows.len().max(keys.rows.len().min(10)) as u16;
    let wishes = [(4, top_height), (1, 1), (3, tenants.rows.len() as u16 + 2), (4, 5)];
    let heights = share_out(area.height, &wishes, Some(3..4));
    let [top_area, remarks_area, tenants_area, charts_area] = stacked(area, &heights);
    let [left, right] = halves(top_area);
    panels::table(buffer, left, &memory, look, 0);
    panels::table(buffer, right, &keys, look, 0);
    let width = remarks_area.width.into();
    if remarks_area.height > 0 {
        buffer.set_stringn(remarks_area.x, remarks_area.y, remarks.join(" · "), width, Style::new());
    }
    let [left, right] = halves(charts_area);
    chart(buffer, left, scene, &HITS);
    chart(buffer, right, scene, &EVICTED);
    panels::table(buffer, tenants_area, &tenants, look, scene.view.scroll())
}

fn chart(buffer: &mut Buffer, area: Rect, scene: &Scene, what: &ChartOf) {
    let minutes = scene.view.span_s() / 60;
    let chart = Chart {
        title: &format!("{}, {minutes} min", what.title),
        value: what.value,
        format: what.format,
        top: what.top,
        logarithmic: what.latency && scene.view.logarithmic,
    };
    panels::chart(buffer, area, &chart, scene.model.seconds(), scene.view.span_s(), scene.look);
}

struct ChartOf {
    title: &'static str,
    value: fn(&Second) -> Option<f64>,
    format: fn(f64) -> String,
    top: Option<f64>,
    latency: bool,
}

const THROUGHPUT: ChartOf = ChartOf {
    title: "requests/s",
    value: |second| Some(second.requests),
    format: text::count,
    top: None,
    latency: false,
};
const EVICTED: ChartOf = ChartOf {
    title: "evictions/s",
    value: |second| Some(second.evicted),
    format: text::count,
    top: None,
    latency: false,
};
const HITS: ChartOf =
    ChartOf { title: "hits", value: |second| second.hit_share, format: text::percent, top: Some(1.0), latency: false };
const GET_P50: ChartOf = latency_chart("GET p50", |second| second.get_p50_ns);
const GET_P99: ChartOf = latency_chart("GET p99", |second| second.get_p99_ns);
const GET_P999: ChartOf = latency_chart("GET p99.9", |second| second.get_p999_ns);
const SET_P99: ChartOf = latency_chart("SET p99", |second| second.set_p99_ns);

const fn latency_chart(title: &'static str, value: fn(&Second) -> Option<f64>) -> ChartOf {
    ChartOf { title, value, format: |ns| format_ns(ns as u64), top: None, latency: true }
}

fn help(buffer: &mut Buffer, area: Rect, look: &Look) {
    let key_width = KEYS.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = KEYS.iter().map(|(key, does)| format!("{key:<key_width$}  {does}")).collect();
    let remarks = [
        String::new(),
        "total: what a client waits for; service: what the core works;".to_string(),
        "queue: waiting for others. Rates and latencies: the last second.".to_string(),
    ];
    let lines: Vec<String> = lines.into_iter().chain(remarks).collect();
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) as u16 + 2;
    let (width, height) = (width.min(area.width), (lines.len() as u16 + 2).min(area.height));
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    let over = Rect { x, y, width, height };
    Clear.render(over, buffer);
    panels::rule(buffer, rows(over, 0, 1), "keys", look);
    for (line, y) in lines.iter().zip(1..height) {
        buffer.set_stringn(over.x + 1.min(width), over.y + y, line, usize::from(width.saturating_sub(1)), Style::new());
    }
    if usize::from(height) > lines.len() {
        panels::rule(buffer, rows(over, height - 1, 1), "any key closes this", look);
    }
}

/// Gives each of `wishes` (least and wanted height) rows of `height`: in their order the least, or nothing where that
/// is no longer there; then up to what is wanted; what is left goes to those of `takes_rest` by turns.
fn share_out(height: u16, wishes: &[(u16, u16)], takes_rest: Option<std::ops::Range<usize>>) -> Vec<u16> {
    let mut left = height;
    let mut heights = vec![0; wishes.len()];
    for (height, (least, _)) in heights.iter_mut().zip(wishes) {
        if *least <= left {
            *height = *least;
            left -= least;
        }
    }
    for (height, (_, wanted)) in heights.iter_mut().zip(wishes) {
        if *height > 0 {
            let more = wanted.saturating_sub(*height).min(left);
            *height += more;
            left -= more;
        }
    }
    let takers: Vec<usize> = takes_rest.into_iter().flatten().filter(|&place| heights[place] > 0).collect();
    if !takers.is_empty() {
        for turn in 0..usize::from(left) {
            heights[takers[turn % takers.len()]] += 1;
        }
    }
    heights
}

/// Areas of these heights from the top of `area` down.
fn stacked<const N: usize>(area: Rect, heights: &[u16]) -> [Rect; N] {
    let mut y = 0;
    std::array::from_fn(|place| {
        let height = heights.get(place).copied().unwrap_or(0);
        let placed = rows(area, y, height);
        y += height;
        placed
    })
}

/// `height` rows of `area` from `y` on, as far as it has them.
fn rows(area: Rect, y: u16, height: u16) -> Rect {
    let y = y.min(area.height);
    Rect { y: area.y + y, height: height.min(area.height - y), ..area }
}

fn halves(area: Rect) -> [Rect; 2] {
    let left = area.width.saturating_sub(2) / 2;
    let right = Rect { x: area.x + left + 2.min(area.width - left), ..area };
    [Rect { width: left, ..area }, Rect { width: area.width.saturating_sub(left + 2), ..right }]
}

/// Replaces what a terminal without Unicode cannot show.
fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if cell.symbol().is_ascii() {
            continue;
        }
        let sign = match cell.symbol() {
            "─" | "–" | "·" | "←" | "→" => "-",
            "µ" => "u",
            "▼" | "↓" => "v",
            "▲" | "↑" => "^",
            "█" | "▉" | "▊" | "▋" | "▇" | "▆" => "#",
            "▌" | "▍" | "▅" | "▄" => "+",
            "▎" | "▏" | "▃" | "▂" | "▁" | "…" => ".",
            _ => "?",
        };
        cell.set_symbol(sign);
    }
}

/// Width from which the page has two columns: a table of latencies is 58 wide.
const TWO_COLUMNS_FROM: u16 = 118;

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
