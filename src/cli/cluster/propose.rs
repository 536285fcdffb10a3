//! `spinetail cluster propose`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use spinetail::base::id::{NodeId, SiteId};
use spinetail::cluster::host::control::Control;
use spinetail::cluster::host::keys::{Key, KeyError, unhex};
use spinetail::cluster::{Command, Member, Site};
use spinetail::replica::{Mode, Namespace};

use crate::cli::Outcome;

/// Have the cluster agree on something; waits until it is executed
#[derive(Args)]
#[command(
    after_help = "Exit status 1 and the reason if it is refused.\n\nExamples:\n  spinetail cluster propose --node /tmp/cluster/node-1 --operator /tmp/cluster/operator.key set-primary --site 2\n  spinetail cluster propose --node DIR --operator KEY set-namespace --prefix cart: --mode strong --home 1\n  spinetail cluster propose --node DIR --operator KEY purge --prefix session:"
)]
pub struct ProposeArguments {
    /// The folder of a node that runs here: it carries the command
    #[arg(long, value_name = "DIR")]
    node: PathBuf,
    /// The operator's key; without it the node signs, which has few rights
    #[arg(long, value_name = "FILE")]
    operator: Option<PathBuf>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Which site proposes first
    SetPrimary {
        #[arg(long, value_name = "N")]
        site: u8,
    },
    /// A node joins, or changes its addresses, key or certificate
    SetMember {
        /// What 'cluster join' has written (member.toml)
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// A node leaves for good
    RemoveMember {
        /// Its number
        #[arg(long, value_name = "N")]
        id: u16,
    },
    /// The sites from the next height on: 1, 4, 7 or 10
    SetSites {
        /// All of them, as [[site]] in cluster.toml
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// How keys with a prefix are kept
    SetNamespace {
        /// What its keys begin with
        #[arg(long)]
        prefix: String,
        #[arg(long, value_enum)]
        mode: ModeName,
        /// Regions it never leaves, like 1,3 [default: all]
        #[arg(long, value_name = "LIST", value_delimiter = ',')]
        regions: Vec<u8>,
        /// Of a strong namespace: whose nodes take turns as its primary
        #[arg(long, value_name = "N")]
        home: Option<u8>,
    },
    /// Keys with a prefix are nothing special any more
    RemoveNamespace {
        #[arg(long)]
        prefix: String,
    },
    /// Everything in a namespace is gone, everywhere
    Purge {
        #[arg(long)]
        prefix: String,
    },
    /// A tenant's policy
    SetTenant {
        #[arg(long)]
        name: String,
        /// Its policy; without one it is removed
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Which configuration the cluster runs
    SetConfig {
        /// Its number, ever higher
        #[arg(long, value_name = "N")]
        version: u64,
        /// The configuration, whose digest is agreed on
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Another key for the operator; the one that signs this is worth nothing afterwards
    SetOperator {
        /// The next key's file, made if it is not there
        #[arg(long, value_name = "FILE")]
        next: PathBuf,
    },
    /// The digest of the node's audit trail: the node signs
    AuditRoot {
        #[arg(long, value_name = "N")]
        entries: u64,
        /// SHA-256, 64 hexadecimal digits
        #[arg(long, value_name = "HEX")]
        root: String,
    },
    /// The node leads its region: the node signs
    RegionLeader {
        #[arg(long, value_name = "N")]
        term: u64,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeName {
    Local,
    Eventual,
    Strong,
}

#[derive(Deserialize)]
struct Sites {
    #[serde(rename = "site")]
    sites: Vec<Site>,
}

/// Runs the command.
pub fn run(arguments: ProposeArguments) -> Outcome {
    let failed = |reason: String| (1, reason);
    let is_nodes = matches!(arguments.what, What::AuditRoot { .. } | What::RegionLeader { .. });
    let read = |path: &PathBuf| Key::read(path).map_err(|error| (1, error.to_string()));
    let operator = arguments.operator.as_ref().filter(|_| !is_nodes).map(read).transpose()?;
    let command = arguments.what.command(operator.as_ref())?;
    let mut control = Control::connect(&arguments.node).map_err(failed)?;
    let executed = match &operator {
        Some(key) => control.propose(key, command),
        None => control.say(&command),
    };
    let height = executed.map_err(failed)?;
    if arguments.json {
        println!("{}", json!({ "executed": height }));
    } else {
        println!("executed at height {height}");
    }
    Ok(())
}

impl What {
    fn command(self, operator: Option<&Key>) -> Result<Command, (u8, String)> {
        Ok(match self {
            What::SetPrimary { site } => Command::SetPrimary { site: SiteId(site) },
            What::SetMember { file } => Command::SetMember { member: read_toml::<Member>(&file)? },
            What::RemoveMember { id } => Command::RemoveMember { node: NodeId(id) },
            What::SetSites { file } => Command::SetSites { sites: read_toml::<Sites>(&file)?.sites },
            What::SetNamespace { prefix, mode, regions, home } => {
                let mode = match mode {
                    ModeName::Local => Mode::Local,
                    ModeName::Eventual => Mode::Eventual,
                    ModeName::Strong => Mode::Strong,
                };
                let regions = regions.into_iter().map(SiteId).collect();
                let namespace =
                    Namespace { prefix: prefix.into_bytes(), mode, regions, home: home.map(SiteId), epoch: 0 };
                Command::SetNamespace { namespace }
            }
            What::RemoveNamespace { prefix } => Command::RemoveNamespace { prefix: prefix.into_bytes() },
            What::Purge { prefix } => Command::Purge { prefix: prefix.into_bytes() },
            What::SetTenant { name, policy } => {
                Command::SetTenant { name, policy: policy.as_deref().map(read_bytes).transpose()? }
            }
            What::SetConfig { version, file } => {
                Command::SetConfig { version, digest: Sha256::digest(read_bytes(&file)?).into() }
            }
            What::SetOperator { next } => {
                let failed = |error: KeyError| (1, error.to_string());
                let operator = operator.ok_or((2, "give the present key with --operator".to_string()))?;
                if !next.exists() {
                    Key::generate().and_then(|key| key.write(&next)).map_err(failed)?;
                }
                let next = Key::read(&next).map_err(failed)?;
                let key = next.public();
                Command::SetOperator { proof: next.sign(&Command::handover(&operator.public(), &key)), key }
            }
            What::AuditRoot { entries, root } => {
                let root = unhex(&root).and_then(|bytes| bytes.try_into().ok());
                let root = root.ok_or((2, "--root takes 64 hexadecimal digits".to_string()))?;
                Command::AuditRoot { entries, root }
            }
            What::RegionLeader { term } => Command::RegionLeader { term },
        })
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, (u8, String)> {
    std::fs::read(path).map_err(|error| (1, format!("{}: {error}", path.display())))
}

fn read_toml<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, (u8, String)> {
    let text = String::from_utf8(read_bytes(path)?).map_err(|error| (78, format!("{}: {error}", path.display())))?;
    toml::from_str(&text).map_err(|error| (78, format!("{}: {error}", path.display())))
}
