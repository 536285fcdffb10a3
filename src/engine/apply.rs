//! One request against the store: what each command does, and what it answers.

use std::ops::DerefMut;

use crate::base::hash::KeyHash;
use crate::base::time::Instant;
use crate::cache::{Condition, Put, Refused};
use crate::engine::edit;
use crate::engine::keys::Keys;
use crate::engine::memcached;
use crate::observe::{Operation, ShardCounters};
use crate::wire::memcached::{Ask, Verb};
use crate::wire::{Codec, Command, Edit, Mode, Reply, Request, Status};

/// Applies a request about a key and appends its reply to `out`. What is published of the key has followed
/// before the reply can leave.
#[inline]
pub fn apply<C: Codec, M: DerefMut<Target = [u8]>>(
    keys: &mut Keys<M>,
    counters: &ShardCounters,
    request: &Request<'_>,
    hash: KeyHash,
    out: &mut Vec<u8>,
) {
    if keys.tenants.is_some() {
        return apply_for_tenant::<C, M>(keys, counters, request, hash, out);
    }
    apply_plain::<C, M>(keys, counters, request, hash, out);
}

/// The same, counted for the tenant whose key it is: by what has changed in the shard's own counters.
#[inline(never)]
fn apply_for_tenant<C: Codec, M: DerefMut<Target = [u8]>>(
    keys: &mut Keys<M>,
    counters: &ShardCounters,
    request: &Request<'_>,
    hash: KeyHash,
    out: &mut Vec<u8>,
) {
    let count = |counters: &ShardCounters| (counters.get_hits.get(), counters.get_misses.get());
    let before = count(counters);
    apply_plain::<C, M>(keys, counters, request, hash, out);
    let after = count(counters);
    let operation = operation_of(&request.command);
    if let (Some(tenants), Some(key)) = (keys.tenants.as_deref_mut(), request.command.key()) {
        tenants.count(key, operation, after.0 - before.0, after.1 - before.1);
    }
}

#[inline]
fn apply_plain<C: Codec, M: DerefMut<Target = [u8]>>(
    keys: &mut Keys<M>,
    counters: &ShardCounters,
    request: &Request<'_>,
    hash: KeyHash,
    out: &mut Vec<u8>,
) {
    let now = keys.now;
    let mut answer = |reply: Reply<'_>| C::encode_reply(request, &reply, out);
    match request.command {
        Command::Get { key } => {
            let found = match request.want_version {
                false => keys.store.get(hash, key, now),
                true => keys.store.get_versioned(hash, key, now),
            };
            match found {
                Some(item) => {
                    let number = if request.want_version { item.version.unwrap_or(0) } else { 0 };
                    answer(Reply { status: Status::Ok, value: item.value, number });
                    counters.get_hits.add(1);
                    if let Some(l0) = &mut keys.l0
                        && l0.is_candidate()
                    {
                        l0.offer(&mut keys.store, hash, key, now);
                    }
                }
                None => {
                    answer(Reply::status(Status::NotFound));
                    counters.get_misses.add(1);
                }
            }
        }
        Command::GetTracked { key, token } => match keys.store.get(hash, key, now) {
            Some(item) => {
                let left = item.expires.map_or(u64::MAX, |expires| now.ms_until(expires));
                let number = if keys.interest.note(token, hash) { left } else { NOT_TRACKED };
                answer(Reply { status: Status::Ok, value: item.value, number });
                counters.get_hits.add(1);
            }
            None => {
                answer(Reply::status(Status::NotFound));
                counters.get_misses.add(1);
            }
        },
        Command::Set { key, value, ttl_ms, mode } => {
            let put = Put {
                value,
                expires: expiry(ttl_ms, now),
                condition: condition(mode),
                versioned: request.want_version,
                ..Put::default()
            };
            match keys.store.set(hash, key, put, now) {
                Ok(version) => {
                    keys.changed(hash, key);
                    counters.sets.add(1);
                    if let Some(l0) = &mut keys.l0 {
                        l0.written(hash, key, value, put.expires);
                    }
                    answer(Reply { number: version.unwrap_or(0), ..Reply::status(Status::Ok) });
                }
                Err(refused) => answer(Reply::status(refusal(refused, counters))),
            }
        }
        Command::Delete { key } => {
            let deleted = keys.store.delete(hash, key, now);
            // Even if the shard did not have it any more: what was evicted here may still be published.
            if let Some(l0) = &mut keys.l0 {
                l0.removed(hash, key);
            }
            // Even a key that is not stored: it may have been evicted, and near caches hold it still.
            match deleted {
                true => keys.changed(hash, key),
                false => keys.missed(hash, key),
            }
            counters.deletes.add(u64::from(deleted));
            answer(Reply::status(if deleted { Status::Ok } else { Status::NotFound }));
        }
        Command::Increment { key, delta, initial, ttl_ms } => {
            let counting = keys.about_to_count(hash, key);
            match keys.store.increment(hash, key, delta, initial, expiry(ttl_ms, now), false, now) {
                Ok((count, _)) => {
                    keys.counted(hash, key, counting, initial != Some(delta));
                    counters.increments.add(1);
                    if let Some(l0) = &mut keys.l0 {
                        // Its text and its expiry are the store's to know; the next reader brings it back.
                        l0.removed(hash, key);
                    }
                    answer(Reply { number: count as u64, ..Reply::status(Status::Ok) });
                }
                Err(refused) => answer(Reply::status(refusal(refused, counters))),
            }
        }
        Command::Touch { key, ttl_ms } => {
            let touched = keys.store.touch(hash, key, expiry(ttl_ms, now), now);
            if touched {
                keys.changed(hash, key);
            }
            counters.touches.add(u64::from(touched));
            if let Some(l0) = &mut keys.l0 {
                if touched {
                    l0.touched(hash, key, expiry(ttl_ms, now));
                } else {
                    l0.removed(hash, key);
                }
            }
            answer(Reply::status(if touched { Status::Ok } else { Status::NotFound }));
        }
        Command::Ttl { key } => match keys.store.peek(hash, key, now) {
            Some(item) => {
                let left = item.expires.map_or(u64::MAX, |expires| now.ms_until(expires));
                answer(Reply { number: left, ..Reply::status(Status::Ok) });
            }
            None => answer(Reply::status(Status::NotFound)),
        },
        Command::Memcached { key, ask } if C::IS_MEMCACHED => memcached::apply(keys, counters, hash, key, ask, out),
        Command::Memcached { .. } => unreachable!("a codec that has none decoded it"),
        Command::Edit { key, edit } => edit::edit(keys, counters, hash, key, edit, &mut |reply| answer(reply)),
        Command::Flush => {
            keys.flush();
            answer(Reply::status(Status::Ok));
        }
        Command::Noop => answer(Reply::status(Status::Ok)),
        Command::Hello { .. } | Command::Stats | Command::Map | Command::Subscribe => {
            unreachable!("the shard answers these itself")
        }
    }
}

