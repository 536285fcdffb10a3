//! Parts of the screen: a table, a chart, the big line. Each draws into the rectangle it is given, however small.

use std::collections::VecDeque;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Sparkline, Widget};

use crate::top::draw::Look;
use crate::top::model::Second;
use crate::top::tables::{Cell, Column, Figure, Table, Tone};

/// Draws `table`, the first `scroll` rows left out, and gives how many rows can be left out at most.
pub fn table(buffer: &mut Buffer, area: Rect, table: &Table, look: &Look, scroll: usize) -> usize {
    if area.height == 0 || area.width == 0 {
        return 0;
    }
    let room = usize::from(area.height.saturating_sub(2));
    let scroll_max = table.rows.len().saturating_sub(room);
    let first = scroll.min(scroll_max);
    let last = (first + room).min(table.rows.len());
    let title = match scroll_max {
        0 => table.title.clone(),
        _ if room == 0 => table.title.clone(),
        _ => format!("{} {}–{} of {}", table.title, first + 1, last, table.rows.len()),
    };
    rule(buffer, area, &title, look);
    let columns = fitting(table, usize::from(area.width));
    let heads = columns.iter().map(|&(place, width)| {
        let column = &table.columns[place];
        Span::styled(aligned(&column.name, width, column.left), look.quiet())
    });
    line(buffer, area, 1, heads);
    for (number, row) in table.rows[first..last].iter().enumerate() {
        let cells = columns.iter().map(|&(place, width)| cell(&row[place], &table.columns[place], width, look));
        line(buffer, area, 2 + number as u16, cells);
    }
    scroll_max
}

/// A title in a line across.
pub fn rule(buffer: &mut Buffer, area: Rect, title: &str, look: &Look) {
    let width = usize::from(area.width);
    let line = Line::from(vec![
        Span::styled("─ ", look.quiet()),
        Span::styled(title.to_string(), look.title()),
        Span::styled(format!(" {}", "─".repeat(width)), look.quiet()),
    ]);
    buffer.set_line(area.x, area.y, &line, area.width);
}

/// What a chart shows of a second.
pub struct Chart<'a> {
    /// Its title; the present and the greatest value are added.
    pub title: &'a str,
    /// The value, if it was measured.
    pub value: fn(&Second) -> Option<f64>,
    /// How a value is written.
    pub format: fn(f64) -> String,
    /// The end of the scale; otherwise it is the greatest value shown.
    pub top: Option<f64>,
    /// Whether the scale is logarithmic.
    pub logarithmic: bool,
}

/// Draws the last `span_s` seconds, now at the right.
pub fn chart(buffer: &mut Buffer, area: Rect, chart: &Chart, seconds: &VecDeque<Second>, span_s: u32, look: &Look) {
    if area.height == 0 || area.width == 0 {
        return;
    }
    let values = columns_of(seconds, chart.value, usize::from(area.width), span_s);
    let greatest = values.iter().flatten().copied().fold(0.0, f64::max);
    let now = seconds.back().and_then(chart.value);
    let title = format!(
        "{} · {} · greatest {}{}",
        chart.title,
        now.map_or_else(|| "–".to_string(), chart.format),
        (chart.format)(greatest),
        if chart.logarithmic { " · log" } else { "" },
    );
    rule(buffer, area, &title, look);
    let plot = Rect { y: area.y + 1, height: area.height - 1, ..area };
    let least = values.iter().flatten().copied().filter(|value| *value > 0.0).fold(greatest, f64::min);
    // The lowest decade shown stands a tenth high, so that the least value can be seen.
    let (floor, top) = match chart.logarithmic {
        true => (least.max(1.0).ln() - 0.5, chart.top.unwrap_or(greatest).max(1.0).ln()),
        false => (0.0, chart.top.unwrap_or(greatest)),
    };
    let scaled = |value: f64| {
        let value = if chart.logarithmic { value.max(1.0).ln() } else { value };
        let share = if top > floor { ((value - floor) / (top - floor)).clamp(0.0, 1.0) } else { 0.0 };
        // The finest step that can be drawn is an eighth of a row: what is there is at least that high.
        let step = (share * f64::from(plot.height) * 8.0).round() as u64;
        if value > 0.0 { step.max(1) } else { step }
    };
    let bars: Vec<Option<u64>> = values.into_iter().map(|value| value.map(scaled)).collect();
    let sparkline = Sparkline::default().data(bars).max(u64::from(plot.height) * 8).style(look.chart());
    sparkline.render(plot, buffer);
}

