//! What a shard does for one part of a command: something about one of its keys, or about itself.
//!
//! Parts are commands of RESP. What clients cannot ask for, only other shards, has a name that begins with a byte no
//! command has.

use std::ops::DerefMut;
use std::sync::atomic::Ordering;

use crate::base::hash::KeyHash;
use crate::base::id::ShardId;
use crate::base::limits;
use crate::base::time::Instant;
use crate::engine::apply::apply;
use crate::engine::core::Core;
use crate::engine::post::Caller;
use crate::engine::resp::config::{self, EVENTS};
use crate::engine::resp::gather::with_length;
use crate::engine::resp::tasks::part;
use crate::wire::resp::commands::Cmd;
use crate::wire::resp::single::{self, Problem};
use crate::wire::resp::{Resp, encode, request_id, words};
use crate::wire::{Command, Edit, Expiry, Mode, Request, glob};

/// Everything goes.
pub const FLUSH: &[u8] = b"\x01flush";
/// `key`: begin to watch it; answers a token.
pub const WATCH: &[u8] = b"\x01watch";
/// `key token`: whether it is as it was, and watch it no longer.
pub const CHECK: &[u8] = b"\x01check";
/// `key`: watch it no longer.
pub const UNWATCH: &[u8] = b"\x01unwatch";
/// `key`: its value and when it expires, or nothing.
pub const WHOLE: &[u8] = b"\x01whole";
/// `key value expiry`: what [`WHOLE`] answered, stored.
pub const RESTORE: &[u8] = b"\x01restore";
/// `client writer key…`: tell it that these keys have changed, one by one.
pub const TELL: &[u8] = b"\x01tell";
/// `client writer key…`: the same, together.
pub const TELL_TOGETHER: &[u8] = b"\x01telltogether";
/// `client`: tell it that everything has changed.
pub const TELL_ALL: &[u8] = b"\x01tellall";
/// `receiver client key…`: give it the news of another client.
pub const DELIVER: &[u8] = b"\x01deliver";
/// `receiver client`: the same of everything.
pub const DELIVER_ALL: &[u8] = b"\x01deliverall";
/// `client receiver`: the client that it named to be told is gone.
pub const BROKEN: &[u8] = b"\x01broken";
/// `client prefix…`: broadcast to it.
pub const BROADCAST: &[u8] = b"\x01broadcast";
/// `client`: broadcast to it no more.
pub const END_BROADCAST: &[u8] = b"\x01endbroadcast";

/// What a command is answered whose reply has grown too large.
pub(super) const NO_ROOM: &str =
    "OOM the reply is larger than this server's memory for replies; ask for less at a time";

impl<M: DerefMut<Target = [u8]>> Core<M> {
    /// Does all parts in `frame` and appends their replies, each with its length before it.
    pub(in crate::engine) fn do_parts(&mut self, frame: &[u8], caller: Caller, replies: &mut Vec<u8>) {
        let (mut at, mut spoken) = (0, Vec::new());
        while at < frame.len() {
            at += words(&frame[at..], &mut spoken);
            // What one command is answered must fit the memory for replies, or many keys of large values would fill
            // the process's.
            let is_full = replies.len() > self.buffer_bytes_max / 2;
            let is_skipped = is_full && Cmd::of(spoken[0]).is_some_and(|cmd| !cmd.writes());
            with_length(replies, |to| match is_skipped {
                true => encode::error(NO_ROOM, to),
                false => self.do_part(&spoken, caller, to),
            });
        }
    }

    /// Does one part and appends its reply.
    pub(super) fn do_part(&mut self, words: &[&[u8]], caller: Caller, to: &mut Vec<u8>) {
        let [name, ref rest @ ..] = *words else { return };
        if name.first() == Some(&1) {
            return self.do_own_part(name, rest, caller, to);
        }
        let Some(cmd) = Cmd::of(name) else { return };
        match single::command(cmd, words, self.value_bytes_max) {
            Ok(command) => self.do_single(cmd, command, caller, to),
            Err(Problem::NotSingle) => self.do_shard_part(cmd, rest, caller, to),
            Err(problem) => problem.write(to),
        }
    }

