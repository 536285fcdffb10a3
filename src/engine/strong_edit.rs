//! What else is asked of a strong key: decided at the node that was asked, from what the key's holder has shown.
//!
//!   holder ── value, expiry, version, time ──→ `edit` ──→ what the key shall hold ── if nobody wrote it since ──→ holder
//!
//! GET, SET, SET NX, DEL and INCRBY are the holder's own business and take one step. Everything here takes two: a look
//! and a replacement that only happens if the key still has the version that was seen, tried anew otherwise. So the
//! protocol between nodes stays as small as it is, and a lock library's "delete it if it is still mine" is as exact as
//! its SET NX PX. Time is the holder's in both steps.

use crate::base::decimal;
use crate::base::limits;
use crate::engine::edit::senseless;
use crate::wire::{Command, Edit, Expiry, Mode, Status, Then, Want, When};

/// What a strong key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The value.
    pub value: Vec<u8>,
    /// When it expires, in milliseconds of Unix time; 0 for never.
    pub expires_ms: u64,
}

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// What the key shall hold, or that it shall hold nothing; nothing at all if it stays as it is.
    pub change: Option<Option<Held>>,
    /// How it went.
    pub status: Status,
    /// The answer's value.
    pub value: Vec<u8>,
    /// The answer's number.
    pub number: u64,
}

/// Whether a request is one of these.
pub(super) fn is_edit(command: &Command<'_>) -> bool {
    match command {
        Command::Set { mode, .. } => !matches!(mode, Mode::CompareAndSet(_)),
        Command::Touch { .. } | Command::Ttl { .. } | Command::Increment { .. } => true,
        Command::Edit { edit, .. } => match edit {
            Edit::Store { mode, .. } => !matches!(mode, Mode::CompareAndSet(_)),
            Edit::Read { .. } | Edit::Take | Edit::Append { .. } | Edit::AddFloat { .. } => true,
            Edit::Expire { .. } | Edit::IfEqual { .. } => true,
            Edit::Look { want } => {
                matches!(want, Want::Presence | Want::Touch | Want::Length | Want::Left | Want::ExpiresAt)
            }
            Edit::Splice { .. } | Edit::SetBit { .. } => false,
        },
        _ => false,
    }
}

/// Does a request to what the key holds at that time.
pub(super) fn edit(command: &Command<'_>, held: Option<Held>, now_ms: u64) -> Edited {
    let at = At { held, now_ms };
    match *command {
        Command::Set { value, ttl_ms, mode, .. } => at.store(value, after(ttl_ms), mode, false),
        Command::Touch { ttl_ms, .. } => at.expire(after(ttl_ms), When::default()),
        Command::Ttl { .. } => at.look(Want::Left),
        Command::Increment { delta, initial, ttl_ms, .. } => at.increment(delta, initial, after(ttl_ms)),
        Command::Edit { edit, .. } => match edit {
            Edit::Store { value, expiry, mode, old } => at.store(value, expiry, mode, old),
            Edit::Read { expiry } => at.read(expiry),
            Edit::Take => match &at.held {
                None => Edited::of(Status::NotFound),
                Some(held) => Edited { value: held.value.clone(), ..Edited::changed(None) },
            },
            Edit::Append { bytes } => {
                let value = [at.value(), bytes].concat();
                let number = value.len() as u64;
                Edited { number, ..at.rewrite(value) }
            }
            Edit::AddFloat { delta } => match decimal::sum(if at.held.is_some() { at.value() } else { b"0" }, delta) {
                Ok(sum) => Edited { value: sum.as_bytes().to_vec(), ..at.rewrite(sum.as_bytes().to_vec()) },
                Err(decimal::NoSum::NotANumber) => Edited::of(Status::NotAFloat),
                Err(decimal::NoSum::NotFinite) => Edited::of(Status::NotFinite),
            },
            Edit::Expire { expiry, when } => at.expire(expiry, when),
            Edit::Look { want } => at.look(want),
            Edit::IfEqual { expected, then } => at.if_equal(expected, then),
            Edit::Splice { .. } | Edit::SetBit { .. } => Edited::of(Status::Unsupported),
        },
        _ => Edited::of(Status::Unsupported),
    }
}

struct At {
    held: Option<Held>,
    now_ms: u64,
}

impl At {
    fn value(&self) -> &[u8] {
        self.held.as_ref().map_or(&[], |held| &held.value)
    }

