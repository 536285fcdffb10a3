//! What a node has to say to whoever reads its log.
//!
//! The room that writes logs (`serve::log`) builds on this one, so it is handed in: a node tells, and does not know
//! who listens. A message is fixed text and what varies stands in fields, so that lines can be counted by kind.

use std::sync::Mutex;

/// Listens to a node. Never waits.
pub trait News: Send + Sync {
    /// One line.
    fn tell(&self, weight: Weight, message: &'static str, fields: &[(&'static str, String)]);
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// What was done.
    Info,
    /// Something is wrong, and the node goes on.
    Warn,
    /// Something was not done.
    Error,
}

/// Keeps what was told, for tests.
#[derive(Default)]
pub struct Kept(Mutex<Vec<String>>);

impl Kept {
    /// Every line so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().map(|lines| lines.clone()).unwrap_or_default()
    }
}

impl News for Kept {
    fn tell(&self, weight: Weight, message: &'static str, fields: &[(&'static str, String)]) {
        let fields: String = fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        if let Ok(mut lines) = self.0.lock() {
            lines.push(format!("{weight:?} {message}{fields}"));
        }
    }
}
