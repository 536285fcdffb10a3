//! Connections as RESP's clients see them: HELLO, RESET, CLIENT, SUBSCRIBE, CONFIG.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::DerefMut;
use std::sync::atomic::Ordering;

use crate::base::id::ConnectionId;
use crate::base::limits;
use crate::engine::core::Core;
use crate::engine::post::Caller;
use crate::engine::resp::client::{Client, ReplyMode, TrackingMode};
use crate::engine::resp::config::{FULL, PAUSED, shard_of_client};
use crate::engine::resp::front::{NOTHING_MORE, subcommand, wrong_arity};
use crate::engine::resp::gather::{self, Merge};
use crate::engine::resp::parts;
use crate::engine::resp::tasks::part;
use crate::engine::session::{Protocol, Session};
use crate::wire::resp::commands::Cmd;
use crate::wire::resp::encode;
use crate::wire::resp::single::{self, Problem};

impl<M: DerefMut<Target = [u8]>> Core<M> {
    /// Gives a new connection its number.
    pub(in crate::engine) fn introduce(&mut self, connection: ConnectionId) -> u64 {
        let id = self.shared.resp.client_id(self.id.0);
        self.clients.insert(id, Client::new(id, connection, self.now));
        self.shared.resp.clients.fetch_add(1, Ordering::Relaxed);
        id
    }

    /// Notes where a client is connected from.
    pub(in crate::engine) fn note_addresses(
        &mut self,
        id: u64,
        descriptor: i32,
        address: Option<SocketAddr>,
        local: Option<SocketAddr>,
    ) {
        if let Some(client) = self.clients.get_mut(&id) {
            (client.descriptor, client.address, client.local_address) = (descriptor, address, local);
        }
    }

    /// A connection is gone: so is everything its client was waiting for.
    pub(in crate::engine) fn forget_client(&mut self, id: u64) {
        if id == 0 || !self.clients.contains_key(&id) {
            return;
        }
        self.clear_state(id);
        self.clients.remove(&id);
        self.shared.resp.clients.fetch_sub(1, Ordering::Relaxed);
    }

    /// Ends all that a client's commands have begun.
    fn clear_state(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let rare = std::mem::take(&mut *client.rare);
        client.reply_mode = ReplyMode::On;
        let remembered = client.remembered_bytes;
        self.release(id, remembered);
        for channel in &rare.channels {
            self.pubsub.unsubscribe(id, channel, false);
        }
        for pattern in &rare.patterns {
            self.pubsub.unsubscribe(id, pattern, true);
        }
        self.unwatch(rare.watched);
        if let Some(mode) = rare.tracking {
            self.end_tracking(id, &mode);
        }
    }

    fn end_tracking(&mut self, id: u64, mode: &TrackingMode) {
        self.shared.resp.tracking_clients.fetch_sub(1, Ordering::Relaxed);
        if mode.is_broadcast {
            let number = id.to_string();
            for shard in self.spread().all().collect::<Vec<_>>() {
                self.tell_shard(shard, part(&[parts::END_BROADCAST, number.as_bytes()]));
            }
        }
    }

