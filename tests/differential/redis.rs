//! What is equal between two Redis: replies by the rule of their command, those of a transaction each by its own.

use std::io::{self, BufReader};
use std::net::TcpStream;

use crate::engine::{Act, CONNECTIONS, Dialect, Facts, Judgement, Request, Side, judge_by, shown_bytes};
use crate::redis_commands::Rule;
use crate::redis_stream::{Body, RedisStream};
use crate::resp;

/// The Redis protocol, in either version.
pub struct Redis {
    stream: RedisStream,
    /// RESP version in which connections begin.
    version: u8,
    /// Rules of the commands that each connection has queued, as the reference told.
    queued: [Vec<Rule>; CONNECTIONS],
}

type Sent = Request<Body, Rule>;

impl Redis {
    /// The stream of `seed`; connections begin in RESP `version` (2 or 3) and change it now and then.
    pub fn new(seed: u64, version: u8) -> Redis {
        Redis { stream: RedisStream::new(seed), version, queued: Default::default() }
    }
}

impl Dialect for Redis {
    type Body = Body;
    type Rule = Rule;

    fn next(&mut self) -> Act<Body, Rule> {
        self.stream.next()
    }

    fn render(&self, body: &Body, _: Side) -> Vec<u8> {
        body.clone()
    }

    fn read(&self, from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
        resp::read(from)
    }

    fn judge(&mut self, request: &Sent, reference: &[u8], other: &[u8], facts: Facts) -> Judgement {
        let queued = &mut self.queued[request.connection];
        if reference == b"+QUEUED\r\n" {
            queued.push(request.rule);
            return judge_by(None, reference, other, facts);
        }
        let ends = matches!(&request.name[..], "EXEC" | "DISCARD");
        if !ends || reference.starts_with(b"-ERR") {
            return judge_by(request.rule, reference, other, facts);
        }
        let rules = std::mem::take(queued);
        let (Some((head, ours)), Some((other_head, theirs))) = (resp::children(reference), resp::children(other))
        else {
            return judge_by(None, reference, other, facts);
        };
        if head != other_head || ours.len() != rules.len() {
            return judge_by(None, reference, other, facts);
        }
        let mut judgement = Judgement::Equal;
        for (place, ((one, two), rule)) in ours.iter().zip(theirs).zip(rules).enumerate() {
            match judge_by(rule, one, two, facts) {
                Judgement::Equal => {}
                explained @ Judgement::Explained(_) => judgement = explained,
                Judgement::Different(why) => {
                    let (one, two) = (shown_bytes(one), shown_bytes(two));
                    return Judgement::Different(format!("reply {place} of EXEC: {one} and {two} {why}"));
                }
            }
        }
        judgement
    }

    /// SCAN: whole iterations, as the set of what they found. RANDOMKEY: whether the key is one of those there, and which they are.
    fn converse(&self, request: &Sent, ask: &mut dyn FnMut(&[u8]) -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
        if request.name == "RANDOMKEY" {
            let found = ask(&resp::request(&["RANDOMKEY"]))?;
            let keys = ask(&resp::request(&["KEYS", "*"]))?;
            let Some((_, mut keys)) = resp::children(&keys) else { return Ok([&b"KEYS: "[..], &keys].concat()) };
            keys.sort_unstable();
            let verdict = match resp::bulk(&found) {
                Some(_) if keys.contains(&&found[..]) => [&b"one of "[..], &keys.concat()].concat(),
                None if keys.is_empty() => found,
                _ => [&b"not one of the keys: "[..], &found].concat(),
            };
            return Ok(verdict);
        }
        let Some((_, options)) = resp::children(&request.body) else { unreachable!("built as an array") };
        let options: Vec<&[u8]> = options.into_iter().skip(1).filter_map(resp::bulk).collect();
        let mut cursor = b"0".to_vec();
        let mut found: Vec<Vec<u8>> = Vec::new();
        for _ in 0..SCAN_ROUNDS_MAX {
            let mut words: Vec<&[u8]> = vec![b"SCAN", &cursor];
            words.extend(&options);
            let reply = ask(&resp::request(&words))?;
            let Some((_, parts)) = resp::children(&reply) else { return Ok(reply) };
            let (next, keys) = match parts[..] {
                [next, keys] => (resp::bulk(next), resp::children(keys)),
                _ => (None, None),
            };
            let (Some(next), Some((_, keys))) = (next, keys) else { return Ok(reply) };
            found.extend(keys.iter().map(|key| key.to_vec()));
            if next == b"0" {
                found.sort_unstable();
                found.dedup();
                return Ok(found.concat());
            }
            cursor = next.to_vec();
        }
        Ok(format!("no end within {SCAN_ROUNDS_MAX} rounds").into_bytes())
    }

    fn reset(&mut self, connection: usize) -> Vec<Vec<u8>> {
        self.queued[connection].clear();
        let mut words: Vec<&[u8]> = vec![b"DEL"];
        words.extend(self.stream.commands.keys.iter().map(|key| &key[..]));
        let hello = resp::request(&["HELLO", &self.version.to_string()]);
        // A server without DEL of many keys is emptied by DEL of each.
        let single = self.stream.commands.keys.iter().map(|key| resp::request(&[b"DEL", &key[..]]));
        [hello, resp::request(&words)].into_iter().chain(single).collect()
    }

    fn show(&self, request: &[u8]) -> String {
        let shown = |word: &[u8]| {
            let text = match word.get(..SHOWN_WORD_BYTES_MAX) {
                Some(start) => format!("{}...({})", start.escape_ascii(), word.len()),
                None => word.escape_ascii().to_string(),
            };
            if text.is_empty() || text.contains(' ') { format!("\"{text}\"") } else { text }
        };
        match resp::children(request) {
            Some((_, words)) if !words.is_empty() => {
                words.iter().map(|word| shown(resp::bulk(word).unwrap_or(word))).collect::<Vec<_>>().join(" ")
            }
            _ => format!("(raw) {}", shown_bytes(request)),
        }
    }
}

/// Twelve keys are found in fewer.
const SCAN_ROUNDS_MAX: usize = 1000;

/// Bytes of a word shown in reports: a script as a whole.
const SHOWN_WORD_BYTES_MAX: usize = 120;