/// One value for each of `width` columns, the last one of now: the greatest of the seconds a column stands for, or
/// the second that a column is a part of.
fn columns_of(
    seconds: &VecDeque<Second>,
    value: fn(&Second) -> Option<f64>,
    width: usize,
    span_s: u32,
) -> Vec<Option<f64>> {
    let mut columns = vec![None; width];
    let Some(newest) = seconds.back() else { return columns };
    let column_ms = f64::from(span_s) * 1000.0 / width as f64;
    for second in seconds.iter().rev() {
        let age_ms = (newest.unix_ms - second.unix_ms.min(newest.unix_ms)) as f64;
        let right = (age_ms / column_ms) as usize;
        if right >= width {
            break;
        }
        let Some(value) = value(second) else { continue };
        // A second reaches back to the one before; where columns are narrower it fills several.
        let left = (((age_ms + 1000.0) / column_ms).ceil() as usize).clamp(right + 1, width);
        for column in &mut columns[width - left..width - right] {
            *column = Some(column.map_or(value, |other: f64| other.max(value)));
        }
    }
    columns
}

/// Lines that the big line takes at `width`: two for each row of figures.
pub fn figures_height(figures: &[Figure], width: u16) -> u16 {
    flow(figures, width).last().map_or(0, |&(_, row, _)| row + 2)
}

/// Draws the big line, its values under their labels.
pub fn figures(buffer: &mut Buffer, area: Rect, figures: &[Figure], look: &Look) {
    for ((x, row, width), figure) in flow(figures, area.width).into_iter().zip(figures) {
        for (y, text, style) in [(row, figure.label, look.quiet()), (row + 1, figure.value.as_str(), look.strong())] {
            if y < area.height {
                buffer.set_stringn(area.x + x, area.y + y, text, usize::from(width), style);
            }
        }
    }
}

/// Where each figure stands: column, row, width.
fn flow(figures: &[Figure], width: u16) -> Vec<(u16, u16, u16)> {
    let (mut x, mut row) = (0, 0);
    let place = |figure: &Figure| {
        // Rounded up, so that a digit more does not move what follows.
        let wanted = figure.label.chars().count().max(figure.value.chars().count().next_multiple_of(4));
        let wanted = (wanted as u16).min(width);
        if x > 0 && x + wanted > width {
            (x, row) = (0, row + 2);
        }
        let placed = (x, row, wanted);
        x += wanted + 2;
        placed
    };
    figures.iter().map(place).collect()
}

/// Columns that fit `width`, each with its own.
fn fitting(table: &Table, width: usize) -> Vec<(usize, usize)> {
    let wanted = |place: usize| {
        let column = &table.columns[place];
        let widest = table.rows.iter().map(|row| cell_width(&row[place])).max().unwrap_or(0);
        widest.max(text_width(&column.name)).max(column.width_min)
    };
    let mut columns: Vec<(usize, usize)> = (0..table.columns.len()).map(|place| (place, wanted(place))).collect();
    let total = |columns: &[(usize, usize)]| columns.iter().map(|(_, width)| width + GAP).sum::<usize>();
    while total(&columns) > width + GAP {
        let last = columns.iter().enumerate().filter(|(_, (place, _))| table.columns[*place].rank > 0);
        let Some((weakest, _)) = last.max_by_key(|(_, (place, _))| (table.columns[*place].rank, *place)) else { break };
        columns.remove(weakest);
    }
    // Then names give way, down to what shows that there is one.
    let over = total(&columns).saturating_sub(width + GAP);
    if let Some(widest) = columns.iter_mut().filter(|(place, _)| table.columns[*place].left).max_by_key(|(_, w)| *w) {
        widest.1 = widest.1.saturating_sub(over).max(NAME_WIDTH_MIN.min(widest.1));
    }
    columns
}

fn line<'a>(buffer: &mut Buffer, area: Rect, y: u16, cells: impl Iterator<Item = Span<'a>>) {
    if y >= area.height {
        return;
    }
    let mut x = area.x;
    for cell in cells {
        let room = area.right().saturating_sub(x);
        if room == 0 {
            return;
        }
        let width = cell.width() as u16;
        buffer.set_span(x, area.y + y, &cell, room);
        x = x.saturating_add(width + GAP as u16);
    }
}

