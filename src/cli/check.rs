//! `spinetail host check`: the machine against a profile, line by line.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::host::{EXIT_CONFIGURATION, EXIT_FAILED, print};
use spinetail::host::calibration::Calibration;
use spinetail::host::check::{Line, Subject, Verdict, check, score};
use spinetail::host::files::Files;
use spinetail::host::process::Limits;
use spinetail::host::profile::Profile;
use spinetail::host::topology::Topology;

/// Hold this machine against a profile: have, want, cost, remedy; exit 1 if a line is refused
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  spinetail host check --profile generic-vm\n  \
    spinetail host check --root recorded.tree --profile my.toml")]
pub struct CheckArguments {
    /// The profile: a file, the name of a shipped one, or 'auto' for the one that detect would write
    #[arg(long, value_name = "FILE|auto", default_value = "auto")]
    profile: String,
    /// Look at another machine: a directory that holds its sys and proc, or a recording
    #[arg(long, value_name = "DIR|FILE", default_value = "/")]
    root: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the lines; an error if one is refused.
pub fn run(arguments: &CheckArguments) -> Result<(), (u8, String)> {
    let files = Files::open(&arguments.root).map_err(|reason| (EXIT_FAILED, reason))?;
    let machine = Topology::read(&files).map_err(|reason| (EXIT_FAILED, reason))?;
    let limits = Limits::of(&machine, files.live());
    let (name, profile) = match arguments.profile.as_str() {
        "auto" => ("auto", Profile::auto(&machine, &limits.allowed_cores)),
        path => {
            let read = Profile::read(Path::new(path));
            (path, read.map_err(|error| (EXIT_CONFIGURATION, error.to_string()))?)
        }
    };
    // What was measured belongs to this machine; what the profile holds, to the one it was written on.
    let stored = if files.live() { Calibration::load() } else { None };
    let figures = stored.map(|calibration| calibration.figures()).or_else(|| profile.calibration.clone());
    let subject =
        Subject { machine: &machine, files: &files, limits: &limits, profile: &profile, figures: figures.as_ref() };
    let lines = check(&subject).map_err(|error| (EXIT_CONFIGURATION, error.to_string()))?;
    let (ok, total) = score(&lines);
    let refused: Vec<&str> =
        lines.iter().filter(|line| line.verdict == Verdict::Refused).map(|line| line.item.as_str()).collect();
    print(&if arguments.json {
        format!("{:#}\n", json!({ "profile": name, "ok": ok, "total": total, "lines": lines }))
    } else {
        let hint = if figures.is_some() { "" } else { "; 'spinetail host calibrate' puts figures to some costs" };
        format!("{}\n{ok} of {total} lines as wanted, {} refused{hint}\n", table(&lines), refused.len())
    })?;
    if refused.is_empty() {
        return Ok(());
    }
    Err((EXIT_FAILED, format!("this machine cannot run profile {name}: {}", refused.join(", "))))
}

/// A row for each line, and beneath it what a difference costs and what to do.
fn table(lines: &[Line]) -> String {
    let head = ["ITEM", "HAVE", "WANT"].map(str::to_owned);
    let cells = |line: &Line| [line.item.clone(), line.have.clone(), line.want.clone()];
    let rows: Vec<[String; 3]> = std::iter::once(head).chain(lines.iter().map(cells)).collect();
    // One long list of cores shall not push everything else off the screen.
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(CELL_MAX);
    let (item, have) = (width(0), width(1));
    let mut text = String::new();
    for (row, line) in rows.iter().zip(std::iter::once(None).chain(lines.iter().map(Some))) {
        let verdict = line.map_or("", |line| line.verdict.name());
        let _ = writeln!(text, "{verdict:<8}{:<item$}  {:<have$}  {}", row[0], row[1], row[2]);
        if let Some(line) = line.filter(|line| line.verdict != Verdict::Ok) {
            let _ = writeln!(text, "{:8}  cost    {}", "", line.cost_text());
            let _ = writeln!(text, "{:8}  remedy  {}", "", line.remedy);
        }
    }
    text
}

/// Characters of a column at most, if its cells are longer.
const CELL_MAX: usize = 48;
