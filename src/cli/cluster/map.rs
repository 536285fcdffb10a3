//! `spinetail cluster map`, and the flags by which all who look for regions name where to ask and whom to believe.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use spinetail::base::units::parse_duration;
use spinetail::client::regions::{RegionOptions, Regions, fetch_map};
use spinetail::cluster::route::{Authorities, Health, RegionMap};

use crate::cli::Outcome;

/// Where to begin, and whom to believe.
#[derive(Debug, Args)]
pub struct Where {
    /// Appliances to ask for the map of regions, native protocol, like eu.example:7700,us.example:7700
    #[arg(long, value_name = "ADDR,…", value_delimiter = ',', required = true)]
    pub seeds: Vec<String>,
    /// The cluster's cluster.toml: a map must be signed by the validators it names
    #[arg(long, value_name = "FILE")]
    pub authorities: PathBuf,
    /// Reach an address of the map elsewhere, like eu.example:7700=10.1.0.7:7700; may be repeated
    #[arg(long, value_name = "NAME=ADDR", value_parser = parse_resolve)]
    pub resolve: Vec<(String, SocketAddr)>,
    /// Time between two probes of a region, and the deadline of each
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = parse_probe)]
    pub probe: Duration,
}

/// Print the map of regions, checked, and how far each region is; exit 1 if there is none to believe
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  spinetail cluster map --seeds eu.example:7700 --authorities cluster.toml --write regions.map"
)]
pub struct MapArguments {
    #[command(flatten)]
    at: Where,
    /// Also write the map, signatures included, as 'serve --region-map' and 'gateway --map' read it
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Where {
    /// The keys to check maps by.
    pub fn authorities(&self) -> Result<Authorities, (u8, String)> {
        let told = |reason: String| (78, format!("--authorities {}: {reason}", self.authorities.display()));
        let text = std::fs::read_to_string(&self.authorities).map_err(|error| told(error.to_string()))?;
        Authorities::read(&text).map_err(told)
    }

    /// How regions are watched.
    pub fn options(&self, map: Option<Vec<u8>>) -> RegionOptions {
        let resolve: BTreeMap<String, SocketAddr> = self.resolve.iter().cloned().collect();
        RegionOptions { probe: self.probe, resolve, map, ..RegionOptions::default() }
    }
}

/// Runs the command.
pub fn run(arguments: &MapArguments) -> Outcome {
    let authorities = arguments.at.authorities()?;
    let resolve = arguments.at.options(None).resolve;
    let bytes = fetch_map(&arguments.at.seeds, &authorities, &resolve).map_err(|reason| (1, reason))?;
    if let Some(path) = &arguments.write {
        write(path, &bytes)?;
    }
    let options = arguments.at.options(Some(bytes));
    let regions = Regions::watch(&arguments.at.seeds, authorities, options).map_err(|error| (1, error.to_string()))?;
    let map = regions.view().map.clone();
    if arguments.json {
        println!("{}", as_json(&map, &regions));
    } else {
        print!("{}", as_text(&map, &regions));
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Outcome {
    // Whoever reads the file reads the old map or the new one.
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| (1, format!("--write {}: {error}", path.display())))
}

fn as_json(map: &RegionMap, regions: &Regions) -> serde_json::Value {
    let node = |node: &spinetail::cluster::route::Node| json!({ "node": node.id, "native": node.native, "resp": node.resp, "memcached": node.memcached });
    let region = |region: &spinetail::cluster::route::Region| {
        let nodes: Vec<_> = region.nodes.iter().map(node).collect();
        json!({ "site": region.site, "name": region.name, "nodes": nodes })
    };
    let all: Vec<_> = map.regions.iter().map(region).collect();
    json!({
        "network": map.network.to_string(),
        "height": map.height,
        "expires_ms": map.expires_ms,
        "regions": all,
        "links": regions.report(),
    })
}

fn as_text(map: &RegionMap, regions: &Regions) -> String {
    let mut text = format!("cluster {}, height {}\n", map.network, map.height);
    text.push_str(&format!(
        "{:<6}{:<16}{:<8}{:>10}{:>10}{:>8}  nodes\n",
        "site", "region", "health", "rtt", "p90", "loss"
    ));
    for report in regions.report() {
        let Some(region) = map.region(report.site) else { continue };
        let ms = |us: Option<u64>| us.map_or("-".to_string(), |us| format!("{:.1} ms", us as f64 / 1e3));
        let health = match report.health {
            Health::Up if report.is_current => "nearest",
            Health::Up => "up",
            Health::Down => "down",
            Health::New => "silent",
        };
        let addresses = region.nodes.iter().filter_map(|node| node.native.as_deref().or(node.resp.as_deref()));
        text.push_str(&format!(
            "{:<6}{:<16}{:<8}{:>10}{:>10}{:>7.0}%  {}\n",
            report.site.to_string(),
            region.name,
            health,
            ms(report.rtt_us),
            ms(report.rtt_p90_us),
            report.loss * 100.0,
            addresses.collect::<Vec<_>>().join(" ")
        ));
    }
    text
}

fn parse_resolve(text: &str) -> Result<(String, SocketAddr), String> {
    let told = || format!("'{text}': write name:port=address:port, like eu.example:7700=10.1.0.7:7700");
    let (name, to) = text.split_once('=').ok_or_else(told)?;
    let to = to.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(told)?;
    Ok((name.to_string(), to))
}

fn parse_probe(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    if (Duration::from_millis(10)..=Duration::from_secs(60)).contains(&every) {
        Ok(every)
    } else {
        Err("give 10ms to 60s: more often loads every region, more seldom finds out too late".to_string())
    }
}