    pub(super) fn hello(&mut self, session: &mut Session, words: &[&[u8]], reply: &mut Vec<u8>) {
        let mut options = words.iter().skip(1);
        let wanted = match words.first() {
            None => None,
            Some(version) => match single::integer(version) {
                Ok(version @ (2 | 3)) => Some(version == 3),
                Ok(_) => return encode::error("NOPROTO unsupported protocol version", reply),
                Err(_) => return encode::error("ERR Protocol version is not an integer or out of range", reply),
            },
        };
        let mut name = None;
        while let Some(option) = options.next() {
            match (option.to_ascii_uppercase().as_slice(), options.next(), options.clone().next()) {
                (b"AUTH", Some(user), Some(_)) => {
                    options.next();
                    if *user != b"default" {
                        return encode::error("WRONGPASS invalid username-password pair or user is disabled.", reply);
                    }
                }
                (b"SETNAME", Some(given), _) if is_plain(given) => name = Some(given.to_vec()),
                (b"SETNAME", Some(_), _) => {
                    return encode::error(
                        "ERR Client names cannot contain spaces, newlines or special characters.",
                        reply,
                    );
                }
                _ => {
                    let shown = String::from_utf8_lossy(option).into_owned();
                    return encode::error(&format!("ERR Syntax error in HELLO option '{shown}'"), reply);
                }
            }
        }
        let is_resp3 = wanted.unwrap_or(session.protocol == Protocol::Resp3);
        session.protocol = if is_resp3 { Protocol::Resp3 } else { Protocol::Resp };
        let Some(client) = self.clients.get_mut(&session.client) else { return };
        client.is_resp3 = is_resp3;
        if let Some(name) = name {
            client.name = name;
        }
        let id = client.id as i64;
        let text = |name: &str, value: &str, to: &mut Vec<u8>| {
            encode::bulk(name.as_bytes(), to);
            encode::bulk(value.as_bytes(), to);
        };
        encode::map(9, is_resp3, reply);
        text("server", "redis", reply);
        text("version", REDIS_VERSION, reply);
        encode::bulk(b"proto", reply);
        encode::integer(if is_resp3 { 3 } else { 2 }, reply);
        encode::bulk(b"id", reply);
        encode::integer(id, reply);
        text("mode", "standalone", reply);
        text("role", "master", reply);
        encode::bulk(b"modules", reply);
        encode::array(0, reply);
        text("product", "spinetail", reply);
        text("product_version", env!("CARGO_PKG_VERSION"), reply);
    }

    pub(super) fn reset(&mut self, session: &mut Session, reply: &mut Vec<u8>) {
        self.clear_state(session.client);
        session.protocol = Protocol::Resp;
        session.is_muted = false;
        if let Some(client) = self.clients.get_mut(&session.client) {
            (client.is_resp3, client.no_evict, client.no_touch) = (false, false, false);
            client.name.clear();
        }
        encode::simple("RESET", reply);
    }

    pub(super) fn subscribe_all(&mut self, session: &mut Session, names: &[&[u8]], pattern: bool, reply: &mut Vec<u8>) {
        let kind: &[u8] = if pattern { b"psubscribe" } else { b"subscribe" };
        // Told even to those who want no replies.
        session.is_muted = false;
        let id = session.client;
        for name in names {
            let Some(client) = self.clients.get_mut(&id) else { return };
            if client.subscriptions() >= limits::SUBSCRIPTIONS_PER_CLIENT_MAX {
                let most = limits::SUBSCRIPTIONS_PER_CLIENT_MAX;
                return encode::error(&format!("ERR a connection listens to at most {most} channels here"), reply);
            }
            if name.len() > limits::KEY_BYTES_MAX {
                let most = limits::KEY_BYTES_MAX;
                return encode::error(&format!("ERR names of channels have at most {most} bytes here"), reply);
            }
            let is_known = if pattern { &client.rare.patterns } else { &client.rare.channels }.contains(*name);
            let fits = is_known || self.remember(id, subscription_bytes(name));
            if !fits || !self.pubsub.subscribe(id, name, pattern) {
                return encode::error(NOTHING_MORE, reply);
            }
            let Some(client) = self.clients.get_mut(&id) else { return };
            let names = if pattern { &mut client.rare.patterns } else { &mut client.rare.channels };
            names.insert(name.to_vec());
            encode::push(3, client.is_resp3, reply);
            encode::bulk(kind, reply);
            encode::bulk(name, reply);
            encode::integer(client.subscriptions() as i64, reply);
        }
    }

