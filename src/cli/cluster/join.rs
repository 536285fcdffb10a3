//! `spinetail cluster join`

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use spinetail::base::id::{NodeId, SiteId};
use spinetail::base::units::parse_duration;
use spinetail::cluster::Member;
use spinetail::cluster::host::join::{Wish, join, renew, sign};

use crate::cli::Outcome;

/// Prepare a node to join, or renew its key and certificate
#[derive(Args)]
#[command(
    after_help = "Without --authority the folder gets a request, which the operator signs elsewhere:\n  spinetail cluster join ./node-5 --cluster cluster.toml --id 5 --site 1 --address 10.0.1.9:7800\n  spinetail cluster join --sign request.toml --authority authority.key --cluster cluster.toml\nEither way it prints how the operator proposes the node.\n\nA node whose folder was lost or copied gets a new key:\n  spinetail cluster join ./node-2 --renew --authority authority.key"
)]
pub struct JoinArguments {
    /// The node's folder: made, or with --renew read
    #[arg(required_unless_present = "sign")]
    folder: Option<PathBuf>,
    /// The cluster's cluster.toml
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// The authority's key, if it is at hand
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,
    /// The node's number, which no other has
    #[arg(long, value_name = "N", required_unless_present_any = ["sign", "renew"])]
    id: Option<u16>,
    /// Where it stands
    #[arg(long, value_name = "N", required_unless_present_any = ["sign", "renew"])]
    site: Option<u8>,
    /// Where other nodes reach it
    #[arg(long, value_name = "HOST:PORT", required_unless_present_any = ["sign", "renew"])]
    address: Option<String>,
    /// Where it listens, if elsewhere
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where clients reach it
    #[arg(long, value_name = "HOST:PORT")]
    clients: Option<String>,
    /// Where RESP clients reach it
    #[arg(long, value_name = "HOST:PORT")]
    resp: Option<String>,
    /// It votes in its region's Raft group
    #[arg(long)]
    voter: bool,
    /// A new key and certificate for the node of this folder
    #[arg(long, conflicts_with_all = ["sign", "id", "site"])]
    renew: bool,
    /// Only a new certificate, for a key that never left its node
    #[arg(long, requires = "renew")]
    keep_key: bool,
    /// Sign a request (the operator, with --authority)
    #[arg(long, value_name = "FILE", requires = "authority")]
    sign: Option<PathBuf>,
    /// How long the certificate is good for
    #[arg(long, value_name = "DURATION", default_value = "9480h", value_parser = parse_duration)]
    valid: Duration,
}

/// Runs the command.
pub fn run(arguments: &JoinArguments) -> Outcome {
    let told = |error: spinetail::cluster::host::folder::FolderError| (1, error.to_string());
    let authority = arguments.authority.as_deref();
    if let Some(request) = &arguments.sign {
        let cluster = arguments.cluster.as_deref().ok_or((2, "--sign needs --cluster".to_string()))?;
        let (member, folder) =
            sign(request, cluster, authority.unwrap_or(Path::new("")), arguments.valid).map_err(told)?;
        println!("bring {} to the node's folder", folder.join("cert.pem").display());
        return propose(&folder, &member);
    }
    let Some(folder) = &arguments.folder else { return Err((2, "which folder?".into())) };
    let signed = if arguments.renew {
        let authority = authority.ok_or((2, "--renew needs --authority".to_string()))?;
        Some(renew(folder, authority, arguments.keep_key, arguments.valid).map_err(told)?)
    } else {
        let cluster = arguments.cluster.as_deref().ok_or((2, "which cluster? --cluster FILE".to_string()))?;
        let (Some(id), Some(site), Some(address)) = (arguments.id, arguments.site, arguments.address.clone()) else {
            return Err((2, "--id, --site and --address say which node it is".into()));
        };
        let wish = Wish {
            node: NodeId(id),
            site: SiteId(site),
            address,
            listen: arguments.listen.clone(),
            clients: arguments.clients.clone(),
            resp: arguments.resp.clone(),
            voter: arguments.voter,
        };
        join(folder, cluster, authority, wish, arguments.valid).map_err(told)?
    };
    match signed {
        Some(member) => propose(folder, &member),
        None => {
            let request = folder.join("request.toml");
            println!("have the operator sign {}:", request.display());
            println!("  spinetail cluster join --sign request.toml --authority authority.key --cluster cluster.toml");
            Ok(())
        }
    }
}

/// Says how the operator proposes a node.
fn propose(folder: &Path, member: &Member) -> Outcome {
    println!("node {} of site {}; the operator proposes it through any node that runs:", member.id, member.site);
    println!(
        "  spinetail cluster propose --node DIR --operator operator.key set-member --file {}",
        folder.join("member.toml").display()
    );
    Ok(())
}
