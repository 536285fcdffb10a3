//! `scheme://host:port`, `shm://path` or `l0://path`, as the flags `--target` of all subcommands take it.

use std::net::ToSocketAddrs;
use std::path::PathBuf;

use spinetail::client::Endpoint;
use spinetail::load::Dialect;

/// A server to talk to.
#[derive(Clone, Debug)]
pub struct Target {
    /// As it was written.
    pub text: String,
    /// What it speaks.
    pub dialect: Dialect,
    /// Where it is reached.
    pub endpoint: Endpoint,
    /// Where its L0 tables are given out, if that is what was named; the endpoint is the same path then.
    pub l0: Option<PathBuf>,
}

/// Reads the target of a command that speaks the native protocol.
pub fn parse_target(text: &str) -> Result<Target, String> {
    let target = parse_any_target(text)?;
    match target.dialect {
        _ if target.l0.is_some() => {
            Err(format!("'{text}': only 'load' reads there; use native://host:port or shm://path"))
        }
        Dialect::Native => Ok(target),
        _ => Err(format!("'{text}': only 'load' speaks that; use native://host:port")),
    }
}

/// Reads the target of a load.
pub fn parse_any_target(text: &str) -> Result<Target, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("native", text));
    let dialect = match scheme {
        "native" => Dialect::Native,
        "resp" => Dialect::Resp,
        "memcached" => Dialect::Memcached,
        "echo" => Dialect::Echo,
        "shm" if rest.is_empty() => return Err("shm:// needs the path that serve printed as shm=".to_string()),
        "shm" => {
            return Ok(Target {
                text: text.to_string(),
                dialect: Dialect::Native,
                endpoint: Endpoint::Shm(rest.into()),
                l0: None,
            });
        }
        "l0" if rest.is_empty() => return Err("l0:// needs the path that serve printed as l0=".to_string()),
        "l0" => {
            return Ok(Target {
                text: text.to_string(),
                dialect: Dialect::Native,
                endpoint: Endpoint::Shm(rest.into()),
                l0: Some(rest.into()),
            });
        }
        _ => {
            return Err(format!(
                "'{scheme}' is no protocol of ours; use native, resp, memcached or echo://host:port, or shm:// or l0://path"
            ));
        }
    };
    let mut addresses = rest
        .to_socket_addrs()
        .map_err(|error| format!("'{rest}' is no address: {error}; write host:port, like 127.0.0.1:7700"))?;
    let address = addresses.next().ok_or_else(|| format!("'{rest}' has no address"))?;
    Ok(Target { text: format!("{scheme}://{rest}"), dialect, endpoint: address.into(), l0: None })
}

/// Reads a list of cores: `0,2-5`.
pub fn parse_cores(text: &str) -> Result<Vec<usize>, String> {
    spinetail::host::topology::parse_cpu_list(text)
        .map_err(|error| format!("'{text}' is no list of cores: {error}; write numbers and ranges, like 0,2-5"))
}
