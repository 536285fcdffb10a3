//! Replies that are put together of what several shards answered.
//!
//! A command about several keys is cut into parts, each a command about one key (or about one shard: its number of
//! keys, its subscribers). Parts of one shard travel together; each is answered with its length before it:
//!
//!   steps:    | MGET a b c, merge Array | PING, known | …
//!   parts:      a@1  b@0  c@1
//!   shard 0:  | b |            ->  | 4 | reply |
//!   shard 1:  | a | c |        ->  | 4 | reply | 4 | reply |

use std::collections::{BTreeMap, BTreeSet};

use crate::base::id::ShardId;
use crate::engine::post::Asked;
use crate::wire::resp::encode;

/// How a reply is made of those to its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It is the reply to its only part.
    One,
    /// It is known already.
    Known(Vec<u8>),
    /// An array of all.
    Array,
    /// The sum of numbers.
    Sum,
    /// `+OK`, if all are.
    Ok,
    /// This number, if all are `+OK`.
    Number(i64),
    /// An array of the elements of all, each once.
    Union,
    /// How many different elements there are in all.
    CountUnion,
    /// An array of names and numbers: the names of the first, the sums of the numbers.
    SumPairs,
    /// Texts, one behind the other, lines in the order of the numbers they begin with.
    Lines,
    /// The first that is something.
    First,
    /// `+OK` if the sum of numbers is not zero, else this error.
    OkIfAny(&'static str),
}

/// One command of those that are answered together.
#[derive(Debug)]
pub struct Step {
    pub merge: Merge,
    /// The shards of its parts, in their order.
    pub shards: Vec<ShardId>,
    pub is_resp3: bool,
}

/// Replies to parts as they come.
#[derive(Debug, Default)]
pub struct Gather {
    steps: Vec<Step>,
    /// Whether the steps are elements of one array (EXEC).
    is_array: bool,
    /// By shard: what it has answered, and how much of that has been used.
    replies: BTreeMap<u16, (Vec<u8>, usize)>,
    left: usize,
    /// What the client asked for and when, where that is counted once all is there.
    pub asked: Option<Asked>,
}

impl Gather {
    /// Waits for `left` shards.
    pub fn new(steps: Vec<Step>, is_array: bool, left: usize) -> Gather {
        Gather { steps, is_array, replies: BTreeMap::new(), left, asked: None }
    }

    /// Takes in what a shard has answered. The whole reply once nothing is missing.
    pub fn take_in(&mut self, from: ShardId, replies: Vec<u8>) -> Option<Vec<u8>> {
        self.add(from, replies);
        self.left -= 1;
        (self.left == 0).then(|| self.whole())
    }

    /// Adds what a shard has answered that was not waited for.
    pub fn add(&mut self, from: ShardId, replies: Vec<u8>) {
        self.replies.insert(from.0, (replies, 0));
    }

    /// Bytes of replies that wait for the others.
    pub fn bytes(&self) -> usize {
        self.replies.values().map(|(replies, _)| replies.len()).sum()
    }

    /// The replies to all parts of all steps, step by step, before they are merged.
    pub fn parts(&mut self) -> Vec<Vec<Vec<u8>>> {
        let steps = std::mem::take(&mut self.steps);
        let parts = steps.iter().map(|step| self.parts_of(step)).collect();
        self.steps = steps;
        parts
    }

    /// The whole reply.
    pub fn whole(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.is_array {
            encode::array(self.steps.len(), &mut out);
        }
        for step in std::mem::take(&mut self.steps) {
            let parts = self.parts_of(&step);
            merge(&step.merge, parts, step.is_resp3, &mut out);
        }
        out
    }

    fn parts_of(&mut self, step: &Step) -> Vec<Vec<u8>> {
        step.shards.iter().map(|shard| self.replies.get_mut(&shard.0).map(next).unwrap_or_default()).collect()
    }
}