/// What a command is counted as.
#[inline]
pub fn operation_of(command: &Command<'_>) -> Operation {
    match command {
        Command::Get { .. } | Command::GetTracked { .. } => Operation::Get,
        Command::Set { .. } | Command::Edit { edit: Edit::Store { .. }, .. } => Operation::Set,
        Command::Memcached { ask, .. } => operation_of_ask(ask),
        Command::Delete { .. } => Operation::Delete,
        Command::Increment { .. } => Operation::Increment,
        Command::Touch { .. } => Operation::Touch,
        Command::Edit { edit, .. } => match edit {
            Edit::Read { .. } => Operation::Get,
            Edit::Store { .. } | Edit::Append { .. } | Edit::Splice { .. } | Edit::SetBit { .. } => Operation::Set,
            Edit::Take => Operation::Delete,
            Edit::AddFloat { .. } => Operation::Increment,
            Edit::Expire { .. } => Operation::Touch,
            Edit::Look { .. } | Edit::IfEqual { .. } => Operation::Other,
        },
        _ => Operation::Other,
    }
}

/// The same of memcached's.
#[inline]
pub fn operation_of_ask(ask: &Ask<'_>) -> Operation {
    match ask {
        Ask::Read { .. } | Ask::Meta { verb: Verb::Get, .. } => Operation::Get,
        Ask::Store { .. } | Ask::Meta { verb: Verb::Set, .. } => Operation::Set,
        Ask::Delete { .. } | Ask::Meta { verb: Verb::Delete, .. } => Operation::Delete,
        Ask::Count { .. } | Ask::Meta { verb: Verb::Arithmetic, .. } => Operation::Increment,
        Ask::Touch { .. } => Operation::Touch,
        Ask::Meta { verb: Verb::Debug, .. } => Operation::Other,
    }
}

/// The number of a reply whose key the shard does not watch for the near cache that asked.
const NOT_TRACKED: u64 = 0;

pub(super) fn expiry(ttl_ms: u64, now: Instant) -> Option<Instant> {
    (ttl_ms > 0).then(|| now.after_ms(ttl_ms))
}

pub(super) fn condition(mode: Mode) -> Condition {
    match mode {
        Mode::Set => Condition::Always,
        Mode::Add => Condition::Absent,
        Mode::Replace => Condition::Present,
        Mode::CompareAndSet(version) => Condition::Version(version),
    }
}

pub(super) fn refusal(refused: Refused, counters: &ShardCounters) -> Status {
    match refused {
        Refused::TooLarge { .. } => counters.refused.add(1),
        _ => counters.sets_unmet.add(1),
    }
    match refused {
        Refused::Exists => Status::Exists,
        Refused::NotFound => Status::NotFound,
        Refused::VersionDiffers => Status::VersionDiffers,
        Refused::TooLarge { .. } => Status::ValueTooLarge,
        Refused::NotANumber => Status::NotANumber,
        Refused::Overflow => Status::Overflow,
    }
}
