//! The screen in ratatui's own terminal without a terminal.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::top::message::{Shard, examples};

const NOW: Duration = Duration::from_secs(10);
const SIZES: [(u16, u16); 9] =
    [(80, 24), (120, 40), (200, 60), (20, 5), (118, 12), (60, 8), (1, 1), (300, 3), (61, 200)];

fn heard() -> Model {
    let mut model = Model::new(NOW);
    model.hear_hello(examples::hello(), NOW);
    for number in 0..40 {
        let mut tick = examples::tick();
        tick.unix_ms = 1_764_140_001_100 + number * 100;
        tick.shards = (0..64).map(|shard| Shard { shard, ..tick.shards[0].clone() }).collect();
        let get = tick.latency["get"].clone();
        tick.latency.insert("set".to_string(), get);
        model.hear_tick(tick, NOW);
    }
    model
}

fn scene<'a>(model: &'a Model, view: &'a View, look: &'a Look) -> Scene<'a> {
    Scene { model, link: model.link(), stale: model.stale(NOW), admin: "127.0.0.1:7790", view, look }
}

const PLAIN: Look = Look { colour: true, unicode: true };

fn shown(size: (u16, u16), scene: &Scene) -> (Vec<String>, usize) {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    let mut scroll_max = 0;
    terminal.draw(|frame| scroll_max = draw(frame, scene)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    ((0..size.1).map(line).collect(), scroll_max)
}

fn text(size: (u16, u16), model: &Model, view: &View) -> String {
    shown(size, &scene(model, view, &PLAIN)).0.join("\n")
}

#[test]
fn every_page_at_every_size_is_drawn() {
    let models = [Model::new(NOW), heard()];
    for model in &models {
        for size in SIZES {
            for page in Page::ALL {
                for (help, logarithmic, look) in
                    [(false, false, PLAIN), (true, true, Look { colour: false, unicode: false })]
                {
                    let view = View { page, help, logarithmic, ..View::default() };
                    shown(size, &scene(model, &view, &look));
                }
            }
        }
    }
}

#[test]
fn the_figures_stand_at_every_size() {
    let model = heard();
    for size in [(80, 24), (120, 40), (200, 60)] {
        for page in Page::ALL {
            let text = text(size, &model, &View { page, ..View::default() });
            for expected in ["cache-7", "up 2m 03s", "live 127.0.0.1:7790", "requests/s", "120k", "89.8 % · 0.0 / 89.8"]
            {
                assert!(text.contains(expected), "{size:?} {page:?}: no {expected}\n{text}");
            }
            for expected in ["4.5 µs / 8.0 µs / 19.0 µs", "124.0 MiB / 4.0 GiB", "evictions/s", "connections"] {
                assert!(text.contains(expected), "{size:?} {page:?}: no {expected}\n{text}");
            }
        }
    }
    let text = text((20, 5), &model, &View::default());
    assert!(text.contains("requests/s 120k") && text.contains("hits 89.8 %") && text.contains("GET 4.5 µs"), "{text}");
}

#[test]
fn the_overview_shows_what_fits() {
    let model = heard();
    let small = text((80, 24), &model, &View::default());
    for expected in ["requests/s, 2 min", "GET p99, 2 min", "latency", "service", "queue", "shards 1–"] {
        assert!(small.contains(expected), "no {expected}\n{small}");
    }
    for size in [(120, 40), (200, 60)] {
        let text = text(size, &model, &View::default());
        for expected in ["memory", "fragmentation", "hot keys", "#5f1c03a09be2d7c4", "6.1 %", "tenants", "default"] {
            assert!(text.contains(expected), "{size:?}: no {expected}\n{text}");
        }
    }
}

#[test]
fn shards_scroll_to_the_last() {
    let model = heard();
    let mut view = View { page: Page::Shards, ..View::default() };
    let (lines, scroll_max) = shown((80, 24), &scene(&model, &view, &PLAIN));
    assert!(lines.iter().any(|line| line.contains("1–16 of 64")), "{lines:#?}");
    view.drawn(scroll_max);
    view.press(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
    let text = text((80, 24), &model, &view);
    assert!(text.contains("49–64 of 64") && text.contains("\n    63"), "{text}");
}

#[test]
fn the_help_names_every_key() {
    let view = View { help: true, ..View::default() };
    let text = text((80, 24), &heard(), &view);
    for (key, does) in KEYS {
        assert!(text.contains(key) && text.contains(does), "no {key}\n{text}");
    }
}

#[test]
fn a_lost_link_is_told_with_its_reason() {
    let mut model = heard();
    model.lose("connection refused\x1b[2J".to_string());
    let view = View::default();
    let mut scene = scene(&model, &view, &PLAIN);
    scene.stale = Some(Duration::from_secs(7));
    for size in SIZES.into_iter().filter(|size| size.0 >= 60) {
        let text = shown(size, &scene).0.join("\n");
        assert!(text.contains(r"stale for 7 s: connection refused\x1b[2J"), "{text}");
        assert!(!text.contains('\x1b'));
    }
}

#[test]
fn nothing_but_ascii_where_the_locale_has_no_more() {
    let model = heard();
    let look = Look { colour: false, unicode: false };
    for page in Page::ALL {
        let view = View { page, ..View::default() };
        let text = shown((120, 40), &scene(&model, &view, &look)).0.join("\n");
        assert!(text.is_ascii() && !text.contains('?') || text.matches('?').count() == 1, "{text}"); // "? help"
    }
}

#[test]
fn no_colour_where_none_is_wanted() {
    let mut model = heard();
    model.lose("gone".to_string());
    let look = Look { colour: false, unicode: true };
    for page in Page::ALL {
        let view = View { page, help: true, paused: true, ..View::default() };
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
        terminal.draw(|frame| _ = draw(frame, &scene(&model, &view, &look))).unwrap();
        for cell in &terminal.backend().buffer().content {
            assert!(cell.fg == Color::Reset && cell.bg == Color::Reset, "{cell:?}");
        }
    }
}

#[test]
fn the_look_is_found_in_the_environment() {
    let look = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        let look = Look::detect(|name| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()));
        (look.colour, look.unicode)
    };
    assert_eq!(look(&[]), (true, true));
    assert_eq!(look(&[("NO_COLOR", "1"), ("LANG", "C")]), (false, false));
    assert_eq!(look(&[("NO_COLOR", ""), ("LANG", "C"), ("LC_ALL", "de_DE.UTF-8")]), (true, true));
    assert_eq!(look(&[("LANG", "C.utf8")]), (true, true));
}

#[test]
fn heights_are_shared_out() {
    assert_eq!(share_out(10, &[(3, 4), (5, 9), (3, 3)], None), [4, 6, 0]);
    assert_eq!(share_out(20, &[(3, 4), (5, 9), (3, 3)], Some(0..1)), [8, 9, 3]);
    assert_eq!(share_out(2, &[(3, 4), (1, 9)], None), [0, 2]);
    assert_eq!(share_out(0, &[(3, 4)], Some(0..1)), [0]);
}
