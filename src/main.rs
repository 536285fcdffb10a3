//! The command line.

mod cli;

use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

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
    /// Sites that agree: regions that stay in step and bear lying sites
    #[command(subcommand, after_help = "Example:\n  spinetail cluster init --sites 4 /tmp/cluster")]
    Cluster(cli::cluster::ClusterCommand),
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
        Command::Cluster(command) => cli::cluster::run(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, reason)) => {
            complain(format!("spinetail: {reason}\n"));
            ExitCode::from(status)
        }
    }
}

/// The last word, on stderr. A server whose stderr is a pipe that nobody reads any more must end all the same, or
/// nobody starts it anew.
fn complain(text: String) {
    let (done, is_done) = mpsc::channel();
    let write = move || {
        // Nobody is left to be told that this failed.
        let _ = std::io::stderr().write_all(text.as_bytes());
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(write).is_ok() {
        let _ = is_done.recv_timeout(LAST_WORD);
    }
}

/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_secs(1);
