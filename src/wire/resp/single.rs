//! The words of a command about one key, to what its shard is asked.

use crate::base::{decimal, limits};
use crate::wire::request::{Command, Edit, Expiry, Mode, Then, Want, When};
use crate::wire::resp::commands::Cmd;
use crate::wire::resp::encode;
use crate::wire::resp::scripts::{self, Otherwise, Script};

/// Why a command is no request to one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is another kind of command: about several keys, or about none.
    NotSingle,
    /// It has too few or too many words.
    Arity(Cmd),
    /// Its options make no sense.
    Syntax,
    /// A word is no integer.
    NotInteger,
    /// A word is no decimal number.
    NotFloat,
    /// A time to live makes no sense in this command.
    Expire(Cmd),
    /// A key is empty or too long.
    Key,
    /// A value is larger than the server stores.
    Value,
    /// A script is not known.
    NoScript,
    /// A subcommand is not known.
    Subcommand(Cmd, Vec<u8>),
    /// Something else.
    Other(&'static str),
    /// Something else, worded whole, with what was sent in it.
    Worded(Vec<u8>),
}

/// The request that a command about one key is.
#[inline]
pub fn command<'a>(cmd: Cmd, words: &[&'a [u8]], value_bytes_max: usize) -> Result<Command<'a>, Problem> {
    if !cmd.row().takes(words.len()) {
        return Err(Problem::Arity(cmd));
    }
    // SET is the traffic.
    if let (Cmd::Set, &[_, key, value]) = (cmd, words) {
        within(value, value_bytes_max)?;
        return Ok(Command::Set { key, value, ttl_ms: 0, mode: Mode::Set });
    }
    other(cmd, words, value_bytes_max)
}

fn other<'a>(cmd: Cmd, words: &[&'a [u8]], value_bytes_max: usize) -> Result<Command<'a>, Problem> {
    let word = |place: usize| words.get(place).copied().unwrap_or_default();
    let (key, second, third) = (word(1), word(2), word(3));
    let edit = |edit| Ok(Command::Edit { key, edit });
    let look = |want| edit(Edit::Look { want });
    let store = |value, expiry, mode, old| {
        within(value, value_bytes_max)?;
        edit(Edit::Store { value, expiry, mode, old })
    };
    match cmd {
        Cmd::Get => Ok(Command::Get { key }),
        Cmd::Set => {
            let options = options(cmd, &words[3..], true)?;
            store(second, options.expiry.unwrap_or(Expiry::Never), options.mode, options.old)
        }
        Cmd::SetNx => store(second, Expiry::Never, Mode::Add, false),
        Cmd::SetEx | Cmd::PSetEx => {
            let unit = if cmd == Cmd::SetEx { b"EX" } else { b"PX" };
            store(third, time_to_live(cmd, unit, second)?, Mode::Set, false)
        }
        Cmd::GetSet => store(second, Expiry::Never, Mode::Set, true),
        Cmd::GetEx => {
            // A key that is not there is answered so, whatever the time makes of it.
            let expiry = match options(cmd, &words[2..], false) {
                Ok(options) => options.expiry.unwrap_or(Expiry::Keep),
                Err(Problem::NotInteger) => Expiry::Senseless { is_number: false },
                Err(Problem::Expire(_)) => Expiry::Senseless { is_number: true },
                Err(problem) => return Err(problem),
            };
            edit(Edit::Read { expiry })
        }
        Cmd::GetDel => edit(Edit::Take),
        Cmd::Append => edit(Edit::Append { bytes: second }),
        Cmd::StrLen => look(Want::Length),
        Cmd::GetRange | Cmd::Substr => look(Want::Range(integer(second)?, integer(third)?)),
        Cmd::SetRange => {
            let at = integer(second)?;
            if at < 0 {
                return Err(Problem::Other("offset is out of range"));
            }
            // Beyond all that is stored it will be refused, and a number as large says so as well.
            edit(Edit::Splice { at: u32::try_from(at).unwrap_or(u32::MAX), bytes: third })
        }
        Cmd::GetBit => look(Want::Bit(bit_offset(second)?)),
        Cmd::SetBit => {
            let at = bit_offset(second)?;
            let to = match third {
                b"0" => false,
                b"1" => true,
                _ => return Err(Problem::Other("bit is not an integer or out of range")),
            };
            edit(Edit::SetBit { at, to })
        }
        Cmd::Incr => Ok(increment(key, 1)),
        Cmd::Decr => Ok(increment(key, -1)),
        Cmd::IncrBy => Ok(increment(key, integer(second)?)),
        Cmd::DecrBy => {
            let by = integer(second)?.checked_neg().ok_or(Problem::Other("decrement would overflow"))?;
            Ok(increment(key, by))
        }
        Cmd::IncrByFloat => {
            if !decimal::is_number(second) {
                return Err(Problem::NotFloat);
            }
            edit(Edit::AddFloat { delta: second })
        }
        Cmd::Del | Cmd::Unlink if words.len() == 2 => Ok(Command::Delete { key }),
        Cmd::Exists if words.len() == 2 => look(Want::Presence),
        Cmd::Touch if words.len() == 2 => look(Want::Touch),
        Cmd::Type => look(Want::Presence),
        Cmd::Ttl | Cmd::PTtl => look(Want::Left),
        Cmd::ExpireTime | Cmd::PExpireTime => look(Want::ExpiresAt),
        Cmd::Persist => edit(Edit::Expire { expiry: Expiry::Never, when: When { persist: true, ..When::default() } }),
        Cmd::Expire | Cmd::PExpire | Cmd::ExpireAt | Cmd::PExpireAt => {
            let when = condition(&words[3..])?;
            edit(Edit::Expire { expiry: expire_at(cmd, second)?, when })
        }
        Cmd::Object => object(words),
        Cmd::Memory => memory(words),
        Cmd::Eval | Cmd::EvalSha => script(cmd, words),
        _ => Err(Problem::NotSingle),
    }
}