/// Appends a reply with its length before it.
pub fn with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    write(out);
    let length = (out.len() - at - LENGTH_BYTES) as u32;
    out[at..at + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

fn next((replies, used): &mut (Vec<u8>, usize)) -> Vec<u8> {
    let Some(length) = replies[*used..].first_chunk::<LENGTH_BYTES>() else { return Vec::new() };
    let from = *used + LENGTH_BYTES;
    *used = (from + u32::from_le_bytes(*length) as usize).min(replies.len());
    replies[from..*used].to_vec()
}

/// Appends the reply that `parts` make.
pub fn merge(how: &Merge, parts: Vec<Vec<u8>>, is_resp3: bool, out: &mut Vec<u8>) {
    // Whatever was wanted, an error is the answer.
    let is_error = |part: &&Vec<u8>| match how {
        Merge::One => false,
        // An element may be one; but what did not fit is the answer to all.
        Merge::Array => part.starts_with(b"-OOM "),
        _ => part.first() == Some(&b'-'),
    };
    if let Some(error) = parts.iter().find(is_error) {
        return out.extend_from_slice(error);
    }
    match how {
        Merge::Known(reply) => out.extend_from_slice(reply),
        Merge::One => parts.iter().for_each(|part| out.extend_from_slice(part)),
        Merge::Array => {
            encode::array(parts.len(), out);
            parts.iter().for_each(|part| out.extend_from_slice(part));
        }
        Merge::Sum => encode::integer(parts.iter().filter_map(|part| number(part)).sum(), out),
        Merge::Ok => encode::simple("OK", out),
        Merge::OkIfAny(error) => match parts.iter().filter_map(|part| number(part)).sum() {
            0i64 => encode::error(error, out),
            _ => encode::simple("OK", out),
        },
        Merge::Number(number) => encode::integer(*number, out),
        Merge::Union => {
            let all: BTreeSet<Vec<u8>> = parts.iter().flat_map(|part| elements(part)).collect();
            encode::array(all.len(), out);
            all.iter().for_each(|element| out.extend_from_slice(element));
        }
        Merge::CountUnion => {
            let all: BTreeSet<Vec<u8>> = parts.iter().flat_map(|part| elements(part)).collect();
            encode::integer(all.len() as i64, out);
        }
        Merge::SumPairs => {
            let lists: Vec<Vec<Vec<u8>>> = parts.iter().map(|part| elements(part)).collect();
            let count = lists.first().map_or(0, Vec::len);
            encode::array(count, out);
            for at in 0..count {
                match at % 2 {
                    0 => out.extend_from_slice(&lists[0][at]),
                    _ => {
                        let numbers = lists.iter().filter_map(|list| number(list.get(at)?));
                        encode::integer(numbers.sum(), out);
                    }
                }
            }
        }
        Merge::Lines => {
            let mut lines: Vec<&[u8]> = Vec::new();
            for part in &parts {
                let text = payload(part);
                lines.extend(text.split_inclusive(|&byte| byte == b'\n'));
            }
            lines.sort_by_key(|line| first_number(line));
            text(&lines.concat(), is_resp3, out);
        }
        Merge::First => match parts.iter().find(|part| !is_null(part)) {
            Some(part) => out.extend_from_slice(part),
            None => encode::null(is_resp3, out),
        },
    }
}

/// Appends a text for people: a verbatim string in RESP3.
pub fn text(text: &[u8], is_resp3: bool, out: &mut Vec<u8>) {
    if !is_resp3 {
        return encode::bulk(text, out);
    }
    out.extend_from_slice(format!("={}\r\ntxt:", text.len() + 4).as_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// The number that an integer reply is.
pub fn number(reply: &[u8]) -> Option<i64> {
    let line = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// Whether a reply is the absence of a value.
pub fn is_null(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"_\r\n" | b"*-1\r\n")
}

/// The bytes of a bulk string.
pub fn payload(reply: &[u8]) -> &[u8] {
    let Some(line) = reply.iter().position(|&byte| byte == b'\n') else { return &[] };
    reply.get(line + 1..reply.len() - 2).unwrap_or_default()
}

/// The elements of an array of bulk strings and integers.
pub fn elements(array: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = match array.iter().position(|&byte| byte == b'\n') {
        Some(line) => &array[line + 1..],
        None => return found,
    };
    while let Some(line) = rest.iter().position(|&byte| byte == b'\n') {
        let head = &rest[..line + 1];
        let length = match rest[0] {
            b'$' => std::str::from_utf8(&head[1..line - 1]).ok().and_then(|text| text.parse::<usize>().ok()),
            _ => None,
        };
        let end = line + 1 + length.map_or(0, |length| length + 2);
        let Some(element) = rest.get(..end) else { break };
        found.push(element.to_vec());
        rest = &rest[end..];
    }
    found
}

/// The number behind the `=` with which a line begins (`id=7 …`).
fn first_number(line: &[u8]) -> u64 {
    let digits = line.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// Bytes of the length before each reply.
const LENGTH_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(how: Merge, parts: &[&str]) -> String {
        let mut out = Vec::new();
        merge(&how, parts.iter().map(|part| part.as_bytes().to_vec()).collect(), false, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parts_become_what_the_whole_command_answers() {
        assert_eq!(merged(Merge::Sum, &[":1\r\n", ":0\r\n", ":5\r\n"]), ":6\r\n");
        assert_eq!(merged(Merge::Array, &["$1\r\na\r\n", "$-1\r\n"]), "*2\r\n$1\r\na\r\n$-1\r\n");
        assert_eq!(merged(Merge::Ok, &["+OK\r\n", "-ERR no\r\n"]), "-ERR no\r\n");
        assert_eq!(
            merged(Merge::Union, &["*2\r\n$1\r\nb\r\n$1\r\na\r\n", "*1\r\n$1\r\na\r\n"]),
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n"
        );
        assert_eq!(merged(Merge::CountUnion, &["*1\r\n$1\r\nb\r\n", "*1\r\n$1\r\nb\r\n"]), ":1\r\n");
        assert_eq!(
            merged(Merge::SumPairs, &["*2\r\n$1\r\nc\r\n:1\r\n", "*2\r\n$1\r\nc\r\n:2\r\n"]),
            "*2\r\n$1\r\nc\r\n:3\r\n"
        );
        assert_eq!(merged(Merge::Lines, &["$10\r\nid=10 a=1\n\r\n", "$5\r\nid=9\n\r\n"]).lines().nth(1), Some("id=9"));
        assert_eq!(merged(Merge::First, &["$-1\r\n", "$1\r\nk\r\n"]), "$1\r\nk\r\n");
    }

    #[test]
    fn replies_of_shards_are_put_into_the_order_of_the_command() {
        let step = Step { merge: Merge::Array, shards: vec![ShardId(1), ShardId(0), ShardId(1)], is_resp3: false };
        let known = Step { merge: Merge::Known(b"+PONG\r\n".to_vec()), shards: Vec::new(), is_resp3: false };
        let mut gather = Gather::new(vec![step, known], true, 2);
        let replies = |texts: &[&str]| {
            let mut out = Vec::new();
            texts.iter().for_each(|text| with_length(&mut out, |to| to.extend_from_slice(text.as_bytes())));
            out
        };
        assert_eq!(gather.take_in(ShardId(1), replies(&[":1\r\n", ":3\r\n"])), None);
        let whole = gather.take_in(ShardId(0), replies(&[":2\r\n"])).unwrap();
        assert_eq!(String::from_utf8(whole).unwrap(), "*2\r\n*3\r\n:1\r\n:2\r\n:3\r\n+PONG\r\n");
    }

    #[test]
    fn what_is_cut_short_is_no_reason_to_panic() {
        assert!(elements(b"*2\r\n$5\r\nab").is_empty() && elements(b"").is_empty());
        assert_eq!((payload(b""), number(b":x\r\n"), number(b"")), (b"".as_slice(), None, None));
    }
}