    pub(super) fn unsubscribe_all(
        &mut self,
        session: &mut Session,
        names: &[&[u8]],
        pattern: bool,
        reply: &mut Vec<u8>,
    ) {
        let kind: &[u8] = if pattern { b"punsubscribe" } else { b"unsubscribe" };
        session.is_muted = false;
        let id = session.client;
        let Some(client) = self.clients.get_mut(&id) else { return };
        let mine = if pattern { &mut client.rare.patterns } else { &mut client.rare.channels };
        let gone: Vec<Vec<u8>> = match names {
            [] => mine.iter().cloned().collect(),
            names => names.iter().map(|name| name.to_vec()).collect(),
        };
        for name in &gone {
            let Some(client) = self.clients.get_mut(&id) else { return };
            let mine = if pattern { &mut client.rare.patterns } else { &mut client.rare.channels };
            let was_known = mine.remove(name);
            self.pubsub.unsubscribe(id, name, pattern);
            if was_known {
                self.release(id, subscription_bytes(name));
            }
            let Some(client) = self.clients.get_mut(&id) else { return };
            encode::push(3, client.is_resp3, reply);
            encode::bulk(kind, reply);
            encode::bulk(name, reply);
            encode::integer(client.subscriptions() as i64, reply);
        }
        let Some(client) = self.clients.get_mut(&id).filter(|_| gone.is_empty()) else { return };
        {
            encode::push(3, client.is_resp3, reply);
            encode::bulk(kind, reply);
            encode::null(client.is_resp3, reply);
            encode::integer(client.subscriptions() as i64, reply);
        }
    }

    /// CLIENT: what is answered without asking other shards. See [`client_task`] for the rest.
    pub(super) fn client_command(
        &mut self,
        session: &mut Session,
        words: &[&[u8]],
        caller: Caller,
        reply: &mut Vec<u8>,
    ) {
        let now = self.now;
        let sub = words[0].to_ascii_uppercase();
        let Some(client) = self.clients.get_mut(&session.client) else { return };
        let ok = |reply: &mut Vec<u8>| encode::simple("OK", reply);
        match (sub.as_slice(), &words[1..]) {
            (b"ID", []) => encode::integer(client.id as i64, reply),
            (b"INFO", []) => gather::text(client.line(now).as_bytes(), caller.is_resp3, reply),
            (b"GETNAME", []) if client.name.is_empty() => encode::null(caller.is_resp3, reply),
            (b"GETNAME", []) => encode::bulk(&client.name, reply),
            (b"SETNAME", [name]) if is_plain(name) => {
                client.name = name.to_vec();
                ok(reply);
            }
            (b"SETNAME", [_]) => {
                encode::error("ERR Client names cannot contain spaces, newlines or special characters.", reply);
            }
            (b"SETINFO", [option, value]) => {
                let (place, shown) = match option.to_ascii_uppercase().as_slice() {
                    b"LIB-NAME" => (&mut client.library, "lib-name"),
                    b"LIB-VER" => (&mut client.library_version, "lib-ver"),
                    _ => {
                        let shown = String::from_utf8_lossy(option).into_owned();
                        return encode::error(&format!("ERR Unrecognized option '{shown}'"), reply);
                    }
                };
                if !is_plain(value) {
                    let text = format!("ERR {shown} cannot contain spaces, newlines or special characters.");
                    return encode::error(&text, reply);
                }
                *place = value.to_vec();
                ok(reply);
            }
            (b"NO-EVICT" | b"NO-TOUCH", [switch]) => {
                let on = match switch.to_ascii_uppercase().as_slice() {
                    b"ON" => true,
                    b"OFF" => false,
                    _ => return encode::error("ERR syntax error", reply),
                };
                *(if sub == b"NO-EVICT" { &mut client.no_evict } else { &mut client.no_touch }) = on;
                ok(reply);
            }
            (b"REPLY", [mode]) => match mode.to_ascii_uppercase().as_slice() {
                b"ON" => {
                    client.reply_mode = ReplyMode::On;
                    session.is_muted = false;
                    ok(reply);
                }
                b"OFF" => client.reply_mode = ReplyMode::Off,
                b"SKIP" if client.reply_mode != ReplyMode::Off => client.reply_mode = ReplyMode::Skip,
                b"SKIP" => {}
                _ => encode::error("ERR syntax error", reply),
            },
            (b"GETREDIR", []) => {
                let receiver = match &client.rare.tracking {
                    None => -1,
                    Some(mode) if mode.receiver == client.id => 0,
                    Some(mode) => mode.receiver as i64,
                };
                encode::integer(receiver, reply);
            }
            (b"CACHING", [switch]) => {
                let wanted = switch.to_ascii_uppercase();
                let Some(mode) = client.rare.tracking.as_mut() else {
                    return encode::error(
                        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
                        reply,
                    );
                };
                match wanted.as_slice() {
                    b"YES" if mode.opt_in => mode.caching = Some(true),
                    b"NO" if mode.opt_out => mode.caching = Some(false),
                    b"YES" => {
                        return encode::error(
                            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
                            reply,
                        );
                    }
                    b"NO" => {
                        return encode::error(
                            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
                            reply,
                        );
                    }
                    _ => return encode::error("ERR syntax error", reply),
                }
                ok(reply);
            }
            (b"TRACKING", [switch, options @ ..]) => self.tracking(session.client, switch, options, reply),
            (b"TRACKINGINFO", []) => tracking_info(client, caller.is_resp3, reply),
            (b"PAUSE", [ms, mode @ ..]) if mode.len() <= 1 => {
                let Ok(ms) = single::integer(ms) else {
                    return encode::error("ERR timeout is not an integer or out of range", reply);
                };
                if ms < 0 {
                    return encode::error("ERR timeout is negative", reply);
                }
                let writes_only = match mode.first().map(|mode| mode.to_ascii_uppercase()).as_deref() {
                    None | Some(b"ALL") => false,
                    Some(b"WRITE") => true,
                    _ => return encode::error("ERR CLIENT PAUSE mode must be WRITE or ALL", reply),
                };
                let resp = &self.shared.resp;
                resp.pauses_writes_only.store(writes_only, Ordering::Relaxed);
                resp.paused_until.fetch_max(now.ms.saturating_add(ms as u64), Ordering::Relaxed);
                resp.attend(PAUSED, true);
                self.attention |= PAUSED;
                ok(reply);
            }
            (b"UNPAUSE", []) => {
                self.shared.resp.paused_until.store(0, Ordering::Relaxed);
                self.shared.resp.attend(PAUSED, false);
                self.attention &= !PAUSED;
                ok(reply);
            }
            (b"HELP", []) => {
                encode::array(1, reply);
                encode::simple("CLIENT <subcommand> [<arg> ...]: see docs/compatibility.md", reply);
            }
            (
                b"ID" | b"INFO" | b"GETNAME" | b"SETNAME" | b"SETINFO" | b"NO-EVICT" | b"NO-TOUCH" | b"REPLY"
                | b"GETREDIR" | b"CACHING" | b"TRACKING" | b"TRACKINGINFO" | b"PAUSE" | b"UNPAUSE" | b"KILL",
                _,
            ) => wrong_arity(Cmd::Client, words[0]).write(reply),
            _ => subcommand(Cmd::Client, words[0], reply),
        }
    }

