//! Where a calibration is kept, and how its figures get into a profile.
//!
//! ```text
//!   $SPINETAIL_CALIBRATION, if that is set; otherwise the first of these that can be written, or holds this machine's:
//!   /var/lib/spinetail/calibration.json                                 what root measured, for everybody
//!   $XDG_STATE_HOME/spinetail/calibration.json                          what a person measured
//!   ~/.local/state/spinetail/calibration.json                           the same where that is not set
//! ```
//!
//! A calibration of another machine is none: a home folder may be on several, and an image may be started on another kind
//! of host than it was made on. A file that cannot be read as one is none either; whoever needs it measures anew, and a
//! server that only logs it must not fail for it.
//!
//! **In a profile** the figures are one section, `[calibration]`, put in place of the one that is there or at the end. Every
//! other byte stays: comments and order are somebody's work. The section is found by the TOML parser, not by a search
//! for its name, which may stand in a comment or a string.
//!
//! Both are written to a file beside the old one, synced and renamed over it: who reads meanwhile has the old or the new.

use std::env;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use crate::base::limits;
use crate::host::calibration::{Calibration, Figures, Machine};

/// Names the file, whoever asks.
pub const PATH_VARIABLE: &str = "SPINETAIL_CALIBRATION";

/// How to get figures where there are none: for those who would print them.
pub const HINT: &str =
    "this machine is not calibrated: run 'spinetail host calibrate' once to see its own figures here";

impl Calibration {
    /// Writes it where it is looked for, and answers where that is.
    pub fn store(&self) -> Result<PathBuf, String> {
        let mut refusals = Vec::new();
        for path in candidates(&|name| env::var_os(name).map(PathBuf::from)) {
            match self.store_at(&path) {
                Ok(()) => return Ok(path),
                Err(refusal) => refusals.push(refusal),
            }
        }
        if refusals.is_empty() {
            refusals.push("there is neither a home folder nor a state folder".to_owned());
        }
        Err(format!("{}: name a file that can be written with {PATH_VARIABLE}", refusals.join("; ")))
    }

    /// Writes it to one file, with the folders above it.
    pub fn store_at(&self, path: &Path) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| format!("{} cannot be written ({error})", path.display());
        let kept = Kept { figures: self.figures(), calibration: self };
        let text = serde_json::to_string_pretty(&kept).map_err(|error| told(&error))? + "\n";
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|error| told(&error))?;
        }
        replace(path, text.as_bytes()).map_err(|error| told(&error))
    }

    /// The calibration of the machine this runs on, if one is stored.
    pub fn load() -> Option<Calibration> {
        let found = stored();
        let machine = found.first().and_then(|_| Machine::this().ok())?;
        found.iter().find_map(|path| Calibration::load_from(path, &machine))
    }

    /// The one in a file, if it is `machine`'s.
    pub fn load_from(path: &Path, machine: &Machine) -> Option<Calibration> {
        let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_reader(open(path)?).ok()?;
        fields.remove("figures");
        let found: Calibration = serde_json::from_value(fields.into()).ok()?;
        (found.version == Calibration::VERSION && found.machine == *machine).then_some(found)
    }

    /// Puts its figures into a profile as section `[calibration]`; every other byte of the file stays.
    pub fn write_into_profile(&self, path: &Path) -> Result<(), String> {
        // Through a link to the file itself: the rename would put a file in the link's place.
        let real = fs::canonicalize(path);
        let real = real.map_err(|error| {
            format!(
                "{} cannot be read ({error}): name a profile, or write one with 'spinetail host detect --write FILE'",
                path.display()
            )
        })?;
        let told = |reason: String| format!("{}: {reason}", path.display());
        let before = fs::read_to_string(&real).map_err(|error| told(format!("cannot be read ({error})")))?;
        let after = with_figures(&before, &self.figures()).map_err(told)?;
        replace(&real, after.as_bytes()).map_err(|error| told(format!("cannot be written ({error})")))
    }
}

impl Figures {
    /// Those of the machine this runs on, if a calibration is stored. The rest of it, which on a large machine is
    /// megabytes, is read past and never held: a server asks for this while it counts its memory.
    pub fn load() -> Option<Figures> {
        let found = stored();
        let machine = found.first().and_then(|_| Machine::this().ok())?;
        found.iter().find_map(|path| Figures::load_from(path, &machine))
    }

