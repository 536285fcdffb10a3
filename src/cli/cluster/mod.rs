//! `spinetail cluster`: sites that agree, the nearest of them, and their simulation. One file for each subcommand.

pub mod gateway;
pub mod init;
pub mod join;
pub mod map;
pub mod propose;
pub mod proxy;
pub mod run;
pub mod simulate;
pub mod status;

use clap::Subcommand;

use crate::cli::Outcome;

/// What can be done with a cluster.
#[derive(Subcommand)]
pub enum ClusterCommand {
    Init(init::InitArguments),
    Join(join::JoinArguments),
    Run(run::RunArguments),
    Status(status::StatusArguments),
    Regions(status::RegionsArguments),
    Propose(propose::ProposeArguments),
    Proxy(proxy::ProxyArguments),
    Gateway(gateway::GatewayArguments),
    Map(map::MapArguments),
    Simulate(simulate::SimulateArguments),
}

/// Runs the subcommand. The error is an exit status and the reason.
pub fn run(command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Init(arguments) => init::run(&arguments),
        ClusterCommand::Join(arguments) => join::run(&arguments),
        ClusterCommand::Run(arguments) => run::run(&arguments),
        ClusterCommand::Status(arguments) => status::run(&arguments),
        ClusterCommand::Regions(arguments) => status::regions(&arguments),
        ClusterCommand::Propose(arguments) => propose::run(arguments),
        ClusterCommand::Proxy(arguments) => proxy::run(&arguments),
        ClusterCommand::Gateway(arguments) => gateway::run(arguments),
        ClusterCommand::Map(arguments) => map::run(&arguments),
        ClusterCommand::Simulate(arguments) => simulate::run(&arguments),
    }
}