    fn expires_ms(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.expires_ms)
    }

    /// When something expires by what is asked; 0 for never.
    fn resolve(&self, expiry: Expiry) -> u64 {
        match expiry {
            Expiry::Never => 0,
            Expiry::Keep | Expiry::Senseless { .. } => self.expires_ms(),
            Expiry::In(ms) => self.now_ms.saturating_add(ms),
            Expiry::At(unix_ms) => u64::try_from(unix_ms).unwrap_or(0).max(1),
        }
    }

    /// A value from now on, unless it has expired by then.
    fn put(&self, value: Vec<u8>, expires_ms: u64) -> Edited {
        if value.len() > limits::STRONG_VALUE_BYTES_MAX {
            return Edited::of(Status::ValueTooLarge);
        }
        let is_past = expires_ms != 0 && expires_ms <= self.now_ms;
        Edited::changed((!is_past).then_some(Held { value, expires_ms }))
    }

    fn rewrite(&self, value: Vec<u8>) -> Edited {
        self.put(value, self.expires_ms())
    }

    fn store(&self, value: &[u8], expiry: Expiry, mode: Mode, old: bool) -> Edited {
        let stored = match (mode, &self.held) {
            (Mode::Add, Some(_)) => Edited::of(Status::Exists),
            (Mode::Replace, None) => Edited::of(Status::NotFound),
            _ => self.put(value.to_vec(), self.resolve(expiry)),
        };
        match (&self.held, stored.status) {
            (Some(held), Status::Ok | Status::Exists) if old => {
                Edited { status: Status::Ok, value: held.value.clone(), ..stored }
            }
            (None, Status::Ok) if old => Edited { status: Status::NotFound, ..stored },
            _ => stored,
        }
    }

    fn read(&self, expiry: Expiry) -> Edited {
        let Some(held) = &self.held else { return Edited::of(Status::NotFound) };
        if let Some(status) = senseless(expiry) {
            return Edited::of(status);
        }
        let change = match expiry {
            Expiry::Keep => None,
            _ => self.put(held.value.clone(), self.resolve(expiry)).change,
        };
        let is_change = change.as_ref().is_some_and(|change| *change != self.held);
        Edited { change: change.filter(|_| is_change), value: held.value.clone(), ..Edited::of(Status::Ok) }
    }

    fn expire(&self, expiry: Expiry, when: When) -> Edited {
        let Some(held) = &self.held else { return Edited::of(Status::NotFound) };
        let never_is_last = |expires_ms: u64| if expires_ms == 0 { u64::MAX } else { expires_ms };
        let (before, after) = (never_is_last(held.expires_ms), never_is_last(self.resolve(expiry)));
        let is_met = !(when.none_yet && before != u64::MAX)
            && !((when.some_already || when.persist) && before == u64::MAX)
            && (!when.later || after > before)
            && (!when.earlier || after < before);
        match is_met {
            true => self.put(held.value.clone(), self.resolve(expiry)),
            false => Edited::of(Status::NotFound),
        }
    }

    fn look(&self, want: Want) -> Edited {
        let Some(held) = &self.held else { return Edited::of(Status::NotFound) };
        let number = match want {
            Want::Length => held.value.len() as u64,
            Want::Left | Want::ExpiresAt if held.expires_ms == 0 => u64::MAX,
            Want::Left => held.expires_ms.saturating_sub(self.now_ms),
            Want::ExpiresAt => held.expires_ms,
            _ => 1,
        };
        Edited { number, ..Edited::of(Status::Ok) }
    }

    fn if_equal(&self, expected: Option<&[u8]>, then: Then) -> Edited {
        let is_null_otherwise = matches!(then, Then::Increment { is_null_otherwise: true, .. });
        let Some(held) = self.held.as_ref().filter(|held| expected.is_none_or(|expected| expected == held.value))
        else {
            let number = if is_null_otherwise { u64::MAX } else { 0 };
            return Edited { number, ..Edited::of(Status::NotFound) };
        };
        let edited = match then {
            Then::Delete => Edited::changed(None),
            Then::Expire(expiry) => match senseless(expiry) {
                Some(status) => Edited::of(status),
                None => self.expire(expiry, When::default()),
            },
            Then::Extend(_) if held.expires_ms == 0 => Edited::of(Status::NotFound),
            Then::Extend(ms) => self.put(held.value.clone(), held.expires_ms.saturating_add(ms)),
            Then::Increment { by, .. } => return self.increment(by, None, Expiry::Never),
        };
        Edited { number: 1, ..edited }
    }

    fn increment(&self, by: i64, initial: Option<i64>, expiry: Expiry) -> Edited {
        let Some(held) = &self.held else {
            let Some(initial) = initial else { return Edited::of(Status::NotFound) };
            let stored = self.put(initial.to_string().into_bytes(), self.resolve(expiry));
            return Edited { number: initial as u64, ..stored };
        };
        let number = std::str::from_utf8(&held.value).ok().and_then(|text| text.parse::<i64>().ok());
        let Some(number) = number else { return Edited::of(Status::NotANumber) };
        let Some(sum) = number.checked_add(by) else { return Edited::of(Status::Overflow) };
        Edited { number: sum as u64, ..self.rewrite(sum.to_string().into_bytes()) }
    }
}

impl Edited {
    fn of(status: Status) -> Edited {
        Edited { change: None, status, value: Vec::new(), number: 0 }
    }

    fn changed(to: Option<Held>) -> Edited {
        Edited { change: Some(to), ..Edited::of(Status::Ok) }
    }
}

/// As the native protocol says it: 0 for never.
fn after(ttl_ms: u64) -> Expiry {
    if ttl_ms == 0 { Expiry::Never } else { Expiry::In(ttl_ms) }
}

#[cfg(test)]
#[path = "strong_edit_tests.rs"]
mod tests;
