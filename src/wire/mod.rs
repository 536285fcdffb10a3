//! Codecs: bytes to requests and replies to bytes, without I/O and without copying what is borrowed.
//!
//! Not for: deciding anything. A codec says what was asked; `engine` answers.
//!
//!   bytes --decode--> Decoded { Request | Incomplete | Refused }      Reply --encode--> bytes
//!
//! - `request`: what can be asked and answered, whatever the protocol
//! - `codec`: what every protocol of a listener looks like to the engine
//! - `native`: the native binary protocol
//! - `resp`: RESP2 and RESP3, the protocol of Redis
//! - `glob`: the patterns of KEYS, SCAN and PSUBSCRIBE
//! - `memcached`: memcached's text protocol and its meta commands

pub mod codec;
pub mod glob;
pub mod memcached;
pub mod native;
pub mod request;
pub mod resp;

pub use codec::{Codec, Decoded, Refusal};
pub use request::{Command, Edit, Expiry, Mode, Reply, Request, Status, Then, Want, When};
