//! `spinetail cluster status` and `regions`

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use spinetail::cluster::host::control::{Answer, Ask, Control};

use crate::cli::Outcome;

/// How a node does: height, primary, leader, links, who was caught, what was refused
#[derive(Args)]
#[command(after_help = "Example:\n  spinetail cluster status /tmp/cluster/node-1")]
pub struct StatusArguments {
    /// The folder of a node that runs here
    folder: PathBuf,
    /// Print all of it as JSON
    #[arg(long)]
    json: bool,
}

/// Regions, their nodes and leaders, and namespaces, as agreed on
#[derive(Args)]
#[command(after_help = "Example:\n  spinetail cluster regions --json /tmp/cluster/node-1")]
pub struct RegionsArguments {
    /// The folder of a node that runs here
    folder: PathBuf,
    /// Print all of it as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `status`.
pub fn run(arguments: &StatusArguments) -> Outcome {
    let failed = |reason| (1, reason);
    let status = Control::connect(&arguments.folder).and_then(|mut control| control.status()).map_err(failed)?;
    if arguments.json {
        println!("{status}");
        return Ok(());
    }
    let at = |name: &str| text(&status[name]);
    println!(
        "node {} ({}) of site {}, network {}, boot {}",
        at("node"),
        at("name"),
        at("site"),
        at("network"),
        at("boot")
    );
    println!(
        "height {} round {} primary site {}, behind by {}, {} sites bear {} that lie, {} slow heights",
        at("height"),
        at("round"),
        at("primary"),
        at("behind"),
        at("sites"),
        at("tolerates"),
        at("slow_heights")
    );
    for name in ["decision", "flush"] {
        let figures = &status[name];
        if figures.is_object() {
            let at = |name: &str| text(&figures[name]);
            println!("{name}: {} times, p50 {} ms, p99 {} ms", at("count"), at("p50_ms"), at("p99_ms"));
        }
    }
    if !status["leader"].is_null() {
        println!("region: node {} leads in term {}", at("leader"), at("term"));
    }
    for link in status["links"].as_array().into_iter().flatten() {
        let at = |name: &str| text(&link[name]);
        let state = if link["connected"] == true { "connected" } else { "DOWN" };
        let offset = if link["clock_offset_ms"].is_null() {
            String::new()
        } else {
            format!(", clock {} ms", at("clock_offset_ms"))
        };
        println!("link to node {} of site {}: {state}, rtt {} ms{offset}", at("node"), at("site"), at("rtt_ms"));
    }
    for (node, ms) in status["lag_ms"].as_object().into_iter().flatten() {
        println!("lag to node {node}: {ms} ms");
    }
    for evidence in status["evidence"].as_array().into_iter().flatten() {
        let at = |name: &str| text(&evidence[name]);
        println!(
            "CAUGHT: site {} signed two {}s at height {} round {}",
            at("culprit"),
            at("what"),
            at("height"),
            at("round")
        );
    }
    for group in ["refusals", "ordering_refusals"] {
        let counts = status[group].as_object().into_iter().flatten().filter(|(_, count)| **count != 0);
        counts.for_each(|(reason, count)| println!("refused ({}): {reason} {count}", group.replace('_', " ")));
    }
    Ok(())
}

/// Runs `regions`.
pub fn regions(arguments: &RegionsArguments) -> Outcome {
    let failed = |reason| (1, reason);
    let mut control = Control::connect(&arguments.folder).map_err(failed)?;
    let regions = match control.ask(&Ask::Regions).map_err(failed)? {
        Answer::Regions(regions) => regions,
        other => return Err((1, format!("unexpected: {other:?}"))),
    };
    if arguments.json {
        println!("{regions}");
        return Ok(());
    }
    println!("height {}, primary site {}", text(&regions["height"]), text(&regions["primary"]));
    for site in regions["sites"].as_array().into_iter().flatten() {
        let at = |name: &str| text(&site[name]);
        println!(
            "site {} {} ({}): node {} votes, leader {}",
            at("site"),
            at("name"),
            at("kind"),
            at("validator"),
            at("leader")
        );
        for node in site["nodes"].as_array().into_iter().flatten() {
            let at = |name: &str| text(&node[name]);
            println!(
                "  node {} {} at {}, clients {}, resp {}",
                at("node"),
                at("name"),
                at("address"),
                at("clients"),
                at("resp")
            );
        }
    }
    for namespace in regions["namespaces"].as_array().into_iter().flatten() {
        let at = |name: &str| text(&namespace[name]);
        println!(
            "namespace '{}': {}, regions {}, home {}, epoch {}",
            at("prefix"),
            at("mode"),
            at("regions"),
            at("home"),
            at("epoch")
        );
    }
    Ok(())
}

/// A value as people read it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
