//! Codecs: bytes to requests and replies to bytes, without I/O and without copying what is borrowed.
//!
//! Not for: deciding anything. A codec says what was asked; `engine` answers.
//!
//!   bytes --decode--> Decoded { Request | Incomplete | Refused }      Reply --encode--> bytes
//!
//! - `request`: what can be asked and answered, whatever the protocol
//! - `native`: the native binary protocol (RESP and memcached will stand beside it)

pub mod native;
pub mod request;

pub use request::{Command, Mode, Reply, Request, Status};
