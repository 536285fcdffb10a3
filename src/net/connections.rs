//! The table of connections and what each has still to send.
//!
//!   append ->  | out |  --swap when nothing is in flight-->  | in flight |  --kernel-->
//!
//! Two buffers a connection: replies gather in one while the kernel reads the other. Both are
//! empty vectors until used and give large capacity back, so an idle connection costs its table
//! entry. A slot is reused only when the kernel is done with it.

use std::os::fd::OwnedFd;

use crate::base::id::ConnectionId;
use crate::base::limits;
use crate::base::time::Instant;

pub struct Connection {
    pub socket: OwnedFd,
    pub generation: u32,
    /// Replies gathered for the next send.
    pub out: Vec<u8>,
    /// What the kernel is sending, and how much of it has gone.
    pub in_flight: Vec<u8>,
    pub in_flight_sent: usize,
    /// A send is with the kernel (ring) or waits for room in the socket (epoll).
    pub sending: bool,
    /// A receive is with the kernel.
    pub receiving: bool,
    pub paused: bool,
    pub detaching: bool,
    /// Close once everything is sent.
    pub closing: bool,
    /// The socket is shut down; the slot waits for the kernel's last completions.
    pub dead: bool,
    /// On the list of connections with something to send or arm.
    pub dirty: bool,
    /// When the peer last took anything, or there was nothing to take.
    pub progress: Instant,
}

#[derive(Default)]
pub struct Connections {
    slots: Vec<Option<Connection>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Slots to look at before the next submission.
    pub dirty: Vec<u32>,
    count: usize,
    /// The most there may be, if less than the limit.
    count_max: Option<usize>,
    /// Where the search for stalled connections is.
    stall_cursor: usize,
}

impl Connections {
    /// Takes a connection in; `None`, closing it, when the table is full.
    pub fn insert(&mut self, socket: OwnedFd, now: Instant) -> Option<ConnectionId> {
        if self.count >= self.count_max.unwrap_or(limits::CONNECTION_COUNT_MAX) {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(0);
            self.slots.len() as u32 - 1
        });
        let generation = self.generations[slot as usize];
        self.slots[slot as usize] = Some(Connection {
            socket,
            generation,
            out: Vec::new(),
            in_flight: Vec::new(),
            in_flight_sent: 0,
            sending: false,
            receiving: false,
            paused: false,
            detaching: false,
            closing: false,
            dead: false,
            dirty: false,
            progress: now,
        });
        self.count += 1;
        Some(ConnectionId { slot, generation })
    }

    /// Removes a connection. Its slot may be reused from now on, under another generation.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get(id)?;
        self.count -= 1;
        self.generations[id.slot as usize] = id.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.slots[id.slot as usize].take()
    }

    /// Takes no more than this.
    pub fn set_count_max(&mut self, most: usize) {
        self.count_max = Some(most.min(limits::CONNECTION_COUNT_MAX));
    }

    #[inline]
    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.slot as usize)?.as_mut().filter(|connection| connection.generation == id.generation)
    }

    /// The connection in a slot, whatever its generation.
    pub fn in_slot(&mut self, slot: u32) -> Option<(ConnectionId, &mut Connection)> {
        let connection = self.slots.get_mut(slot as usize)?.as_mut()?;
        Some((ConnectionId { slot, generation: connection.generation }, connection))
    }

    /// Puts a connection on the list of those to look at before the next submission.
    #[inline]
    pub fn mark_dirty(&mut self, id: ConnectionId) {
        if let Some(connection) = self.slots[id.slot as usize].as_mut()
            && connection.generation == id.generation
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(id.slot);
        }
    }

    /// The output of a connection, to append to; it is looked at before the next submission.
    pub fn output(&mut self, id: ConnectionId) -> Option<&mut Vec<u8>> {
        self.get(id)?;
        self.mark_dirty(id);
        self.get(id).filter(|connection| !connection.dead).map(|connection| &mut connection.out)
    }

    /// Reads from a paused connection again.
    pub fn resume(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id) {
            connection.paused = false;
            self.mark_dirty(id);
        }
    }

    /// Closes a connection once its output is sent.
    pub fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get(id) {
            connection.closing = true;
            self.mark_dirty(id);
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Capacity that each buffer keeps after a burst: less, the more connections there are.
    pub fn kept_capacity(&self) -> usize {
        (KEPT_CAPACITY_ALL / 2 / self.count.max(1)).clamp(KEPT_CAPACITY_MIN, KEPT_CAPACITY_MAX)
    }

    /// Connections with output that their peers have not taken since `since`, among the next `looks`.
    pub fn stalled(&mut self, since: Instant, looks: usize) -> Vec<ConnectionId> {
        let mut stalled = Vec::new();
        for _ in 0..looks.min(self.slots.len()) {
            self.stall_cursor = (self.stall_cursor + 1) % self.slots.len();
            let Some(connection) = &self.slots[self.stall_cursor] else { continue };
            if connection.sending && !connection.dead && connection.progress < since {
                stalled.push(ConnectionId { slot: self.stall_cursor as u32, generation: connection.generation });
            }
        }
        stalled
    }
}

impl Connection {
    /// Whether its next send is one of the large ones.
    pub fn has_much_to_send(&self) -> bool {
        !self.sending && self.pending_bytes() > limits::SEND_BYTES_SMALL
    }

    /// Moves gathered replies in front of the kernel. Answers whether there is anything to send.
    pub fn load(&mut self, now: Instant) -> bool {
        debug_assert!(!self.sending);
        if self.out.is_empty() {
            self.progress = now;
            return false;
        }
        std::mem::swap(&mut self.out, &mut self.in_flight);
        self.in_flight_sent = 0;
        self.progress = now;
        true
    }

    /// What is still to be sent of the present flight.
    pub fn unsent(&self) -> &[u8] {
        &self.in_flight[self.in_flight_sent..]
    }

    /// Counts bytes the kernel has taken. Answers whether the flight is complete.
    pub fn took(&mut self, bytes: usize, now: Instant, kept_capacity: usize) -> bool {
        self.in_flight_sent += bytes;
        self.progress = now;
        if self.in_flight_sent < self.in_flight.len() {
            return false;
        }
        if self.in_flight.capacity() > kept_capacity {
            self.in_flight = Vec::new();
        } else {
            self.in_flight.clear();
        }
        self.in_flight_sent = 0;
        true
    }

    /// Bytes that have not left.
    pub fn pending_bytes(&self) -> usize {
        self.out.len() + self.in_flight.len() - self.in_flight_sent
    }
}

/// Capacity that each buffer of a connection keeps after a burst, while there are few connections.
const KEPT_CAPACITY_MAX: usize = 16 << 10;
/// What all of them keep together, about.
const KEPT_CAPACITY_ALL: usize = 2 << 20;
/// What each may keep in any case.
const KEPT_CAPACITY_MIN: usize = 512;
