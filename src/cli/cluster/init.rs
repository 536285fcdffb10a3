//! `spinetail cluster init`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use spinetail::base::units::parse_duration;
use spinetail::cluster::host::folder::Plan;

use crate::cli::Outcome;

/// Make a cluster: keys, certificates, and a folder for each node
#[derive(Args)]
#[command(
    after_help = "A sites file names each site and its nodes:\n  name = \"shop\"\n  [[site]]\n  name = \"frankfurt\"\n  [[site.node]]\n  address = \"10.0.1.5:7800\"\n  clients = \"10.0.1.5:7700\"\nand a site that only votes has kind = \"witness\".\n\nExamples:\n  spinetail cluster init --sites 4 --base-port 7800 /tmp/cluster\n  spinetail cluster init --plan sites.toml ./shop"
)]
pub struct InitArguments {
    /// Where to make it; nothing that is there is overwritten
    folder: PathBuf,
    /// A sites file (TOML)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sites", "nodes_per_site", "host", "base_port", "witness"])]
    plan: Option<PathBuf>,
    /// Sites: 4, 7 or 10, or 1 for a cluster within one region
    #[arg(long, value_name = "N", default_value_t = 4)]
    sites: u8,
    /// Nodes of each site
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes_per_site: u16,
    /// Where all of them run
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Node N listens at this port + N, takes clients at + 100 + N and RESP clients at + 200 + N
    #[arg(long, value_name = "PORT", default_value_t = 7800)]
    base_port: u16,
    /// The last site only votes
    #[arg(long)]
    witness: bool,
    /// How long certificates are good for
    #[arg(long, value_name = "DURATION", default_value = "9480h", value_parser = parse_duration)]
    valid: Duration,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &InitArguments) -> Outcome {
    let told = |error: spinetail::cluster::host::folder::FolderError| (1, error.to_string());
    let plan = match &arguments.plan {
        Some(path) => Plan::read(path),
        None => Plan::on_one_host(
            &arguments.host,
            arguments.sites,
            arguments.nodes_per_site,
            arguments.base_port,
            arguments.witness,
        ),
    };
    let plan = plan.map_err(|error| (78, error.to_string()))?;
    let genesis = plan.found(&arguments.folder, arguments.valid).map_err(told)?;
    if arguments.json {
        let nodes = genesis.members.iter().map(|member| {
            json!({ "node": member.id, "site": member.site, "folder": arguments.folder.join(&member.name),
                    "address": member.address })
        });
        println!(
            "{}",
            json!({ "network": genesis.network().to_string(), "sites": genesis.sites.len(),
                    "tolerates": genesis.tolerates(), "nodes": nodes.collect::<Vec<_>>() })
        );
        return Ok(());
    }
    let folder = arguments.folder.display();
    println!("network {}: {} sites bear {} that lie", genesis.network(), genesis.sites.len(), genesis.tolerates());
    for member in &genesis.members {
        println!("  node {} of site {} at {}: {folder}/{}", member.id, member.site, member.address, member.name);
    }
    println!("keep {folder}/operator.key and {folder}/authority.key off the nodes: they decide who belongs");
    println!("bring each folder to its node and start it there:\n  spinetail serve --cluster {folder}/node-1");
    Ok(())
}
