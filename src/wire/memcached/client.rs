//! memcached's text protocol as a client speaks it: what the load generator needs to measure one.
//!
//!   get key\r\n                    ->  VALUE key 0 5\r\nvalue\r\nEND\r\n   or   END\r\n
//!   set key 0 expiry 5\r\nvalue\r\n ->  STORED\r\n

use crate::wire::request::{Command, Reply, Status};

/// Appends a GET or a SET to `out`. Other commands have no form here.
pub fn encode_request(command: &Command<'_>, out: &mut Vec<u8>) {
    match *command {
        Command::Get { key } => {
            out.extend_from_slice(b"get ");
            out.extend_from_slice(key);
            out.extend_from_slice(b"\r\n");
        }
        Command::Set { key, value, ttl_ms, .. } => {
            out.extend_from_slice(b"set ");
            out.extend_from_slice(key);
            out.extend_from_slice(format!(" 0 {} {}\r\n", ttl_ms.div_ceil(1000), value.len()).as_bytes());
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        _ => unreachable!("a load is made of GETs and SETs"),
    }
}

/// Decodes the first reply of `bytes` and its length; `None` if more bytes are needed.
pub fn decode_reply(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, String> {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    if let Some(rest) = line.strip_prefix(b"VALUE ") {
        let length =
            rest.rsplit(|&byte| byte == b' ').next().and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let length: usize = length.ok_or("a VALUE line without a length")?;
        let (start, after) = (end + 1, end + 1 + length);
        let Some(tail) = bytes.get(after..after + TAIL.len()) else { return Ok(None) };
        if tail != TAIL {
            return Err("a value that does not end where its length says".to_string());
        }
        return Ok(Some((Reply { status: Status::Ok, value: &bytes[start..after], number: 0 }, after + TAIL.len())));
    }
    let status = match line {
        b"STORED" => Status::Ok,
        b"END" => Status::NotFound,
        _ if line.starts_with(b"SERVER_ERROR") || line.starts_with(b"CLIENT_ERROR") || line == b"ERROR" => {
            Status::Unsupported
        }
        _ => return Err(format!("the peer does not speak memcached: '{}'", String::from_utf8_lossy(line))),
    };
    Ok(Some((Reply { status, value: line, number: 0 }, end + 1)))
}

const TAIL: &[u8] = b"\r\nEND\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::request::Mode;

    #[test]
    fn requests_are_written_and_replies_read_as_the_protocol_has_them() {
        let mut out = Vec::new();
        encode_request(&Command::Get { key: b"k" }, &mut out);
        encode_request(&Command::Set { key: b"k", value: b"ab", ttl_ms: 1500, mode: Mode::Set }, &mut out);
        assert_eq!(out, b"get k\r\nset k 0 2 2\r\nab\r\n");
        let reply = b"VALUE k 0 4\r\na\r\nb\r\nEND\r\nSTORED\r\n";
        for cut in 0..reply.len() - 8 {
            assert_eq!(decode_reply(&reply[..cut]), Ok(None), "cut {cut}");
        }
        let (first, length) = decode_reply(reply).unwrap().unwrap();
        assert_eq!((first.value, length), (b"a\r\nb".as_slice(), reply.len() - 8));
        assert_eq!(decode_reply(&reply[length..]).unwrap().unwrap().0.status, Status::Ok);
        assert_eq!(decode_reply(b"END\r\n").unwrap().unwrap().0.status, Status::NotFound);
        assert_eq!(decode_reply(b"SERVER_ERROR out of memory\r\n").unwrap().unwrap().0.status, Status::Unsupported);
        assert!(decode_reply(b"+OK\r\n").is_err());
    }
}
