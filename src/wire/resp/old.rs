//! RESP2, the protocol of Redis: arrays of bulk strings in, typed lines out.
//!
//!   *2\r\n $3\r\nGET\r\n $3\r\nkey\r\n   ->   $5\r\nvalue\r\n   or   $-1\r\n
//!
//! Decoding borrows; nothing is copied or reserved before the bytes are there. RESP has no request
//! ids, so a request's `id` carries which form its reply has (`Form`); a forwarded request brings it
//! back. Commands of one key are served. RESP3 is declined by HELLO's own means (`-NOPROTO`).

use crate::base::limits;
use crate::wire::codec::{Codec, Decoded, Local, Refusal};
use crate::wire::request::{Command, Mode, Reply, Request, Status};

/// The protocol, for listeners.
pub struct Resp;

/// How a reply is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Form {
    /// The value or nil.
    Bulk,
    /// `+OK`, or nil where a condition did not hold.
    Stored,
    /// `:1` if the key was there, `:0` if not.
    WasThere,
    /// `:1` if it was stored, `:0` if a condition did not hold.
    WasStored,
    /// The number.
    Number,
    /// The time left in seconds, rounded; -1 without expiry, -2 without key.
    Seconds,
    /// The same in milliseconds.
    Milliseconds,
    /// `+OK`.
    Ok,
    /// The text of `stats` as a bulk string.
    Text,
}

impl Codec for Resp {
    #[inline]
    fn decode(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
        match bytes.first() {
            None => Decoded::Incomplete(1),
            Some(b'*') => decode_array(bytes, value_bytes_max),
            Some(_) => decode_inline(bytes, value_bytes_max),
        }
    }

    #[inline]
    fn encode_reply(id: u32, _opcode: u8, reply: &Reply<'_>, out: &mut Vec<u8>) {
        let form = Form::of(id);
        match reply.status {
            Status::Ok => match form {
                Form::Bulk | Form::Text => bulk(reply.value, out),
                Form::Stored | Form::Ok => out.extend_from_slice(b"+OK\r\n"),
                Form::WasThere | Form::WasStored => out.extend_from_slice(b":1\r\n"),
                Form::Number => integer(reply.number as i64, out),
                Form::Seconds | Form::Milliseconds if reply.number == u64::MAX => out.extend_from_slice(b":-1\r\n"),
                Form::Seconds => integer((reply.number as i64).saturating_add(500) / 1000, out),
                Form::Milliseconds => integer(reply.number as i64, out),
            },
            Status::NotFound | Status::Exists | Status::VersionDiffers => match form {
                Form::WasThere | Form::WasStored => out.extend_from_slice(b":0\r\n"),
                Form::Seconds | Form::Milliseconds => out.extend_from_slice(b":-2\r\n"),
                _ => out.extend_from_slice(b"$-1\r\n"),
            },
            Status::NotANumber => out.extend_from_slice(b"-ERR value is not an integer or out of range\r\n"),
            Status::Overflow => out.extend_from_slice(b"-ERR increment or decrement would overflow\r\n"),
            Status::Busy => error("BUSY", reply.value, out),
            Status::Malformed => error("ERR Protocol error:", reply.value, out),
            _ => error("ERR", reply.value, out),
        }
    }

    fn encode_local(local: &Local<'_>, out: &mut Vec<u8>) {
        match *local {
            Local::Text(text) => {
                out.push(b'+');
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Local::Echo(bytes) => bulk(bytes, out),
            Local::Nothing => out.extend_from_slice(b"*0\r\n"),
            Local::Error(text, about) => {
                out.push(b'-');
                out.extend_from_slice(text.as_bytes());
                if !about.is_empty() {
                    let shown = about.iter().take(ERROR_TEXT_MAX).map(|&byte| match byte {
                        b'\'' | b'\\' | 0..b' ' | 0x7f.. => b'?',
                        plain => plain,
                    });
                    out.extend_from_slice(b" '");
                    out.extend(shown);
                    out.push(b'\'');
                }
                out.extend_from_slice(b"\r\n");
            }
            Local::Hello => {
                let fields: [(&str, &str); 4] = [
                    ("server", "spinetail"),
                    ("version", env!("CARGO_PKG_VERSION")),
                    ("mode", "standalone"),
                    ("role", "master"),
                ];
                out.extend_from_slice(b"*14\r\n");
                for (name, value) in fields {
                    bulk(name.as_bytes(), out);
                    bulk(value.as_bytes(), out);
                }
                bulk(b"proto", out);
                integer(2, out);
                bulk(b"id", out);
                integer(0, out);
                bulk(b"modules", out);
                out.extend_from_slice(b"*0\r\n");
            }
            Local::Quit => out.extend_from_slice(b"+OK\r\n"),
        }
    }
}

impl Form {
    #[inline]
    fn of(id: u32) -> Form {
        const FORMS: [Form; 9] = [
            Form::Bulk,
            Form::Stored,
            Form::WasThere,
            Form::WasStored,
            Form::Number,
            Form::Seconds,
            Form::Milliseconds,
            Form::Ok,
            Form::Text,
        ];
        FORMS.get(id as usize).copied().unwrap_or(Form::Bulk)
    }
}

/// The arguments of one command.
struct Arguments<'a> {
    stored: [&'a [u8]; ARGUMENTS_MAX],
    count: usize,
}

impl<'a> Arguments<'a> {
    fn new() -> Arguments<'a> {
        Arguments { stored: [&[]; ARGUMENTS_MAX], count: 0 }
    }

