//! `spinetail cluster gateway`

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use spinetail::base::limits;
use spinetail::base::units::parse_duration;
use spinetail::client::{Gateway, GatewayOptions, Regions};

use crate::cli::Outcome;
use crate::cli::cluster::map::Where;

/// Carry connections of programs on this host to the nearest healthy region, until SIGTERM
#[derive(Debug, Args)]
#[command(
    after_help = "Prints one line when every listener accepts:\n  ready native=- resp=127.0.0.1:6379 memcached=-\n\nExample:\n  spinetail cluster gateway --resp 127.0.0.1:6379 --seeds eu.example:7700,us.example:7700 --authorities cluster.toml"
)]
pub struct GatewayArguments {
    #[command(flatten)]
    at: Where,
    /// Address for programs that speak RESP (the protocol of Redis) [default: none]
    #[arg(long, value_name = "ADDR")]
    resp: Option<SocketAddr>,
    /// Address for programs that speak memcached's protocol [default: none]
    #[arg(long, value_name = "ADDR")]
    memcached: Option<SocketAddr>,
    /// Address for programs that speak the native protocol [default: none]
    #[arg(long, value_name = "ADDR")]
    native: Option<SocketAddr>,
    /// A map to begin with, as 'spinetail cluster map --write' wrote it; without it the seeds are asked
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Close connections to another region than the nearest once nothing was said on them for so long, so that programs
    /// with pools come back to it, like 30s [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    rehome_idle: Option<Duration>,
}

/// Runs the command.
pub fn run(arguments: GatewayArguments) -> Outcome {
    if arguments.resp.is_none() && arguments.memcached.is_none() && arguments.native.is_none() {
        return Err((2, "nothing to carry: give --resp, --memcached or --native an address".to_string()));
    }
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| (1, format!("no signal handler: {error}")))?;
    let authorities = arguments.at.authorities()?;
    let map = arguments.map.as_deref().map(read_map).transpose()?;
    let (native, resp, memcached) = (listen(arguments.native)?, listen(arguments.resp)?, listen(arguments.memcached)?);
    let at = |listener: &Option<TcpListener>| {
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        address.map_or("-".to_string(), |address| address.to_string())
    };
    let ready = format!("ready native={} resp={} memcached={}", at(&native), at(&resp), at(&memcached));
    let options = arguments.at.options(map);
    let regions = Regions::watch(&arguments.at.seeds, authorities, options).map_err(|error| (1, error.to_string()))?;
    let options = GatewayOptions { resp, memcached, native, rehome_idle: arguments.rehome_idle };
    let gateway = Gateway::start(Arc::new(regions), options).map_err(|error| (1, format!("no gateway: {error}")))?;
    let mut stdout = io::stdout();
    // Whoever waits for this line has gone if it cannot be written; carrying goes on.
    let _ = writeln!(stdout, "{ready}").and_then(|()| stdout.flush());
    signals.forever().next();
    drop(gateway);
    Ok(())
}

fn read_map(path: &std::path::Path) -> Result<Vec<u8>, (u8, String)> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limits::ROUTE_MAP_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| (78, format!("--map {}: {error}", path.display())))?;
    Ok(bytes)
}

fn listen(wanted: Option<SocketAddr>) -> Result<Option<TcpListener>, (u8, String)> {
    let listener = wanted.map(|wanted| {
        TcpListener::bind(wanted)
            .map_err(|error| (1, format!("cannot listen on {wanted}: {error}; give another address")))
    });
    listener.transpose()
}
