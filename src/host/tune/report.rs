//! What was done to each setting, for people and for programs.

use serde::Serialize;

use crate::host::tune::write::{Refusal, Trouble};

/// Everything that one apply, rehearsal or undo did, in the order it did it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// A row for each setting.
    pub rows: Vec<Row>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Path below the root.
    pub path: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What it held.
    pub have: String,
    /// What it was to hold.
    pub want: String,
    /// Why: the reason for the change, or for its refusal.
    pub why: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
}

/// How a setting came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Would be changed, if this were no dry run.
    Would,
    /// Changed, and reads as wanted.
    Done,
    /// Was as wanted.
    Already,
    /// Changed, and the kernel made something else of it, as it may: `why` says what.
    Given,
    /// Changed as wanted, and read otherwise after the last write.
    Moved,
    /// The kernel keeps this one to itself; nothing is wrong.
    Kept,
    /// This kernel has no such setting.
    Absent,
    /// Not changed: it could not be, or could not be changed back.
    Refused,
    /// As it was before the first apply.
    Restored,
    /// Was as before already.
    AsBefore,
    /// As before; somebody else had changed it meanwhile.
    Overridden,
    /// The reboot, or its device, took it along.
    Gone,
    /// Not restored.
    Failed,
}

impl Outcome {
    /// The word in front of a line.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Would => "would",
            Outcome::Done => "done",
            Outcome::Already => "already",
            Outcome::Given => "given",
            Outcome::Moved => "moved",
            Outcome::Kept => "kept",
            Outcome::Absent => "absent",
            Outcome::Refused => "refused",
            Outcome::Restored => "restored",
            Outcome::AsBefore => "as before",
            Outcome::Overridden => "overridden",
            Outcome::Gone => "gone",
            Outcome::Failed => "failed",
        }
    }

    /// Whether somebody has to do something before this is as asked.
    pub fn is_trouble(self) -> bool {
        matches!(self, Outcome::Refused | Outcome::Moved | Outcome::Failed)
    }
}

impl Report {
    /// Rows of one outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.rows.iter().filter(|row| row.outcome == outcome).count()
    }

    /// Rows that need somebody to do something.
    pub fn troubles(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.outcome.is_trouble())
    }

    /// The counts that are not zero: `12 done, 3 already`.
    pub fn summary(&self) -> String {
        let mut counts: Vec<(Outcome, usize)> = Vec::new();
        for row in &self.rows {
            match counts.iter_mut().find(|(outcome, _)| *outcome == row.outcome) {
                Some((_, count)) => *count += 1,
                None => counts.push((row.outcome, 1)),
            }
        }
        let words: Vec<String> = counts.iter().map(|(outcome, count)| format!("{count} {}", outcome.name())).collect();
        if words.is_empty() { "nothing to do".to_owned() } else { words.join(", ") }
    }
}

impl Row {
    /// A row for a refusal.
    pub(super) fn refused(path: &str, have: String, want: String, refusal: Refusal) -> Row {
        let outcome = match refusal.trouble {
            Trouble::Kept => Outcome::Kept,
            Trouble::Absent => Outcome::Absent,
            Trouble::Permission | Trouble::Other => Outcome::Refused,
        };
        Row { path: path.to_owned(), outcome, have, want, why: refusal.why, remedy: refusal.remedy }
    }
}
