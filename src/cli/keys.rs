//! `spinetail get`, `set`, `del` and `stats`: for people.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use spinetail::base::units::parse_duration;
use spinetail::client::{Client, Error};

use crate::cli::Outcome;
use crate::cli::target::{Target, parse_target};

/// Where the server is.
#[derive(Args)]
pub struct At {
    /// The server
    #[arg(long, value_name = "native://ADDR", default_value = "native://127.0.0.1:7700", value_parser = parse_target)]
    target: Target,
}

/// Print the value of a key; exit 1 if it is not stored
#[derive(Args)]
#[command(after_help = "Example:\n  spinetail get user:7")]
pub struct GetArguments {
    #[command(flatten)]
    at: At,
    /// The key
    key: String,
    /// Print JSON with value, version and remaining time
    #[arg(long)]
    json: bool,
}

/// Store a value
#[derive(Args)]
#[command(after_help = "Example:\n  spinetail set user:7 Ada --ttl 10s")]
pub struct SetArguments {
    #[command(flatten)]
    at: At,
    /// The key
    key: String,
    /// The value
    value: String,
    /// Time to live, like 10s or 5m; without it the entry stays until evicted
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
}

/// Remove keys; exit 1 if none was stored
#[derive(Args)]
#[command(after_help = "Example:\n  spinetail del user:7 user:8")]
pub struct DelArguments {
    #[command(flatten)]
    at: At,
    /// The keys
    #[arg(required = true)]
    keys: Vec<String>,
}

/// Print the server's counters
#[derive(Args)]
#[command(after_help = "Example:\n  spinetail stats --json")]
pub struct StatsArguments {
    #[command(flatten)]
    at: At,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `get`.
pub fn get(arguments: &GetArguments) -> Outcome {
    let mut client = connect(&arguments.at)?;
    let key = arguments.key.as_bytes();
    if arguments.json {
        let value = client.get_versioned(key).map_err(|error| failed(&arguments.at, &error))?;
        let ttl = client.ttl(key).map_err(|error| failed(&arguments.at, &error))?.flatten();
        let printed = value.as_ref().map(|value| {
            json!({
                "key": arguments.key,
                "value": String::from_utf8_lossy(&value.bytes),
                "version": value.version,
                "ttl_ms": ttl.map(|ttl| ttl.as_millis() as u64),
            })
        });
        println!("{}", printed.unwrap_or(serde_json::Value::Null));
        return if value.is_some() { Ok(()) } else { Err(absent(&arguments.key)) };
    }
    match client.get(key).map_err(|error| failed(&arguments.at, &error))? {
        Some(value) => {
            let mut stdout = io::stdout();
            let written = stdout.write_all(&value.bytes).and_then(|()| stdout.write_all(b"\n"));
            written.map_err(|error| (1, error.to_string()))
        }
        None => Err(absent(&arguments.key)),
    }
}

/// Runs `set`.
pub fn set(arguments: &SetArguments) -> Outcome {
    let mut client = connect(&arguments.at)?;
    let stored = client.set(arguments.key.as_bytes(), arguments.value.as_bytes(), arguments.ttl);
    stored.map_err(|error| failed(&arguments.at, &error))
}

/// Runs `del`.
pub fn del(arguments: &DelArguments) -> Outcome {
    let mut client = connect(&arguments.at)?;
    let mut deleted = 0;
    for key in &arguments.keys {
        deleted += u64::from(client.delete(key.as_bytes()).map_err(|error| failed(&arguments.at, &error))?);
    }
    println!("{deleted}");
    if deleted > 0 { Ok(()) } else { Err((1, "none of the keys was stored".to_string())) }
}

/// Runs `stats`.
pub fn stats(arguments: &StatsArguments) -> Outcome {
    let mut client = connect(&arguments.at)?;
    let text = client.stats().map_err(|error| failed(&arguments.at, &error))?;
    if arguments.json {
        let pairs = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_string(), json!(value.parse::<u64>().ok()?)))
        });
        println!("{}", serde_json::Value::Object(pairs.collect()));
    } else {
        print!("{text}");
    }
    Ok(())
}

fn connect(at: &At) -> Result<Client, (u8, String)> {
    Client::connect(at.target.endpoint.clone()).map_err(|error| failed(at, &error))
}

fn failed(at: &At, error: &Error) -> (u8, String) {
    (1, format!("{}: {error}", at.target.text))
}

fn absent(key: &str) -> (u8, String) {
    (1, format!("'{key}' is not stored"))
}