    #[inline]
    fn push(&mut self, argument: &'a [u8]) {
        if let Some(place) = self.stored.get_mut(self.count) {
            *place = argument;
        }
        self.count += 1;
    }
}

#[inline]
fn decode_array(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
    let (count, mut at) = match line_number(bytes, 1) {
        Line::Number(count, at) => (count, at),
        Line::Incomplete => return Decoded::Incomplete(bytes.len() + 1),
        Line::Bad => return malformed(bytes),
    };
    if count <= 0 {
        // An empty array asks nothing and is answered with nothing, as Redis does.
        return Decoded::Refused(Refusal { id: SILENT, opcode: 0, status: Status::Ok, frame_bytes: at as u64 });
    }
    if count > ARGUMENTS_SENT_MAX {
        return malformed(bytes);
    }
    let mut arguments = Arguments::new();
    for number in 0..count {
        match bytes.get(at) {
            None => return Decoded::Incomplete(bytes.len() + 1),
            Some(b'$') => {}
            Some(_) => return malformed(bytes),
        }
        let (length, start) = match line_number(bytes, at + 1) {
            Line::Number(length, start) if length >= 0 => (length as usize, start),
            Line::Incomplete => return Decoded::Incomplete(bytes.len() + 1),
            _ => return malformed(bytes),
        };
        if length > value_bytes_max.max(limits::KEY_BYTES_MAX) {
            // Only where it is the last argument is it known where the next command begins.
            let status = if number + 1 == count { Status::ValueTooLarge } else { Status::Malformed };
            let frame_bytes = (start as u64).saturating_add(length as u64).saturating_add(2);
            return Decoded::Refused(Refusal { id: 0, opcode: 0, status, frame_bytes });
        }
        let end = start + length;
        let Some(argument) = bytes.get(start..end) else { return Decoded::Incomplete(end + 2) };
        match bytes.get(end..end + 2) {
            None => return Decoded::Incomplete(end + 2),
            Some(b"\r\n") => {}
            Some(_) => return malformed(bytes),
        }
        arguments.push(argument);
        at = end + 2;
    }
    interpret(&arguments, at, value_bytes_max)
}

/// A command as a person types it: words on a line.
#[cold]
fn decode_inline(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() > INLINE_BYTES_MAX { malformed(bytes) } else { Decoded::Incomplete(bytes.len() + 1) };
    };
    if end > INLINE_BYTES_MAX {
        return malformed(bytes);
    }
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let mut arguments = Arguments::new();
    line.split(|&byte| byte == b' ' || byte == b'\t')
        .filter(|word| !word.is_empty())
        .for_each(|word| arguments.push(word));
    if arguments.count == 0 {
        return Decoded::Refused(Refusal { id: SILENT, opcode: 0, status: Status::Ok, frame_bytes: end as u64 + 1 });
    }
    interpret(&arguments, end + 1, value_bytes_max)
}

