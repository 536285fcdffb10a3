//! What the person at the keyboard has chosen, and the keys that choose it. The help shows [`KEYS`]; a test presses
//! every key it names.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A page of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Page {
    Overview,
    Latency,
    Shards,
    Memory,
}

impl Page {
    /// In the order of their numbers.
    pub const ALL: [Page; 4] = [Page::Overview, Page::Latency, Page::Shards, Page::Memory];

    /// As the foot names it.
    pub fn name(self) -> &'static str {
        match self {
            Page::Overview => "overview",
            Page::Latency => "latency",
            Page::Shards => "shards",
            Page::Memory => "memory, keys",
        }
    }

    fn step(self, by: usize) -> Page {
        Page::ALL[(self as usize + by) % Page::ALL.len()]
    }
}

/// What shards are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Sort {
    Shard,
    Busy,
    Requests,
    P99,
    Entries,
    Mailbox,
}

impl Sort {
    /// In the order in which `s` goes through them.
    pub const ALL: [Sort; 6] = [Sort::Shard, Sort::Busy, Sort::Requests, Sort::P99, Sort::Entries, Sort::Mailbox];
}

/// What is to be done beside drawing anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Draw,
    /// Leave.
    Quit,
    /// Let the shell have the terminal for a while.
    Suspend,
    /// Draw every cell, something else wrote over them.
    Repaint,
}

/// What was chosen.
#[derive(Clone, Debug)]
pub struct View {
    /// The page that is shown.
    pub page: Page,
    /// Whether the help lies over it.
    pub help: bool,
    /// Whether the figures stand still.
    pub paused: bool,
    /// The order of shards.
    pub sort: Sort,
    /// The other way round.
    pub reversed: bool,
    /// Whether charts of latencies have a logarithmic scale.
    pub logarithmic: bool,
    pub(super) span: usize,
    pub(super) scroll: [usize; Page::ALL.len()],
    pub(super) scroll_max: usize,
}

impl Default for View {
    fn default() -> View {
        View {
            page: Page::Overview,
            help: false,
            paused: false,
            sort: Sort::Shard,
            reversed: false,
            logarithmic: false,
            span: 1,
            scroll: [0; Page::ALL.len()],
            scroll_max: 0,
        }
    }
}

impl View {
    /// Seconds that charts show.
    pub fn span_s(&self) -> u32 {
        SPANS_S[self.span]
    }

    /// Rows above those that are shown.
    pub fn scroll(&self) -> usize {
        self.scroll[self.page as usize]
    }

    /// What was drawn leaves this much to scroll.
    pub fn drawn(&mut self, scroll_max: usize) {
        self.scroll_max = scroll_max;
        let scroll = &mut self.scroll[self.page as usize];
        *scroll = (*scroll).min(scroll_max);
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'd') => Action::Quit,
                KeyCode::Char('z') => Action::Suspend,
                KeyCode::Char('l') => Action::Repaint,
                _ => Action::Draw,
            };
        }
        if self.help {
            // The help goes away with any key; those that leave leave only it, but for q, which means it.
            self.help = false;
            return if key.code == KeyCode::Char('q') { Action::Quit } else { Action::Draw };
        }
        let rows = PAGE_ROWS.min(self.scroll_max.max(1));
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Action::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Tab | KeyCode::Right => self.page = self.page.step(1),
            KeyCode::BackTab | KeyCode::Left => self.page = self.page.step(Page::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='4') => self.page = Page::ALL[digit as usize - '1' as usize],
            KeyCode::Char('j') | KeyCode::Down => self.scroll_by(1, true),
            KeyCode::Char('k') | KeyCode::Up => self.scroll_by(1, false),
            KeyCode::PageDown => self.scroll_by(rows, true),
            KeyCode::PageUp => self.scroll_by(rows, false),
            KeyCode::Char('G') | KeyCode::End => self.scroll_by(usize::MAX, true),
            KeyCode::Char('g') | KeyCode::Home => self.scroll_by(usize::MAX, false),
            KeyCode::Char('s') => self.sort = Sort::ALL[(self.sort as usize + 1) % Sort::ALL.len()],
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('l') => self.logarithmic = !self.logarithmic,
            KeyCode::Char('+' | '=') => self.span = (self.span + 1).min(SPANS_S.len() - 1),
            KeyCode::Char('-' | '_') => self.span = self.span.saturating_sub(1),
            _ => {}
        }
        Action::Draw
    }

    fn scroll_by(&mut self, rows: usize, down: bool) {
        let scroll = &mut self.scroll[self.page as usize];
        *scroll = if down { scroll.saturating_add(rows).min(self.scroll_max) } else { scroll.saturating_sub(rows) };
    }
}

