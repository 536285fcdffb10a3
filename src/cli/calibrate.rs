//! `spinetail host calibrate`: measures this machine, keeps the result, prints it.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;

use spinetail::base::limits;
use spinetail::host::calibrate::run::load_average;
use spinetail::host::calibrate::{Plan, Progress, page, run as measure, text};

use crate::cli::Outcome;
use crate::cli::target::parse_cores;

/// Measure this machine's clock, caches, memory, cores, kernel and jitter: half a minute
#[derive(Debug, Args)]
#[command(
    after_help = "Stop what else runs first: it is measured too. The result is kept where 'serve', 'load' and the benches find it \
(SPINETAIL_CALIBRATION, /var/lib/spinetail or ~/.local/state/spinetail). What each figure is: docs/calibration.md.\n\n\
Examples:\n  spinetail host calibrate\n  spinetail host calibrate --profile my.toml --report machine.html\n  spinetail host calibrate --seconds 60 --cores 2-15 --json"
)]
pub struct CalibrateArguments {
    /// Put the figures into this profile as its section [calibration]; the rest of the file stays as it is
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Write a report that opens offline, with a heat map of cores
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How long it may take
    #[arg(long, value_name = "N", default_value_t = limits::CALIBRATE_SECONDS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(limits::CALIBRATE_SECONDS_MIN..=limits::CALIBRATE_SECONDS_MAX))]
    seconds: u64,
    /// Cores to measure, like 1 or 2-5 [default: all that this process may use]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    cores: Option<Cores>,
}

type Cores = Vec<usize>;

/// Runs the command.
pub fn run(arguments: &CalibrateArguments) -> Outcome {
    if let Some(load) = load_average().filter(|&load| load > limits::CALIBRATE_LOAD_AVERAGE_MAX) {
        eprintln!(
            "spinetail: the load average is {load:.2}: somebody else uses this machine, and figures will say so; stop what runs \
             for figures of the machine alone"
        );
    }
    // Before half a minute is spent: what is to be written must be there.
    if let Some(profile) = arguments.profile.as_ref().filter(|path| !path.is_file()) {
        return Err((
            EXIT_CONFIGURATION,
            format!("{} is no file: write a profile with 'spinetail host detect --write FILE'", profile.display()),
        ));
    }
    let plan = Plan { seconds: arguments.seconds, cores: arguments.cores.clone().unwrap_or_default() };
    let is_watched = io::stderr().is_terminal();
    let taken = measure(&plan, &mut |progress| {
        if is_watched {
            show(progress);
        }
    });
    if is_watched {
        eprint!("\r\x1b[K");
    }
    let taken = taken.map_err(failed)?;
    print(&if arguments.json {
        serde_json::to_string_pretty(&taken).map_err(|error| failed(error.to_string()))? + "\n"
    } else {
        text::render(&taken)
    })?;
    match taken.store() {
        Ok(path) if !arguments.json => print(&format!("\nkept in {}\n", path.display()))?,
        Ok(_) => (),
        // What was printed is good all the same; only nobody else will find it.
        Err(reason) => eprintln!("spinetail: not kept for serve, load and benches: {reason}"),
    }
    if let Some(path) = &arguments.report {
        std::fs::write(path, page::render(&taken))
            .map_err(|error| failed(format!("{} cannot be written: {error}", path.display())))?;
    }
    if let Some(path) = &arguments.profile {
        taken.write_into_profile(path).map_err(failed)?;
    }
    Ok(())
}

/// One line on stderr that is written over.
fn show(progress: Progress) {
    let _ = match progress.round {
        0 => write!(io::stderr(), "\r\x1b[Klaying out working sets …"),
        round => write!(io::stderr(), "\r\x1b[Kmeasuring, round {round} of {} …", progress.rounds),
    };
}

/// Prints to stdout. A reader that has gone (`| head`) wanted no more, which is no failure.
fn print(text: &str) -> Outcome {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(failed(format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

fn failed(reason: String) -> (u8, String) {
    (1, reason)
}

/// Exit status of a bad profile.
const EXIT_CONFIGURATION: u8 = 78;
