//! `spinetail cluster`: sites that agree, and their simulation.

pub mod simulate;

use clap::Subcommand;

use crate::cli::Outcome;

/// Sites that agree.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    Simulate(simulate::SimulateArguments),
}

/// Runs the command. The error is an exit status and the reason.
pub fn run(command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Simulate(arguments) => simulate::run(&arguments),
    }
}
