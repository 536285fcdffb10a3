//! The command line.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Spinetail: a low-latency cache appliance, and the load generator that proves it.
#[derive(Parser)]
#[command(version, about, after_help = "Begin with:\n  spinetail demo")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(cli::serve::ServeArguments),
    Load(Box<cli::load::LoadArguments>),
    Replay(cli::replay::ReplayArguments),
    Demo(cli::demo::DemoArguments),
    Get(cli::keys::GetArguments),
    Set(cli::keys::SetArguments),
    Del(cli::keys::DelArguments),
    Stats(cli::keys::StatsArguments),
    Top(cli::top::TopArguments),
    /// What this machine is, and how it fares against a hardware profile
    #[command(subcommand, after_help = "Example:\n  spinetail host check")]
    Host(cli::host::HostCommand),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(arguments) => cli::serve::run(arguments),
        Command::Load(arguments) => cli::load::run(*arguments),
        Command::Replay(arguments) => cli::replay::run(arguments),
        Command::Demo(arguments) => cli::demo::run(&arguments),
        Command::Get(arguments) => cli::keys::get(&arguments),
        Command::Set(arguments) => cli::keys::set(&arguments),
        Command::Del(arguments) => cli::keys::del(&arguments),
        Command::Stats(arguments) => cli::keys::stats(&arguments),
        Command::Top(arguments) => cli::top::run(arguments),
        Command::Host(command) => cli::host::run(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, reason)) => {
            eprintln!("spinetail: {reason}");
            ExitCode::from(status)
        }
    }
}