#[inline]
fn interpret<'a>(arguments: &Arguments<'a>, length: usize, value_bytes_max: usize) -> Decoded<'a> {
    let [name, key, third, ..] = arguments.stored;
    let count = arguments.count;
    // The two that make the traffic come first, in the two spellings clients use.
    let request = |form: Form, command: Command<'a>| match command.key() {
        Some(key) if key.is_empty() || key.len() > limits::KEY_BYTES_MAX => {
            Decoded::Local(Local::Error("ERR keys have 1 to 1024 bytes", &[]), length)
        }
        _ => Decoded::Request(Request { id: form as u32, want_version: false, command }, length),
    };
    if count == 2 && (name == b"GET" || name == b"get") {
        return request(Form::Bulk, Command::Get { key });
    }
    let set = |form, value: &'a [u8], ttl_ms, mode| {
        if value.len() > value_bytes_max {
            return Decoded::Local(Local::Error("ERR the value is larger than this server stores", &[]), length);
        }
        request(form, Command::Set { key, value, ttl_ms, mode })
    };
    if count == 3 && (name == b"SET" || name == b"set") {
        return set(Form::Stored, third, 0, Mode::Set);
    }
    let wrong_count = Decoded::Local(Local::Error("ERR wrong number of arguments for", name), length);
    let not_integer = Decoded::Local(Local::Error("ERR value is not an integer or out of range", &[]), length);
    let bad_expiry = Decoded::Local(Local::Error("ERR invalid expire time in", name), length);
    let mut upper = [0u8; COMMAND_BYTES_MAX];
    let Some(spelt) = upper.get_mut(..name.len()) else { return unknown(name, length) };
    spelt.copy_from_slice(name);
    spelt.make_ascii_uppercase();
    let fourth = arguments.stored[3];
    match (&*spelt, count) {
        (b"GET", 2) => request(Form::Bulk, Command::Get { key }),
        (b"SET", 3..) => match set_options(arguments) {
            Ok((ttl_ms, mode)) => set(Form::Stored, third, ttl_ms, mode),
            Err(SetError::Syntax) => Decoded::Local(Local::Error("ERR syntax error", &[]), length),
            Err(SetError::NotInteger) => not_integer,
            Err(SetError::Expiry) => bad_expiry,
        },
        (b"SETNX", 3) => set(Form::WasStored, third, 0, Mode::Add),
        (b"SETEX" | b"PSETEX", 4) => match (ttl_of(third, spelt == b"SETEX"), number(third)) {
            (Some(ttl_ms), _) => set(Form::Ok, fourth, ttl_ms, Mode::Set),
            (None, Some(_)) => bad_expiry,
            (None, None) => not_integer,
        },
        (b"DEL" | b"UNLINK", 2) => request(Form::WasThere, Command::Delete { key }),
        (b"EXISTS", 2) => request(Form::WasThere, Command::Ttl { key }),
        (b"TTL", 2) => request(Form::Seconds, Command::Ttl { key }),
        (b"PTTL", 2) => request(Form::Milliseconds, Command::Ttl { key }),
        (b"EXPIRE" | b"PEXPIRE", 3) => match (ttl_of(third, spelt == b"EXPIRE"), number(third)) {
            (Some(ttl_ms), _) => request(Form::WasThere, Command::Touch { key, ttl_ms }),
            // In the past: gone at once.
            (None, Some(..=0)) => request(Form::WasThere, Command::Delete { key }),
            (None, Some(_)) => bad_expiry,
            (None, None) => not_integer,
        },
        (b"INCR" | b"DECR", 2) => request(Form::Number, increment(key, if spelt == b"INCR" { 1 } else { -1 })),
        (b"INCRBY", 3) => number(third).map_or(not_integer, |by| request(Form::Number, increment(key, by))),
        (b"DECRBY", 3) => match number(third).and_then(i64::checked_neg) {
            Some(by) => request(Form::Number, increment(key, by)),
            None => not_integer,
        },
        (b"PING", 1) => Decoded::Local(Local::Text("PONG"), length),
        (b"PING" | b"ECHO", 2) => Decoded::Local(Local::Echo(key), length),
        (b"FLUSHALL" | b"FLUSHDB", 1 | 2) => request(Form::Ok, Command::Flush),
        (b"INFO", _) => request(Form::Text, Command::Stats),
        (b"HELLO", 1) => Decoded::Local(Local::Hello, length),
        (b"HELLO", _) if key == b"2" => Decoded::Local(Local::Hello, length),
        (b"HELLO", _) => Decoded::Local(Local::Error("NOPROTO unsupported protocol version", &[]), length),
        (b"SELECT", 2) if key == b"0" => Decoded::Local(Local::Text("OK"), length),
        (b"SELECT", 2) => Decoded::Local(Local::Error("ERR DB index is out of range", &[]), length),
        (b"CLIENT", 2..) => Decoded::Local(Local::Text("OK"), length),
        (b"COMMAND" | b"CONFIG", _) => Decoded::Local(Local::Nothing, length),
        (b"QUIT", _) => Decoded::Local(Local::Quit, length),
        (b"GET" | b"SET" | b"SETNX" | b"SETEX" | b"PSETEX" | b"TTL" | b"PTTL" | b"EXPIRE" | b"PEXPIRE", _)
        | (b"INCR" | b"DECR" | b"INCRBY" | b"DECRBY" | b"PING" | b"ECHO" | b"SELECT", _) => wrong_count,
        (b"DEL" | b"UNLINK" | b"EXISTS", 3..) => {
            Decoded::Local(Local::Error("ERR this server takes one key at a time in", name), length)
        }
        (b"DEL" | b"UNLINK" | b"EXISTS", _) => wrong_count,
        _ => unknown(name, length),
    }
}

