//! Undo: everything in the journal back to what it was, the last change first.
//!
//! It is repeated, not resumed: a value that is as before is left alone, so an undo that was killed is simply
//! run again. Restoring one setting may move another that stands later in the list (the kernel's companions), so
//! what is not as before after the first round is gone through once more.
//!
//! The values of an earlier boot are not restored: the kernel began anew with its own, and what it has now was
//! decided by this boot. Files outlive the boot and are restored whenever undo comes.

use std::path::Path;

use crate::host::tune::TuneError;
use crate::host::tune::change::Held;
use crate::host::tune::journal::{Entry, Journal, Lock};
use crate::host::tune::report::{Outcome, Report, Row};
use crate::host::tune::write::{Actions, BOOT_ID, Restored, Rings, Settings};

/// Restores everything that was applied below `root`. Ends the journal if all of it could be.
pub fn undo(root: &Path, rings: &dyn Rings, now_s: u64) -> Result<Report, TuneError> {
    let Some(_lock) = Lock::take_existing(root)? else { return Ok(Report::default()) };
    let Some(journal) = Journal::open(root)? else { return Ok(Report::default()) };
    let settings = Settings::new(root, rings);
    if settings.boot_id().is_none() {
        // To take every value for an earlier boot's would end the journal with nothing restored.
        return Err(TuneError::NoBootId(root.join(BOOT_ID)));
    }
    let (this_boot, gone) = split_by_boot(&journal.entries, journal.header.is_of(settings.boot_id().as_deref()));
    let (ours, others) = split_by_device(&settings, &this_boot);
    let mut report = Report { rows: gone.iter().map(gone_row).collect() };
    report.rows.extend(others);
    report.rows.extend(restore_all(&settings, &ours, now_s));
    if report.troubles().next().is_none() {
        journal.retire(now_s)?;
    }
    Ok(report)
}

/// What undo would do, without doing it.
pub fn undo_preview(root: &Path, rings: &dyn Rings) -> Result<Report, TuneError> {
    let Some((header, entries)) = Journal::peek(root)? else { return Ok(Report::default()) };
    let settings = Settings::new(root, rings);
    let (this_boot, gone) = split_by_boot(&entries, header.is_of(settings.boot_id().as_deref()));
    let (ours, others) = split_by_device(&settings, &this_boot);
    let mut rows: Vec<Row> = gone.iter().map(gone_row).collect();
    rows.extend(others);
    for entry in ours.iter().rev() {
        let now = settings.read(entry.kind, &entry.path).ok().flatten();
        let outcome = if now == entry.old { Outcome::AsBefore } else { Outcome::Would };
        rows.push(row(entry, outcome, shown(entry, now.as_ref())));
    }
    Ok(Report { rows })
}

/// Entries that this boot's kernel still knows, and those it has forgotten.
pub(super) fn split_by_boot(entries: &[Entry], same_boot: bool) -> (Vec<Entry>, Vec<Entry>) {
    entries.iter().cloned().partition(|entry| same_boot || entry.kind.outlives_reboot())
}

/// Entries whose number is still the same device's, and rows for those whose number another has now.
pub(super) fn split_by_device(settings: &Settings<'_>, entries: &[Entry]) -> (Vec<Entry>, Vec<Row>) {
    let actions = if entries.iter().any(|entry| entry.of.is_some()) { settings.actions() } else { Actions::default() };
    let mut rows = Vec::new();
    let mut kept = entries.to_vec();
    kept.retain(|entry| match (entry.of.as_deref(), actions.of(&entry.path)) {
        (Some(then), Some(now)) if then != now => {
            let why = format!("it was {then}'s, which has gone, and is {now}'s now");
            rows.push(Row { why, ..row(entry, Outcome::Gone, "not looked at".to_owned()) });
            false
        }
        // A number without a name is an interrupt that nobody has asked for yet, or not again: its device sleeps.
        _ => true,
    });
    (kept, rows)
}

/// Restores entries, the last first, and looks at all of them once more.
pub(super) fn restore_all(settings: &Settings<'_>, entries: &[Entry], now_s: u64) -> Vec<Row> {
    let mut rows: Vec<Row> = entries.iter().rev().map(|entry| restore_one(settings, entry, now_s)).collect();
    for (index, entry) in entries.iter().rev().enumerate() {
        let again = restore_one(settings, entry, now_s);
        let moved = again.outcome != Outcome::AsBefore && again.outcome != Outcome::Gone;
        if moved || rows[index].outcome == Outcome::Failed {
            // What a companion did to it is nobody else's change.
            let outcome = if again.outcome == Outcome::Failed { Outcome::Failed } else { Outcome::Restored };
            rows[index] = Row { outcome, ..again };
        }
    }
    rows
}

fn restore_one(settings: &Settings<'_>, entry: &Entry, now_s: u64) -> Row {
    let before = settings.read(entry.kind, &entry.path).ok().flatten();
    let have = shown(entry, before.as_ref());
    match settings.restore(entry, now_s) {
        Restored::Restored => row(entry, Outcome::Restored, have),
        Restored::AsBefore => row(entry, Outcome::AsBefore, have),
        Restored::Gone => Row {
            why: "its device or kernel module has gone, and it with that".to_owned(),
            ..row(entry, Outcome::Gone, have)
        },
        Restored::Overridden { value, kept } => Row {
            why: match kept {
                None => format!("somebody else had made it {value} since the apply"),
                Some(kept) => {
                    format!("somebody else had made it {value} since the apply, which is kept as {}", kept.display())
                }
            },
            ..row(entry, Outcome::Overridden, have)
        },
        Restored::Failed(refusal) => {
            Row { why: refusal.why, remedy: refusal.remedy, ..row(entry, Outcome::Failed, have) }
        }
    }
}

fn gone_row(entry: &Entry) -> Row {
    let why = "the machine has booted since, and the kernel began with its own value".to_owned();
    Row { why, ..row(entry, Outcome::Gone, "not looked at".to_owned()) }
}

fn row(entry: &Entry, outcome: Outcome, have: String) -> Row {
    let want = shown(entry, entry.old.as_ref());
    Row { path: entry.path.clone(), outcome, have, want, why: String::new(), remedy: String::new() }
}

fn shown(entry: &Entry, held: Option<&Held>) -> String {
    held.map_or("absent".to_owned(), |held| entry.kind.shown(&held.bytes))
}
