//! Replies, in both versions of the protocol.

use crate::wire::request::{Command, Edit, Reply, Request, Status};
use crate::wire::resp::commands::Cmd;
use crate::wire::resp::of_request_id;

/// Appends the reply to a request about one key.
#[inline]
pub fn reply(request: &Request<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
    // By far the most frequent, and decided without the table.
    if reply.status == Status::Ok && request.id as u8 == Cmd::Get as u8 {
        return bulk(reply.value, out);
    }
    reply_by_command(request, reply, out);
}

fn reply_by_command(request: &Request<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let (cmd, is_resp3) = of_request_id(request.id);
    let cmd = cmd.unwrap_or(Cmd::Get);
    let number = reply.number as i64;
    let answers_old = matches!(request.command, Command::Edit { edit: Edit::Store { old: true, .. }, .. });
    match (reply.status, cmd) {
        (Status::Ok, Cmd::Set) if !answers_old => out.extend_from_slice(b"+OK\r\n"),
        (Status::Ok, Cmd::SetEx | Cmd::PSetEx) => out.extend_from_slice(b"+OK\r\n"),
        (Status::Ok, Cmd::Get | Cmd::GetEx | Cmd::GetDel | Cmd::GetSet | Cmd::Set) => bulk(reply.value, out),
        (Status::Ok, Cmd::GetRange | Cmd::Substr | Cmd::IncrByFloat) => bulk(reply.value, out),
        (Status::Ok, Cmd::Type) => out.extend_from_slice(b"+string\r\n"),
        (Status::Ok, Cmd::Ttl | Cmd::PTtl | Cmd::ExpireTime | Cmd::PExpireTime) if reply.number == u64::MAX => {
            out.extend_from_slice(b":-1\r\n");
        }
        (Status::Ok, Cmd::Ttl) => integer(number.saturating_add(500) / 1000, out),
        (Status::Ok, Cmd::ExpireTime) => integer(number / 1000, out),
        (Status::Ok, Cmd::GetBit | Cmd::SetBit) => integer(number, out),
        (Status::Ok, Cmd::PTtl | Cmd::PExpireTime | Cmd::Memory | Cmd::StrLen | Cmd::Append | Cmd::SetRange) => {
            integer(number, out);
        }
        (Status::Ok, Cmd::Incr | Cmd::Decr | Cmd::IncrBy | Cmd::DecrBy | Cmd::Eval | Cmd::EvalSha) => {
            integer(number, out);
        }
        (Status::Ok, Cmd::Object) => match reply.value {
            [] => integer(number, out),
            word => bulk(word, out),
        },
        (Status::Ok, _) => out.extend_from_slice(b":1\r\n"),
        (Status::NotFound | Status::Exists | Status::VersionDiffers, cmd) => match cmd {
            Cmd::Ttl | Cmd::PTtl | Cmd::ExpireTime | Cmd::PExpireTime => out.extend_from_slice(b":-2\r\n"),
            Cmd::Type => out.extend_from_slice(b"+none\r\n"),
            Cmd::GetRange | Cmd::Substr => out.extend_from_slice(b"$0\r\n\r\n"),
            Cmd::Get | Cmd::GetEx | Cmd::GetDel | Cmd::GetSet | Cmd::Set | Cmd::Object | Cmd::Memory => {
                null(is_resp3, out);
            }
            // A script that answers "nothing" where its key is not there.
            Cmd::Eval | Cmd::EvalSha if reply.number == u64::MAX => null(is_resp3, out),
            _ => out.extend_from_slice(b":0\r\n"),
        },
        (Status::NotANumber, _) => error("ERR value is not an integer or out of range", out),
        (Status::Overflow, _) => error("ERR increment or decrement would overflow", out),
        (Status::BadExpiry, cmd) => {
            error(&format!("ERR invalid expire time in '{}' command", cmd.row().name), out);
        }
        (Status::NotAFloat, _) => error("ERR value is not a valid float", out),
        (Status::NotFinite, _) => error("ERR increment would produce NaN or Infinity", out),
        (Status::TooLong | Status::ValueTooLarge, _) => {
            error("ERR string exceeds maximum allowed size (proto-max-bulk-len)", out);
        }
        (Status::Busy, _) if !reply.value.is_empty() => coded(b"TRYAGAIN ", reply.value, out),
        (Status::Busy, _) => error("OOM no buffer memory for this command now, try again", out),
        (Status::NoPrimary, _) => coded(b"TRYAGAIN ", reply.value, out),
        (Status::OutcomeUnknown, _) => coded(b"UNKNOWN ", reply.value, out),
        (Status::Unsupported, _) if !reply.value.is_empty() => coded(b"ERR ", reply.value, out),
        (status, _) => error(&format!("ERR {status}"), out),
    }
}

/// Appends an error of that code, with a text for people.
fn coded(code: &[u8], text: &[u8], out: &mut Vec<u8>) {
    error_bytes(&[code, text].concat(), out);
}

/// Appends a bulk string.
#[inline]
pub fn bulk(value: &[u8], out: &mut Vec<u8>) {
    let mut head = [0u8; 24];
    head[0] = b'$';
    let mut end = 1 + decimal(value.len() as u64, &mut head[1..]);
    head[end..end + 2].copy_from_slice(b"\r\n");
    end += 2;
    out.reserve(end + value.len() + 2);
    out.extend_from_slice(&head[..end]);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends an integer.
pub fn integer(value: i64, out: &mut Vec<u8>) {
    let mut line = [0u8; 24];
    line[0] = b':';
    let sign = usize::from(value < 0);
    line[1] = b'-';
    let end = 1 + sign + decimal(value.unsigned_abs(), &mut line[1 + sign..]);
    out.extend_from_slice(&line[..end]);
    out.extend_from_slice(b"\r\n");
}

/// Appends a simple string.
pub fn simple(text: &str, out: &mut Vec<u8>) {
    line(b'+', text, out);
}

/// Appends an error.
pub fn error(text: &str, out: &mut Vec<u8>) {
    error_bytes(text.as_bytes(), out);
}

/// Appends an error. Line ends in it, which a client may have sent, become spaces.
pub fn error_bytes(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'-');
    out.extend(text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of an array.
pub fn array(count: usize, out: &mut Vec<u8>) {
    line(b'*', &count.to_string(), out);
}

/// Appends the head of a map: in RESP2 an array of names and values.
pub fn map(pairs: usize, is_resp3: bool, out: &mut Vec<u8>) {
    if is_resp3 {
        line(b'%', &pairs.to_string(), out);
    } else {
        array(2 * pairs, out);
    }
}

/// Appends the head of a set: in RESP2 an array.
pub fn set(count: usize, is_resp3: bool, out: &mut Vec<u8>) {
    line(if is_resp3 { b'~' } else { b'*' }, &count.to_string(), out);
}

/// Appends the head of a push: in RESP2 an array.
pub fn push(count: usize, is_resp3: bool, out: &mut Vec<u8>) {
    line(if is_resp3 { b'>' } else { b'*' }, &count.to_string(), out);
}

/// Appends the absence of a value.
pub fn null(is_resp3: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if is_resp3 { b"_\r\n" } else { b"$-1\r\n" });
}

/// Appends the absence of an array.
pub fn null_array(is_resp3: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if is_resp3 { b"_\r\n" } else { b"*-1\r\n" });
}

fn line(kind: u8, text: &str, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes `value` in decimal to the front of `to`; its digits.
#[inline]
fn decimal(value: u64, to: &mut [u8]) -> usize {
    let digits = value.checked_ilog10().map_or(1, |log| log as usize + 1);
    let mut rest = value;
    for place in to[..digits].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}