    fn tracking(&mut self, id: u64, switch: &[u8], words: &[&[u8]], reply: &mut Vec<u8>) {
        let mut mode = TrackingMode { receiver: id, ..TrackingMode::default() };
        let mut options = words.iter();
        while let Some(option) = options.next() {
            match option.to_ascii_uppercase().as_slice() {
                b"REDIRECT" => {
                    let Some(number) = options.next().and_then(|word| single::integer(word).ok()) else {
                        return encode::error("ERR value is not an integer or out of range", reply);
                    };
                    if mode.receiver != id {
                        return encode::error(
                            "ERR A client can only redirect to a single other client. Use PREFIX if you want to track multiple prefixes in BCAST mode",
                            reply,
                        );
                    }
                    mode.receiver = number as u64;
                }
                b"BCAST" => mode.is_broadcast = true,
                b"OPTIN" => mode.opt_in = true,
                b"OPTOUT" => mode.opt_out = true,
                b"NOLOOP" => mode.no_loop = true,
                b"PREFIX" => match options.next() {
                    Some(prefix) => mode.prefixes.push(prefix.to_vec()),
                    None => return encode::error("ERR syntax error", reply),
                },
                _ => return encode::error("ERR syntax error", reply),
            }
        }
        let Some(client) = self.clients.get_mut(&id) else { return };
        if switch.eq_ignore_ascii_case(b"OFF") {
            if let Some(mode) = client.rare.tracking.take() {
                self.end_tracking(id, &mode);
            }
            return encode::simple("OK", reply);
        }
        if !switch.eq_ignore_ascii_case(b"ON") {
            return encode::error("ERR syntax error", reply);
        }
        let is_too_long = |prefix: &Vec<u8>| prefix.len() > limits::KEY_BYTES_MAX;
        if mode.prefixes.len() > limits::PREFIXES_PER_CLIENT_MAX || mode.prefixes.iter().any(is_too_long) {
            let (most, bytes) = (limits::PREFIXES_PER_CLIENT_MAX, limits::KEY_BYTES_MAX);
            return encode::error(&format!("ERR a client has at most {most} prefixes of {bytes} bytes here"), reply);
        }
        if !mode.is_broadcast && !mode.prefixes.is_empty() {
            return encode::error("ERR PREFIX option requires BCAST mode to be enabled", reply);
        }
        let before = client.rare.tracking.as_ref();
        if before.is_some_and(|before| before.is_broadcast != mode.is_broadcast) {
            return encode::error(
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.",
                reply,
            );
        }
        if mode.is_broadcast && (mode.opt_in || mode.opt_out) {
            return encode::error("ERR OPTIN and OPTOUT are not compatible with BCAST", reply);
        }
        if mode.opt_in && mode.opt_out {
            return encode::error("ERR You can't use both OPTIN and OPTOUT", reply);
        }
        if before.is_some_and(|it| (mode.opt_in && it.opt_out) || (mode.opt_out && it.opt_in)) {
            return encode::error(
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.",
                reply,
            );
        }
        if mode.is_broadcast {
            let known = before.map(|before| before.prefixes.clone()).unwrap_or_default();
            let fresh: Vec<&Vec<u8>> = mode.prefixes.iter().filter(|prefix| !known.contains(prefix)).collect();
            let overlaps = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
            for (place, prefix) in fresh.iter().enumerate() {
                let with_known = known.iter().find(|other| overlaps(other, prefix)).map(|other| ("an existing", other));
                let with_fresh = fresh[place + 1..].iter().find(|other| overlaps(other, prefix));
                if let Some((which, other)) = with_known.or(with_fresh.map(|other| ("another provided", *other))) {
                    let (a, b) = (String::from_utf8_lossy(prefix), String::from_utf8_lossy(other));
                    let text = format!(
                        "ERR Prefix '{a}' overlaps with {which} prefix '{b}'. Prefixes for a single client must not overlap."
                    );
                    return encode::error(&text, reply);
                }
            }
            let mut all: Vec<Vec<u8>> = known.iter().chain(fresh).cloned().collect();
            if all.len() > limits::PREFIXES_PER_CLIENT_MAX {
                let most = limits::PREFIXES_PER_CLIENT_MAX;
                return encode::error(&format!("ERR a client has at most {most} prefixes here"), reply);
            }
            if all.is_empty() {
                all.push(Vec::new());
            }
            mode.prefixes = all;
        }
        if mode.receiver != id && !self.is_receiver(mode.receiver) {
            return encode::error("ERR The client ID you want redirect to does not exist", reply);
        }
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.rare.tracking.is_none() {
            self.shared.resp.tracking_clients.fetch_add(1, Ordering::Relaxed);
        }
        client.rare.tracking = Some(mode.clone());
        if mode.is_broadcast {
            let number = id.to_string();
            let mut words: Vec<&[u8]> = vec![parts::BROADCAST, number.as_bytes()];
            words.extend(mode.prefixes.iter().map(Vec::as_slice));
            // Answered when all shards know, see `act`.
            self.to_broadcast = Some(part(&words));
        }
        encode::simple("OK", reply);
    }

