//! `spinetail host apply` and `spinetail host undo`: the machine as a profile wants it, and as it was.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;

use spinetail::host::placement::place;
use spinetail::host::profile::{Profile, ProfileError};
use spinetail::host::topology::Topology;
use spinetail::host::tune::TuneError;
use spinetail::host::tune::apply::{Apply, Untouched, apply, preview};
use spinetail::host::tune::change::{Change, Kind};
use spinetail::host::tune::journal::Lock;
use spinetail::host::tune::parameters::refuse_texts;
use spinetail::host::tune::plan::{Plan, plan};
use spinetail::host::tune::report::{Outcome as Came, Report, Row};
use spinetail::host::tune::undo::{undo, undo_preview};
use spinetail::host::tune::write::{Cards, NoRings, Rings};

use crate::cli::Outcome;
use crate::cli::host::print;

/// Exit status of a failure that has none of its own.
const EXIT_FAILED: u8 = 1;

/// Exit status where another user could.
const EXIT_PERMISSION: u8 = 77;

/// Exit status of a bad profile.
const EXIT_CONFIGURATION: u8 = 78;

/// Characters of a path that are given a column; longer ones push theirs to the right.
const PATH_COLUMN_MAX: usize = 56;

/// Change this machine to what a profile wants; 'host undo' puts everything back
#[derive(Debug, Args)]
#[command(after_help = "\
Every old value is on disk before it is overwritten; what could not be put back is not touched. What is changed and why: \
docs/host-tuning.md.

Exit status: 0 all as wanted; 1 some settings were refused, the rest is done; 77 run as root; 78 the profile is wrong, \
or for another kind of machine, and nothing was touched.

Examples:
  spinetail host apply --profile my.toml --dry-run
  sudo spinetail host apply --profile my.toml
  sudo spinetail host undo")]
