//! A command's way through the state of its connection: refused, queued, held back, or done.

use std::ops::DerefMut;
use std::sync::atomic::Ordering;

use crate::base::hash::KeyHash;
use crate::base::id::{ConnectionId, ShardId};
use crate::base::limits;
use crate::base::prng::mix;
use crate::engine::batch::Served;
use crate::engine::core::Core;
use crate::engine::post::{Asked, Caller, Errand, Hold, Letter};
use crate::engine::resp::client::{Client, Queue, ReplyMode, WatchedKey};
use crate::engine::resp::config::{FULL, PAUSED};
use crate::engine::resp::gather::{Gather, Merge, Step};
use crate::engine::resp::parts::NO_ROOM;
use crate::engine::resp::tasks::{Spread, Task};
use crate::engine::resp::transaction::Work;
use crate::engine::session::{Bound, Protocol, Session};
use crate::engine::strong;
use crate::observe::Operation;
use crate::wire::Command;
use crate::wire::resp::commands::Cmd;
use crate::wire::resp::single::{self, Problem};
use crate::wire::resp::{encode, encode_words, inline_words, scripts, words};

/// What came of a command.
enum Outcome {
    /// Its reply has been written.
    Replied,
    /// Its reply is given by others, or has been given already.
    Given,
    /// The same, and it is counted when that is there.
    Sent,
    /// It cannot be done now; the session says what holds it back.
    Blocked,
}

impl<M: DerefMut<Target = [u8]>> Core<M> {
    /// Serves a command of RESP that is more than a request to one shard.
    pub(in crate::engine) fn serve_resp(
        &mut self,
        id: ConnectionId,
        session: &mut Session,
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Served {
        if self.pushes.len() > limits::PUSHES_MAX || self.push_bytes > self.buffer_bytes_max / 2 {
            session.blocked = Some(Bound::Hold);
            return Served::Blocked;
        }
        let mut spoken = Vec::new();
        let inline;
        if frame.first() == Some(&b'*') {
            words(frame, &mut spoken);
        } else {
            let line = frame.trim_ascii_end();
            let Some(words) = inline_words(line) else {
                session.reply(out, |to| encode::error("ERR Protocol error: unbalanced quotes in request", to));
                session.closing = true;
                return Served::Done;
            };
            inline = words;
            spoken.extend(inline.iter().map(Vec::as_slice));
        }
        let Some(&name) = spoken.first() else { return Served::Done };
        if session.client == 0 {
            session.client = self.introduce(id);
        }
        // A browser that was talked into posting to this port: whatever follows is not from a friend.
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            session.closing = true;
            return Served::Done;
        }
        let mode = self.clients.get(&session.client).map_or(ReplyMode::On, |client| client.reply_mode);
        session.is_muted = matches!(mode, ReplyMode::Off | ReplyMode::SkipNext);
        if let Some(client) = self.clients.get_mut(&session.client) {
            client.frame_bytes = frame.len();
        }
        let served = self.serve_words(session, &spoken, out);
        if matches!(served, Served::Blocked) {
            session.is_muted = false;
            return served;
        }
        session.is_muted = false;
        let now = self.now;
        if let Some(client) = self.clients.get_mut(&session.client) {
            client.last_active = now;
            client.frame_bytes = 0;
            if mode == ReplyMode::SkipNext && client.reply_mode == ReplyMode::SkipNext {
                client.reply_mode = ReplyMode::On;
            }
            if client.reply_mode == ReplyMode::Skip {
                client.reply_mode = ReplyMode::SkipNext;
            }
            session.is_stateful = client.is_stateful();
        }
        served
    }

    fn serve_words(&mut self, session: &mut Session, words: &[&[u8]], out: &mut Vec<u8>) -> Served {
        let mut reply = Vec::new();
        let outcome = self.call(session, words, &mut reply, out);
        if !reply.is_empty() {
            session.reply(out, |to| to.extend_from_slice(&reply));
        }
        match outcome {
            Outcome::Replied | Outcome::Given => Served::Done,
            Outcome::Sent => Served::Sent,
            Outcome::Blocked => Served::Blocked,
        }
    }

