//! Apply: from a plan to a machine that is so, in five steps.
//!
//!   1 lock       nobody else changes the machine meanwhile
//!   2 reboot?    the journal of an earlier boot keeps its files and forgets the rest
//!   3 restore    what an earlier apply changed and this one does not want
//!   4 rehearse   everything that is to change; what could not be undone is taken out
//!   5 write      each: journal, disk, write, read back
//!
//! Refused as a whole, before anything is touched, if everything that is to change lacks the permission. Otherwise what
//! is refused is left out and the rest is done: a machine with nine settings of ten is better than one with none,
//! and the list says which.
//!
//! The plan was made for the machine as it was before the first apply ([`Untouched`]), so that applying twice is
//! the same as once, and applying another profile the same as undoing this one first. But for huge pages: these only
//! ever go up until undo, since a server may hold what an earlier profile asked for.

use std::collections::BTreeMap;
use std::path::Path;

use crate::host::tune::TuneError;
use crate::host::tune::change::{Change, Held, Kind, companions};
use crate::host::tune::journal::{Entry, FORMAT, Header, Journal, Lock};
use crate::host::tune::parameters::one_way;
use crate::host::tune::paths::missing_directories;
use crate::host::tune::report::{Outcome, Report, Row};
use crate::host::tune::undo::{restore_all, split_by_boot, split_by_device};
use crate::host::tune::write::{Actions, BOOT_ID, Refusal, Restored, Rings, Settings, Trouble, refusal};

/// The machine as it was before the first apply: what is there, and over it what the journal remembers.
pub struct Untouched<'s> {
    settings: Settings<'s>,
    remembered: BTreeMap<String, Option<Held>>,
    is_hidden: bool,
}

/// What is applied, to what, in whose name.
#[derive(Clone, Copy)]
pub struct Apply<'a> {
    /// The root of the machine's files.
    pub root: &'a Path,
    /// Ring sizes of its cards.
    pub rings: &'a dyn Rings,
    /// The profile's name, for the journal.
    pub profile: &'a str,
    /// What is wanted, in the order in which it is to be done.
    pub changes: &'a [Change],
    /// Unix time in seconds.
    pub now_s: u64,
}

impl<'s> Untouched<'s> {
    /// Reads the journal below `root`, if there is one.
    pub fn open(root: &'s Path, rings: &'s dyn Rings) -> Result<Untouched<'s>, TuneError> {
        let settings = Settings::new(root, rings);
        let (journal, is_hidden) = look_up(root)?;
        let remembered = journal.map_or(BTreeMap::new(), |(header, entries)| {
            let (known, _) = split_by_boot(&entries, header.is_of(settings.boot_id().as_deref()));
            let (ours, _) = split_by_device(&settings, &known);
            ours.into_iter().map(|entry| (entry.path, entry.old)).collect()
        });
        Ok(Untouched { settings, remembered, is_hidden })
    }

    /// Whether there is a journal that this user may not read: then what is there counts as untouched.
    pub fn is_hidden(&self) -> bool {
        self.is_hidden
    }

    /// What a setting held before the first apply; `None` if it was not there or cannot be read.
    pub fn read(&self, kind: Kind, path: &str) -> Option<Held> {
        match self.remembered.get(path) {
            Some(old) => old.clone(),
            None => self.settings.read(kind, path).ok().flatten(),
        }
    }

    /// The same as text without surrounding space.
    pub fn text(&self, path: &str) -> Option<String> {
        let held = self.read(Kind::Value, path)?;
        Some(String::from_utf8_lossy(&held.bytes).trim().to_owned())
    }

    /// What a setting holds now, whatever it was, as text without surrounding space.
    pub fn text_now(&self, path: &str) -> Option<String> {
        let held = self.settings.read(Kind::Value, path).ok().flatten()?;
        Some(String::from_utf8_lossy(&held.bytes).trim().to_owned())
    }

    /// Whether an apply of this boot has touched a setting.
    pub fn is_touched(&self, path: &str) -> bool {
        self.remembered.contains_key(path)
    }

    /// The root.
    pub fn root(&self) -> &Path {
        self.settings.root()
    }
}

