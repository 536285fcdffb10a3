//! `spinetail host`: what this machine is (`detect`), and how it fares against a profile (`check`).

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use clap::Subcommand;
use serde_json::json;

use spinetail::host::check::{Line, Verdict, check, score};
use spinetail::host::process::Limits;
use spinetail::host::profile::Profile;
use spinetail::host::topology::Topology;

use crate::cli::detect::{self, DetectArguments};

/// Exit status of a failure that has none of its own.
pub(crate) const EXIT_FAILED: u8 = 1;

/// Exit status of a bad profile.
const EXIT_CONFIGURATION: u8 = 78;

/// Looks at this machine.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Print what this machine has, and write a profile for it
    Detect(DetectArguments),
    /// Hold this machine against a profile: have, want, cost, remedy; exit 1 if a line is refused
    #[command(after_help = "Example:\n  spinetail host check --profile hw-profiles/generic-vm.toml")]
    Check {
        /// The profile, or 'auto' for the one that detect would write
        #[arg(long, value_name = "FILE|auto", default_value = "auto")]
        profile: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command. The error is an exit status and the reason.
pub fn run(command: HostCommand) -> Result<(), (u8, String)> {
    match command {
        HostCommand::Detect(arguments) => detect::run(&arguments),
        HostCommand::Check { profile, json } => {
            let machine = Topology::detect(Path::new("/")).map_err(|reason| (EXIT_FAILED, reason))?;
            compare(&machine, &Limits::read(), &profile, json)
        }
    }
}

fn compare(machine: &Topology, limits: &Limits, profile: &str, json: bool) -> Result<(), (u8, String)> {
    let (name, profile) = match profile {
        "auto" => ("auto", Profile::auto(machine, &limits.allowed_cores)),
        path => {
            let read = Profile::read(Path::new(path));
            (path, read.map_err(|error| (EXIT_CONFIGURATION, error.to_string()))?)
        }
    };
    let lines = check(machine, limits, &profile);
    let (ok, total) = score(&lines);
    let refused: Vec<&str> =
        lines.iter().filter(|line| line.verdict == Verdict::Refused).map(|line| line.item.as_str()).collect();
    print(&if json {
        format!("{:#}\n", json!({ "profile": name, "ok": ok, "total": total, "lines": lines }))
    } else {
        format!("{}\n{ok} of {total} lines as wanted, {} refused\n", table(&lines), refused.len())
    })?;
    if refused.is_empty() {
        return Ok(());
    }
    Err((EXIT_FAILED, format!("this machine cannot run profile {name}: {}", refused.join(", "))))
}

/// Prints to stdout. A reader that has gone (`| head`) wanted no more, which is no failure.
pub(crate) fn print(text: &str) -> Result<(), (u8, String)> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err((EXIT_FAILED, format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Aligned columns; the last is free to be long.
fn table(lines: &[Line]) -> String {
    let row = |line: &Line| {
        [&line.item, &line.have, &line.want, line.verdict.name(), &line.cost, &line.remedy].map(str::to_owned)
    };
    let head = ["ITEM", "HAVE", "WANT", "VERDICT", "COST", "REMEDY"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(lines.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        line.push_str(&row[5]);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
