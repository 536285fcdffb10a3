//! One loader a key: whoever misses first loads, whoever misses meanwhile waits for that value.
//!
//! A flight stands in its stripe's table, under the stripe's lock, while its loader runs without any lock. A
//! write to its key takes it out of the table: those who wait still get its value, nobody joins any more, and it
//! is not stored (`owner`). A flight that fails wakes all who wait; each looks again, and the first to find
//! nothing there loads.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, ThreadId};

use crate::embedded::value::Value;

/// A value on its way.
pub struct Flight {
    leader: ThreadId,
    state: Mutex<State>,
    ended: Condvar,
}

enum State {
    Loading,
    Loaded(Value),
    Failed,
}

impl Flight {
    /// A flight led by the calling thread.
    pub fn new() -> Flight {
        Flight { leader: thread::current().id(), state: Mutex::new(State::Loading), ended: Condvar::new() }
    }

    /// Whether the calling thread is the one that loads, so that waiting would never end.
    pub fn is_led_by_caller(&self) -> bool {
        self.leader == thread::current().id()
    }

    /// Ends the flight with a value, or without one; an end is final.
    pub fn end(&self, value: Option<Value>) {
        // No code of ours or others panics under this lock: whatever happened, the state is whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Loading = *state {
            *state = value.map_or(State::Failed, State::Loaded);
            self.ended.notify_all();
        }
    }

    /// Waits for the end. Answers the value if there is one.
    pub fn wait(&self) -> Option<Value> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*state {
                State::Loading => state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner),
                State::Loaded(value) => return Some(value.clone()),
                State::Failed => return None,
            }
        }
    }
}
