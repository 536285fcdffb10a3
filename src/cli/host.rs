//! `spinetail host`: what this machine is (`detect`), how it fares against a profile (`check`), what is changed for one
//! (`apply`) and put back (`undo`), and what it takes for things (`calibrate`).

use std::io::{self, Write as _};

use clap::Subcommand;

use crate::cli::calibrate::{self, CalibrateArguments};
use crate::cli::check::{self, CheckArguments};
use crate::cli::detect::{self, DetectArguments};
use crate::cli::tune::{self, ApplyArguments, UndoArguments};

/// Exit status of a failure that has none of its own.
pub(crate) const EXIT_FAILED: u8 = 1;

/// Exit status of a bad profile.
pub(crate) const EXIT_CONFIGURATION: u8 = 78;

/// Looks at this machine, and tunes it.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    Detect(DetectArguments),
    Check(CheckArguments),
    Apply(ApplyArguments),
    Undo(UndoArguments),
    Calibrate(CalibrateArguments),
}

/// Runs the command. The error is an exit status and the reason.
pub fn run(command: HostCommand) -> Result<(), (u8, String)> {
    match command {
        HostCommand::Detect(arguments) => detect::run(&arguments),
        HostCommand::Check(arguments) => check::run(&arguments),
        HostCommand::Apply(arguments) => tune::run_apply(&arguments),
        HostCommand::Undo(arguments) => tune::run_undo(&arguments),
        HostCommand::Calibrate(arguments) => calibrate::run(&arguments),
    }
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
