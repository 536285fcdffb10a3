//! `spinetail top`

use std::env;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;

use spinetail::top::{self, Address, Admin, Mode, Options, address};

use crate::cli::Outcome;

/// Watch a server live: throughput, hit rates, latency by stage, memory, shards, hot keys, tenants
#[derive(Args)]
#[command(
    after_help = "The server must have been started with --admin. Press ? for the keys. Into a pipe, or with --once, it \
                  prints plain text once and ends.\n\nExamples:\n  spinetail top\n  spinetail top --admin cache-7:7790 \
                  --token-file token\n  spinetail top --json | jq .rates"
)]
pub struct TopArguments {
    /// The server's admin listener, as host:port or http://host:port
    #[arg(long, value_name = "ADDR", default_value = address::DEFAULT, value_parser = Address::parse)]
    admin: Address,
    /// A file with the token that the server's --admin-token-file holds
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the figures of a second once, as plain text
    #[arg(long)]
    once: bool,
    /// Print a tick as JSON once; docs/observability.md says what it holds
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: TopArguments) -> Outcome {
    // A terminal that cannot move its cursor is as good as a pipe.
    let live = io::stdout().is_terminal() && env::var("TERM").is_ok_and(|term| term != "dumb");
    let mode = match live {
        _ if arguments.json => Mode::Json,
        true if !arguments.once => Mode::Live,
        _ => Mode::Text,
    };
    let admin = Admin { address: arguments.admin, token_file: arguments.token_file };
    top::run(&Options { admin, mode }).map_err(|reason| (1, reason))
}
