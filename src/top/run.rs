//! The terminal: taken, drawn on, given back, whatever happens.
//!
//! One loop in the calling thread takes what was heard, what was pressed and what signals say, and draws. It draws
//! five times a second at most: figures that change faster cannot be read, and over ssh each costs bytes. The
//! terminal is given back when the loop ends, by a panic of any thread before its message is printed, and before
//! Ctrl-Z stops the process. SIGTERM, SIGINT and SIGHUP end the loop; where it does not heed them the process ends
//! without it, and a second signal ends it at once. That is no luxury: crossterm's reader never comes back, at the full
//! cost of a core, once its terminal has hung up, which is how every lost ssh session ends.

use std::env;
use std::io::{self, BufWriter, Stdout, Write};
use std::panic;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, TryRecvError};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::layout::Rect;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals as Heeded;
use signal_hook::{flag, low_level};

use crate::base::limits;
use crate::top::address::Admin;
use crate::top::connection::{self, Heard};
use crate::top::draw::{Look, Scene, draw};
use crate::top::model::Model;
use crate::top::snapshot::snapshot;
use crate::top::text;
use crate::top::view::{Action, View};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where from.
    pub admin: Admin,
    /// What of it.
    pub mode: Mode,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The screen.
    Live,
    /// Plain text, once.
    Text,
    /// A tick's JSON, once.
    Json,
}

/// Shows what `options` ask for; returns when that is done, or why it cannot be.
pub fn run(options: &Options) -> Result<(), String> {
    let heard = connection::start(options.admin.clone())?;
    let began = Instant::now();
    let mut model = Model::new(Duration::ZERO);
    // Whatever is wrong with the address is said before the terminal is taken.
    let mut last_text = String::new();
    let enough = |model: &Model| match options.mode {
        Mode::Live => model.hello().is_some(),
        Mode::Text | Mode::Json => model.covers_window(),
    };
    let patience = Duration::from_millis(limits::TOP_FIRST_MS);
    while !enough(&model) {
        let Ok(next) = heard.recv_deadline(began + patience) else {
            let (address, seconds) = (&options.admin.address, patience.as_secs());
            return Err(format!("{address}: no figures within {seconds} s; see what the server logs"));
        };
        match next {
            Heard::Hello(hello) => model.hear_hello(*hello, began.elapsed()),
            Heard::Tick(tick, text) => {
                model.hear_tick(*tick, began.elapsed());
                last_text = text;
            }
            Heard::Lost(failure) => return Err(failure.to_string()),
        }
    }
    let admin = options.admin.address.to_string();
    match options.mode {
        Mode::Live => live(&heard, model, began, &admin),
        Mode::Text => print(&snapshot(&model, &admin)),
        Mode::Json => print(&format!("{}\n", text::json(&last_text))),
    }
}

fn print(text: &str) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Who reads the first lines only has had what they wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(|error| format!("standard output: {error}")),
    }
}

fn live(heard: &Receiver<Heard>, mut model: Model, began: Instant, admin: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("the terminal: {error}");
    let look = Look::detect(|name| env::var(name).ok());
    let signals = Signals::register().map_err(|error| format!("no signal handler: {error}"))?;
    give_back_on_panic();
    let mut screen = Screen::take().map_err(failed)?;
    let mut view = View::default();
    let mut still: Option<Model> = None;
    let mut drawn_at: Option<Instant> = None;
    let mut pressed = true;
    loop {
        hear(heard, &mut model, began)?;
        if signals.leave.load(Ordering::Relaxed) {
            return Ok(());
        }
        if signals.continued.swap(false, Ordering::Relaxed) {
            screen.retake().map_err(failed)?;
            pressed = true;
        }
        if pressed || drawn_at.is_none_or(|at| at.elapsed() >= DRAWN_EVERY) {
            let now = began.elapsed();
            let shown = still.as_ref().unwrap_or(&model);
            let (link, stale) = (model.link(), model.stale(now));
            let scene = Scene { model: shown, link, stale, admin, view: &view, look: &look };
            let mut scroll_max = 0;
            screen.terminal.draw(|frame| scroll_max = draw(frame, &scene)).map_err(failed)?;
            view.drawn(scroll_max);
            drawn_at = Some(Instant::now());
        }
        pressed = false;
        let mut patience = LOOKED_EVERY;
        for _ in 0..EVENTS_A_TURN {
            if !event::poll(patience).map_err(failed)? {
                break;
            }
            patience = Duration::ZERO;
            pressed = true;
            let action = match event::read().map_err(failed)? {
                Event::Key(key) if key.kind != KeyEventKind::Release => view.press(key),
                _ => Action::Draw, // above all: another size
            };
            match action {
                Action::Draw => {}
                Action::Quit => return Ok(()),
                Action::Repaint => screen.repaint().map_err(failed)?,
                Action::Suspend => {
                    screen.give_back();
                    // Does nothing where nobody could continue the process; then it goes on here at once.
                    low_level::raise(SIGTSTP).map_err(failed)?;
                    screen.retake().map_err(failed)?;
                }
            }
            match (view.paused, &still) {
                (true, None) => still = Some(model.clone()),
                (false, Some(_)) => still = None,
                _ => {}
            }
        }
    }
}