fn increment(key: &[u8], by: i64) -> Command<'_> {
    Command::Increment { key, delta: by, initial: Some(by), ttl_ms: 0 }
}

fn within(value: &[u8], value_bytes_max: usize) -> Result<(), Problem> {
    if value.len() > value_bytes_max { Err(Problem::Value) } else { Ok(()) }
}

/// What may stand behind the value of a SET, or behind the key of a GETEX.
#[derive(Default)]
struct Options {
    expiry: Option<Expiry>,
    mode: Mode,
    old: bool,
}

fn options(cmd: Cmd, words: &[&[u8]], is_set: bool) -> Result<Options, Problem> {
    let mut options = Options::default();
    let mut has_condition = false;
    // The amount is looked at when the words have been: what makes no sense as a whole is a syntax error.
    let mut time = None;
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let word = word.to_ascii_uppercase();
        let is_first_time = time.is_none() && options.expiry.is_none();
        match word.as_slice() {
            b"NX" | b"XX" if is_set && !has_condition => {
                options.mode = if word == b"NX" { Mode::Add } else { Mode::Replace };
                has_condition = true;
            }
            // Said twice is said once.
            b"NX" if is_set && options.mode == Mode::Add => {}
            b"XX" if is_set && options.mode == Mode::Replace => {}
            b"GET" if is_set => options.old = true,
            b"KEEPTTL" if is_set && (is_first_time || options.expiry == Some(Expiry::Keep)) => {
                options.expiry = Some(Expiry::Keep);
            }
            b"PERSIST" if !is_set && (is_first_time || options.expiry == Some(Expiry::Never)) => {
                options.expiry = Some(Expiry::Never);
            }
            unit @ (b"EX" | b"PX" | b"EXAT" | b"PXAT")
                if options.expiry.is_none() && time.as_ref().is_none_or(|(known, _)| known == unit) =>
            {
                time = Some((unit.to_vec(), *rest.next().ok_or(Problem::Syntax)?));
            }
            _ => return Err(Problem::Syntax),
        }
    }
    if let Some((unit, amount)) = time {
        options.expiry = Some(time_to_live(cmd, &unit, amount)?);
    }
    Ok(options)
}

