//! `spinetail cluster`: one file for each of its subcommands.

pub mod gateway;
pub mod init;
pub mod join;
pub mod map;
pub mod propose;
pub mod proxy;
pub mod run;
pub mod status;

use clap::Subcommand;

use crate::cli::Outcome;

/// Sites that agree.
#[derive(Subcommand)]
pub enum ClusterCommand {
    Init(init::InitArguments),
    Join(join::JoinArguments),
    Run(run::RunArguments),
    Status(status::StatusArguments),
    Regions(status::RegionsArguments),
    Propose(propose::ProposeArguments),
    Proxy(proxy::ProxyArguments),
    Map(map::MapArguments),
    Gateway(gateway::GatewayArguments),
}

/// Runs the command. The error is an exit status and the reason.
pub fn run(command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Init(arguments) => init::run(&arguments),
        ClusterCommand::Join(arguments) => join::run(&arguments),
        ClusterCommand::Run(arguments) => run::run(&arguments),
        ClusterCommand::Status(arguments) => status::run(&arguments),
        ClusterCommand::Regions(arguments) => status::regions(&arguments),
        ClusterCommand::Propose(arguments) => propose::run(arguments),
        ClusterCommand::Proxy(arguments) => proxy::run(&arguments),
        ClusterCommand::Map(arguments) => map::run(&arguments),
        ClusterCommand::Gateway(arguments) => gateway::run(arguments),
    }
}