/// Changes the machine. The lock is held since before the plan was made, so that the plan is for this machine.
pub fn apply(_lock: &Lock, what: Apply<'_>) -> Result<Report, TuneError> {
    let settings = Settings::new(what.root, what.rings);
    if settings.boot_id().is_none() {
        return Err(TuneError::NoBootId(what.root.join(BOOT_ID)));
    }
    let header =
        Header { format: FORMAT, boot_id: settings.boot_id(), profile: what.profile.to_owned(), started_s: what.now_s };
    let mut rows = Vec::new();
    let mut journal = Journal::open(what.root)?;
    if let Some(old) = journal.take_if(|journal| !journal.header.is_of(header.boot_id.as_deref())) {
        let (kept, _) = split_by_boot(&old.entries, false);
        journal = Some(Journal::replace(what.root, header.clone(), kept)?);
    }
    if let Some(old) = journal.take() {
        let (ours, others) = split_by_device(&settings, &old.entries);
        rows.extend(others);
        let (wanted, unwanted) = split_by_want(&ours, what.changes);
        let restored = restore_all(&settings, &unwanted, what.now_s);
        // What could not be restored stays in the journal, for undo to try again.
        let failed =
            |entry: &&Entry| restored.iter().any(|row| row.path == entry.path && row.outcome == Outcome::Failed);
        let mut entries: Vec<Entry> = unwanted.iter().filter(failed).cloned().chain(wanted).collect();
        entries.sort_by_key(|entry| entry.sequence);
        rows.extend(restored);
        journal = Some(if entries.len() == old.entries.len() && old.header.profile == header.profile {
            old
        } else {
            Journal::replace(what.root, header.clone(), entries)?
        });
    }
    let rehearsed = rehearse(&settings, what.changes);
    refuse_without_permission(&rehearsed, &rows)?;
    let mut journal = match journal {
        Some(journal) => journal,
        None if rehearsed.iter().any(|step| matches!(step, Step::Write(..))) => {
            Journal::replace(what.root, header, Vec::new())?
        }
        None => {
            rows.extend(rehearsed.into_iter().filter_map(Step::row));
            return Ok(Report { rows });
        }
    };
    let actions = settings.actions();
    for step in rehearsed {
        rows.push(match step {
            Step::Row(row, _) => row,
            Step::Write(change, old) => write(&settings, &mut journal, &actions, change, old, what.now_s)?,
        });
    }
    tell_what_moved(&settings, what.changes, &mut rows);
    if journal.entries.is_empty() {
        journal.retire(what.now_s)?; // this profile changes nothing, and what others did is restored
    }
    Ok(Report { rows })
}

/// What [`apply`] would do, as far as that shows without writing anything anywhere.
pub fn preview(root: &Path, rings: &dyn Rings, changes: &[Change]) -> Result<Report, TuneError> {
    let settings = Settings::new(root, rings);
    let mut rows = Vec::new();
    if let Some((header, entries)) = look_up(root)?.0 {
        let (known, _) = split_by_boot(&entries, header.is_of(settings.boot_id().as_deref()));
        let (ours, others) = split_by_device(&settings, &known);
        rows.extend(others);
        let (_, unwanted) = split_by_want(&ours, changes);
        for entry in unwanted.iter().rev() {
            let now = settings.read(entry.kind, &entry.path).ok().flatten();
            rows.push(Row {
                path: entry.path.clone(),
                outcome: if now == entry.old { Outcome::AsBefore } else { Outcome::Would },
                have: shown(entry.kind, now.as_ref()),
                want: shown(entry.kind, entry.old.as_ref()),
                why: "an earlier apply changed it, this profile does not ask for it".to_owned(),
                remedy: String::new(),
            });
        }
    }
    rows.extend(changes.iter().map(|change| match look(&settings, change) {
        Step::Row(row, _) => row,
        Step::Write(change, old) => row_of(change, old.as_ref(), Outcome::Would),
    }));
    Ok(Report { rows })
}

/// The journal as far as this user may read it, and whether there is one that he may not. Whoever only looks sees the
/// machine as it is then; whoever wants to change it does not get past the lock.
type LookedUp = (Option<(Header, Vec<Entry>)>, bool);

fn look_up(root: &Path) -> Result<LookedUp, TuneError> {
    match Journal::peek(root) {
        Ok(journal) => Ok((journal, false)),
        Err(error) if error.is_hidden() => Ok((None, true)),
        Err(error) => Err(error.into()),
    }
}