/// A time to live that must lie in the future, or a moment that must be one.
fn time_to_live(cmd: Cmd, unit: &[u8], amount: &[u8]) -> Result<Expiry, Problem> {
    let amount = integer(amount)?;
    let in_seconds = unit.starts_with(b"EX");
    let ms = if in_seconds { amount.checked_mul(1000) } else { Some(amount) };
    let ms = ms.filter(|&ms| ms > 0).ok_or(Problem::Expire(cmd))?;
    if unit.ends_with(b"AT") {
        return Ok(Expiry::At(ms));
    }
    // As seen from 1970 it must still fit.
    if ms > i64::MAX - UNIX_MS_ROUGHLY { Err(Problem::Expire(cmd)) } else { Ok(Expiry::In(ms as u64)) }
}

/// The moment of an EXPIRE, which may have passed.
fn expire_at(cmd: Cmd, amount: &[u8]) -> Result<Expiry, Problem> {
    let amount = integer(amount)?;
    let in_seconds = matches!(cmd, Cmd::Expire | Cmd::ExpireAt);
    let ms = if in_seconds { amount.checked_mul(1000).ok_or(Problem::Expire(cmd))? } else { amount };
    Ok(match cmd {
        Cmd::ExpireAt | Cmd::PExpireAt => Expiry::At(ms),
        _ if ms > i64::MAX - UNIX_MS_ROUGHLY => return Err(Problem::Expire(cmd)),
        _ if ms <= 0 => Expiry::At(i64::MIN),
        _ => Expiry::In(ms as u64),
    })
}

fn condition(words: &[&[u8]]) -> Result<When, Problem> {
    let mut when = When::default();
    for word in words {
        match word.to_ascii_uppercase().as_slice() {
            b"NX" => when.none_yet = true,
            b"XX" => when.some_already = true,
            b"GT" => when.later = true,
            b"LT" => when.earlier = true,
            _ => return Err(Problem::Worded([b"ERR Unsupported option ", shown(word)].concat())),
        }
    }
    if when.none_yet && (when.some_already || when.later || when.earlier) {
        return Err(Problem::Other("NX and XX, GT or LT options at the same time are not compatible"));
    }
    if when.later && when.earlier {
        return Err(Problem::Other("GT and LT options at the same time are not compatible"));
    }
    Ok(when)
}

fn object<'a>(words: &[&'a [u8]]) -> Result<Command<'a>, Problem> {
    let &[_, sub, key] = words else { return Err(Problem::NotSingle) };
    let want = match sub.to_ascii_uppercase().as_slice() {
        b"ENCODING" => Want::Encoding,
        b"IDLETIME" => Want::Idle,
        b"FREQ" => Want::Frequency,
        b"REFCOUNT" => Want::Presence,
        _ => return Err(Problem::NotSingle),
    };
    Ok(Command::Edit { key, edit: Edit::Look { want } })
}

fn memory<'a>(words: &[&'a [u8]]) -> Result<Command<'a>, Problem> {
    match *words {
        [_, sub, key] if sub.eq_ignore_ascii_case(b"USAGE") => {
            Ok(Command::Edit { key, edit: Edit::Look { want: Want::Memory } })
        }
        [_, sub, key, word, count] if sub.eq_ignore_ascii_case(b"USAGE") => {
            if !word.eq_ignore_ascii_case(b"SAMPLES") {
                return Err(Problem::Syntax);
            }
            if integer(count)? < 0 {
                return Err(Problem::Syntax);
            }
            Ok(Command::Edit { key, edit: Edit::Look { want: Want::Memory } })
        }
        _ => Err(Problem::NotSingle),
    }
}

/// The place of a bit: a string has 2^32 of them at most in Redis, fewer here.
fn bit_offset(word: &[u8]) -> Result<u32, Problem> {
    let offset = integer(word).ok().and_then(|offset| u32::try_from(offset).ok());
    offset.ok_or(Problem::Other("bit offset is not an integer or out of range"))
}

