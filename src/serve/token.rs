//! The admin listener's secret, from its file.
//!
//! The file is one line. Whoever may read it may ask the listener, so it must be readable by its owner alone: a
//! secret that every user of the host can read protects against nobody there, and one that was readable for a
//! day has to be changed, which only a refusal makes people do.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::base::limits::{ADMIN_TOKEN_BYTES_MAX, ADMIN_TOKEN_BYTES_MIN};
use crate::serve::settle::Failure;

/// A secret. It shows itself to nobody who prints what it is part of.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// The secret itself, to compare with what a client sent.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Reads the secret in a file. White space around it is not part of it.
pub fn read_token(path: &Path) -> Result<Token, Failure> {
    let refuse = |reason: String| Failure::configuration(format!("--admin-token-file {}: {reason}", path.display()));
    // Not blocking: a named pipe that nobody writes would keep the start waiting for ever.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| refuse(format!("cannot be read ({error}): name a file that this user may read")))?;
    // Of the file that is open, not of whatever has the name by now.
    let found = file.metadata().map_err(|error| refuse(format!("cannot be looked at ({error})")))?;
    if !found.is_file() {
        return Err(refuse("is no regular file: give one with the secret in it".to_string()));
    }
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(refuse(format!(
            "others may read or change it (mode {mode:03o}): chmod 600 {}, and a new secret if it was in use",
            path.display()
        )));
    }
    let mut text = Vec::new();
    let most = ADMIN_TOKEN_BYTES_MAX as u64 + 2;
    file.by_ref()
        .take(most)
        .read_to_end(&mut text)
        .map_err(|error| refuse(format!("cannot be read ({error}): name a file that this user may read")))?;
    let token = text.trim_ascii();
    let remedy = "write one with: (umask 077; head -c 24 /dev/urandom | base64 > FILE)";
    if token.len() < ADMIN_TOKEN_BYTES_MIN || token.len() > ADMIN_TOKEN_BYTES_MAX {
        let length = if text.len() as u64 == most { "more".to_string() } else { token.len().to_string() };
        return Err(refuse(format!(
            "has {length} characters, a secret has {ADMIN_TOKEN_BYTES_MIN} to {ADMIN_TOKEN_BYTES_MAX}: {remedy}"
        )));
    }
    // What a client can send in a header.
    match std::str::from_utf8(token) {
        Ok(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Token(token.into())),
        _ => Err(refuse(format!(
            "has characters that no header carries; use letters, digits and ASCII punctuation on one line: {remedy}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::path::PathBuf;

    fn file(name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = std::env::temp_dir().join(format!("spinetail-token-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_is_read_and_never_shown() {
        let path = file("good", b"  0123456789abcdef+/=\n", 0o400);
        let token = read_token(&path).unwrap();
        assert_eq!(token.secret(), "0123456789abcdef+/=");
        assert!(!format!("{token:?}").contains("0123"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_no_secret_is_refused_with_a_remedy_and_without_showing_it() {
        let long = [b'x'; 3000];
        let cases: [(&str, &[u8], u32, &str); 8] = [
            ("short", b"0123456789abcde\n", 0o600, "has 15 characters"),
            ("empty", b"", 0o600, "has 0 characters"),
            ("long", &long, 0o600, "16 to 1024"),
            ("lines", b"0123456789abcdef\n0123456789abcdef", 0o600, "no header carries"),
            ("bytes", b"0123456789abcdef\xff", 0o600, "no header carries"),
            ("world", b"0123456789abcdef", 0o604, "chmod 600"),
            ("group", b"0123456789abcdef", 0o640, "chmod 600"),
            ("write", b"0123456789abcdef", 0o620, "mode 620"),
        ];
        for (name, bytes, mode, says) in cases {
            let path = file(name, bytes, mode);
            let failure = read_token(&path).unwrap_err();
            assert_eq!(failure.status, 78, "{name}");
            assert!(failure.reason.contains(says) && failure.reason.contains(name), "{name}: {failure}");
            assert!(!failure.reason.contains("0123"), "{name}: {failure}");
            fs::remove_file(path).unwrap();
        }
        assert_eq!(read_token(Path::new("/nowhere/token")).unwrap_err().status, 78);
        assert!(read_token(Path::new("/")).unwrap_err().reason.contains("no regular file"));
    }
}