    fn call(&mut self, session: &mut Session, words: &[&[u8]], reply: &mut Vec<u8>, out: &mut Vec<u8>) -> Outcome {
        let Some(cmd) = Cmd::of(words[0]) else {
            self.open_calls_rejected += 1;
            self.spoil(session.client);
            encode::error_bytes(&unknown(words), reply);
            return Outcome::Replied;
        };
        self.front_operation = operation_of_cmd(cmd);
        if let Some(problem) = arity_problem(cmd, words) {
            self.open_calls_rejected += 1;
            self.spoil(session.client);
            if cmd == Cmd::Exec {
                self.abort(session.client);
                let text = problem.text();
                let text =
                    [b"EXECABORT Transaction discarded because of: ", text.strip_prefix(b"ERR ").unwrap_or(&text)];
                encode::error_bytes(&text.concat(), reply);
            } else {
                problem.write(reply);
            }
            return Outcome::Replied;
        }
        if matches!(cmd, Cmd::Eval | Cmd::EvalSha)
            && let Some(call) = one_call(cmd, words)
        {
            let words: Vec<&[u8]> = call.iter().map(Vec::as_slice).collect();
            return self.call(session, &words, reply, out);
        }
        let is_resp3 = session.protocol == Protocol::Resp3;
        let Some(client) = self.clients.get_mut(&session.client) else { return Outcome::Replied };
        let caching = client.rare.tracking.as_ref().and_then(|mode| mode.caching);
        client.last_command.clear();
        client.last_command.push_str(cmd.row().name);
        if matches!(cmd, Cmd::Client | Cmd::Config | Cmd::Command | Cmd::Object | Cmd::PubSub | Cmd::Script)
            && let Some(sub) = words.get(1)
        {
            client.last_command.push('|');
            client.last_command.push_str(&String::from_utf8_lossy(&sub[..sub.len().min(16)]).to_lowercase());
        }
        if !is_resp3 && client.subscriptions() > 0 && !serves_listeners(cmd) {
            let name = cmd.row().name;
            let text = format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
            );
            encode::error(&text, reply);
            return Outcome::Replied;
        }
        let queues = client.rare.transaction.is_some() && !ends_queue(cmd);
        if self.attention & FULL != 0 && cmd.row().flags.contains(&"denyoom") {
            self.spoil(session.client);
            encode::error(OUT_OF_MEMORY, reply);
            return Outcome::Replied;
        }
        if self.attention & PAUSED != 0 && !queues && self.is_paused(session.client, cmd) {
            session.blocked = Some(Bound::Hold);
            return Outcome::Blocked;
        }
        if self.awaits_rules() {
            session.blocked = Some(Bound::Hold);
            return Outcome::Blocked;
        }
        let caller = self.caller(session.client, is_resp3);
        if self.keys.replication.as_ref().is_some_and(|replication| replication.has_strong()) {
            let single = single::command(cmd, words, self.value_bytes_max).ok();
            let key = single.as_ref().and_then(Command::key);
            if key.is_some_and(|key| self.is_strong(key))
                || cmd.row().key_places(words.len()).any(|place| self.is_strong(words[place]))
            {
                if let Some(key) = key.filter(|_| !queues && !caller.tracks) {
                    return self.ask_holder_in_words(session, cmd, key, words);
                }
                self.spoil(session.client);
                encode::error(&format!("ERR {}", strong::ONE_KEY), reply);
                return Outcome::Replied;
            }
        }
        if queues {
            return self.queue(session.client, words, reply);
        }
        let outcome = self.act(session, cmd, words, caller, reply, out);
        if !matches!(outcome, Outcome::Blocked)
            && caching.is_some()
            && let Some(client) = self.clients.get_mut(&session.client)
            && client.rare.transaction.is_none()
            && let Some(mode) = client.rare.tracking.as_mut()
        {
            // CLIENT CACHING is about the next command only, which may be a transaction.
            mode.caching = None;
        }
        outcome
    }

    /// Sends a command about one strong key to its holder: one that was typed, or a script.
    fn ask_holder_in_words(&mut self, session: &mut Session, cmd: Cmd, key: &[u8], words: &[&[u8]]) -> Outcome {
        if !self.post.holder_has_room() {
            return Outcome::Blocked;
        }
        let mut frame = Vec::new();
        // A script says its text: which one a SHA-1 stands for may be forgotten while the holder thinks.
        let script = match cmd {
            Cmd::Eval => scripts::by_source(words[1]),
            Cmd::EvalSha => scripts::by_sha(words[1]),
            _ => None,
        };
        match script {
            Some(script) => {
                let spelt: Vec<&[u8]> =
                    [b"EVAL", script.source()].into_iter().chain(words[2..].iter().copied()).collect();
                encode_words(spelt, &mut frame);
            }
            None => encode_words(words.iter().copied(), &mut frame),
        }
        let asked = Some(Asked { operation: self.front_operation, since_ns: self.asked_since(session) });
        let (errand, caller, hash) = (Errand::Request(session.protocol), Caller::default(), self.shared.seed.hash(key));
        let sequence = session.await_remote(1);
        self.post.ask_holder(&Letter { errand, caller, asked, connection: session.id, sequence, hash, frame: &frame });
        Outcome::Sent
    }

    /// Does a command that nothing holds back.
    fn act(
        &mut self,
        session: &mut Session,
        cmd: Cmd,
        words: &[&[u8]],
        caller: Caller,
        reply: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match cmd {
            Cmd::Multi => {
                self.calls.count(cmd as u8);
                self.multi(session.client, reply);
                return Outcome::Replied;
            }
            Cmd::Discard => {
                self.calls.count(cmd as u8);
                self.discard(session.client, reply);
                return Outcome::Replied;
            }
            Cmd::Exec => return self.exec(session, caller, reply, out),
            _ => {}
        }
        // By far the most frequent in this place: a command about one key on a connection with state.
        let spread = self.spread();
        if let Ok(command) = single::command(cmd, words, self.value_bytes_max)
            && let Some(key) = command.key().filter(|key| (1..=limits::KEY_BYTES_MAX).contains(&key.len()))
            && spread.of(key).1 == self.id
        {
            session.reply(out, |to| self.do_single(cmd, command, caller, to));
            return Outcome::Given;
        }
        // And so are several keys of a server of one shard.
        if spread.shards == 1 && cmd == Cmd::MGet {
            return self.get_all(session, &words[1..], caller, out);
        }
        match spread.task(cmd, words) {
            Err(problem) => {
                problem.write(reply);
                Outcome::Replied
            }
            Ok(Task::Local(_)) => {
                self.calls.count(cmd as u8);
                self.local(session, words, caller, reply);
                match self.to_broadcast.take() {
                    Some(part) => self.broadcast(session, cmd, part, caller, reply, out),
                    None => Outcome::Replied,
                }
            }
            Ok(Task::Plain { merge, parts }) => self.do_plain(session, cmd, merge, parts, caller, out),
            Ok(Task::Watch(keys)) => {
                let client = self.clients.get(&session.client);
                if client.is_some_and(|client| client.rare.transaction.is_some()) {
                    encode::error("ERR WATCH inside MULTI is not allowed", reply);
                    return Outcome::Replied;
                }
                let known = client.map(|client| &client.rare.watched);
                let mut fresh: Vec<Vec<u8>> = Vec::new();
                for key in keys {
                    let is_watched = known.is_some_and(|known| known.iter().any(|it| it.key == key));
                    if !is_watched && !fresh.contains(&key) {
                        fresh.push(key);
                    }
                }
                if known.map_or(0, Vec::len) + fresh.len() > limits::WATCHED_KEYS_PER_CLIENT_MAX {
                    encode::error("ERR too many keys are watched on this connection", reply);
                    return Outcome::Replied;
                }
                if !self.remember(session.client, fresh.iter().map(|key| WatchedKey::bytes_of(key)).sum()) {
                    encode::error(NOTHING_MORE, reply);
                    return Outcome::Replied;
                }
                self.calls.count(cmd as u8);
                if fresh.is_empty() {
                    encode::simple("OK", reply);
                    return Outcome::Replied;
                }
                let bytes = fresh.iter().map(|key| WatchedKey::bytes_of(key)).sum();
                let served = self.begin(session, out, caller, vec![Work::Task(Task::Watch(fresh))], false);
                if matches!(served, Served::Blocked) {
                    // It is tried again, and counted again then.
                    self.release(session.client, bytes);
                }
                given(served)
            }
            Ok(task) => {
                self.calls.count(cmd as u8);
                given(self.begin(session, out, caller, vec![Work::Task(task)], false))
            }
        }
    }

    /// Lets all shards broadcast to a client, and answers when they have heard of it.
    fn broadcast(
        &mut self,
        session: &mut Session,
        cmd: Cmd,
        part: Vec<u8>,
        caller: Caller,
        reply: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let shards: Vec<ShardId> = self.spread().all().collect();
        if shards.iter().all(|shard| *shard == self.id || self.post.has_room(*shard, part.len())) {
            reply.clear();
            let parts = shards.into_iter().map(|shard| (shard, part.clone())).collect();
            return self.do_plain(session, cmd, Merge::Ok, parts, caller, out);
        }
        shards.into_iter().for_each(|shard| self.tell_shard(shard, part.clone()));
        Outcome::Replied
    }

    /// MGET where all keys are here.
    fn get_all(&mut self, session: &mut Session, keys: &[&[u8]], caller: Caller, out: &mut Vec<u8>) -> Outcome {
        let room = self.buffer_bytes_max;
        session.reply(out, |to| {
            let before = to.len();
            encode::array(keys.len(), to);
            for key in keys {
                if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
                    to.truncate(before);
                    return Problem::Key.write(to);
                }
                if to.len() - before > room {
                    to.truncate(before);
                    return encode::error(NO_ROOM, to);
                }
                self.do_single(Cmd::Get, Command::Get { key }, caller, to);
            }
        });
        self.calls.count(Cmd::MGet as u8);
        Outcome::Given
    }

    /// Does parts that do not depend on each other, here and at other shards.
    fn do_plain(
        &mut self,
        session: &mut Session,
        cmd: Cmd,
        merge: Merge,
        parts: Vec<(ShardId, Vec<u8>)>,
        caller: Caller,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let mut frames: Vec<(ShardId, Vec<u8>)> = Vec::new();
        for (shard, part) in &parts {
            match frames.iter_mut().find(|(known, _)| known == shard) {
                Some((_, frame)) => frame.extend_from_slice(part),
                None => frames.push((*shard, part.clone())),
            }
        }
        let me = self.id;
        let others = || frames.iter().filter(|(shard, _)| *shard != me);
        // Whoever has nothing else under way may send a large command at once: it would wait for ever on a busy server.
        let counts = !session.is_in_order();
        if !others().all(|(shard, frame)| self.post.has_room(*shard, if counts { frame.len() } else { 0 })) {
            return Outcome::Blocked;
        }
        if merge != Merge::One {
            self.calls.count(cmd as u8);
        }
        let shards = parts.iter().map(|(shard, _)| *shard).collect();
        let steps = vec![Step { merge, shards, is_resp3: caller.is_resp3 }];
        let left = others().count();
        let mut gather = Gather::new(steps, false, left);
        if let Some((_, frame)) = frames.iter().find(|(shard, _)| *shard == me) {
            let mut replies = Vec::new();
            self.do_parts(frame, caller, &mut replies);
            gather.add(me, replies);
        }
        if left == 0 {
            let whole = gather.whole();
            session.reply(out, |to| to.extend_from_slice(&whole));
            return Outcome::Given;
        }
        self.gathered_bytes += gather.bytes();
        gather.asked = Some(Asked { operation: self.front_operation, since_ns: self.asked_since(session) });
        let sequence = session.await_parts(gather);
        for (shard, frame) in others() {
            let errand = Errand::Parts(Hold::No);
            let letter =
                Letter { errand, caller, asked: None, connection: session.id, sequence, hash: KeyHash(0), frame };
            let is_sent = self.post.send(*shard, letter);
            assert!(is_sent, "room was asked for before");
        }
        Outcome::Sent
    }

    fn multi(&mut self, client: u64, reply: &mut Vec<u8>) {
        let Some(client) = self.clients.get_mut(&client) else { return };
        if client.rare.transaction.is_some() {
            return encode::error("ERR MULTI calls can not be nested", reply);
        }
        client.rare.transaction = Some(Queue::default());
        encode::simple("OK", reply);
    }

    fn discard(&mut self, client: u64, reply: &mut Vec<u8>) {
        let Some(client) = self.clients.get_mut(&client) else { return };
        if client.rare.transaction.is_none() {
            return encode::error("ERR DISCARD without MULTI", reply);
        }
        let id = client.id;
        self.abort(id);
        encode::simple("OK", reply);
    }

    fn exec(&mut self, session: &mut Session, caller: Caller, reply: &mut Vec<u8>, out: &mut Vec<u8>) -> Outcome {
        let spread = self.spread();
        let Some(client) = self.clients.get_mut(&session.client) else { return Outcome::Replied };
        let Some(queue) = &client.rare.transaction else {
            encode::error("ERR EXEC without MULTI", reply);
            return Outcome::Replied;
        };
        if queue.is_bad {
            self.abort(session.client);
            encode::error("EXECABORT Transaction discarded because of previous errors.", reply);
            return Outcome::Replied;
        }
        let takes_memory =
            |words: &Vec<Vec<u8>>| Cmd::of(&words[0]).is_some_and(|cmd| cmd.row().flags.contains(&"denyoom"));
        if self.attention & FULL != 0 && queue.commands.iter().any(takes_memory) {
            self.abort(session.client);
            encode::error(&format!("EXECABORT Transaction discarded because of: {OUT_OF_MEMORY}"), reply);
            return Outcome::Replied;
        }
        let mut work = Vec::new();
        for words in &queue.commands {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let Some(cmd) = Cmd::of(words[0]) else { continue };
            work.push(Work::Task(match spread.task(cmd, &words) {
                Ok(Task::Watch(_)) => known_error(b"ERR WATCH inside MULTI is not allowed"),
                Ok(task) => task,
                // What makes no sense is told in its place; the others are done.
                Err(problem) => known_error(&problem.text()),
            }));
        }
        // Taken away, and put back if it cannot be done now.
        let (queue, watched) = (client.rare.transaction.take(), std::mem::take(&mut client.rare.watched));
        if !watched.is_empty() {
            let copies = watched.iter().map(|it| WatchedKey { key: it.key.clone(), ..*it });
            work.insert(0, Work::Check(copies.collect()));
        }
        match self.begin(session, out, caller, work, true) {
            Served::Blocked => {
                if let Some(client) = self.clients.get_mut(&session.client) {
                    client.rare.transaction = queue;
                    client.rare.watched = watched;
                }
                Outcome::Blocked
            }
            _ => {
                let queued = queue.map_or(0, |queue| queue.bytes);
                self.release(session.client, queued + watched.iter().map(WatchedKey::bytes).sum::<usize>());
                self.calls.count(Cmd::Exec as u8);
                Outcome::Given
            }
        }
    }

    /// Keeps a command for EXEC.
    fn queue(&mut self, client: u64, words: &[&[u8]], reply: &mut Vec<u8>) -> Outcome {
        let bytes: usize = words.iter().map(|word| word.len() + WORD_BYTES).sum();
        let fits = self.remember(client, bytes);
        let Some(queue) = self.clients.get_mut(&client).and_then(|client| client.rare.transaction.as_mut()) else {
            return Outcome::Replied;
        };
        if !fits {
            queue.is_bad = true;
            encode::error(NOTHING_MORE, reply);
            return Outcome::Replied;
        }
        queue.bytes += bytes;
        if queue.commands.len() == limits::QUEUED_COMMANDS_MAX || queue.bytes > limits::QUEUED_BYTES_MAX {
            queue.is_bad = true;
            let (most, bytes) = (limits::QUEUED_COMMANDS_MAX, limits::QUEUED_BYTES_MAX);
            encode::error(&format!("ERR a transaction has at most {most} commands of {bytes} bytes"), reply);
            return Outcome::Replied;
        }
        queue.commands.push(words.iter().map(|word| word.to_vec()).collect());
        encode::simple("QUEUED", reply);
        Outcome::Replied
    }

    /// Forgets a transaction.
    fn abort(&mut self, client: u64) {
        let Some(entry) = self.clients.get_mut(&client) else { return };
        let queued = entry.rare.transaction.take().map_or(0, |queue| queue.bytes);
        let watched = std::mem::take(&mut entry.rare.watched);
        self.release(client, queued + watched.iter().map(WatchedKey::bytes).sum::<usize>());
        self.unwatch(watched);
    }

    /// Whether so many more bytes may be remembered for a client. If so they are counted.
    pub(super) fn remember(&mut self, client: u64, bytes: usize) -> bool {
        let Some(entry) = self.clients.get_mut(&client) else { return false };
        if self.remembered_bytes + bytes > self.buffer_bytes_max / limits::REMEMBERED_SHARE {
            return false;
        }
        self.remembered_bytes += bytes;
        entry.remembered_bytes += bytes;
        true
    }

    /// So many bytes are remembered no longer.
    pub(super) fn release(&mut self, client: u64, bytes: usize) {
        if let Some(entry) = self.clients.get_mut(&client) {
            let bytes = bytes.min(entry.remembered_bytes);
            entry.remembered_bytes -= bytes;
            self.remembered_bytes -= bytes;
        }
    }

    /// A command was refused: the transaction that is being queued will be.
    fn spoil(&mut self, client: u64) {
        if let Some(queue) = self.clients.get_mut(&client).and_then(|client| client.rare.transaction.as_mut()) {
            queue.is_bad = true;
        }
    }

    /// Whether a pause holds a command back.
    fn is_paused(&self, client: u64, cmd: Cmd) -> bool {
        let resp = &self.shared.resp;
        if resp.paused_until.load(Ordering::Relaxed) <= self.now.ms {
            return false;
        }
        if !resp.pauses_writes_only.load(Ordering::Relaxed) {
            return cmd != Cmd::Client;
        }
        let queue = self.clients.get(&client).and_then(|client| client.rare.transaction.as_ref());
        match cmd {
            Cmd::Exec => queue.is_some_and(|queue| {
                queue
                    .commands
                    .iter()
                    .filter_map(|words| Cmd::of(&words[0]))
                    .any(|cmd| cmd.writes() || cmd == Cmd::Publish)
            }),
            _ => cmd.writes() || matches!(cmd, Cmd::Publish | Cmd::Eval | Cmd::EvalSha),
        }
    }

    /// How keys are spread over the shards.
    pub(super) fn spread(&self) -> Spread {
        Spread {
            seed: self.shared.seed,
            shards: self.shared.counters.len() as u16,
            home: self.id,
            draw: mix(self.turn ^ self.turn_began_ns),
            value_bytes_max: self.value_bytes_max,
        }
    }

    /// For whom a client's command is done.
    fn caller(&self, client: u64, is_resp3: bool) -> Caller {
        let tracks = self.clients.get(&client).is_some_and(Client::tracks_next);
        Caller { client, is_resp3, tracks }
    }

    /// Does what is about the connection or the server.
    pub(super) fn local(&mut self, session: &mut Session, words: &[&[u8]], caller: Caller, reply: &mut Vec<u8>) {
        let Some(cmd) = Cmd::of(words[0]) else { return };
        let rest = &words[1..];
        match cmd {
            Cmd::Ping => match (rest, self.clients.get(&session.client).is_some_and(|it| it.subscriptions() > 0)) {
                ([] | [_], true) if !caller.is_resp3 => {
                    encode::array(2, reply);
                    encode::bulk(b"pong", reply);
                    encode::bulk(rest.first().copied().unwrap_or_default(), reply);
                }
                ([], _) => encode::simple("PONG", reply),
                ([text], _) => encode::bulk(text, reply),
                _ => Problem::Arity(cmd).write(reply),
            },
            Cmd::Echo => encode::bulk(rest[0], reply),
            Cmd::Quit => {
                encode::simple("OK", reply);
                session.closing = true;
            }
            Cmd::Select => match single::integer(rest[0]) {
                Ok(0) => encode::simple("OK", reply),
                Ok(number) if i32::try_from(number).is_err() => {
                    let (least, most) = (i32::MIN, i32::MAX);
                    let text = format!("ERR value is out of range, value must between {least} and {most}");
                    encode::error(&text, reply);
                }
                Ok(_) => encode::error("ERR DB index is out of range", reply),
                Err(_) => encode::error("ERR value is not an integer or out of range", reply),
            },
            Cmd::Auth => encode::error(
                match rest.len() {
                    1 => {
                        "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"
                    }
                    2 if rest[0] == b"default" => return encode::simple("OK", reply),
                    2 => "WRONGPASS invalid username-password pair or user is disabled.",
                    _ => "ERR syntax error",
                },
                reply,
            ),
            Cmd::Hello => self.hello(session, rest, reply),
            Cmd::Reset => self.reset(session, reply),
            Cmd::Time => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                encode::array(2, reply);
                encode::bulk(now.as_secs().to_string().as_bytes(), reply);
                encode::bulk(now.subsec_micros().to_string().as_bytes(), reply);
            }
            Cmd::Unwatch => {
                let client = self.clients.get_mut(&session.client);
                let watched = client.map(|client| std::mem::take(&mut client.rare.watched)).unwrap_or_default();
                self.release(session.client, watched.iter().map(WatchedKey::bytes).sum());
                self.unwatch(watched);
                encode::simple("OK", reply);
            }
            Cmd::Subscribe | Cmd::PSubscribe => self.subscribe_all(session, rest, cmd == Cmd::PSubscribe, reply),
            Cmd::Unsubscribe | Cmd::PUnsubscribe => {
                self.unsubscribe_all(session, rest, cmd == Cmd::PUnsubscribe, reply);
            }
            Cmd::Client => self.client_command(session, rest, caller, reply),
            Cmd::Command => self.command_command(rest, caller.is_resp3, reply),
            Cmd::Config => self.config_command(rest, caller.is_resp3, reply),
            Cmd::Info => self.info(rest, caller.is_resp3, reply),
            Cmd::Latency => self.latency(rest, caller.is_resp3, reply),
            Cmd::Script => self.script(rest, reply),
            Cmd::Function => match rest[0].to_ascii_uppercase().as_slice() {
                b"FLUSH" => encode::simple("OK", reply),
                b"LIST" => encode::array(0, reply),
                _ => subcommand(cmd, rest[0], reply),
            },
            Cmd::Object | Cmd::Memory => match rest[0].to_ascii_uppercase().as_slice() {
                b"HELP" => {
                    encode::array(1, reply);
                    encode::simple(cmd.row().summary, reply);
                }
                b"ENCODING" | b"IDLETIME" | b"FREQ" | b"REFCOUNT" | b"USAGE" => wrong_arity(cmd, rest[0]).write(reply),
                _ => subcommand(cmd, rest[0], reply),
            },
            Cmd::PubSub => subcommand(cmd, rest[0], reply),
            _ => encode::error("ERR syntax error", reply),
        }
    }

    fn script(&mut self, words: &[&[u8]], reply: &mut Vec<u8>) {
        match (words[0].to_ascii_uppercase().as_slice(), &words[1..]) {
            (b"LOAD", [source]) => match scripts::load(source) {
                true => encode::bulk(scripts::sha_of(source).as_bytes(), reply),
                false => encode::error(
                    "ERR this server runs no scripts but those of the lock and counter libraries it knows (see docs/compatibility.md)",
                    reply,
                ),
            },
            (b"EXISTS", shas) if !shas.is_empty() => {
                encode::array(shas.len(), reply);
                for sha in shas {
                    encode::integer(i64::from(scripts::is_seen(sha)), reply);
                }
            }
            (b"FLUSH", [] | [_]) => encode::simple("OK", reply),
            (b"KILL", []) => encode::error("NOTBUSY No scripts in execution right now.", reply),
            (b"LOAD" | b"EXISTS" | b"FLUSH" | b"KILL", _) => wrong_arity(Cmd::Script, words[0]).write(reply),
            _ => subcommand(Cmd::Script, words[0], reply),
        }
    }
}