pub struct ApplyArguments {
    /// The profile, or 'auto' for the one that detect would write
    #[arg(long, value_name = "FILE|auto", default_value = "auto")]
    profile: String,
    /// Show what would be changed, and write nothing at all; needs no rights
    #[arg(long)]
    dry_run: bool,
    /// Apply a profile all the same whose [match] says that it is for another kind of machine
    #[arg(long)]
    other_machine: bool,
    /// Change the machine whose files are below DIR
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Put back everything that 'host apply' changed
#[derive(Debug, Args)]
#[command(after_help = "\
May be repeated, and must be when it was interrupted. Values of an earlier boot are not restored: the kernel has forgotten them.

Exit status: 0 all as before, or nothing to undo; 1 something could not be restored, the journal stays; 77 run as root.

Example:
  sudo spinetail host undo")]
pub struct UndoArguments {
    /// Show what would be restored, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Restore the machine whose files are below DIR
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `host apply`.
pub fn run_apply(arguments: &ApplyArguments) -> Outcome {
    let root = folder(&arguments.root)?;
    let rings = rings_of(root);
    let configuration = |error: ProfileError| (EXIT_CONFIGURATION, error.to_string());
    let machine = Topology::detect(root).map_err(|reason| (EXIT_FAILED, reason))?;
    // All cores that are online, whatever this shell may use: the settings are the machine's, not this process's.
    let profile = match arguments.profile.as_str() {
        "auto" => Profile::auto(&machine, &[]),
        path => Profile::read(Path::new(path)).map_err(configuration)?,
    };
    refuse_texts(&profile).map_err(configuration)?;
    let another = if arguments.other_machine { None } else { another_kind(&profile, &machine) };
    if let (Some(refused), false) = (&another, arguments.dry_run) {
        return Err(refused.clone());
    }
    // What does not fit a machine of another kind is none of the profile's faults: that it is another is said instead.
    let placement = place(&machine, &[], &profile).map_err(|error| another.clone().unwrap_or(configuration(error)))?;
    let name = &profile.machine.name;

    let lock = if arguments.dry_run { None } else { Some(Lock::take(root).map_err(refuse)?) };
    let untouched = Untouched::open(root, rings).map_err(refuse)?;
    let plan = plan(&machine, &placement, &profile, &untouched);
    let report = match &lock {
        None => preview(root, rings, &plan.changes),
        Some(lock) => apply(lock, Apply { root, rings, profile: name, changes: &plan.changes, now_s: now_s() }),
    }
    .map_err(refuse)?;
    print(&if arguments.json {
        let summary = report.summary();
        let body = json!({
            "profile": name, "dry_run": arguments.dry_run, "summary": summary, "rows": report.rows,
            "left_out": plan.left_out, "command_line": plan.command_line, "notes": plan.notes,
        });
        format!("{body:#}\n")
    } else {
        let text = rows_text(&report, &plan.changes);
        format!("{text}{}", apply_text(name, &report, &plan, arguments.dry_run))
    })?;
    another.map_or_else(|| ended(&report, "refused or moved; the rest is as wanted"), Err)
}

/// The refusal of a profile that is for another kind of machine, by its own word.
fn another_kind(profile: &Profile, machine: &Topology) -> Option<(u8, String)> {
    let differences = profile.matches.differences(machine);
    if differences.is_empty() {
        return None;
    }
    let message = format!(
        "profile {} is for another kind of machine: {}. Nothing was touched: take the profile of this kind ('spinetail \
         host detect' names it), change its [match], or add --other-machine to apply it all the same",
        profile.machine.name,
        differences.join("; ")
    );
    Some((EXIT_CONFIGURATION, message))
}

/// Runs `host undo`.
pub fn run_undo(arguments: &UndoArguments) -> Outcome {
    let root = folder(&arguments.root)?;
    let rings = rings_of(root);
    let report = if arguments.dry_run { undo_preview(root, rings) } else { undo(root, rings, now_s()) };
    let report = report.map_err(refuse)?;
    print(&if arguments.json {
        let body = json!({ "dry_run": arguments.dry_run, "summary": report.summary(), "rows": report.rows });
        format!("{body:#}\n")
    } else {
        format!("{}{}", rows_text(&report, &[]), undo_text(&report))
    })?;
    ended(&report, "not restored; the journal stays, 'spinetail host undo' may be run again")
}

fn folder(root: &Path) -> Result<&Path, (u8, String)> {
    if root.is_dir() {
        return Ok(root);
    }
    Err((
        EXIT_FAILED,
        format!("--root {} is no folder: a recorded machine can be checked, not changed", root.display()),
    ))
}

/// Cards answer for the machine this runs on; a folder of files has none.
fn rings_of(root: &Path) -> &'static dyn Rings {
    if root == Path::new("/") { &Cards } else { &NoRings }
}

fn refuse(error: impl Into<TuneError>) -> (u8, String) {
    let error = error.into();
    (if error.is_permission() { EXIT_PERMISSION } else { EXIT_FAILED }, error.to_string())
}

fn ended(report: &Report, what: &str) -> Outcome {
    let troubles: Vec<String> = report.troubles().map(|row| format!("/{} ({})", row.path, row.why)).collect();
    if troubles.is_empty() {
        return Ok(());
    }
    Err((EXIT_FAILED, format!("{} {what}: {}", troubles.len(), troubles.join(", "))))
}

/// A line for each setting; beneath it what to do, where there is something to do, and the text of a file that is new.
fn rows_text(report: &Report, changes: &[Change]) -> String {
    let width = |row: &Row| row.path.chars().count() + 1;
    let column = report.rows.iter().map(width).max().unwrap_or(0).min(PATH_COLUMN_MAX);
    let mut text = String::new();
    for row in &report.rows {
        let path = format!("/{}", row.path);
        let values = if row.have == row.want { row.have.clone() } else { format!("{} → {}", row.have, row.want) };
        let why = if row.why.is_empty() { String::new() } else { format!("  # {}", row.why) };
        let _ = writeln!(text, "{:<10} {path:<column$}  {values}{why}", row.outcome.name());
        if !row.remedy.is_empty() {
            let _ = writeln!(text, "{:<10} {}", "", row.remedy);
        }
        let is_new = matches!(row.outcome, Came::Would | Came::Done);
        let file = changes.iter().find(|change| is_new && change.kind == Kind::File && change.path == row.path);
        for line in file.iter().flat_map(|change| change.want.lines()) {
            let _ = writeln!(text, "{:<10} | {line}", "");
        }
    }
    text
}

fn apply_text(profile: &str, report: &Report, plan: &Plan, dry_run: bool) -> String {
    let mut text = String::new();
    for left in &plan.left_out {
        let _ = writeln!(text, "{:<10} {}: {}", "left out", left.what, left.why);
    }
    let _ = writeln!(text, "\nprofile {profile}: {}", report.summary());
    if dry_run {
        let _ = writeln!(text, "nothing was written: this was a dry run");
    } else {
        let _ = writeln!(text, "'spinetail host undo' puts back what this and earlier applies changed");
    }
    let changes_units = report.rows.iter().any(|row| {
        row.path.starts_with("etc/systemd/") && matches!(row.outcome, Came::Done | Came::Would | Came::Restored)
    });
    if changes_units {
        let _ = writeln!(text, "then: systemctl daemon-reload && systemctl restart spinetail");
    }
    for note in &plan.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if !plan.command_line.missing.is_empty() {
        let _ = writeln!(text, "\nthe kernel's command line lacks: {}", plan.command_line.missing.join(" "));
        for step in &plan.command_line.steps {
            let _ = writeln!(text, "  {step}");
        }
    }
    text
}

fn undo_text(report: &Report) -> String {
    let mut text = format!("\n{}\n", report.summary());
    let restores_units = report
        .rows
        .iter()
        .any(|row| row.path.starts_with("etc/systemd/") && matches!(row.outcome, Came::Restored | Came::Overridden));
    if restores_units {
        text.push_str("then: systemctl daemon-reload && systemctl restart spinetail\n");
    }
    text
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