enum SetError {
    Syntax,
    NotInteger,
    Expiry,
}

/// The options behind `SET key value`.
fn set_options(arguments: &Arguments<'_>) -> Result<(u64, Mode), SetError> {
    if arguments.count > ARGUMENTS_MAX {
        return Err(SetError::Syntax);
    }
    let (mut ttl_ms, mut mode) = (0, Mode::Set);
    let mut options = arguments.stored[3..arguments.count].iter();
    while let Some(option) = options.next() {
        match option.to_ascii_uppercase().as_slice() {
            unit @ (b"EX" | b"PX") if ttl_ms == 0 => {
                let text = options.next().ok_or(SetError::Syntax)?;
                number(text).ok_or(SetError::NotInteger)?;
                ttl_ms = ttl_of(text, unit == b"EX").ok_or(SetError::Expiry)?;
            }
            b"NX" if mode == Mode::Set => mode = Mode::Add,
            b"XX" if mode == Mode::Set => mode = Mode::Replace,
            _ => return Err(SetError::Syntax),
        }
    }
    Ok((ttl_ms, mode))
}

fn increment(key: &[u8], by: i64) -> Command<'_> {
    Command::Increment { key, delta: by, initial: Some(by), ttl_ms: 0 }
}

#[cold]
fn unknown(name: &[u8], length: usize) -> Decoded<'_> {
    Decoded::Local(Local::Error("ERR unknown command", name), length)
}

#[cold]
fn malformed(bytes: &[u8]) -> Decoded<'_> {
    Decoded::Refused(Refusal { id: 0, opcode: 0, status: Status::Malformed, frame_bytes: bytes.len() as u64 })
}

enum Line {
    /// The number, and where the next line begins.
    Number(i64, usize),
    Incomplete,
    Bad,
}

