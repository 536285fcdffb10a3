//! `spinetail cluster run`

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use crossbeam::channel::{bounded, select};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use spinetail::cluster::host::node::{Node, Options};
use spinetail::cluster::host::routes;
use spinetail::serve::cluster::Told;
use spinetail::serve::log::{Format, Level, Log, panics_to};

use crate::cli::Outcome;

/// Run a node without data: a witness, or one for a rehearsal
#[derive(Args)]
#[command(
    after_help = "Prints one line when it runs:\n  ready node=1 site=1 address=127.0.0.1:7801 network=0123456789abcdef\n\nExample:\n  spinetail cluster run /tmp/cluster/node-4"
)]
pub struct RunArguments {
    /// The node's folder, made by 'cluster init' or 'join'
    folder: PathBuf,
    /// How lines on stderr are written: logfmt or json
    #[arg(long, value_name = "FORMAT", default_value = "logfmt")]
    log_format: Format,
    /// The least that is logged: debug, info, warn or error
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: Level,
}

/// Runs the command.
pub fn run(arguments: &RunArguments) -> Outcome {
    let failed = |reason: String| (1, reason);
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| failed(error.to_string()))?;
    let log = Log::to_stderr(arguments.log_level, arguments.log_format).map_err(|error| failed(error.to_string()))?;
    panics_to(&log);
    let options = Options { news: Arc::new(Told(log.clone())), part: None };
    let running = Node::start(&arguments.folder, options).map_err(|error| failed(error.to_string()))?;
    // Kept, so that links are measured as long as the node runs.
    let _routes = routes::start(&running).map_err(failed)?;
    let (send, asked) = bounded(1);
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let _ = send.try_send(signal);
            }
        })
        .map_err(|error| failed(error.to_string()))?;
    let me = &running.me;
    let network = running.genesis.network();
    // Whoever waits for this line has gone if it cannot be written; the node runs on.
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "ready node={} site={} address={} network={network}", me.id, me.site, me.address)
        .and_then(|()| stdout.flush());
    let outcome = select! {
        recv(asked) -> _ => Ok(()),
        recv(running.ended) -> reason => Err(failed(reason.unwrap_or_else(|_| "the ordering has ended".into()))),
    };
    running.stop();
    log.flush();
    outcome
}