/// Reads once more what reads as wanted: a later write may have moved it (a card asks for its interrupts anew), or
/// somebody else has.
fn tell_what_moved(settings: &Settings<'_>, changes: &[Change], rows: &mut [Row]) {
    for row in rows.iter_mut().filter(|row| row.outcome == Outcome::Done) {
        let Some(change) = changes.iter().find(|change| change.path == row.path) else { continue };
        let now = settings.read(change.kind, &change.path).ok().flatten();
        if !now.as_ref().is_some_and(|now| change.satisfied_by(&now.bytes)) {
            let now = shown(change.kind, now.as_ref());
            row.outcome = Outcome::Moved;
            row.why = format!("read as wanted when it was written, and reads {now} after the last write");
            row.remedy =
                "another setting moved it, or a program (irqbalance, tuned): stop that, then apply again".to_owned();
        }
    }
}

/// What is to be done about one change.
enum Step<'c> {
    /// Nothing; the trouble, if that is why.
    Row(Row, Option<Trouble>),
    /// To be written over what it holds.
    Write(&'c Change, Option<Held>),
}

impl Step<'_> {
    fn row(self) -> Option<Row> {
        match self {
            Step::Row(row, _) => Some(row),
            Step::Write(..) => None,
        }
    }
}

fn look<'c>(settings: &Settings<'_>, change: &'c Change) -> Step<'c> {
    match settings.read(change.kind, &change.path) {
        Err(error) => {
            let refusal = refusal(&change.path, &error);
            let trouble = refusal.trouble;
            Step::Row(Row::refused(&change.path, "not readable".to_owned(), want(change), refusal), Some(trouble))
        }
        Ok(old) if old.as_ref().is_some_and(|old| change.satisfied_by(&old.bytes)) => {
            Step::Row(row_of(change, old.as_ref(), Outcome::Already), None)
        }
        Ok(None) if change.kind != Kind::File => {
            let refusal = refusal(&change.path, &std::io::Error::from(std::io::ErrorKind::NotFound));
            let trouble = refusal.trouble;
            Step::Row(Row::refused(&change.path, "absent".to_owned(), want(change), refusal), Some(trouble))
        }
        Ok(old) => match one_way(&change.path) {
            None => Step::Write(change, old),
            Some((why, remedy)) => {
                let (why, remedy) = (why.to_owned(), remedy.to_owned());
                let refusal = Refusal { why, remedy, trouble: Trouble::Other };
                let have = shown(change.kind, old.as_ref());
                Step::Row(Row::refused(&change.path, have, want(change), refusal), Some(Trouble::Other))
            }
        },
    }
}

fn rehearse<'c>(settings: &Settings<'_>, changes: &'c [Change]) -> Vec<Step<'c>> {
    let one = |change: &'c Change| match look(settings, change) {
        Step::Write(change, old) => match settings.rehearse(change, old.as_ref()) {
            Ok(()) => Step::Write(change, old),
            Err(refusal) => {
                let trouble = refusal.trouble;
                let have = shown(change.kind, old.as_ref());
                Step::Row(Row::refused(&change.path, have, want(change), refusal), Some(trouble))
            }
        },
        step => step,
    };
    changes.iter().map(one).collect()
}

fn refuse_without_permission(steps: &[Step<'_>], restored: &[Row]) -> Result<(), TuneError> {
    let denied: Vec<&Row> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Row(row, Some(Trouble::Permission)) => Some(row),
            _ => None,
        })
        .collect();
    let any_write = steps.iter().any(|step| matches!(step, Step::Write(..)));
    if any_write || !restored.is_empty() {
        return Ok(());
    }
    denied.first().map_or(Ok(()), |first| {
        Err(TuneError::Permission(format!(
            "none of {} settings may be written, the first is /{}: run as root",
            denied.len(),
            first.path
        )))
    })
}