fn cell(cell: &Cell, column: &Column, width: usize, look: &Look) -> Span<'static> {
    let text = match cell.bar {
        None => aligned(&cell.text, width, column.left),
        Some(share) => {
            let room = width.saturating_sub(PERCENT_WIDTH + 1);
            format!("{:>PERCENT_WIDTH$} {}", cell.text, bar(share, room))
        }
    };
    Span::styled(text, tone(cell.tone, look))
}

fn tone(tone: Tone, look: &Look) -> Style {
    match tone {
        Tone::Plain => Style::default(),
        Tone::Quiet => look.quiet(),
        Tone::Warning => look.warning(),
        Tone::Alarm => look.alarm(),
    }
}

/// `width` cells of which `share` is filled, to an eighth of a cell.
fn bar(share: f64, width: usize) -> String {
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let (whole, part) = (eighths / 8, eighths % 8);
    let mut bar = "█".repeat(whole.min(width));
    if part > 0 && whole < width {
        bar.push(['▏', '▎', '▍', '▌', '▋', '▊', '▉'][part - 1]);
    }
    let drawn = bar.chars().count();
    bar.push_str(&" ".repeat(width.saturating_sub(drawn)));
    bar
}

/// `text` in exactly `width` columns of the terminal.
fn aligned(text: &str, width: usize, left: bool) -> String {
    let mut text = text.to_string();
    if text_width(&text) > width {
        while text_width(&text) + 1 > width && text.pop().is_some() {}
        text.push('…');
    }
    let padding = " ".repeat(width.saturating_sub(text_width(&text)));
    if left { text + &padding } else { padding + &text }
}

fn cell_width(cell: &Cell) -> usize {
    // A bar takes what its column has, it asks for nothing.
    if cell.bar.is_some() { PERCENT_WIDTH } else { text_width(&cell.text) }
}

/// Columns of the terminal: some characters take two.
fn text_width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Between two columns.
const GAP: usize = 2;

/// `100.0 %`
const PERCENT_WIDTH: usize = 7;

/// What is left of a name where there is no room.
const NAME_WIDTH_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(values: &[(u64, Option<f64>)]) -> VecDeque<Second> {
        let second = |&(s, get_p99_ns)| Second { unix_ms: s * 1000, get_p99_ns, ..Second::default() };
        values.iter().map(second).collect()
    }

    fn columns(values: &[(u64, Option<f64>)], width: usize, span_s: u32) -> Vec<Option<f64>> {
        columns_of(&seconds(values), |second| second.get_p99_ns, width, span_s)
    }

    #[test]
    fn bars_have_eighths() {
        assert_eq!([0.0, 0.05, 0.5, 1.0].map(|share| bar(share, 4)), ["    ", "▎   ", "██  ", "████"]);
        assert_eq!(bar(0.5, 0), "");
    }

    #[test]
    fn a_column_of_many_seconds_shows_the_greatest() {
        let past: Vec<_> = (1..=8).map(|s| (s, Some(s as f64))).collect();
        assert_eq!(columns(&past, 4, 8), [Some(2.0), Some(4.0), Some(6.0), Some(8.0)]);
    }

    #[test]
    fn a_second_of_many_columns_fills_them() {
        assert_eq!(columns(&[(1, Some(1.0)), (2, Some(2.0))], 4, 2), [Some(1.0), Some(1.0), Some(2.0), Some(2.0)]);
    }

    #[test]
    fn gaps_stay_gaps() {
        assert_eq!(columns(&[(1, Some(1.0)), (3, None), (4, Some(4.0))], 4, 4), [Some(1.0), None, None, Some(4.0)]);
        assert_eq!(columns(&[(1, Some(1.0)), (1000, Some(4.0))], 2, 2), [None, Some(4.0)]);
        assert_eq!(columns(&[], 2, 2), [None, None]);
    }

    #[test]
    fn wide_characters_are_counted_as_what_they_take() {
        assert_eq!(aligned("漢字漢字", 6, true), "漢字… ");
        assert_eq!(aligned("ab", 4, false), "  ab");
    }
}