/// Keys and what they do, as the help shows them.
pub const KEYS: [(&str, &str); 13] = [
    ("q Esc Ctrl-C", "quit"),
    ("? h F1", "this help; any key closes it"),
    ("p Space", "pause: the figures stand still, nothing is lost"),
    ("1 2 3 4", "pages: overview, latency, shards, memory and keys"),
    ("Tab → / Shift-Tab ←", "next page / page before"),
    ("j ↓ / k ↑", "scroll a row down / up"),
    ("PgDn / PgUp", "scroll ten rows"),
    ("g Home / G End", "first / last row"),
    ("s", "sort shards by the next column"),
    ("r", "reverse the order"),
    ("+ / -", "charts over more / less time: 1, 2, 5, 10 minutes"),
    ("l", "latency charts linear or logarithmic"),
    ("Ctrl-Z / Ctrl-L", "suspend / draw anew"),
];

const SPANS_S: [u32; 4] = [60, 120, 300, 600];

/// Rows that PgDn and PgUp go.
const PAGE_ROWS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn press(view: &mut View, code: KeyCode) -> Action {
        view.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn state(view: &View) -> String {
        format!("{view:?}")
    }

    /// A key as the help writes it.
    fn key(text: &str) -> KeyEvent {
        let (modifiers, text) = match text.strip_prefix("Ctrl-") {
            Some(rest) => (KeyModifiers::CONTROL, rest.to_lowercase()),
            None => (KeyModifiers::NONE, text.to_string()),
        };
        let code = match text.as_str() {
            "Esc" => KeyCode::Esc,
            "F1" => KeyCode::F(1),
            "Space" => KeyCode::Char(' '),
            "Tab" => KeyCode::Tab,
            "Shift-Tab" => KeyCode::BackTab,
            "→" => KeyCode::Right,
            "←" => KeyCode::Left,
            "↓" => KeyCode::Down,
            "↑" => KeyCode::Up,
            "PgDn" => KeyCode::PageDown,
            "PgUp" => KeyCode::PageUp,
            "Home" => KeyCode::Home,
            "End" => KeyCode::End,
            text => {
                let mut characters = text.chars();
                let first = characters.next().expect("a key");
                assert_eq!(characters.next(), None, "no key: {text}");
                KeyCode::Char(first)
            }
        };
        KeyEvent::new(code, modifiers)
    }

    #[test]
    fn every_key_of_the_help_does_something() {
        for (keys, does) in KEYS {
            for text in keys.split_whitespace().filter(|text| *text != "/") {
                // From the middle, so that every direction has somewhere to go.
                let mut view = View { page: Page::Shards, ..View::default() };
                view.drawn(20);
                view.scroll_by(10, true);
                let before = state(&view);
                let action = view.press(key(text));
                assert!(action != Action::Draw || state(&view) != before || text == "3", "{text} should: {does}");
            }
        }
    }

    #[test]
    fn help_closes_before_anything_else_happens() {
        let mut view = View::default();
        assert_eq!(press(&mut view, KeyCode::Char('?')), Action::Draw);
        assert!(view.help);
        assert_eq!(press(&mut view, KeyCode::Esc), Action::Draw);
        assert!(!view.help);
        assert_eq!(press(&mut view, KeyCode::Esc), Action::Quit);
    }

    #[test]
    fn scrolling_stays_within_what_was_drawn() {
        let mut view = View { page: Page::Shards, ..View::default() };
        view.drawn(3);
        press(&mut view, KeyCode::End);
        assert_eq!(view.scroll(), 3);
        press(&mut view, KeyCode::Down);
        assert_eq!(view.scroll(), 3);
        view.drawn(1); // the terminal grew
        assert_eq!(view.scroll(), 1);
        press(&mut view, KeyCode::Char('1'));
        assert_eq!(view.scroll(), 0);
    }

    #[test]
    fn pages_go_round() {
        let mut view = View::default();
        press(&mut view, KeyCode::BackTab);
        assert_eq!(view.page, Page::Memory);
        press(&mut view, KeyCode::Tab);
        assert_eq!(view.page, Page::Overview);
    }
}
