//! `spinetail cluster`: one file for each of its subcommands.

pub mod gateway;
pub mod map;

use clap::Subcommand;

use crate::cli::Outcome;

/// What can be done with a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    Gateway(gateway::GatewayArguments),
    Map(map::MapArguments),
}

/// Runs the subcommand.
pub fn run(command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Gateway(arguments) => gateway::run(arguments),
        ClusterCommand::Map(arguments) => map::run(&arguments),
    }
}
