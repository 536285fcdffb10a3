//! `spinetail cluster proxy`

use std::time::Duration;

use clap::Args;

use spinetail::base::units::parse_duration;
use spinetail::cluster::host::proxy::Proxy;

use crate::cli::Outcome;

/// Make links slow, to rehearse distance on one machine
#[derive(Args)]
#[command(
    after_help = "Runs until it is killed. Several links: repeat --listen and --to in pairs.\n\nExample, 80 ms there and back:\n  spinetail cluster proxy --listen 127.0.0.1:9802 --to 127.0.0.1:7802 --delay 40ms"
)]
pub struct ProxyArguments {
    /// Where to take connections
    #[arg(long, value_name = "ADDR", required = true)]
    listen: Vec<String>,
    /// Where they lead
    #[arg(long, value_name = "ADDR", required = true)]
    to: Vec<String>,
    /// How long every byte takes, one way
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = parse_duration)]
    delay: Duration,
}

/// Runs the command.
pub fn run(arguments: &ProxyArguments) -> Outcome {
    if arguments.listen.len() != arguments.to.len() {
        return Err((2, "--listen and --to come in pairs".into()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (1, error.to_string()))?;
    runtime.block_on(async {
        let mut proxies = Vec::new();
        for (listen, to) in arguments.listen.iter().zip(&arguments.to) {
            let proxy = Proxy::start(listen, to.clone(), arguments.delay).await;
            proxies.push(proxy.map_err(|error| (1, format!("cannot listen on {listen}: {error}")))?);
        }
        let addresses: Vec<String> = proxies.iter().map(|proxy| proxy.address.to_string()).collect();
        println!("ready {}", addresses.join(" "));
        std::future::pending::<Outcome>().await
    })
}