    /// Whether there may be a client of that number. One of another shard that has gone already comes to light with
    /// the first news for it.
    fn is_receiver(&self, receiver: u64) -> bool {
        let shard = shard_of_client(receiver);
        if shard == self.id.0 {
            return self.clients.contains_key(&receiver);
        }
        usize::from(shard) < self.shared.counters.len() && self.shared.resp.was_given(receiver)
    }

    /// CLIENT LIST and CLIENT KILL for the clients of this shard.
    pub(super) fn clients_here(&mut self, words: &[&[u8]], caller: Caller, to: &mut Vec<u8>) {
        let now = self.now;
        let is_kill = words[0].eq_ignore_ascii_case(b"KILL");
        let filters = match Filters::read(&words[1..], is_kill) {
            Ok(filters) => filters,
            Err(text) => return encode::error(&text, to),
        };
        if !is_kill {
            let lines: Vec<String> =
                self.clients.values().filter(|it| filters.take(it, caller)).map(|it| it.line(now)).collect();
            return gather::text(lines.concat().as_bytes(), false, to);
        }
        let mut killed = 0;
        for client in self.clients.values_mut().filter(|it| filters.take(it, caller)) {
            killed += 1;
            client.is_killed = true;
            self.to_close.push(client.connection);
        }
        encode::integer(killed, to);
    }

