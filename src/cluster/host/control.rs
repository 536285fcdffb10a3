//! A node's control socket: where `cluster status`, `regions` and `propose` ask.
//!
//! A Unix socket in the node's folder, for its owner alone. One line of JSON asks, one answers, again and again:
//!
//!   {"ask":"status"}                                  {"status":{…}}
//!   {"ask":"regions"}                                 {"regions":{…}}
//!   {"ask":"state"}                                   {"state":{"network":…,"operator_number":…,"height":…}}
//!   {"ask":"propose","command":"hexadecimal"}         {"executed":12}       {"refused":"…"}
//!   {"ask":"say","command":"hexadecimal"}             the same, signed by the node
//!
//! A command that is proposed is signed by the operator's key, which is not here; one that the node says is signed by
//! the node's, which whoever may open the socket can read anyway. So the socket gives no right. What is read from it
//! is bounded like everything else.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};

use crate::base::limits;
use crate::cluster::command::{Author, Command, Signed};
use crate::cluster::genesis::NetworkId;
use crate::cluster::host::folder::Folder;
use crate::cluster::host::keys::{Key, hex, unhex};
use crate::cluster::host::status::StatusSource;
use crate::cluster::host::submit::{SubmitError, Submitter};
use crate::cluster::state::State;

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
pub enum Ask {
    /// How the node does.
    Status,
    /// Regions, nodes, namespaces.
    Regions,
    /// What a command must be signed with.
    State,
    /// Have a command executed.
    Propose {
        /// The signed command, encoded, hexadecimal.
        command: String,
    },
    /// Have a command of the node itself executed: it signs.
    Say {
        /// The command, encoded, hexadecimal.
        command: String,
    },
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// How the node does.
    Status(serde_json::Value),
    /// Regions, nodes, namespaces.
    Regions(serde_json::Value),
    /// What a command must be signed with.
    State {
        /// The network, all of it, hexadecimal.
        network: String,
        /// The operator's number after the last executed one.
        operator_number: u64,
        /// The last executed height.
        height: u64,
    },
    /// Executed, and at which height that was seen.
    Executed(u64),
    /// Not executed, and why.
    Refused(String),
}

/// Opens the socket. Must be called within a tokio runtime.
pub fn open(
    path: &Path,
    status: StatusSource,
    state: watch::Receiver<Arc<State>>,
    submitter: Submitter,
) -> io::Result<()> {
    // The folder is locked: whoever left this behind is gone.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let places = Arc::new(Semaphore::new(limits::CLUSTER_CONTROL_MAX));
    tokio::spawn(async move {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(limits::CLUSTER_RECONNECT_MS_MIN)).await;
                continue;
            };
            let (status, state, submitter) = (status.clone(), state.clone(), submitter.clone());
            tokio::spawn(async move {
                let _place = place;
                // A program that has gone is nobody's trouble.
                let _ = serve(stream, &status, &state, &submitter).await;
            });
        }
    });
    Ok(())
}

async fn serve(
    mut stream: tokio::net::UnixStream,
    status: &StatusSource,
    state: &watch::Receiver<Arc<State>>,
    submitter: &Submitter,
) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = tokio::io::BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let bound = limits::CLUSTER_SUBMIT_BYTES_MAX as u64 * 2 + 64;
        (&mut reader).take(bound).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        let answer = match serde_json::from_slice::<Ask>(&line) {
            Ok(ask) => answer(ask, status, state, submitter).await,
            Err(error) => Answer::Refused(format!("not understood: {error}")),
        };
        let is_end = !line.ends_with(b"\n");
        let mut bytes = serde_json::to_vec(&answer).map_err(io::Error::other)?;
        bytes.push(b'\n');
        writer.write_all(&bytes).await?;
        if is_end {
            return Ok(());
        }
    }
}

async fn answer(ask: Ask, status: &StatusSource, state: &watch::Receiver<Arc<State>>, submitter: &Submitter) -> Answer {
    match ask {
        Ask::Status => match serde_json::to_value(status()) {
            Ok(status) => Answer::Status(status),
            Err(error) => Answer::Refused(error.to_string()),
        },
        Ask::Regions => Answer::Regions(regions(&state.borrow())),
        Ask::State => {
            let state = state.borrow();
            Answer::State {
                network: hex(&state.network.0),
                operator_number: state.numbers.get(&Author::Operator).copied().unwrap_or(0) + 1,
                height: state.height,
            }
        }
        Ask::Propose { command } => {
            let signed = unhex(&command).and_then(|bytes| postcard::from_bytes::<Signed>(&bytes).ok());
            match signed {
                None => Answer::Refused("the command does not decode".into()),
                Some(signed) => outcome(submitter.submit_signed(signed).await),
            }
        }
        Ask::Say { command } => {
            let command = unhex(&command).and_then(|bytes| postcard::from_bytes::<Command>(&bytes).ok());
            match command {
                None => Answer::Refused("the command does not decode".into()),
                Some(command) => outcome(submitter.submit(command).await),
            }
        }
    }
}