/// Refuses a subcommand.
pub(super) fn subcommand(cmd: Cmd, sub: &[u8], reply: &mut Vec<u8>) {
    Problem::Subcommand(cmd, sub.to_vec()).write(reply);
}

/// The command that a script of one call is, if it may be called from a script.
fn one_call(cmd: Cmd, words: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
    let keys = single::integer(words[2]).ok().and_then(|keys| usize::try_from(keys).ok())?;
    let call = scripts::call(cmd == Cmd::EvalSha, words[1], keys, &words[3..])?;
    let called = Cmd::of(&call[0])?;
    (!called.row().flags.contains(&"noscript") && called != Cmd::Eval).then_some(call)
}

/// What is wrong with the number of a command's words, or with the name of its subcommand.
fn arity_problem(cmd: Cmd, words: &[&[u8]]) -> Option<Problem> {
    if !cmd.row().takes(words.len()) {
        return Some(Problem::Arity(cmd));
    }
    let subcommands = cmd.subcommands();
    let sub = words.get(1).filter(|_| !subcommands.is_empty())?;
    let Some((name, arity)) = subcommands.iter().find(|(name, _)| sub.eq_ignore_ascii_case(name.as_bytes())) else {
        return Some(Problem::Subcommand(cmd, sub.to_vec()));
    };
    let fits = if *arity >= 0 { words.len() == *arity as usize } else { words.len() >= arity.unsigned_abs() as usize };
    (!fits).then(|| wrong_arity(cmd, name.as_bytes()))
}