    pub(super) fn config_command(&mut self, words: &[&[u8]], is_resp3: bool, reply: &mut Vec<u8>) {
        match (words[0].to_ascii_uppercase().as_slice(), &words[1..]) {
            (b"GET", patterns) if !patterns.is_empty() => {
                let found = self.shared.resp.matching(patterns);
                encode::map(found.len(), is_resp3, reply);
                for (name, value) in found {
                    encode::bulk(name.as_bytes(), reply);
                    encode::bulk(value.as_bytes(), reply);
                }
            }
            (b"SET", pairs) if !pairs.is_empty() && pairs.len().is_multiple_of(2) => {
                let pairs: Vec<(&[u8], &[u8])> = pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                match self.shared.resp.set(&pairs) {
                    Ok(()) => {
                        let used = self.shared.counters.iter().map(|shard| shard.used_bytes.get()).sum();
                        let resp = &self.shared.resp;
                        resp.attend(FULL, resp.is_full(used));
                        self.attention = resp.attention.load(Ordering::Relaxed);
                        self.heed_config();
                        encode::simple("OK", reply);
                    }
                    Err(why) => encode::error(&format!("ERR {why}"), reply),
                }
            }
            (b"RESETSTAT", []) => {
                self.forget_counters();
                encode::simple("OK", reply);
            }
            (b"REWRITE", []) => encode::error("ERR The server is running without a config file", reply),
            (b"GET" | b"SET" | b"RESETSTAT" | b"REWRITE", _) => wrong_arity(Cmd::Config, words[0]).write(reply),
            _ => subcommand(Cmd::Config, words[0], reply),
        }
    }
}

/// What a subscription takes: the name at the client, in the table, in both once more for those who hear it.
fn subscription_bytes(name: &[u8]) -> usize {
    2 * name.len() + SUBSCRIPTION_BYTES
}

/// What a subscription takes beside its name.
const SUBSCRIPTION_BYTES: usize = 256;

/// Which clients CLIENT LIST and CLIENT KILL are about.
#[derive(Default)]
struct Filters {
    ids: Option<BTreeSet<u64>>,
    kind: Option<String>,
    address: Option<String>,
    local_address: Option<String>,
    user: Option<String>,
    skips_me: bool,
}