/// Journal, disk, write, read back.
fn write(
    settings: &Settings<'_>,
    journal: &mut Journal,
    actions: &Actions,
    change: &Change,
    old: Option<Held>,
    now_s: u64,
) -> Result<Row, TuneError> {
    let encoded = change.want.clone().into_bytes();
    for path in companions(&change.path) {
        if journal.entry(&path).is_none()
            && let Some(held) = settings.read(Kind::Value, &path).ok().flatten()
        {
            journal.record(Entry {
                sequence: 0,
                kind: Kind::Value,
                path,
                old: Some(held),
                left: Vec::new(),
                made: Vec::new(),
                of: None,
            })?;
        }
    }
    let known = journal.entry(&change.path).map(|entry| entry.sequence);
    if let Some(entry) = journal.entry(&change.path)
        && let Err(error) = settings.keep_theirs(entry, old.as_ref(), now_s)
    {
        let refusal = refusal(&change.path, &error);
        return Ok(Row::refused(&change.path, shown(change.kind, old.as_ref()), want(change), refusal));
    }
    let sequence = match known {
        Some(sequence) => {
            journal.record_left(sequence, &encoded)?;
            sequence
        }
        None => journal.record(Entry {
            sequence: 0,
            kind: change.kind,
            path: change.path.clone(),
            old: old.clone(),
            left: vec![encoded],
            made: match change.kind {
                Kind::File => missing_directories(settings.root(), &change.path),
                _ => Vec::new(),
            },
            of: actions.of(&change.path).map(str::to_owned),
        })?,
    };
    Ok(match settings.write(change, old.as_ref()) {
        Ok(now) if change.satisfied_by(&now.bytes) => row_of(change, old.as_ref(), Outcome::Done),
        Ok(now) => {
            journal.record_left(sequence, &now.bytes)?;
            given(change, old.as_ref(), &now)
        }
        Err(refusal) => put_back(settings, journal, change, old.as_ref(), refusal, now_s),
    })
}

/// The kernel made something else of what it was given. Where it made nothing of it, that is a refusal.
fn given(change: &Change, old: Option<&Held>, now: &Held) -> Row {
    let gave = change.kind.shown(&now.bytes);
    let why = format!("wanted {}, kernel gave {gave}", want(change));
    let untouched = old.is_some_and(|old| change.kind.same(&old.bytes, &now.bytes));
    let short = change.path.ends_with("nr_hugepages");
    Row {
        why: if untouched { format!("{why}: it took the write and changed nothing") } else { why },
        remedy: if short {
            "memory is in pieces: apply right after boot, or hugepages= on the kernel command line".to_owned()
        } else {
            String::new()
        },
        ..row_of(change, old, if untouched || short { Outcome::Refused } else { Outcome::Given })
    }
}

/// A write that failed after its rehearsal may have done half of its work: what was there is restored at once, and
/// stays in the journal besides.
fn put_back(
    settings: &Settings<'_>,
    journal: &Journal,
    change: &Change,
    old: Option<&Held>,
    refusal: Refusal,
    now_s: u64,
) -> Row {
    let entry = journal.entry(&change.path).expect("it was recorded before it was written");
    let have = shown(change.kind, old);
    match settings.restore(entry, now_s) {
        Restored::Failed(again) => Row {
            why: format!("{}; and what it held could not be put back: {}", refusal.why, again.why),
            remedy: again.remedy,
            have,
            ..row_of(change, old, Outcome::Failed)
        },
        _ => Row::refused(&change.path, have, want(change), refusal),
    }
}

/// Entries whose path some change names, or whose companion it is; and the others.
fn split_by_want(entries: &[Entry], changes: &[Change]) -> (Vec<Entry>, Vec<Entry>) {
    let named = |path: &str| changes.iter().any(|change| change.path == path);
    entries.iter().cloned().partition(|entry| named(&entry.path) || owned(entry, changes))
}

/// A companion is wanted as long as what moves it is.
fn owned(entry: &Entry, changes: &[Change]) -> bool {
    changes.iter().any(|change| companions(&change.path).any(|companion| companion == entry.path))
}

fn row_of(change: &Change, old: Option<&Held>, outcome: Outcome) -> Row {
    Row {
        path: change.path.clone(),
        outcome,
        have: shown(change.kind, old),
        want: want(change),
        why: change.reason.clone(),
        remedy: String::new(),
    }
}

fn want(change: &Change) -> String {
    change.kind.shown(change.want.as_bytes())
}

fn shown(kind: Kind, held: Option<&Held>) -> String {
    held.map_or("absent".to_owned(), |held| kind.shown(&held.bytes))
}