    /// Those in a file, if it is `machine`'s.
    pub fn load_from(path: &Path, machine: &Machine) -> Option<Figures> {
        let brief: Brief = serde_json::from_reader(open(path)?).ok()?;
        (brief.version == Calibration::VERSION && brief.machine == *machine).then_some(brief.figures)
    }
}

/// What a file holds: the summary first, then everything.
#[derive(Serialize)]
struct Kept<'c> {
    figures: Figures,
    #[serde(flatten)]
    calibration: &'c Calibration,
}

/// What is read of a file for its summary.
#[derive(Deserialize)]
struct Brief {
    figures: Figures,
    version: u32,
    machine: Machine,
}

/// A stored file, as much of it as there may be.
fn open(path: &Path) -> Option<impl Read> {
    Some(BufReader::new(File::open(path).ok()?.take(limits::CALIBRATE_FILE_BYTES_MAX)))
}

/// The files that are there, in the order in which they count.
fn stored() -> Vec<PathBuf> {
    let mut paths = candidates(&|name| env::var_os(name).map(PathBuf::from));
    paths.retain(|path| path.is_file());
    paths
}

/// Files to look at in order, given the environment.
fn candidates(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let variable = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    if let Some(path) = variable(PATH_VARIABLE) {
        return vec![path];
    }
    // A relative path there is to be ignored, says the specification of base directories.
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state = state.or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    let folders = [Some(PathBuf::from("/var/lib")), state];
    folders.into_iter().flatten().map(|folder| folder.join("spinetail/calibration.json")).collect()
}

/// The text of a profile with `figures` as its section `[calibration]`.
fn with_figures(profile: &str, figures: &Figures) -> Result<String, String> {
    let section = section(figures)?;
    let after = match find_section(profile)? {
        Some(range) => format!("{}{section}{}", &profile[..range.start], &profile[range.end..]),
        None => {
            // A last line without an end gets one, or the section would be its continuation.
            let end = if profile.is_empty() || profile.ends_with('\n') { "" } else { "\n" };
            let gap = if profile.trim().is_empty() || profile.ends_with("\n\n") { "" } else { "\n" };
            format!("{profile}{end}{gap}{section}")
        }
    };
    // What goes out can be read back as what came in: a file with two sections of that name would never open again.
    let read: toml::Table = toml::from_str(&after).map_err(|error| format!("would be no TOML any more: {error}"))?;
    let back = read.get("calibration").and_then(|value| value.clone().try_into::<Figures>().ok());
    assert_eq!(back.as_ref(), Some(figures), "figures survive being written");
    Ok(after)
}

/// The section's text, from its header to the end of its last line.
fn section(figures: &Figures) -> Result<String, String> {
    let keys = toml::to_string(figures).map_err(|error| format!("figures cannot be written as TOML: {error}"))?;
    Ok(format!(
        "[calibration]\n# Measured by 'spinetail host calibrate', which replaces this section. Changes nothing.\n{keys}"
    ))
}

/// Where the section stands: from its header's line to the end of the last line that belongs to it. Comments and blank
/// lines after that belong to what follows.
fn find_section(profile: &str) -> Result<Option<Range<usize>>, String> {
    let document = DeTable::parse(profile).map_err(|error| format!("is no TOML: {}", error.message()))?;
    let document = document.get_ref();
    let Some((name, value)) = document.iter().find(|(name, _)| name.get_ref() == "calibration") else {
        return Ok(None);
    };
    let start = profile[..name.span().start].rfind('\n').map_or(0, |end| end + 1);
    let line_end = |from: usize| profile[from..].find('\n').map_or(profile.len(), |end| from + end + 1);
    let header = profile[start..line_end(start)].split('#').next().unwrap_or_default();
    let is_header: String =
        header.chars().filter(|letter| !letter.is_whitespace() && !"\"'".contains(*letter)).collect();
    let (DeValue::Table(keys), "[calibration]") = (value.get_ref(), is_header.as_str()) else {
        return Err(
            "calibration is written in another form than a section: remove it, and calibrate writes it anew".into()
        );
    };
    let last = keys.iter().map(|(_, value)| value.span().end).max().unwrap_or(start).max(start);
    // Keys of a table below it would stand behind another header.
    if keys.values().any(|value| matches!(value.get_ref(), DeValue::Table(_))) {
        return Err("[calibration] holds sections of its own: remove them, and calibrate writes it anew".into());
    }
    Ok(Some(start..line_end(last)))
}

/// Puts `bytes` in place of a file's content, all at once.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&beside)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