/// One of the known scripts, with its key and its arguments.
fn script<'a>(cmd: Cmd, words: &[&'a [u8]]) -> Result<Command<'a>, Problem> {
    let script = match cmd {
        Cmd::Eval => scripts::by_source(words[1]).ok_or(Problem::Other(
            "this server runs no scripts but those of the lock and counter libraries it knows (see docs/compatibility.md)",
        ))?,
        _ => scripts::by_sha(words[1]).ok_or(Problem::NoScript)?,
    };
    let keys = integer(words[2]).ok().filter(|&keys| keys >= 0).ok_or(Problem::NotInteger)?;
    if keys as usize > words.len() - 3 {
        return Err(Problem::Other("Number of keys can't be greater than number of args"));
    }
    let arguments = script.arguments();
    let (&[key, ref given @ ..], 1) = (&words[3..], keys) else {
        return Err(Problem::Other("this script takes one key"));
    };
    if given.len() < arguments {
        return Err(Problem::Other("this script takes more arguments"));
    }
    let (expected, then) = match script {
        Script::CompareAndDelete => (Some(given[0]), Then::Delete),
        Script::CompareAndExpire { in_seconds } => {
            let amount = integer(given[1]).ok();
            let ms = if in_seconds { amount.and_then(|amount| amount.checked_mul(1000)) } else { amount };
            let expiry = match ms {
                None => Expiry::Senseless { is_number: amount.is_some() },
                Some(..=0) => Expiry::At(i64::MIN),
                Some(ms) if ms > i64::MAX - UNIX_MS_ROUGHLY => Expiry::Senseless { is_number: true },
                Some(ms) => Expiry::In(ms as u64),
            };
            (Some(given[0]), Then::Expire(expiry))
        }
        Script::CompareAndExtend => {
            let ms = integer(given[1])?.max(0) as u64;
            let replaces = given[2] != b"0";
            (Some(given[0]), if replaces { Then::Expire(Expiry::In(ms)) } else { Then::Extend(ms) })
        }
        Script::IncrementIfExists { otherwise } => {
            (None, Then::Increment { by: integer(given[0])?, is_null_otherwise: otherwise == Otherwise::Null })
        }
    };
    Ok(Command::Edit { key, edit: Edit::IfEqual { expected, then } })
}

/// A decimal 64-bit integer as Redis reads one: no sign `+`, no zeros in front, no spaces.
#[inline]
pub fn integer(text: &[u8]) -> Result<i64, Problem> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_plain = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    let number = std::str::from_utf8(text).ok().filter(|_| is_plain).and_then(|text| text.parse().ok());
    number.ok_or(Problem::NotInteger)
}

impl Problem {
    /// Appends it as the error that Redis would answer.
    pub fn write(&self, out: &mut Vec<u8>) {
        encode::error_bytes(&self.text(), out);
    }

    /// In Redis's words.
    pub fn text(&self) -> Vec<u8> {
        let text = match self {
            Problem::NotSingle | Problem::Syntax => "ERR syntax error",
            Problem::NotInteger => "ERR value is not an integer or out of range",
            Problem::NotFloat => "ERR value is not a valid float",
            Problem::Value => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            Problem::NoScript => "NOSCRIPT No matching script. Please use EVAL.",
            Problem::Arity(cmd) => {
                return format!("ERR wrong number of arguments for '{}' command", cmd.row().name).into();
            }
            Problem::Expire(cmd) => return format!("ERR invalid expire time in '{}' command", cmd.row().name).into(),
            Problem::Key => return format!("ERR keys have 1 to {} bytes on this server", limits::KEY_BYTES_MAX).into(),
            Problem::Subcommand(cmd, sub) => {
                let name = cmd.row().name.to_ascii_uppercase();
                return [b"ERR unknown subcommand '", shown(sub), b"'. Try ", name.as_bytes(), b" HELP."].concat();
            }
            Problem::Other(text) => return format!("ERR {text}").into(),
            Problem::Worded(text) => return text.clone(),
        };
        text.into()
    }
}

/// What is shown of a word that was sent: its beginning, to the first zero byte.
pub fn shown(word: &[u8]) -> &[u8] {
    let end = word.iter().position(|&byte| byte == 0).unwrap_or(word.len());
    &word[..end.min(SHOWN_BYTES)]
}

/// Bytes of what was sent that are shown in an error.
const SHOWN_BYTES: usize = 128;
/// Unix time in milliseconds, roughly: what a relative time must leave room for.
const UNIX_MS_ROUGHLY: i64 = 1 << 42;