/// Takes what was heard since, as much as could wait.
fn hear(heard: &Receiver<Heard>, model: &mut Model, began: Instant) -> Result<(), String> {
    for _ in 0..limits::TOP_EVENTS_AHEAD {
        match heard.try_recv() {
            Ok(Heard::Hello(hello)) => model.hear_hello(*hello, began.elapsed()),
            Ok(Heard::Tick(tick, _)) => model.hear_tick(*tick, began.elapsed()),
            Ok(Heard::Lost(failure)) => model.lose(failure.cause()),
            Err(TryRecvError::Empty) => break,
            // The thread ends only when nobody listens, or by a panic, which has been printed.
            Err(TryRecvError::Disconnected) => return Err("the connection's thread has ended".to_string()),
        }
    }
    Ok(())
}

struct Signals {
    leave: Arc<AtomicBool>,
    continued: Arc<AtomicBool>,
}

impl Signals {
    fn register() -> io::Result<Signals> {
        let signals = Signals { leave: Arc::default(), continued: Arc::default() };
        let ends = [SIGTERM, SIGINT, SIGHUP];
        for signal in ends {
            // The first signal finds the flag down.
            flag::register_conditional_shutdown(signal, 128 + signal, signals.leave.clone())?;
        }
        flag::register(SIGCONT, signals.continued.clone())?;
        let (mut heard, leave) = (Heeded::new(ends)?, signals.leave.clone());
        thread::Builder::new().name("signals".to_string()).spawn(move || {
            if heard.forever().next().is_some() {
                leave.store(true, Ordering::Relaxed);
                thread::sleep(LEFT_WITHIN);
                // The loop reads from a terminal that is gone, or writes to one that takes nothing: there is nothing
                // to be written any more, and waiting for who writes would be waiting forever.
                let _ = disable_raw_mode();
                process::exit(0);
            }
        })?;
        Ok(signals)
    }
}

/// The terminal while it is ours.
struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    fn take() -> io::Result<Screen> {
        // A frame is one write, or a few: whatever shows it shows it at once.
        let output = BufWriter::with_capacity(FRAME_BYTES, io::stdout());
        let terminal = Terminal::new(CrosstermBackend::new(output))?;
        let mut screen = Screen { terminal };
        screen.retake()?;
        Ok(screen)
    }

    fn retake(&mut self) -> io::Result<()> {
        TAKEN.store(true, Ordering::Relaxed);
        enable_raw_mode()?;
        execute!(self.terminal.backend_mut(), EnterAlternateScreen, Hide)?;
        self.repaint()
    }

    /// Clears, and has the next frame write every cell. `Terminal::clear` would first ask the terminal where its cursor
    /// is, and fail where the answer takes more than two seconds or never comes.
    fn repaint(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    fn give_back(&mut self) {
        give_back();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Gives the terminal back if it is ours. Best effort: it may be gone.
fn give_back() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

fn give_back_on_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        give_back();
        before(panic);
    }));
}

/// A process has one terminal, and a panic hook knows no other way to it.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Between two frames, keys aside.
const DRAWN_EVERY: Duration = Duration::from_millis(200);

/// Between two looks at what was heard and at signals.
const LOOKED_EVERY: Duration = Duration::from_millis(50);

/// Between a signal and the end of the loop, which looks for signals twenty times a second.
const LEFT_WITHIN: Duration = Duration::from_secs(1);

/// Keys between two frames: a paste into the terminal must not hold up the rest.
const EVENTS_A_TURN: usize = 64;

/// Some frame of a large terminal.
const FRAME_BYTES: usize = 64 << 10;
