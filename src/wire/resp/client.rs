//! The client's side: what the load generator needs to measure a server.

use crate::wire::request::{Command, Reply, Status};
use crate::wire::resp::encode::bulk;
use crate::wire::resp::{Line, encode_words, line_number};

/// Appends a GET, or a SET with its time to live, to `out`. Other commands have no RESP form here.
pub fn encode_request(command: &Command<'_>, out: &mut Vec<u8>) {
    match *command {
        Command::Get { key } => {
            out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
            bulk(key, out);
        }
        Command::Set { key, value, ttl_ms: 0, .. } => {
            out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
            bulk(key, out);
            bulk(value, out);
        }
        Command::Set { key, value, ttl_ms, .. } => {
            encode_words([b"SET", key, value, b"PX", ttl_ms.to_string().as_bytes()], out);
        }
        _ => unreachable!("a load is made of GETs and SETs"),
    }
}

/// Decodes the first reply of `bytes` and its length; `None` if more bytes are needed.
pub fn decode_reply(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, String> {
    let Some(&kind) = bytes.first() else { return Ok(None) };
    if kind == b'$' {
        return match line_number(bytes, 1) {
            Line::Incomplete => Ok(None),
            Line::Number(-1, end) => Ok(Some((Reply::status(Status::NotFound), end))),
            Line::Number(length @ 0.., start) => {
                let end = start + length as usize;
                let whole = bytes.len() >= end + 2;
                Ok(whole.then(|| (Reply { status: Status::Ok, value: &bytes[start..end], number: 0 }, end + 2)))
            }
            _ => Err("a bulk string without a length".to_string()),
        };
    }
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
    let text = bytes[1..end].strip_suffix(b"\r").unwrap_or(&bytes[1..end]);
    let status = match kind {
        b'+' | b':' => Status::Ok,
        b'_' => Status::NotFound,
        b'-' => Status::Unsupported,
        _ => return Err(format!("the peer does not speak RESP (its reply begins {kind:#04x})")),
    };
    Ok(Some((Reply { status, value: text, number: 0 }, end + 1)))
}