impl Filters {
    fn read(words: &[&[u8]], is_kill: bool) -> Result<Filters, String> {
        let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
        let mut filters = Filters { skips_me: is_kill, ..Filters::default() };
        // CLIENT KILL address: the oldest form, which may be about oneself.
        if let (true, [address]) = (is_kill, words) {
            return Ok(Filters { address: Some(text(address)), ..Filters::default() });
        }
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let name = word.to_ascii_uppercase();
            let Some(value) = rest.next() else { return Err("ERR syntax error".into()) };
            match name.as_slice() {
                b"ID" => {
                    let mut ids = BTreeSet::new();
                    let all = std::iter::once(value).chain(if is_kill { [].iter() } else { rest.as_slice().iter() });
                    for id in all {
                        match single::integer(id) {
                            Ok(id @ 1..) => _ = ids.insert(id as u64),
                            _ if is_kill => return Err("ERR client-id should be greater than 0".into()),
                            _ => return Err("ERR Invalid client ID".into()),
                        }
                    }
                    filters.ids = Some(ids);
                    if !is_kill {
                        break;
                    }
                }
                b"TYPE" => {
                    let kind = text(value).to_lowercase();
                    if !["normal", "master", "replica", "slave", "pubsub"].contains(&kind.as_str()) {
                        return Err(format!("ERR Unknown client type '{kind}'"));
                    }
                    filters.kind = Some(kind);
                }
                b"ADDR" if is_kill => filters.address = Some(text(value)),
                b"LADDR" if is_kill => filters.local_address = Some(text(value)),
                b"USER" if is_kill && *value != b"default" => {
                    return Err(format!("ERR No such user '{}'", text(value)));
                }
                b"USER" if is_kill => filters.user = Some(text(value)),
                b"SKIPME" if is_kill => match value.to_ascii_lowercase().as_slice() {
                    b"yes" => filters.skips_me = true,
                    b"no" => filters.skips_me = false,
                    _ => return Err("ERR syntax error".into()),
                },
                _ => return Err("ERR syntax error".into()),
            }
        }
        Ok(filters)
    }

    fn take(&self, client: &Client, caller: Caller) -> bool {
        let address = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        let is_me = client.id == caller.client;
        !client.is_killed
            && (!is_me || !self.skips_me)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && self.kind.as_deref().is_none_or(|kind| kind == client.kind())
            && (self.address.is_none() || self.address == address(client.address))
            && (self.local_address.is_none() || self.local_address == address(client.local_address))
    }
}

/// How the replies to CLIENT LIST and CLIENT KILL are merged, which all shards do for their own clients.
pub(super) fn everywhere(cmd: Cmd, words: &[&[u8]]) -> Result<Option<Merge>, Problem> {
    let sub = words[0].to_ascii_uppercase();
    match (cmd, sub.as_slice(), words.len()) {
        (Cmd::Client, b"LIST", _) => {
            Filters::read(&words[1..], false).map_err(|text| Problem::Worded(text.into()))?;
            Ok(Some(Merge::Lines))
        }
        (Cmd::Client, b"KILL", 2) => Ok(Some(Merge::OkIfAny("ERR No such client"))),
        (Cmd::Client, b"KILL", 3..) => {
            Filters::read(&words[1..], true).map_err(|text| Problem::Worded(text.into()))?;
            Ok(Some(Merge::Sum))
        }
        _ => Ok(None),
    }
}

fn tracking_info(client: &Client, is_resp3: bool, reply: &mut Vec<u8>) {
    let mode = client.rare.tracking.as_ref();
    let is = |what: fn(&TrackingMode) -> bool| mode.is_some_and(what);
    let flags = [
        ("off", mode.is_none()),
        ("on", mode.is_some()),
        ("bcast", is(|mode| mode.is_broadcast)),
        ("optin", is(|mode| mode.opt_in)),
        ("optout", is(|mode| mode.opt_out)),
        ("caching-yes", is(|mode| mode.opt_in && mode.caching == Some(true))),
        ("caching-no", is(|mode| mode.opt_out && mode.caching == Some(false))),
        ("noloop", is(|mode| mode.no_loop)),
        ("broken_redirect", is(|mode| mode.is_broken)),
    ];
    let set: Vec<&str> = flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
    encode::map(3, is_resp3, reply);
    encode::bulk(b"flags", reply);
    encode::set(set.len(), is_resp3, reply);
    set.iter().for_each(|name| encode::bulk(name.as_bytes(), reply));
    encode::bulk(b"redirect", reply);
    encode::integer(
        match mode {
            None => -1,
            Some(mode) if mode.receiver == client.id => 0,
            Some(mode) => mode.receiver as i64,
        },
        reply,
    );
    encode::bulk(b"prefixes", reply);
    let prefixes = mode.map(|mode| mode.prefixes.as_slice()).unwrap_or_default();
    encode::array(prefixes.len(), reply);
    prefixes.iter().for_each(|prefix| encode::bulk(prefix, reply));
}

/// Whether a name is one word of printable letters, short enough.
fn is_plain(name: &[u8]) -> bool {
    name.len() <= limits::CLIENT_NAME_BYTES_MAX && name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// The version of Redis whose commands these are: some clients ask for no less before they use theirs.
pub(super) const REDIS_VERSION: &str = "7.4.0";