/// What a subcommand with too few or too many words is told.
pub(super) fn wrong_arity(cmd: Cmd, sub: &[u8]) -> Problem {
    let sub = String::from_utf8_lossy(sub).to_lowercase();
    Problem::Worded(format!("ERR wrong number of arguments for '{}|{sub}' command", cmd.row().name).into())
}

fn known_error(text: &[u8]) -> Task {
    let mut reply = Vec::new();
    encode::error_bytes(text, &mut reply);
    Task::Plain { merge: Merge::Known(reply), parts: Vec::new() }
}

fn given(served: Served) -> Outcome {
    if matches!(served, Served::Blocked) { Outcome::Blocked } else { Outcome::Given }
}

/// What clients know an unknown command by.
fn unknown(words: &[&[u8]]) -> Vec<u8> {
    let mut given = Vec::new();
    for word in &words[1..] {
        let room = SHOWN_BYTES.saturating_sub(given.len());
        if room == 0 {
            break;
        }
        let word = single::shown(word);
        given.extend_from_slice(&[b"'", &word[..word.len().min(room)], b"' "].concat());
    }
    [b"ERR unknown command '", single::shown(words[0]), b"', with args beginning with: ", &given].concat()
}

/// What a command that is more than a request is counted as.
fn operation_of_cmd(cmd: Cmd) -> Operation {
    match cmd {
        Cmd::Get | Cmd::MGet | Cmd::GetEx | Cmd::GetRange | Cmd::Substr | Cmd::StrLen | Cmd::GetBit => Operation::Get,
        Cmd::Set | Cmd::SetNx | Cmd::SetEx | Cmd::PSetEx | Cmd::GetSet | Cmd::MSet | Cmd::MSetNx => Operation::Set,
        Cmd::Append | Cmd::SetRange | Cmd::SetBit => Operation::Set,
        Cmd::Del | Cmd::Unlink | Cmd::GetDel => Operation::Delete,
        Cmd::Incr | Cmd::Decr | Cmd::IncrBy | Cmd::DecrBy | Cmd::IncrByFloat => Operation::Increment,
        Cmd::Expire | Cmd::PExpire | Cmd::ExpireAt | Cmd::PExpireAt | Cmd::Persist => Operation::Touch,
        _ => Operation::Other,
    }
}

/// Commands that a connection of RESP2 may give while it listens.
fn serves_listeners(cmd: Cmd) -> bool {
    matches!(
        cmd,
        Cmd::Ping | Cmd::Quit | Cmd::Reset | Cmd::Subscribe | Cmd::PSubscribe | Cmd::Unsubscribe | Cmd::PUnsubscribe
    )
}

/// Commands that are not queued.
fn ends_queue(cmd: Cmd) -> bool {
    matches!(cmd, Cmd::Exec | Cmd::Discard | Cmd::Multi | Cmd::Watch | Cmd::Quit | Cmd::Reset)
}

const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";
/// What a client is told for whom nothing more can be remembered.
pub(super) const NOTHING_MORE: &str =
    "OOM no memory for more commands in MULTI, watched keys or channels: this server's clients hold all there is";
/// Bytes that a word of a queued command takes beside its own.
const WORD_BYTES: usize = 24;
/// Bytes of what was sent that are shown in an error.
const SHOWN_BYTES: usize = 128;