    /// A command about one key of this shard.
    pub(super) fn do_single(&mut self, cmd: Cmd, command: Command<'_>, caller: Caller, to: &mut Vec<u8>) {
        let key = command.key().unwrap_or_default();
        let hash = self.shared.seed.hash(key);
        self.calls.count(cmd as u8);
        self.keys.client = caller.client;
        let wants_event = self.attention & EVENTS != 0 && (cmd.writes() || matches!(cmd, Cmd::Eval | Cmd::EvalSha));
        let before = wants_event.then(|| self.state_of(hash, key));
        let request = Request { id: request_id(cmd, caller.is_resp3), want_version: false, command };
        apply::<Resp, M>(&mut self.keys, &self.shared.counters[self.id.0 as usize], &request, hash, to);
        self.keys.client = 0;
        if let Some(before) = before {
            self.publish_events(cmd, &command, before, hash, key);
        }
        if self.keys.tracking.wants_expiries()
            && !cmd.writes()
            && let Some(expires) = self.keys.store.peek(hash, key, self.now).and_then(|item| item.expires)
        {
            self.keys.tracking.note_expiry(hash, key, expires);
        }
        if caller.tracks && !cmd.writes() {
            self.note_read(hash, key, caller);
        }
    }

    /// Whether a key is there, and when it expires: what events are told apart by.
    fn state_of(&mut self, hash: KeyHash, key: &[u8]) -> Option<Option<Instant>> {
        self.keys.store.peek(hash, key, self.now).map(|item| item.expires)
    }

