//! A terminal without a person: a pseudo-terminal, and a screen that understands what is written to it.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};

use crate::common::{PATIENCE, SPINETAIL, eventually};

/// `spinetail` in a terminal, started by a shell that tells afterwards how it ended and in which state it left the
/// terminal.
pub struct Terminal {
    pty: Arc<Pty>,
    shell: Child,
    seen: Arc<Mutex<Seen>>,
    hung_up: Arc<AtomicBool>,
}

struct Seen {
    screen: vt100::Parser,
    bytes: Vec<u8>,
}

impl Terminal {
    pub fn start(arguments: &[&str], columns: u16, rows: u16) -> Terminal {
        Terminal::start_with(arguments, columns, rows, &[])
    }

    pub fn start_with(arguments: &[&str], columns: u16, rows: u16, variables: &[(&str, &str)]) -> Terminal {
        let (pty, pts) = open().expect("a pseudo-terminal");
        pty.resize(Size::new(rows, columns)).expect("a size");
        let script = "\"$0\" \"$@\"; echo \"status=$?\"; stty -a; echo end=";
        let shell = Command::new("sh")
            .args(["-c", script, SPINETAIL])
            .args(arguments)
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied());
        let shell = shell.spawn(pts).expect("a shell");
        let (rows, columns) = (NonZeroU16::new(rows).unwrap(), NonZeroU16::new(columns).unwrap());
        let seen = Arc::new(Mutex::new(Seen { screen: vt100::Parser::new(rows, columns, 0), bytes: Vec::new() }));
        let pty = Arc::new(pty);
        let hung_up = Arc::new(AtomicBool::new(false));
        let (source, into, over) = (pty.clone(), seen.clone(), hung_up.clone());
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = (&*source).read(&mut piece) {
                let mut seen = into.lock().unwrap();
                seen.screen.process(&piece[..count]);
                seen.bytes.extend_from_slice(&piece[..count]);
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Terminal { pty, shell, seen, hung_up }
    }

    /// The person closes the window, or the network does. Whoever draws must be drawing: the reader looks up between two
    /// pieces of output.
    pub fn hang_up(&mut self) {
        self.hung_up.store(true, Ordering::Relaxed);
        assert!(eventually(PATIENCE, || Arc::strong_count(&self.pty) == 1), "nothing is drawn any more");
        let (other, _) = open().expect("a pseudo-terminal");
        self.pty = Arc::new(other);
    }

    pub fn press(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).expect("keys are taken");
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        let (high, wide) = (NonZeroU16::new(rows).unwrap(), NonZeroU16::new(columns).unwrap());
        self.seen.lock().unwrap().screen.screen_mut().set_size(high, wide);
        self.pty.resize(Size::new(rows, columns)).expect("a size");
    }

    /// What stands on the screen.
    pub fn text(&self) -> String {
        self.seen.lock().unwrap().screen.screen().contents()
    }

    /// Everything that was written so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen.lock().unwrap().bytes.clone()
    }

    /// Waits until `holds` is true of the screen's text.
    pub fn wait(&self, what: &str, at_most: Duration, holds: impl Fn(&str) -> bool) -> String {
        let came = eventually(at_most, || holds(&self.text()));
        let text = self.text();
        assert!(came, "{what} did not come within {at_most:?}; the screen:\n{text}");
        text
    }

    /// The process below the shell.
    pub fn child_pid(&self) -> u32 {
        let shell = self.shell.id();
        let path = format!("/proc/{shell}/task/{shell}/children");
        let children = std::fs::read_to_string(&path).expect("the kernel lists children");
        children.split_whitespace().next().expect("spinetail runs").parse().expect("a process id")
    }

    /// Waits for the end, which must have this status and leave the terminal as it was found.
    pub fn assert_restored(&self, status: i32, at_most: Duration) -> String {
        let text = self.wait("the shell's last word", at_most, |text| text.contains("end="));
        assert!(text.contains(&format!("status={status}")), "{text}");
        for mode in ["icanon", "isig", "echo", "icrnl", "opost"] {
            let words: Vec<&str> = text.split([' ', ';', '\n']).collect();
            assert!(words.contains(&mode), "{mode} is off:\n{text}");
        }
        let seen = self.seen.lock().unwrap();
        let screen = seen.screen.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "still on the other screen, or no cursor");
        text
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Ok(None) = self.shell.try_wait() {
            // The terminal's process group goes with its shell: it loses its terminal.
            let _ = self.shell.kill();
        }
        let _ = self.shell.wait();
    }
}
