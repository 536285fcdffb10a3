//! Where the admin listener is, and the token it wants.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv6Addr;
use std::path::PathBuf;

use crate::base::limits;

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address; one of version 6 without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it is.
    pub address: Address,
    /// A file with its token.
    pub token_file: Option<PathBuf>,
}

impl Address {
    /// Reads `host:port`, `host`, or either with `http://` before it.
    pub fn parse(text: &str) -> Result<Address, String> {
        let complaint =
            || format!("'{text}' is no admin listener: write host:port or http://host:port, like {DEFAULT}");
        let bare = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(("https", _)) => {
                return Err(format!(
                    "'{text}': the admin listener speaks no TLS; go through a tunnel, like ssh -L 7790:127.0.0.1:7790 HOST"
                ));
            }
            Some(_) => return Err(complaint()),
        };
        let (host, port) = match bare.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(complaint)?;
                host.parse::<Ipv6Addr>().map_err(|_| complaint())?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(complaint)?) })
            }
            None if bare.parse::<Ipv6Addr>().is_ok() => (bare, None),
            None => match bare.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (bare, None),
            },
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.chars().all(plain) {
            return Err(complaint());
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| complaint())?
            }
            Some(_) => return Err(complaint()),
        };
        if port == 0 {
            return Err(complaint());
        }
        Ok(Address { host: host.to_string(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Admin {
    /// The token, if there is to be one. Read anew for every connection: tokens change.
    pub fn token(&self) -> io::Result<Option<String>> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let invalid = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
        let mut text = String::new();
        File::open(path)?.take(limits::TOP_TOKEN_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
        let token = text.trim();
        if token.is_empty() {
            return Err(invalid("holds no token"));
        }
        if text.len() > limits::TOP_TOKEN_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("is no token: one word of visible ASCII characters"));
        }
        Ok(Some(token.to_string()))
    }
}

/// Where a server started with `--admin` is unless it was told otherwise.
pub const DEFAULT: &str = "127.0.0.1:7790";

const DEFAULT_PORT: u16 = 7790;

/// What the domain name system allows.
const HOST_BYTES_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, shown) in [
            (DEFAULT, DEFAULT),
            ("http://127.0.0.1:80", "127.0.0.1:80"),
            ("http://cache-7.example/", "cache-7.example:7790"),
            ("cache_7", "cache_7:7790"),
            ("[::1]:1", "[::1]:1"),
            ("http://[::1]", "[::1]:7790"),
            ("::1", "[::1]:7790"),
        ] {
            assert_eq!(Address::parse(text).map(|address| address.to_string()), Ok(shown.to_string()), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            ":7790",
            "a:b",
            "a:0",
            "a:70000",
            "a:+1",
            "native://a:1",
            "http://a:1/events",
            "http://u@a:1",
            "a b:1",
            "[::1",
            "[::1]7790",
            "[a]:1",
            "a\r\nb:1",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        assert!(Address::parse("https://a:1").unwrap_err().contains("ssh -L"));
    }

    #[test]
    fn tokens_are_one_word() {
        let path = std::env::temp_dir().join(format!("spinetail-top-token-{}", std::process::id()));
        let token = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            let address = Address::parse(DEFAULT).unwrap();
            Admin { address, token_file: Some(path.clone()) }.token().map_err(|error| error.to_string())
        };
        assert_eq!(token(b"secret\n"), Ok(Some("secret".to_string())));
        assert_eq!(token(b" \n"), Err("holds no token".to_string()));
        for bad in [&b"two words"[..], b"a\r\nX-Evil: 1", "schlüssel".as_bytes(), b"\xff", &[b'x'; 5000]] {
            assert!(token(bad).is_err(), "{bad:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Admin { address: Address::parse("a").unwrap(), token_file: Some(path) }.token().is_err());
    }
}