fn outcome(submitted: Result<u64, SubmitError>) -> Answer {
    match submitted {
        Ok(height) => Answer::Executed(height),
        Err(error) => Answer::Refused(error.to_string()),
    }
}

/// Regions, their nodes and leaders, and namespaces, as agreed on.
pub fn regions(state: &State) -> serde_json::Value {
    let members = |site| {
        let members = state.members.values().filter(move |member| member.site == site);
        members.map(|member| {
            serde_json::json!({
                "node": member.id, "name": member.name, "address": member.address, "clients": member.clients,
                "resp": member.resp, "voter": member.voter, "certificate": member.certificate,
            })
        })
    };
    let sites = state.sites.values().map(|site| {
        let leader = state.leaders.get(&site.id);
        serde_json::json!({
            "site": site.id, "name": site.name, "kind": site.kind, "validator": site.validator,
            "leader": leader.map(|(node, _)| node), "term": leader.map(|(_, term)| term),
            "nodes": members(site.id).collect::<Vec<_>>(),
        })
    });
    let namespaces = state.rules.all().iter().map(|namespace| {
        serde_json::json!({
            "prefix": String::from_utf8_lossy(&namespace.prefix), "mode": namespace.mode,
            "regions": namespace.regions, "home": namespace.home, "epoch": namespace.epoch,
        })
    });
    serde_json::json!({
        "height": state.height, "primary": state.primary, "sites": sites.collect::<Vec<_>>(),
        "namespaces": namespaces.collect::<Vec<_>>(),
        "tenants": state.tenants.keys().collect::<Vec<_>>(), "config_version": state.config.0,
    })
}

/// A program's end of the socket.
pub struct Control {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Control {
    /// Connects to the node that runs from a folder.
    pub fn connect(folder: &Path) -> Result<Control, String> {
        let path = Folder::control(folder);
        let writer = UnixStream::connect(&path).map_err(|error| {
            let hint = "does the node run? 'spinetail cluster run' or 'serve --cluster' starts it";
            format!("{}: {error}: {hint}", path.display())
        })?;
        let reader = writer.try_clone().map_err(|error| error.to_string())?;
        Ok(Control { reader: BufReader::new(reader), writer })
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, ask: &Ask) -> Result<Answer, String> {
        let mut line = serde_json::to_vec(ask).map_err(|error| error.to_string())?;
        line.push(b'\n');
        self.writer.write_all(&line).map_err(|error| format!("the node has gone: {error}"))?;
        let mut answer = String::new();
        match self.reader.read_line(&mut answer) {
            Ok(0) => Err("the node has gone".into()),
            Ok(_) => serde_json::from_str(&answer).map_err(|error| error.to_string()),
            Err(error) => Err(format!("the node has gone: {error}")),
        }
    }

    /// Asks how the node does.
    pub fn status(&mut self) -> Result<serde_json::Value, String> {
        match self.ask(&Ask::Status)? {
            Answer::Status(status) => Ok(status),
            other => Err(format!("unexpected: {other:?}")),
        }
    }

    /// Has the operator's command executed; at which height that was seen, or the refusal.
    pub fn propose(&mut self, operator: &Key, command: Command) -> Result<u64, String> {
        let Answer::State { network, operator_number, .. } = self.ask(&Ask::State)? else {
            return Err("the node does not say which network it is of".into());
        };
        // Microseconds since 1970: above what was executed even if this node is behind, and one apart for proposals
        // made one after the other anywhere.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let operator_number = operator_number.max(now.as_micros() as u64);
        let network = unhex(&network).and_then(|bytes| bytes.try_into().ok()).ok_or("the network's name is none")?;
        let network = NetworkId(network);
        let signed = operator.command(network, Author::Operator, operator_number, command);
        let bytes = postcard::to_allocvec(&signed).map_err(|error| error.to_string())?;
        self.outcome(&Ask::Propose { command: hex(&bytes) })
    }

    /// Has the node's own command executed.
    pub fn say(&mut self, command: &Command) -> Result<u64, String> {
        let bytes = postcard::to_allocvec(command).map_err(|error| error.to_string())?;
        self.outcome(&Ask::Say { command: hex(&bytes) })
    }

    fn outcome(&mut self, ask: &Ask) -> Result<u64, String> {
        match self.ask(ask)? {
            Answer::Executed(height) => Ok(height),
            Answer::Refused(reason) => Err(reason),
            other => Err(format!("unexpected: {other:?}")),
        }
    }
}