/// Reads a decimal number from `at` to the end of its line.
#[inline]
fn line_number(bytes: &[u8], at: usize) -> Line {
    let mut value: i64 = 0;
    let negative = bytes.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let mut position = first;
    loop {
        match bytes.get(position) {
            Some(&digit @ b'0'..=b'9') if position - first < NUMBER_DIGITS_MAX => {
                value = value * 10 + i64::from(digit - b'0');
            }
            Some(b'\r') if position > first => break,
            None => return Line::Incomplete,
            _ => return Line::Bad,
        }
        position += 1;
    }
    match bytes.get(position + 1) {
        Some(b'\n') => Line::Number(if negative { -value } else { value }, position + 2),
        Some(_) => Line::Bad,
        None => Line::Incomplete,
    }
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// A time to live in milliseconds; `None` if it is no positive number or beyond what is stored.
fn ttl_of(text: &[u8], in_seconds: bool) -> Option<u64> {
    let value = u64::try_from(number(text)?).ok()?;
    let ms = if in_seconds { value.checked_mul(1000)? } else { value };
    (ms > 0 && ms <= limits::EXPIRY_MS_MAX / 2).then_some(ms)
}

#[inline]
fn bulk(value: &[u8], out: &mut Vec<u8>) {
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

fn integer(value: i64, out: &mut Vec<u8>) {
    let mut line = [0u8; 24];
    line[0] = b':';
    let sign = usize::from(value < 0);
    line[1] = b'-';
    let end = 1 + sign + decimal(value.unsigned_abs(), &mut line[1 + sign..]);
    out.extend_from_slice(&line[..end]);
    out.extend_from_slice(b"\r\n");
}

fn error(code: &str, text: &[u8], out: &mut Vec<u8>) {
    out.push(b'-');
    out.extend_from_slice(code.as_bytes());
    out.push(b' ');
    out.extend_from_slice(text);
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

// --- The client's side ----------------------------------------------------------------------

/// Appends a GET, or a SET with its time to live, to `out`. Other commands have no RESP form here.
pub fn encode_request(command: &Command<'_>, out: &mut Vec<u8>) {
    let word = |bytes: &[u8], out: &mut Vec<u8>| bulk(bytes, out);
    match *command {
        Command::Get { key } => {
            out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
            word(key, out);
        }
        Command::Set { key, value, ttl_ms, .. } => {
            out.extend_from_slice(if ttl_ms > 0 { b"*5\r\n$3\r\nSET\r\n" } else { b"*3\r\n$3\r\nSET\r\n" });
            word(key, out);
            word(value, out);
            if ttl_ms > 0 {
                word(b"PX", out);
                word(ttl_ms.to_string().as_bytes(), out);
            }
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

/// The id of a frame that is passed over without an answer.
pub const SILENT: u32 = u32::MAX;
/// Arguments that are looked at: the longest form of SET has seven.
const ARGUMENTS_MAX: usize = 8;
/// Arguments that one command may have; Redis allows a million, we know none with as many.
const ARGUMENTS_SENT_MAX: i64 = 1024;
/// Bytes of an inline command.
const INLINE_BYTES_MAX: usize = 4096;
/// Longest command name we know.
const COMMAND_BYTES_MAX: usize = 16;
/// Digits of a length: more than any length we take, fewer than overflow.
const NUMBER_DIGITS_MAX: usize = 18;
/// Bytes of an argument shown in an error.
const ERROR_TEXT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    const VALUE_BYTES_MAX: usize = 10_000;

    fn array(words: &[&[u8]]) -> Vec<u8> {
        let mut out = format!("*{}\r\n", words.len()).into_bytes();
        words.iter().for_each(|word| bulk(word, &mut out));
        out
    }

    /// What a line of words is answered, by a shard that holds every key with value `v`.
    fn answered(line: &str, status: Status, number: u64) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let frame = array(&words);
        let mut out = Vec::new();
        match Resp::decode(&frame, VALUE_BYTES_MAX) {
            Decoded::Request(request, length) => {
                assert_eq!(length, frame.len());
                Resp::encode_reply(request.id, 0, &Reply { status, value: b"v", number }, &mut out);
            }
            Decoded::Local(local, length) => {
                assert_eq!(length, frame.len());
                Resp::encode_local(&local, &mut out);
            }
            other => panic!("{line}: {other:?}"),
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn commands_are_understood_and_answered_in_their_own_form() {
        let ok = |line| answered(line, Status::Ok, 7);
        let missing = |line| answered(line, Status::NotFound, 0);
        assert_eq!((ok("GET k"), missing("gEt k")), ("$1\r\nv\r\n".into(), "$-1\r\n".into()));
        assert_eq!((ok("SET k v"), ok("set k v ex 10 nx")), ("+OK\r\n".into(), "+OK\r\n".into()));
        assert_eq!(answered("SET k v NX", Status::Exists, 0), "$-1\r\n");
        assert_eq!((ok("DEL k"), missing("DEL k")), (":1\r\n".into(), ":0\r\n".into()));
        assert_eq!((ok("SETNX k v"), answered("SETNX k v", Status::Exists, 0)), (":1\r\n".into(), ":0\r\n".into()));
        assert_eq!(
            (ok("INCRBY k 7"), answered("DECR k", Status::Ok, -3i64 as u64)),
            (":7\r\n".into(), ":-3\r\n".into())
        );
        assert_eq!((ok("PTTL k"), missing("TTL k")), (":7\r\n".into(), ":-2\r\n".into()));
        assert_eq!(
            (answered("TTL k", Status::Ok, 1500), answered("TTL k", Status::Ok, u64::MAX)),
            (":2\r\n".into(), ":-1\r\n".into())
        );
        assert_eq!(
            (ok("PING"), ok("ECHO hi"), ok("QUIT")),
            ("+PONG\r\n".into(), "$2\r\nhi\r\n".into(), "+OK\r\n".into())
        );
        assert!(ok("HELLO 3").starts_with("-NOPROTO"));
        assert_eq!(ok("NO such"), "-ERR unknown command 'NO'\r\n");
        assert_eq!(ok("GET"), "-ERR wrong number of arguments for 'GET'\r\n");
        assert_eq!(ok("SET k v EX"), "-ERR syntax error\r\n");
        assert_eq!(ok("SET k v EX 0"), "-ERR invalid expire time in 'SET'\r\n");
        assert_eq!(ok("INCRBY k 1.5"), "-ERR value is not an integer or out of range\r\n");
    }

    #[test]
    fn a_time_to_live_and_a_condition_reach_the_request() {
        let frame = array(&[b"SET", b"k", b"v", b"XX", b"PX", b"1500"]);
        let Decoded::Request(request, _) = Resp::decode(&frame, 10) else { panic!("not a request") };
        assert_eq!(request.command, Command::Set { key: b"k", value: b"v", ttl_ms: 1500, mode: Mode::Replace });
        let frame = array(&[b"EXPIRE", b"k", b"-1"]);
        let Decoded::Request(request, _) = Resp::decode(&frame, 10) else { panic!("not a request") };
        assert_eq!(request.command, Command::Delete { key: b"k" });
    }

    #[test]
    fn a_frame_cut_anywhere_is_incomplete_and_never_something_else() {
        for words in [&[b"SET".as_slice(), b"key", b"a\r\nvalue", b"EX", b"10"][..], &[b"GET", b"key"]] {
            let frame = array(words);
            for cut in 0..frame.len() {
                match Resp::decode(&frame[..cut], VALUE_BYTES_MAX) {
                    Decoded::Incomplete(needed) => {
                        assert!(needed > cut && needed <= frame.len(), "cut {cut}: {needed}")
                    }
                    other => panic!("cut {cut}: {other:?}"),
                }
            }
        }
        assert!(matches!(Resp::decode(b"PING", 10), Decoded::Incomplete(_)));
        assert_eq!(Resp::decode(b"PING\r\n", 10), Decoded::Local(Local::Text("PONG"), 6));
    }

    #[test]
    fn hostile_lengths_are_refused_and_random_bytes_never_panic() {
        let status = |bytes: &[u8]| match Resp::decode(bytes, VALUE_BYTES_MAX) {
            Decoded::Refused(refusal) => refusal.status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status(b"*2\r\n$3\r\nGET\r\n$99999999999999999999\r\n"), Status::Malformed);
        assert_eq!(status(b"*99999999\r\n"), Status::Malformed);
        assert_eq!(status(b"*1\r\n$-5\r\n"), Status::Malformed);
        assert_eq!(status(b"*1\r\n$4\r\nPINGxx"), Status::Malformed);
        assert_eq!(status(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20000\r\n"), Status::ValueTooLarge);
        assert_eq!(status(b"*0\r\n"), Status::Ok);
        let mut prng = Prng::new(3);
        let alphabet = b"*$+-:0123456789\r\n\r\nGETSET \0";
        for _ in 0..200_000 {
            let bytes: Vec<u8> =
                (0..prng.below(48)).map(|_| alphabet[prng.below(alphabet.len() as u64) as usize]).collect();
            if let Decoded::Request(_, length) | Decoded::Local(_, length) = Resp::decode(&bytes, VALUE_BYTES_MAX) {
                assert!(length > 0 && length <= bytes.len());
            }
        }
    }

    #[test]
    fn what_the_client_sends_and_reads_is_what_the_server_reads_and_sends() {
        let mut frame = Vec::new();
        let command = Command::Set { key: b"k", value: b"v\r\n", ttl_ms: 9, mode: Mode::Set };
        encode_request(&command, &mut frame);
        let Decoded::Request(request, length) = Resp::decode(&frame, 100) else { panic!("not a request") };
        assert_eq!((request.command, length), (command, frame.len()));
        let mut reply = Vec::new();
        Resp::encode_reply(Form::Bulk as u32, 0, &Reply { status: Status::Ok, value: b"abc", number: 0 }, &mut reply);
        for cut in 0..reply.len() {
            assert_eq!(decode_reply(&reply[..cut]), Ok(None));
        }
        assert_eq!(decode_reply(&reply).unwrap().unwrap().0.value, b"abc");
        assert_eq!(decode_reply(b"$-1\r\n").unwrap().unwrap().0.status, Status::NotFound);
        assert_eq!(decode_reply(b"-ERR no\r\n").unwrap().unwrap().0.status, Status::Unsupported);
        assert!(decode_reply(b"\xb5\x01\n").is_err());
    }
}