    /// Publishes what a command has done to a key, where `notify-keyspace-events` asks for it.
    #[cold]
    fn publish_events(
        &mut self,
        cmd: Cmd,
        command: &Command<'_>,
        before: Option<Option<Instant>>,
        hash: KeyHash,
        key: &[u8],
    ) {
        let after = self.state_of(hash, key);
        let mut events: Vec<(u32, &str)> = Vec::new();
        if before.is_none() && after.is_some() {
            events.push((config::NEW, "new"));
        }
        let is_edit = |wanted: fn(&Edit<'_>) -> bool| matches!(command, Command::Edit { edit, .. } if wanted(edit));
        match (cmd, after) {
            (_, None) if before.is_some() => events.push((config::GENERIC, "del")),
            (Cmd::Set | Cmd::SetNx | Cmd::SetEx | Cmd::PSetEx | Cmd::GetSet, Some(expires)) => {
                // What a condition kept from being stored is no event; it cannot be told from the outside if it was.
                let is_unmet = is_edit(|edit| matches!(edit, Edit::Store { mode: Mode::Add, .. })) && before.is_some();
                if !is_unmet {
                    events.push((config::STRING, "set"));
                    if expires.is_some() && !is_edit(|edit| matches!(edit, Edit::Store { expiry: Expiry::Keep, .. })) {
                        events.push((config::GENERIC, "expire"));
                    }
                }
            }
            (Cmd::Incr | Cmd::Decr | Cmd::IncrBy | Cmd::DecrBy, Some(_)) => {
                events.push((config::STRING, if matches!(cmd, Cmd::Decr | Cmd::DecrBy) { "decrby" } else { "incrby" }));
            }
            (Cmd::IncrByFloat, Some(_)) => events.push((config::STRING, "incrbyfloat")),
            (Cmd::Append, Some(_)) => events.push((config::STRING, "append")),
            (Cmd::SetRange, Some(_)) => events.push((config::STRING, "setrange")),
            (Cmd::SetBit, Some(_)) => events.push((config::STRING, "setbit")),
            (Cmd::Expire | Cmd::PExpire | Cmd::ExpireAt | Cmd::PExpireAt | Cmd::GetEx, Some(Some(expires)))
                if before.flatten() != Some(expires) =>
            {
                events.push((config::GENERIC, "expire"));
            }
            (Cmd::Persist | Cmd::GetEx, Some(None)) if before.flatten().is_some() => {
                events.push((config::GENERIC, "persist"));
            }
            _ => {}
        }
        for (kind, event) in events {
            self.publish_event(kind, event, key);
        }
    }

    /// Publishes one event about a key, where it is asked for.
    pub(super) fn publish_event(&mut self, kind: u32, event: &str, key: &[u8]) {
        let wanted = self.shared.resp.events.load(Ordering::Relaxed);
        if wanted & kind == 0 {
            return;
        }
        if wanted & config::BY_KEY != 0 {
            self.publish_everywhere(&[b"__keyspace@0__:", key].concat(), event.as_bytes());
        }
        if wanted & config::BY_EVENT != 0 {
            self.publish_everywhere(format!("__keyevent@0__:{event}").as_bytes(), key);
        }
    }

    fn publish_everywhere(&mut self, channel: &[u8], message: &[u8]) {
        for shard in self.spread().all().collect::<Vec<_>>() {
            self.tell_shard(shard, part(&[b"publish", channel, message]));
        }
    }

    fn note_read(&mut self, hash: KeyHash, key: &[u8], caller: Caller) {
        let expires = self.keys.store.peek(hash, key, self.now).and_then(|item| item.expires);
        self.keys.tracking.note(hash, key, expires, caller.client);
    }

    /// A command about this shard.
    fn do_shard_part(&mut self, cmd: Cmd, words: &[&[u8]], caller: Caller, to: &mut Vec<u8>) {
        match cmd {
            Cmd::DbSize => encode::integer(self.keys.store.stats().entries as i64, to),
            Cmd::Keys if words[0].len() > limits::KEY_BYTES_MAX => Problem::Other(PATTERN_TOO_LONG).write(to),
            Cmd::Keys => self.keys_matching(words[0], to),
            Cmd::RandomKey => match self.keys.store.random(self.now) {
                Some(item) => encode::bulk(item.key, to),
                None => encode::null(caller.is_resp3, to),
            },
            Cmd::Scan => match self.scan(words) {
                Ok((cursor, keys)) => {
                    encode::array(2, to);
                    encode::bulk(cursor.to_string().as_bytes(), to);
                    encode::array(keys.len(), to);
                    keys.iter().for_each(|key| encode::bulk(key, to));
                }
                Err(problem) => problem.write(to),
            },
            Cmd::Publish if words[0].len() > limits::KEY_BYTES_MAX => encode::integer(0, to),
            Cmd::Publish => {
                let heard = self.publish_here(words[0], words[1]);
                encode::integer(heard as i64, to);
            }
            Cmd::PubSub => self.pubsub_here(words, to),
            Cmd::Client => self.clients_here(words, caller, to),
            _ => encode::error("ERR syntax error", to),
        }
    }

    /// What only shards ask of each other.
    fn do_own_part(&mut self, name: &[u8], words: &[&[u8]], caller: Caller, to: &mut Vec<u8>) {
        let number = |place: usize| -> u64 {
            words.get(place).and_then(|word| std::str::from_utf8(word).ok()?.parse().ok()).unwrap_or(0)
        };
        match name {
            FLUSH => {
                self.calls.count(Cmd::FlushAll as u8);
                self.keys.flush();
                encode::simple("OK", to);
            }
            WATCH => {
                let hash = self.shared.seed.hash(words[0]);
                let is_there = self.keys.store.peek(hash, words[0], self.now).is_some();
                match self.keys.watches.watch(hash, is_there) {
                    Some(token) => encode::integer(token as i64, to),
                    None => encode::error("ERR too many keys are watched on this server", to),
                }
            }
            CHECK => {
                let hash = self.shared.seed.hash(words[0]);
                let is_there = self.keys.store.peek(hash, words[0], self.now).is_some();
                let unchanged = self.keys.watches.is_unchanged(hash, number(1), is_there);
                self.keys.watches.unwatch(hash);
                encode::integer(i64::from(unchanged), to);
            }
            UNWATCH => {
                self.keys.watches.unwatch(self.shared.seed.hash(words[0]));
                encode::simple("OK", to);
            }
            WHOLE => {
                let hash = self.shared.seed.hash(words[0]);
                match self.keys.store.peek(hash, words[0], self.now) {
                    Some(item) => {
                        let expires = item.expires.map_or(-1, |expires| expires.ms as i64);
                        encode::array(2, to);
                        encode::bulk(item.value, to);
                        encode::integer(expires, to);
                    }
                    None => encode::null(false, to),
                }
            }
            RESTORE => {
                // Both shards go by the process's clock.
                let expiry = match std::str::from_utf8(words[2]).ok().and_then(|text| text.parse::<i64>().ok()) {
                    Some(ms @ 0..) => Expiry::At(self.keys.unix_zero_ms.saturating_add(ms)),
                    _ => Expiry::Never,
                };
                let edit = Edit::Store { value: words[1], expiry, mode: Mode::Set, old: false };
                self.do_single(Cmd::Set, Command::Edit { key: words[0], edit }, caller, to);
            }
            TELL => words[2..].iter().for_each(|key| self.tell_client(number(0), number(1), false, Some(&[key]))),
            TELL_TOGETHER => self.tell_client(number(0), number(1), true, Some(&words[2..])),
            TELL_ALL => self.tell_client(number(0), 0, false, None),
            DELIVER | DELIVER_ALL => {
                let (receiver, client) = (number(0), number(1));
                if !self.deliver_to(receiver, (name == DELIVER).then_some(&words[2..])) {
                    let home = ShardId(config::shard_of_client(client));
                    self.tell_shard(home, part(&[BROKEN, words[1], words[0]]));
                }
            }
            BROKEN => self.receiver_gone(number(0), number(1)),
            BROADCAST => {
                words[1..].iter().for_each(|prefix| self.keys.tracking.broadcast(prefix, number(0)));
                encode::simple("OK", to);
            }
            END_BROADCAST => self.keys.tracking.end_broadcasts(number(0)),
            _ => {}
        }
    }

    fn keys_matching(&self, pattern: &[u8], to: &mut Vec<u8>) {
        let (mut found, mut count, mut cursor) = (Vec::new(), 0, Some(0));
        while let Some(from) = cursor {
            cursor = self.keys.store.scan(from, limits::SCAN_HOMES_MAX, self.now, |item| {
                if glob::matches(pattern, item.key) {
                    count += 1;
                    encode::bulk(item.key, &mut found);
                }
            });
            if found.len() > self.buffer_bytes_max / 4 {
                return encode::error("ERR more keys match than this server has buffer memory for; use SCAN", to);
            }
        }
        encode::array(count, to);
        to.extend_from_slice(&found);
    }

    /// Some keys from a cursor on, and the next cursor.
    fn scan(&self, words: &[&[u8]]) -> Result<(u64, Vec<Vec<u8>>), Problem> {
        let cursor: u64 = std::str::from_utf8(words[0]).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let (mut wanted, mut pattern, mut is_string) = (10i64, None, true);
        let mut options = words[1..].iter();
        while let Some(option) = options.next() {
            let value = options.next().ok_or(Problem::Syntax)?;
            match option.to_ascii_uppercase().as_slice() {
                b"COUNT" => {
                    wanted = single::integer(value)?;
                    if wanted < 1 {
                        return Err(Problem::Syntax);
                    }
                }
                b"MATCH" if value.len() > limits::KEY_BYTES_MAX => return Err(Problem::Other(PATTERN_TOO_LONG)),
                b"MATCH" => pattern = Some(*value),
                b"TYPE" => is_string = value.eq_ignore_ascii_case(b"string"),
                _ => return Err(Problem::Syntax),
            }
        }
        let wanted = wanted as usize;
        let (mut keys, mut seen, mut bytes) = (Vec::new(), 0, 0);
        let (mut next, mut homes, mut homes_left) =
            (Some(cursor as u32), wanted / ENTRIES_PER_HOME + 1, limits::SCAN_HOMES_IN_ALL);
        // Where few are there it looks further, in larger steps: an almost empty table is walked by one SCAN or two.
        while let Some(from) = next
            && homes_left > 0
            && seen < wanted.min(limits::SCAN_ENTRIES_MAX)
            && bytes <= limits::OUTPUT_BYTES_HIGH
        {
            homes = homes.min(limits::SCAN_HOMES_MAX).min(homes_left);
            next = self.keys.store.scan(from, homes, self.now, |item| {
                seen += 1;
                if is_string && pattern.is_none_or(|pattern| glob::matches(pattern, item.key)) {
                    bytes += item.key.len();
                    keys.push(item.key.to_vec());
                }
            });
            homes_left -= homes;
            homes *= 2;
        }
        let shard = u64::from(self.id.0);
        let cursor = match next {
            Some(next) => shard << 32 | u64::from(next),
            None if (shard as usize) + 1 < self.shared.counters.len() => (shard + 1) << 32,
            None => 0,
        };
        Ok((cursor, keys))
    }

    fn pubsub_here(&self, words: &[&[u8]], to: &mut Vec<u8>) {
        match words[0].to_ascii_uppercase().as_slice() {
            b"CHANNELS" => {
                let names: Vec<_> = self.pubsub.channels(words.get(1).copied()).collect();
                encode::array(names.len(), to);
                names.iter().for_each(|name| encode::bulk(name, to));
            }
            b"NUMSUB" => {
                encode::array(2 * (words.len() - 1), to);
                for name in &words[1..] {
                    encode::bulk(name, to);
                    encode::integer(self.pubsub.count(name) as i64, to);
                }
            }
            b"NUMPAT" => {
                let names: Vec<_> = self.pubsub.patterns().collect();
                encode::array(names.len(), to);
                names.iter().for_each(|name| encode::bulk(name, to));
            }
            _ => encode::array(0, to),
        }
    }
}

/// Patterns that no key could match; longer ones would only cost time.
const PATTERN_TOO_LONG: &str = "a pattern has at most 1024 bytes, as keys have";
/// Entries of one index home, about.
const ENTRIES_PER_HOME: usize = 6;
