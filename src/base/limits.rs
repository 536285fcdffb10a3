//! Every limit of the product, its reason beside it, and the relations between them proved at
//! compile time. A bound that is not in this file does not exist.

// --- What a client may send ---------------------------------------------------------------

/// Longest key. Ten bits in an item's header; Redis and memcached users rarely pass 250.
pub const KEY_BYTES_MAX: usize = 1024;

/// Largest value the item header can describe (22 bits). A server's own limit is lower: one
/// segment less the header and the key, announced at HELLO.
pub const VALUE_BYTES_MAX: usize = (1 << 22) - 1;

/// Last moment an item can store as its expiry (48 bits of milliseconds, some 8,900 years).
pub const EXPIRY_MS_MAX: u64 = (1 << 48) - 1;

// --- A shard's memory ---------------------------------------------------------------------

/// Largest segment: big enough for a 1 MiB value, small enough that emptying one stays short.
pub const SEGMENT_BYTES_MAX: usize = 1 << 20;

/// Smallest segment: sixteen index buckets, the fewest among which an entry has its two places.
/// Only replay at a handful of objects goes this low.
pub const SEGMENT_BYTES_MIN: usize = 16 * BUCKET_BYTES;

/// Segments a shard aims for. Two are kept free and two are half full on average: with 128 an entry of 120
/// bytes pays 1.6 to 3 bytes for them. With 256 it would be half of that, and the largest value of a
/// small server too. 128 × 1 MiB is reached at 128 MiB a shard.
pub const SEGMENT_COUNT_AIM: usize = 128;

/// Fewest segments a store works with: one open in each log, one to copy into, one for the index,
/// one for its overflow, one for ghosts, and something to evict.
pub const SEGMENT_COUNT_MIN: usize = 12;

/// One index bucket: a cache line.
pub const BUCKET_BYTES: usize = 64;

/// Largest arena a slot can point into: 32 GiB a shard (35 bits of byte address, one value means
/// empty). A host with more memory for each data core runs two shards' worth of cores, or leaves it.
pub const ARENA_BYTES_MAX: u64 = (1 << 35) - SEGMENT_BYTES_MAX as u64;

/// Notes a shard keeps of what time it was at which tick: a kibibyte, by which the idle time of an item is
/// known to a second at first and to a quarter after days.
pub const TIME_NOTES: usize = 64;

/// Two of them are at least so far apart.
pub const TIME_NOTES_APART_MS: u64 = 250;

// --- The process around the shards --------------------------------------------------------

/// What the process itself may hold beside arenas and buffers: executable pages, allocator,
/// stacks, the control side. Measured on the release build with one shard: 6.5 MiB of the executable's own
/// pages after a start and 7.2 under load, 1.4 of libraries, and 2.2 MiB of anonymous memory beside the
/// arena, of which a shard's part is counted below. The kernel maps files in pieces of 64 KiB, so a third of
/// a code of 13 MiB is resident although a GET runs some kilobytes of it.
pub const PROCESS_BYTES: u64 = 8 << 20;

/// What each shard's executor, ring and receive buffers may hold, connections aside.
pub const SHARD_FIXED_BYTES: u64 = 2 << 20;

/// Share of a server's memory set aside for what connections buffer (partial requests and
/// replies not yet sent): one part in this many, within the two bounds below.
pub const CONNECTION_MEMORY_SHARE: u64 = 16;

/// Least that is set aside for connections in each shard.
pub const CONNECTION_MEMORY_BYTES_MIN: u64 = 512 << 10;

/// Most that is set aside for connections in each shard.
pub const CONNECTION_MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Smallest `--memory` per shard that `serve` accepts.
pub const SHARD_MEMORY_BYTES_MIN: u64 = 8 << 20;

/// Most shards in one process: the forwarding rings grow with the square of it.
pub const SHARD_COUNT_MAX: usize = 256;

// --- The network --------------------------------------------------------------------------

/// Bytes in one receive buffer. Two requests of the usual 1–2 KiB, or some eighty small ones.
pub const RECEIVE_BUFFER_BYTES: usize = 4096;

/// Receive buffers of a shard's ring. A power of two (kernel), 128 × 4 KiB = 512 KiB touched only
/// as far as it is used.
pub const RECEIVE_BUFFER_COUNT: u16 = 128;

/// Submission queue of a shard's ring; it is flushed when full, so this bounds a batch only.
pub const RING_ENTRIES: u32 = 256;

/// Completion queue of a shard's ring: multishot operations post here unasked. Overflow is kept
/// by the kernel and costs a system call, it loses nothing.
pub const RING_COMPLETIONS: u32 = 4096;

/// Connections of one shard, memory permitting. Past it a new one is closed at once.
pub const CONNECTION_COUNT_MAX: usize = 16_384;

/// What an idle connection holds in this process: its place in the table and its session. Measured: 254 B,
/// 290 B after use (`scripts/crowds`).
pub const CONNECTION_BYTES: u64 = 320;

/// Share of a shard's connection memory that idle connections may take: one part in this many. It sets the
/// number of connections of small servers; the rest is for what they buffer.
pub const CONNECTION_TABLE_SHARE: u64 = 4;

/// A peer that answers no probe for this long is gone: seconds of silence before the first probe, between
/// probes, and how many. A connection whose machine has vanished is closed after a minute and a half.
pub const KEEPALIVE_IDLE_S: i32 = 60;
/// See [`KEEPALIVE_IDLE_S`].
pub const KEEPALIVE_INTERVAL_S: i32 = 10;
/// See [`KEEPALIVE_IDLE_S`].
pub const KEEPALIVE_PROBES: i32 = 3;

/// Reply bytes of one connection waiting to be sent before we stop reading from it.
pub const OUTPUT_BYTES_HIGH: usize = 256 << 10;

/// Bytes given to the kernel in one send: some 15 µs of copying, the longest a send keeps others waiting.
pub const SEND_BYTES_MAX: usize = 64 << 10;

/// An output larger than this waits for its turn among the large ones, of which one is sent in each poll;
/// smaller ones all leave at once.
pub const SEND_BYTES_SMALL: usize = 16 << 10;

/// A connection whose peer accepts none of its reply for this long is closed.
pub const SEND_STALL_MS: u64 = 10_000;

/// The same while half of the memory for replies is taken: whoever reads nothing keeps others from theirs.
pub const SEND_STALL_SHORT_MS: u64 = 1_000;

/// A connection that has begun a request and sends nothing of the rest for this long is closed.
pub const RECEIVE_STALL_MS: u64 = 10_000;

/// Connections that are looked at each millisecond for peers that stopped halfway: 16,384 in a quarter of a
/// second, some 5 µs each time.
pub const STALL_LOOKS_PER_MS: usize = 64;

/// Requests decoded ahead of the one that is applied, so that the lines they read are on their way. A
/// miss to memory takes some 100 ns and a request some 40: eight would hide it, sixteen leave a margin.
pub const REQUESTS_AHEAD: usize = 16;

/// Requests of one connection that are served in one turn; those behind them wait for the others'. Some
/// three microseconds and one send: what a deep pipeline may add to its neighbours' round trips.
pub const REQUESTS_PER_TURN: usize = 64;

/// Bytes of requests that a connection may have waiting for its next turns before it is read no more.
pub const WAITING_BYTES_HIGH: usize = 64 << 10;

/// Requests of one connection that may be under way at other shards; beyond it we stop decoding.
pub const FORWARDED_MAX: usize = 256;

/// Slots of each ring from one shard to another, and most requests one shard may have under way at
/// another. At 64 B a slot and two rings each way: 32 KiB for each ordered pair of shards.
pub const MAILBOX_SLOTS: usize = 256;

/// Forwarded requests a shard answers in one turn for each of the others, so that its own
/// connections get their turn.
pub const FORWARDED_PER_TURN: usize = 64;

/// Bytes of each of the two rings of a shared-memory connection: some 500 replies of 100 bytes, and both
/// rings of a few busy connections stay in a core's second-level cache.
pub const SHM_RING_BYTES: usize = 64 << 10;

/// Shared-memory connections of one shard, each of which the shard looks at in every turn (a few
/// nanoseconds each). Past it a new one is refused.
pub const SHM_CONNECTIONS_MAX: usize = 16;

/// What a shard's shared-memory connections may hold: their rings and a page each.
pub const SHM_BYTES: u64 = (SHM_CONNECTIONS_MAX * (2 * SHM_RING_BYTES + 4096)) as u64;

// --- RESP: clients of Redis ------------------------------------------------------------------

/// Keys of one shard that transactions wait on (WATCH), some 40 bytes each.
pub const WATCHED_KEYS_MAX: usize = 16_384;

/// Keys that one connection may watch.
pub const WATCHED_KEYS_PER_CLIENT_MAX: usize = 1024;

/// Commands that wait for EXEC on one connection, and their bytes.
pub const QUEUED_COMMANDS_MAX: usize = 4096;
/// See [`QUEUED_COMMANDS_MAX`].
pub const QUEUED_BYTES_MAX: usize = 1 << 20;

/// Channels and patterns that one connection may listen to.
pub const SUBSCRIPTIONS_PER_CLIENT_MAX: usize = 4096;

/// Channels and patterns that all connections of one shard may listen to.
pub const SUBSCRIPTIONS_MAX: usize = 65_536;

/// Keys of one shard that clients of CLIENT TRACKING are told about; the oldest is told and forgotten. Some 120
/// bytes each, less on small servers: see `Core::new`.
pub const TRACKED_KEYS_MAX: usize = 262_144;

/// Bytes of news for another shard's clients that wait for room in its mailbox; beyond them each is told everything.
pub const NEWS_BYTES_MAX: usize = 1 << 20;

/// Prefixes of CLIENT TRACKING that one connection may name; every write looks at all of them.
pub const PREFIXES_PER_CLIENT_MAX: usize = 64;

/// Share of the memory for partial requests that clients of RESP may have remembered for them: commands that wait for
/// EXEC, watched keys, names of channels. One part in this many.
pub const REMEMBERED_SHARE: usize = 2;

/// Words that one command may have. Redis takes a million; at some hundred bytes for each while it is done, these are
/// three megabytes, which a server of any size has.
pub const RESP_WORDS_MAX: i64 = 1 << 15;

/// Messages and invalidations that a shard's clients are told unasked in one turn; beyond that commands wait for the next.
pub const PUSHES_MAX: usize = 65_536;

/// Keys that one client is told in one turn; beyond that it is told to forget everything.
pub const NEWS_KEYS_PER_CLIENT_MAX: usize = 4096;

/// Keys that all clients together are told in one turn, some hundred bytes each on their way.
pub const NEWS_KEYS_MAX: usize = 16_384;

/// Entries that one SCAN looks at: a few milliseconds.
pub const SCAN_ENTRIES_MAX: usize = 30_000;

/// Index homes that one SCAN looks at, empty ones included: some 4 MiB of memory read.
pub const SCAN_HOMES_IN_ALL: usize = 65_536;

/// Scripts that are remembered by their SHA-1.
pub const SCRIPTS_SEEN_MAX: usize = 256;

/// Bytes of a client's name, and of what it calls its library.
pub const CLIENT_NAME_BYTES_MAX: usize = 256;

/// Index homes that SCAN and KEYS look at in one step: some 30,000 entries, a few milliseconds.
pub const SCAN_HOMES_MAX: usize = 4096;

// --- memcached's protocol --------------------------------------------------------------------

/// Bytes of a key: what memcached takes.
pub const MEMCACHED_KEY_BYTES_MAX: usize = 250;

/// Bytes of a line that is no retrieval, as memcached has it.
pub const MEMCACHED_LINE_BYTES_MAX: usize = 2048;

/// Bytes of a retrieval's line: four thousand of the longest keys. It is looked through for its end with every
/// piece that arrives.
pub const MEMCACHED_KEYS_BYTES_MAX: usize = 1 << 20;

/// Seconds up to which a time counts from now; beyond it is Unix time. Thirty days.
pub const MEMCACHED_RELATIVE_S_MAX: i32 = 60 * 60 * 24 * 30;

/// Keys of a retrieval whose lines are on their way while the first is looked at.
pub const MEMCACHED_KEYS_AHEAD: usize = 16;

/// Prefixes of keys whose use is counted (`stats detail on`), some 100 bytes each.
pub const MEMCACHED_PREFIXES_MAX: usize = 4096;

// --- L0: entries in shared memory ------------------------------------------------------------

/// Words of a slot: three cache lines, which hold a key of 16 bytes and a value of 160, or 48 and 128.
pub const L0_SLOT_WORDS: usize = 24;

/// Slots in which an entry may be, from its home on. At half load a look-up sees 1.5 on average, and one entry in
/// ten thousand finds its window full.
pub const L0_WINDOW: usize = 8;

/// Words of a spill cell, for values that do not fit their slot.
pub const L0_SPILL_WORDS: usize = 128;

/// Longest key that is published. Longer ones are served by the shard.
pub const L0_KEY_BYTES_MAX: usize = 64;

/// Longest value that is published.
pub const L0_VALUE_BYTES_MAX: usize = L0_SPILL_WORDS * 8;

/// How often a reader looks at a slot that is being written before it asks the shard: some microsecond, while a write
/// takes 30 ns unless its thread was taken off the core.
pub const L0_RETRIES: usize = 64;

/// Least memory of a tenant's table for each shard.
pub const L0_REGION_BYTES_MIN: u64 = 64 << 10;

/// Share of a server's memory that L0 takes if nothing else is said: one part in this many.
pub const L0_MEMORY_SHARE: u64 = 8;

/// Most that L0 takes if nothing else is said.
pub const L0_MEMORY_BYTES_DEFAULT_MAX: u64 = 1 << 30;

/// Tenants with a table of their own.
pub const L0_TENANTS_MAX: usize = 16;

/// Readers of one server. Each is looked at once a millisecond by every shard.
pub const L0_READERS_MAX: usize = 64;

/// Places of the ring in which a reader reports hits to one shard.
pub const L0_REPORTS: usize = 512;

/// Reports that a shard takes from one reader in a millisecond: some 20 µs.
pub const L0_REPORTS_PER_MS: usize = 256;

/// One in so many hits of a shard is looked at for publishing.
pub const L0_CANDIDATE_SHARE: u32 = 4;

/// Candidates for which a full window is weighed, in one millisecond: each costs up to a microsecond.
pub const L0_CANDIDATES_PER_MS: u32 = 64;

/// Slots a shard looks at each millisecond after a flush, to clear what it left: some 20 µs.
pub const L0_SWEEP_SLOTS_PER_MS: usize = 2048;

// --- Near caches ------------------------------------------------------------------------------

/// Near caches that one shard keeps coherent: one bit each in the mask of a bucket.
pub const NEAR_SUBSCRIBERS_MAX: usize = 64;

/// Buckets of keys in which a shard remembers who has read, at most: 512 KiB of masks while there is a near
/// cache. With 100,000 keys held, a write drops one and a half besides its own.
pub const NEAR_BUCKETS_MAX: usize = 1 << 16;

/// Share of a shard's connection memory that the masks may take: one part in this many. It sets the number of
/// buckets on servers of less than some 86 MiB a shard.
pub const NEAR_MASK_SHARE: u64 = 8;

/// Share of a shard's connection memory for what waits to be pushed. It sets the number of near caches
/// on servers of less than some 22 MiB a shard.
pub const NEAR_LIST_SHARE: u64 = 4;

/// Buckets that wait to be pushed to one near cache; past it the push says "everything". 4 KiB.
pub const NEAR_BUCKETS_PER_PUSH: usize = 1024;

/// How long a near cache serves without having heard from its server: the bound of staleness when the network or
/// the server fails. A few times what a loaded machine keeps a thread waiting.
pub const NEAR_LEASE_MS: u64 = 500;

/// A near cache renews its lease this many times within one, so that a lost core or two does not end it.
pub const NEAR_RENEWALS_PER_LEASE: u32 = 5;

/// A server that says nothing to a near cache for this long is given up and connected to anew.
pub const NEAR_SILENCE_MS: u64 = 5_000;

/// Pause before a near cache connects again, the first time and at most; it doubles.
pub const NEAR_BACKOFF_MS_MIN: u64 = 50;
/// See [`NEAR_BACKOFF_MS_MIN`].
pub const NEAR_BACKOFF_MS_MAX: u64 = 2_000;

/// Idle connections to a server that a near cache keeps for misses and writes; more are opened as threads need
/// them, and closed after use.
pub const NEAR_CLIENTS_KEPT: usize = 8;

/// Parts of a near cache's memory, each under a lock of its own, and the least of one.
pub const NEAR_PARTS_MAX: usize = 16;
/// See [`NEAR_PARTS_MAX`].
pub const NEAR_PART_BYTES_MIN: usize = 1 << 20;

// --- The live view, `top` ---------------------------------------------------------------------

/// A line of events, and the data of one event. A hello of 600 seconds has some 80 KiB, a tick of 256 shards 50.
pub const TOP_EVENT_BYTES_MAX: usize = 1 << 20;

/// What hyper keeps of a connection: the head of an answer, a piece of its body.
pub const TOP_BUFFER_BYTES: usize = 64 << 10;

/// Bytes of a file with a token.
pub const TOP_TOKEN_BYTES_MAX: usize = 4096;

/// Until there is a connection, and then until there is the head of an answer.
pub const TOP_CONNECT_MS: u64 = 5_000;

/// Until the first figures of a second, before anything is shown.
pub const TOP_FIRST_MS: u64 = 15_000;

/// A server from which nothing comes for this long is given up: it sends a comment every 10 s at the least.
pub const TOP_SILENCE_MS: u64 = 15_000;

/// Pause before connecting anew where the server has not said which, and the least whatever it said; it doubles.
pub const TOP_BACKOFF_MS: u64 = 1_000;
/// See [`TOP_BACKOFF_MS`].
pub const TOP_BACKOFF_MS_MIN: u64 = 100;
/// See [`TOP_BACKOFF_MS`].
pub const TOP_BACKOFF_MS_MAX: u64 = 10_000;

/// Events between the connection and the screen. A terminal that is slower makes the server wait, and in the end
/// drop this reader, which then asks for what it missed.
pub const TOP_EVENTS_AHEAD: usize = 256;

/// Ticks over which rates are averaged, whatever a server says its window is: twice the documented one.
pub const TOP_WINDOW_TICKS_MAX: usize = 20;

/// Seconds of the past that are kept: what a hello brings.
pub const TOP_SECONDS_MAX: usize = 600;

/// How far before the newest second a tick may lie: servers remember 60 s for those who come back.
pub const TOP_REPLAY_MS_MAX: u64 = 90_000;

/// Characters of a name that are shown, where there is room.
pub const TOP_NAME_CHARACTERS_MAX: usize = 64;

// --- The cache inside a program ---------------------------------------------------------------

/// Capacity of an embedded cache if nothing else is said.
pub const EMBEDDED_CAPACITY_BYTES_DEFAULT: usize = 64 << 20;

/// Stripes for each core if nothing else is said: two threads that both write or miss then meet in one stripe
/// once in four times the cores.
pub const EMBEDDED_STRIPES_PER_CORE: usize = 4;

/// Most stripes of a cache.
pub const EMBEDDED_STRIPES_MAX: usize = 1024;

/// Memory of a stripe below which there are rather fewer stripes than cores would like: what each must learn
/// costs [`EMBEDDED_STRIPE_FIXED_BYTES`], here some 7 %.
pub const EMBEDDED_STRIPE_BYTES_AIM: usize = 8 << 20;

/// What a stripe holds beside its arena and its region: tables of ranks, the sampled LRU at its largest, states
/// of segments, free spill cells.
pub const EMBEDDED_STRIPE_FIXED_BYTES: usize = 576 << 10;

/// Least arena of a stripe.
pub const EMBEDDED_ARENA_BYTES_MIN: usize = 128 << 10;

/// Fewest segments of a stripe's arena when its owner asks for large entries: twice what a store works with,
/// so that no more than a quarter is open or kept free.
pub const EMBEDDED_SEGMENT_COUNT_MIN: usize = 2 * SEGMENT_COUNT_MIN;

/// Capacity from which memory lies in huge pages. They are touched as a whole: below this the last one would
/// be too large a part.
pub const EMBEDDED_HUGE_PAGES_FROM_BYTES: usize = 32 << 20;

/// Longest value that is handed out in line, without an allocation: what a slot of L0 holds beside a key of
/// 16 bytes.
pub const EMBEDDED_VALUE_INLINE_BYTES: usize = 160;

/// One in so many hits without a lock is told to its stripe, on average.
pub const EMBEDDED_HITS_PER_REPORT: u64 = 32;

/// Reports that a thread collects before it looks for their stripes: with the three words beside them, two lines.
pub const EMBEDDED_REPORTS: usize = 13;

/// One in so many hits whose window is full is weighed against the entries there. Weighing takes up to a
/// microsecond: in this share it adds 50 ns to hits that took a lock and 100 ns already.
pub const EMBEDDED_WEIGHED_SHARE: u32 = 16;

/// What a writer does once a millisecond for each stripe: segments looked at for expiry, expired items cleared
/// away, slots of flushed entries cleared. Some ten microseconds together.
pub const EMBEDDED_EXPIRE_SEGMENTS: usize = 16;
/// See [`EMBEDDED_EXPIRE_SEGMENTS`].
pub const EMBEDDED_EXPIRE_ITEMS: usize = 64;
/// See [`EMBEDDED_EXPIRE_SEGMENTS`].
pub const EMBEDDED_SWEEP_SLOTS: usize = 256;

/// Control messages that may wait for a shard. They are rare: adopted connections, stop.
pub const CONTROL_MESSAGES_MAX: usize = 1024;

/// Once a shard is told to stop: how long it stays for what is under way, at most, and how long it
/// must have been idle to leave.
pub const STOP_GRACE_MS: u64 = 5_000;
/// See [`STOP_GRACE_MS`].
pub const STOP_IDLE_MS: u64 = 50;

/// A frame not larger than this is taken in even when buffer memory is short.
pub const SMALL_FRAME_BYTES: usize = 2048;

/// Segment states a shard looks at each millisecond for expired ones: 16 GiB in a second.
pub const EXPIRE_SEGMENTS_PER_MS: usize = 16;

/// Items of expired segments that a shard clears away in one go, at most once a millisecond. Each costs 50
/// to 100 ns, so this is 1 to 3 % of a core while there are any, and a gibibyte of small items takes half
/// a minute; when memory is wanted sooner, writes go on with it.
pub const EXPIRE_ITEMS_PER_MS: usize = 256;

// --- Turns of the shard loop ---------------------------------------------------------------

/// Looks for work between two readings of the clock while there is none: some 100 ns.
pub const LOOKS_PER_TURN: usize = 32;

/// How long the shard's loop runs before it lets the executor's other tasks have the core.
pub const YIELD_US: u64 = 100;

/// How long an idle shard spins before it parks (poll mode `park`, and the least of `adaptive`).
pub const SPIN_BEFORE_PARK_US: u64 = 50;

/// How long it spins at most where pauses have been short (poll mode `adaptive`). A wake-up costs 40 to 100
/// µs (`scripts/pollmodes`): with requests less than 2 ms apart most of them would pay it.
pub const SPIN_ADAPTIVE_US_MAX: u64 = 2_000;

/// The executor's preemption timer. Long on purpose, see `engine/executor.rs`.
pub const PREEMPT_TIMER_MS: u64 = 200;

/// The standing timer of every executor that bounds any park, see `engine/executor.rs`.
pub const HEARTBEAT_MS: u64 = 5;

// --- Configuration, logs, the service manager ---------------------------------------------------

/// Bytes of a configuration file: some thousand times what all its keys need.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Characters of the admin listener's secret, at least: 96 random bits in base64, which nobody guesses by asking.
pub const ADMIN_TOKEN_BYTES_MIN: usize = 16;

/// Most of them: what fits a header line of any client.
pub const ADMIN_TOKEN_BYTES_MAX: usize = 1024;

/// Lines of the log that wait for whoever reads stderr; further ones are dropped and counted. Some 60 KiB as lines
/// are, at most half a mebibyte.
pub const LOG_LINES_MAX: usize = 256;

/// Bytes of one value in a line of the log, escapes included; the rest is cut off.
pub const LOG_VALUE_BYTES_MAX: usize = 1024;

/// Lines of one kind in a second; further ones are counted. One for each shard of a large host, or the first of a
/// flood.
pub const LOG_LINES_PER_KIND: u64 = 32;

/// How long somebody who wants the log to be out waits for that, at most.
pub const LOG_FLUSH_MS: u64 = 250;

// --- The host ---------------------------------------------------------------------------------

/// Bytes of a recorded machine. One core's part is some 4 KiB, its column of the interrupts' table included: the
/// largest machines the kernel knows fit, and a file that is none is refused before it is read.
pub const RECORDING_BYTES_MAX: u64 = 64 << 20;

/// Bytes of one file of a machine. The largest is the table of interrupts, a column for each core.
pub const HOST_FILE_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a profile. Those shipped have some 8 KiB, most of it comments.
pub const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// Files of a recorded machine. A core has some 50, so a machine of 8,192 cores fits.
pub const RECORDING_ENTRIES_MAX: usize = 1 << 20;

// --- The admin listener ----------------------------------------------------------------------

/// Memory set aside for it: its runtime, events kept, buffers of connections; and for what it keeps of each shard.
pub const ADMIN_BYTES: u64 = 8 << 20;
/// See [`ADMIN_BYTES`].
pub const ADMIN_SHARD_BYTES: u64 = 128 << 10;

/// Connections, readers of events among them. Of more the oldest that has asked for nothing yet is closed, and without
/// such a one the newest is refused.
pub const ADMIN_CONNECTIONS_MAX: usize = 256;

/// Readers of events: the rest is kept for scrapes and for probes, whose failure would have the process restarted.
pub const ADMIN_READERS_MAX: u64 = 192;

/// Bytes of a request's head, and how long it may take to arrive.
pub const ADMIN_HEAD_BYTES: usize = 16 << 10;
/// See [`ADMIN_HEAD_BYTES`].
pub const ADMIN_HEAD_MS: u64 = 5_000;

/// How long a peer may take nothing of what it is sent.
pub const ADMIN_SEND_MS: u64 = 5_000;

/// What the kernel keeps of it for such a peer (it takes twice as much for its own books). Some seconds of events: who
/// reads none is noticed once this is full. 256 connections hold 32 MiB of the kernel's memory at most.
pub const ADMIN_UNREAD_BYTES: usize = 64 << 10;

/// Time between two events.
pub const ADMIN_TICK_MS: u64 = 100;

/// Events that a reader may be behind before it is dropped: 6.4 s.
pub const ADMIN_EVENTS_BEHIND: usize = 64;

/// Events kept for readers who come back: a minute's, and not more than so many bytes.
pub const ADMIN_EVENTS_KEPT: usize = 600;
/// See [`ADMIN_EVENTS_KEPT`].
pub const ADMIN_EVENT_BYTES_KEPT: usize = 2 << 20;

/// A shard that has taken no turn for so long counts as stuck. A sleeping one is given ten a second.
pub const TURN_AGE_MS_MAX: u64 = 3_000;

/// Words for the service manager that wait to be said; further ones are not.
pub const NOTIFY_WORDS_MAX: usize = 16;

/// Seconds between two lines for `systemctl status`.
pub const STATUS_SECONDS: u64 = 10;

// --- Changing the host ---------------------------------------------------------------------------

/// Bytes of one setting, or of one file that `host apply` replaces: the kernel's settings end at a page, unit files
/// have a few kibibytes. Something larger is not what it seems.
pub const TUNE_SETTING_BYTES_MAX: u64 = 64 << 10;

/// Bytes of a journal: some 200 for each setting, and 256 cores with 256 queues and 10 idle states have ten
/// thousand. The rest is for unit files, in base64.
pub const TUNE_JOURNAL_BYTES_MAX: u64 = 16 << 20;

// --- Calibration of a machine ------------------------------------------------------------------

/// Rounds over which each figure is taken. Two runs that measure the same contradict each other in one figure of
/// 24,310 with nine of them, and in one of 126 with five: see `host/calibration.rs`.
pub const CALIBRATE_ROUNDS: usize = 9;

/// How long it takes if nothing else is said, at most, and at least: below, a round's share of some subjects would be
/// less than one batch.
pub const CALIBRATE_SECONDS_DEFAULT: u64 = 30;
/// See [`CALIBRATE_SECONDS_DEFAULT`].
pub const CALIBRATE_SECONDS_MAX: u64 = 60;
/// See [`CALIBRATE_SECONDS_DEFAULT`].
pub const CALIBRATE_SECONDS_MIN: u64 = 2;

/// Part of itself by which each end of a figure's interval is widened, for what changes more slowly than a run lasts. Of
/// 1,584 pairs of figures from twelve runs of six seconds on a virtual machine of two cores with a load average of 4, 17
/// contradicted each other without it, 8 with 1 %, 6 with 2 or 3 % and 4 with 5 %: from here on more hides differences
/// and saves none.
pub const CALIBRATE_DRIFT_SHARE: f64 = 0.03;

/// The same for the rate of the processor's counter: it is a crystal's, but the clock it is held against may be slewed by
/// NTP, by 500 in a million at most (adjtimex(2)).
pub const CALIBRATE_SLEW_SHARE: f64 = 0.0005;

/// Working set that must not fit the last cache, in sizes of that: a quarter of the loads still hits, which the result
/// says by naming both sizes; eight times would take memory and start-up that nobody has.
pub const CALIBRATE_DRAM_PER_CACHE: u64 = 4;

/// Most bytes of one working set: offsets in it and the time to lay it out stay small on machines of any size.
pub const CALIBRATE_DRAM_BYTES_MAX: u64 = 2 << 30;

/// Bytes of the largest working set for each second that may be spent. Where others had cut memory up, finding huge pages
/// for a gibibyte took 7.5 s: a run of half a minute can bear that, a shorter one could not.
pub const CALIBRATE_DRAM_BYTES_PER_SECOND: u64 = 40 << 20;

/// Most bytes of the working set that should lie in the third cache. A virtual machine is told the size of the whole
/// cache, and has the part of it that its neighbours leave.
pub const CALIBRATE_L3_BYTES_MAX: u64 = 32 << 20;

/// Part of the memory that is free which all working sets together may take: one in so many.
pub const CALIBRATE_MEMORY_SHARE: u64 = 3;

/// Working sets up to this size get new pages every round: which physical pages they lie in decides how well they fit the
/// second cache. Larger ones have enough pages to be alike.
pub const CALIBRATE_RENEWED_BYTES_MAX: u64 = 4 << 20;

/// Gap between two readings of the counter that counts as a hiccup: many readings, and less than any interrupt takes.
pub const CALIBRATE_HICCUP_NS: u64 = 500;

/// Cores watched for hiccups at once: few enough that they do not heat, slow or steal from one another.
pub const CALIBRATE_WATCHED_CORES_MAX: usize = 8;

/// Least time that a pair of cores, or a core watched for hiccups, is given in a round.
pub const CALIBRATE_PAIR_US_MIN: u64 = 1_000;
/// See [`CALIBRATE_PAIR_US_MIN`].
pub const CALIBRATE_WATCH_US_MIN: u64 = 10_000;

/// How long two cores may take to pass a line before it is given up: many time slices of whoever else wants them.
pub const CALIBRATE_PATIENCE_MS: u64 = 500;

/// How long a thread sleeps before it is woken. Time enough to be off its core; short enough for hundreds a round.
pub const CALIBRATE_SLEEP_US: u64 = 200;

/// Load average above which somebody else wants the cores, and whoever calibrates is told.
pub const CALIBRATE_LOAD_AVERAGE_MAX: f64 = 0.5;

/// Bytes of a stored calibration: all pairs of 256 cores are 32,640 records of some 300 bytes.
pub const CALIBRATE_FILE_BYTES_MAX: u64 = 32 << 20;

// --- Proofs --------------------------------------------------------------------------------

// --- The cluster --------------------------------------------------------------------------

/// Questions a node may have open at all others together. Raft and replication keep a handful for each peer.
pub const CLUSTER_CALLS_MAX: usize = 4096;

/// Messages of one channel that wait for whoever listens; more are dropped and counted, and repeated by protocols
/// that need them.
pub const CLUSTER_INBOUND_MESSAGES: usize = 4096;

/// Share of a server's memory that is set aside for all of replication: versions, counters, and what other nodes have not
/// taken yet. One part in this many.
pub const REPLICATION_SET_ASIDE: u64 = 8;

/// Bytes of a region map with its signatures. Ten regions of ten nodes with three names of 60 bytes are 19 KiB; a quarter
/// of what may wait for a connection, so that a client that asks for it is answered.
pub const ROUTE_MAP_BYTES_MAX: usize = 64 << 10;

/// Slots of the table of versions that are swept of what has fallen behind the horizon, each millisecond: 8 KiB read in
/// order. The largest table is swept in six seconds.
pub const REPLICATION_SWEEP_SLOTS_PER_MS: usize = 256;

/// Counters of one shard, some 200 bytes each. What is counted beyond them travels as a value, of which the last wins.
pub const REPLICATION_COUNTERS_MAX: usize = 1 << 16;

/// How long a counter that has ended is kept: longer than clocks differ and a frame is under way.
pub const REPLICATION_ENDED_MS: u64 = 10_000;

/// Counters looked at for that, each millisecond.
pub const REPLICATION_ENDED_PER_MS: usize = 16;

/// Shares of one counter: one for each time that a node was started and counted there.
pub const REPLICATION_SHARES_MAX: usize = 128;

/// Sets of regions that namespaces are pinned to, as one shard tells them apart.
pub const REPLICATION_SCOPES_MAX: usize = 32;

/// Bytes of records that a shard gathers in a millisecond before it hands them over early.
pub const REPLICATION_CHUNK_BYTES: usize = 32 << 10;

/// Bytes of records that wait in a shard for room in its ring; what comes then is left to repair.
pub const REPLICATION_WAITING_BYTES_MAX: usize = 2 << 20;

/// Slots of the rings between a shard and the replication thread: chunks, questions, answers.
pub const REPLICATION_RING_SLOTS: usize = 256;

/// Records of other nodes that a shard applies in one turn: some 20 µs.
pub const REPLICATION_RECORDS_PER_TURN: usize = 64;

/// Bytes of records that wait to be applied by a shard; beyond them a frame is not taken, and comes again.
pub const REPLICATION_APPLY_BYTES_MAX: usize = 8 << 20;

/// Largest frame of replication: the largest value with its key, and its description.
pub const REPLICATION_FRAME_BYTES_MAX: usize = 2 << 20;

/// Bytes of memory that the frames of one stream to one node take until they are acknowledged. When it is full the stream
/// lets go of them and leaves them to repair.
pub const REPLICATION_OUTBOX_BYTES_MAX: usize = 8 << 20;

/// Bytes of a stream under way that are not acknowledged: 100 ms at 20 MB/s.
pub const REPLICATION_IN_FLIGHT_BYTES_MAX: usize = 2 << 20;

/// A frame that is not acknowledged for this long is sent again: twice the round trip between any two continents.
pub const REPLICATION_RESEND_MS: u64 = 400;

/// Time between two comparisons of digests with one node.
pub const REPLICATION_COMPARE_MS: u64 = 1_000;

/// What was written this long ago should be everywhere: windows that ended earlier are compared unasked.
pub const REPLICATION_SETTLE_MS: u64 = 5_000;

/// Entries named in one answer of repair, at 26 bytes, and records fetched by one question.
pub const REPLICATION_LISTED_MAX: usize = 16_384;
/// See [`REPLICATION_LISTED_MAX`].
pub const REPLICATION_FETCH_MAX: usize = 2_048;

/// Bytes of records in one answer of repair: it goes on with the next question.
pub const REPLICATION_FETCH_BYTES_MAX: usize = 512 << 10;

/// Answers with records that are under way to a node, whoever they come from. With half a mebibyte in each at most, eight
/// fill 50 MB/s over 80 ms.
pub const REPLICATION_FETCHES_MAX: usize = 8;

/// Steps of other nodes' questions, and of its own, that a shard does in a millisecond, one in a turn: some 20 µs each.
pub const REPLICATION_STEPS_PER_MS: u32 = 4;

/// Bytes of records that a shard reads for that in one turn.
pub const REPLICATION_STEP_BYTES_MAX: usize = 64 << 10;

/// Names that a shard compares, or looks up for repair, in one turn.
pub const REPLICATION_LOOKUPS_PER_TURN: usize = 128;

/// Questions of other nodes that are being answered, in all.
pub const REPLICATION_QUESTIONS_MAX: usize = 64;

/// How long a question of repair may take. One that was lost just before a partition healed holds up the next by as
/// long, then by up to [`REPLICATION_COMPARE_MS`], then by four round trips: together less than the five seconds within
/// which regions are to agree again.
pub const REPLICATION_QUESTION_MS: u64 = 2_000;

/// Nodes that replicate to each other.
pub const REPLICATION_PEERS_MAX: usize = 64;

const _: () = assert!(ROUTE_MAP_BYTES_MAX <= OUTPUT_BYTES_HIGH, "a map fits what may wait for a connection");
const _: () = assert!(ROUTE_MAP_RENEW_MS * 2 < ROUTE_MAP_VALID_MS, "a map is replaced long before it expires");
const _: () = assert!(ROUTE_MISSED_PROBES as u64 * ROUTE_PROBE_MS * 2 <= 3_000, "a lost region is left in time");

/// Bytes of messages of one sender that wait on one channel. A sender beyond that loses its own messages, nobody
/// else's: the others' wait in queues of their own.
pub const CLUSTER_INBOUND_BYTES: usize = 16 << 20;

/// Messages handed to a channel's listener ahead of its reading; the rest waits in the queues above.
pub const CLUSTER_INBOUND_AHEAD: usize = 64;

/// Questions of one node that are being answered; more are dropped, and its deadlines tell it.
pub const CLUSTER_ANSWERS_MAX: usize = 1024;

/// Largest message of the ordering channel: a proposal with a full batch, or some blocks for a site that missed them.
pub const CLUSTER_ORDERING_BYTES_MAX: usize = 4 << 20;

/// Largest message between Raft voters: a piece of a snapshot, or entries.
pub const CLUSTER_RAFT_BYTES_MAX: usize = 8 << 20;

/// Largest message of a replication stream: a batch, or a single record with the largest value.
pub const CLUSTER_REPLICATION_BYTES_MAX: usize = 8 << 20;

/// Largest probe: some timestamps.
pub const CLUSTER_PROBE_BYTES_MAX: usize = 1024;

/// Largest message of the strong channel: one write with the largest value, or a page of a hand-over.
pub const CLUSTER_STRONG_BYTES_MAX: usize = 8 << 20;

/// Largest command on its way to a validator, and largest line on a node's control socket.
pub const CLUSTER_SUBMIT_BYTES_MAX: usize = 256 << 10;

/// Messages of one channel that wait to be sent to one node.
pub const CLUSTER_OUTBOUND_MESSAGES: usize = 4096;

/// Bytes of one channel that wait to be sent to one node: two of the largest messages at least, and 30 ms of a
/// link of 4 Gbit/s.
pub const CLUSTER_OUTBOUND_BYTES: usize = 16 << 20;

/// Bytes that a link encrypts and writes at once. Small enough that a vote behind it waits microseconds.
pub const CLUSTER_WRITE_BYTES: usize = 64 << 10;

/// How long strangers may take from their connection to the end of the greeting.
pub const CLUSTER_HANDSHAKE_MS: u64 = 5_000;

/// Connections that are shaking hands. Ten sites of a few nodes with three connections each fit three times.
pub const CLUSTER_HANDSHAKES_MAX: usize = 128;

/// Of these, from one address: one host that opens connections and says nothing must not keep others out.
pub const CLUSTER_HANDSHAKES_PER_ADDRESS: usize = 48;

/// Bytes of a greeting.
pub const CLUSTER_GREETING_BYTES_MAX: usize = 512;

/// A link that has nothing to say says so this often, and its round trip is measured.
pub const CLUSTER_PING_MS: u64 = 1_000;

/// A link that brought nothing for this long is given up: its node, or the network, is gone.
pub const CLUSTER_SILENCE_MS: u64 = 4_000;

/// A link that took nothing for this long is given up.
pub const CLUSTER_WRITE_MS: u64 = 4_000;

/// First pause before a link is tried again. It doubles, with jitter, up to the next figure.
pub const CLUSTER_RECONNECT_MS_MIN: u64 = 50;

/// Longest pause before a link is tried again: a healed network is found within this.
pub const CLUSTER_RECONNECT_MS: u64 = 1_000;

/// A refusal is logged at most once in this time for each reason; all are counted.
pub const CLUSTER_REFUSAL_LOG_MS: u64 = 1_000;

/// Commands of this node and its neighbours that wait for the ordering thread.
pub const CLUSTER_SUBMISSIONS_MAX: usize = 1024;

/// How long a submitter waits for a command to be executed: a slow height, a change of primary, and some.
pub const CLUSTER_SUBMIT_MS: u64 = 30_000;

/// Bytes the write-ahead log reserves, so that a flush writes data and no file size: a height rarely needs a tenth.
pub const CLUSTER_WAL_BYTES: u64 = 1 << 20;

/// Bytes the write-ahead log of one height may grow to. A height that stays undecided for weeks gets there, and the
/// node stops and says so rather than fill the disk.
pub const CLUSTER_WAL_BYTES_MAX: u64 = 256 << 20;

/// Heights between two snapshots of the state.
pub const CLUSTER_SNAPSHOT_HEIGHTS: u64 = 256;

/// Executed commands that are remembered for those who wait for them: a minute's worth of the fullest heights.
pub const CLUSTER_EXECUTED_REMEMBERED: usize = 16_384;

/// Own command numbers reserved with one flush.
pub const CLUSTER_NUMBERS_RESERVED: u64 = 256;

/// Caught liars that `status` shows; more are only counted.
pub const CLUSTER_EVIDENCE_SHOWN: usize = 64;

/// Programs on a node's control socket.
pub const CLUSTER_CONTROL_MAX: usize = 16;

/// A certificate that ends sooner than this is warned about at the start.
pub const CLUSTER_CERTIFICATE_WARN_DAYS: u64 = 30;

const _: () = assert!(CLUSTER_OUTBOUND_BYTES >= 2 * CLUSTER_RAFT_BYTES_MAX, "the largest message always finds room");
const _: () = assert!(CLUSTER_INBOUND_BYTES >= 2 * CLUSTER_RAFT_BYTES_MAX, "the largest message always finds room");
const _: () = assert!(CLUSTER_REPLICATION_BYTES_MAX > VALUE_BYTES_MAX + KEY_BYTES_MAX, "a record fits a message");
const _: () = assert!(CLUSTER_PING_MS * 3 < CLUSTER_SILENCE_MS, "three pings may be lost");

/// One command, encoded. The largest that makes sense is a list of ten sites or a tenant's policy.
pub const COMMAND_BYTES_MAX: usize = 16 * 1024;

/// Commands ordered together in one height, encoded. A proposal crosses a link of 100 Mbit/s in 20 ms, a fraction of
/// the round trip between sites that a height costs anyway.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Commands that wait at a node to be ordered, of all authors.
pub const PENDING_COMMANDS_MAX: usize = 4096;

/// Of one author, so that one cannot take the room of all others.
pub const PENDING_COMMANDS_PER_AUTHOR_MAX: usize = 256;

/// Bytes of commands that wait at a node.
pub const PENDING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A command that has waited for this many heights is everybody's: whoever holds it sees to it that the primary gets it,
/// because the node it was submitted at may be gone.
pub const ORPHANED_HEIGHTS: u64 = 2;

/// A command that a primary has passed over for this many heights is taken to be suppressed: the primary's next
/// proposal without it is answered as if it came too late. More than a few heights, because commands get lost on
/// their way without anybody's fault.
pub const SUPPRESSED_HEIGHTS: u64 = 8;

/// A vote, a request, a status, encoded: a few numbers, a digest, a signature, the network's digest.
pub const ORDERING_SMALL_BYTES_MAX: usize = 512;

/// A certificate, encoded: ten signatures with what each says.
pub const ORDERING_CERTIFICATE_BYTES_MAX: usize = 4 * 1024;

/// A proposal, encoded: a batch and a little around it.
pub const ORDERING_PROPOSAL_BYTES_MAX: usize = BATCH_BYTES_MAX + 1024;

/// Any message of the ordering, encoded: the answer to somebody who missed so much that only a snapshot helps.
pub const ORDERING_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Decided heights in one answer to a laggard, encoded; one block always fits.
pub const SYNC_RESPONSE_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// Answers one node is given between two statuses, a second or two apart: thousands of heights for a laggard, and a
/// bound for whoever only wants to keep this node busy.
pub const SYNC_ANSWERS_MAX: u32 = 16;

/// Decided heights a node keeps at hand for laggards; whoever misses more gets a snapshot.
pub const BLOCKS_KEPT_MAX: usize = 1024;

/// Bytes of decided heights a node keeps at hand.
pub const BLOCKS_KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Messages of the next height that a validator may leave here before this node has got that far: one proposal with
/// its votes in each of some rounds.
pub const EARLY_MESSAGES_PER_SITE_MAX: usize = 16;

/// Rounds ahead of the current one that are listened to: the engine's own bound, checked before a signature is.
pub const ROUNDS_AHEAD_MAX: u32 = 10;

/// A round no honest site ever reaches: with timeouts that grow it would take centuries. Leaves room to add to.
pub const ROUND_MAX: u32 = 1 << 24;

/// Statements of one site at one height that are remembered to tell the first from its copies: three kinds in each of
/// some hundred rounds. Beyond it nothing of that site is relayed at this height.
pub const STATEMENTS_PER_SITE_MAX: usize = 1024;

/// Verified signatures that are remembered, in each of two generations: a height of ten sites has a hundred.
pub const VERIFIED_SIGNATURES_MAX: usize = 4096;

/// Proofs of double statements that are kept to be shown.
pub const PROOFS_KEPT_MAX: usize = 64;

/// Sites that order. Ten bear three liars; every further three cost a third more messages.
pub const SITES_MAX: usize = 10;

/// Nodes of a cluster.
pub const MEMBERS_MAX: usize = 256;

/// Namespaces: a lookup walks them.
pub const NAMESPACES_MAX: usize = 1024;

/// A namespace's prefix.
pub const PREFIX_BYTES_MAX: usize = 250;

/// Tenants with a policy.
pub const TENANTS_MAX: usize = 256;

/// A tenant's policy.
pub const POLICY_BYTES_MAX: usize = 4 * 1024;

/// A name, an address: what people type.
pub const NAME_BYTES_MAX: usize = 256;

/// One record of the ordering's write-ahead log: a proposal with its batch and a little around it.
pub const WAL_RECORD_BYTES_MAX: usize = ORDERING_PROPOSAL_BYTES_MAX + 1024;
// --- Replication of cached data ------------------------------------------------------------

/// How far ahead of its own clock a node believes another's: what is stamped later is refused and counted. Hosts with
/// NTP are within some milliseconds; a tenth of a second bears a bad day, and one broken clock cannot drag all others.
pub const REPLICATION_DRIFT_MS_MAX: u64 = 500;

/// Windows of 2^5 seconds whose versions are remembered: 68 minutes, the horizon. A delete older than that may be undone
/// by a site that was away for longer.
pub const REPLICATION_WINDOWS: u64 = 128;

/// Buckets of digests in each window. With a million entries in one window a bucket has four thousand, whose names and
/// versions are 100 KiB to compare.
pub const REPLICATION_BUCKETS: usize = 256;

/// Versions that a shard remembers, at most, at 32 bytes each and three quarters of the table used: 43 MiB. Past it the
/// horizon comes nearer.
pub const REPLICATION_VERSIONS_MAX: usize = 1 << 20;

/// Least versions that a shard remembers, however small it is.
pub const REPLICATION_VERSIONS_MIN: usize = 1 << 12;

/// Share of a shard's arena that its versions may take beside it: one part in this many.
pub const REPLICATION_MEMORY_SHARE: u64 = 16;

/// Frames that a stream keeps, whatever their size.
pub const REPLICATION_OUTBOX_FRAMES_MAX: usize = 16_384;

/// Homes of a region: parts of its strong keys, each written by one node at a time. Five nodes then differ by one in
/// thirteen in what they hold, and all homes together fit a Raft entry and a message.
pub const REGION_HOMES: usize = 64;

/// Voters of a region: with five it bears the loss of two. More would only make every write wait for more.
pub const REGION_VOTERS_MAX: usize = 5;

/// Clocks of two nodes may run apart by one part in this many, and leases are still safe. Crystals are good for one in
/// ten thousand, and NTP slews by one in two thousand at most (adjtimex(2)).
pub const REGION_CLOCK_DRIFT_SHARE: u64 = 100;

/// Longest lease: durations on their way between nodes are held against it.
pub const REGION_LEASE_MS_MAX: u64 = 60_000;

/// Entries of a region's Raft log after which it is replaced by a snapshot. Placing homes adds one; a snapshot has some
/// three kibibytes.
pub const REGION_LOG_ENTRIES: u64 = 512;

/// Entries kept behind a snapshot for those who are a little late.
pub const REGION_LOG_ENTRIES_KEPT: u64 = 64;

/// Entries in one message of Raft.
pub const REGION_LOG_ENTRIES_PER_MESSAGE: u64 = 64;

/// Changes of the log on their way to the disk; Raft waits for each of them, so these are a handful.
pub const REGION_DISK_QUEUE: usize = 256;

/// Bytes of one piece of a region's snapshot.
pub const REGION_SNAPSHOT_PIECE_BYTES: u64 = 64 << 10;

/// Strong writes a node has under way; beyond, further ones are refused. A link bears as many open questions.
pub const STRONG_WRITES_MAX: usize = 1024;

/// Operations that wait for an earlier one on the same key.
pub const STRONG_WAITERS_PER_KEY_MAX: usize = 256;

/// Longest value of a strong entry: a message with one must fit every carrier's frame, and a write of it the deadline.
pub const STRONG_VALUE_BYTES_MAX: usize = 256 << 10;

/// Bytes of entries in one message when a node is brought up to date; one entry alone may be larger.
pub const STRONG_PAGE_BYTES: usize = 128 << 10;

/// Keys in one message whose entries are compared one by one. There are few: what one node wrote and no other.
pub const STRONG_KEYS_PER_MESSAGE: usize = 16;

/// Homes that change hands together when nobody was lost: each is served by nobody for a commit and a few messages.
pub const REGION_MOVES_AT_ONCE: usize = 4;

/// Memory of a node's strong entries if nothing else is said.
pub const STRONG_STORE_BYTES_DEFAULT: usize = 64 << 20;

/// What the store in memory counts for an entry beside its key and value: two tree nodes' parts and three allocations.
pub const STRONG_ENTRY_BYTES: usize = 128;

/// How long an operation is tried, failovers included, before its asker is told that it failed or is unknown.
pub const STRONG_DEADLINE_MS: u64 = 2_000;

/// Longest pause between two attempts to bring a node up to date that does not answer.
pub const STRONG_BACKOFF_MS_MAX: u64 = 250;

/// Between two looks for strong entries that have expired and that nobody asks for, and how many are removed after one.
pub const STRONG_SWEEP_MS: u64 = 100;
/// See [`STRONG_SWEEP_MS`].
pub const STRONG_SWEPT_MAX: usize = 512;

/// How often what takes two steps is tried anew because somebody else wrote the key in between.
pub const STRONG_TRIES_MAX: usize = 16;

/// Requests about strong keys that one shard has under way. A power of two; with the largest values 16 MiB.
pub const STRONG_UNDER_WAY_MAX: usize = 64;

/// Regions of a map: a cluster has 10 sites at most; the rest is for the day when it has more.
pub const ROUTE_REGIONS_MAX: usize = 32;

/// Nodes of a region that a map names. Clients need a few to choose from, not all.
pub const ROUTE_NODES_MAX: usize = 64;

/// How long a map is believed after it was signed, and how often a new one is made. A site that is cut off goes on
/// serving; clients that come to it for the first time within this time still find the others.
pub const ROUTE_MAP_VALID_MS: u64 = 3_600_000;
/// See [`ROUTE_MAP_VALID_MS`].
pub const ROUTE_MAP_RENEW_MS: u64 = 600_000;

/// Heights whose map a validator still signs: those who ask may have executed fewer than it has.
pub const ROUTE_HEIGHTS_KEPT: usize = 16;

/// Probes of a link that are kept: at two a second, 16 s. The 90th percentile of 32 has three above it.
pub const ROUTE_WINDOW_PROBES: usize = 32;
/// A probe older than this says nothing about now, however few came after it.
pub const ROUTE_WINDOW_MS: u64 = 60_000;

/// Time between two probes of a region by a client, and the deadline of each. Three of them missed, and the time to
/// ask elsewhere, are less than the three seconds in which a lost region has to be left.
pub const ROUTE_PROBE_MS: u64 = 500;

/// A part of the time between probes by which each comes earlier or later, one in so many, so that those who began
/// together do not go on together.
pub const ROUTE_JITTER_SHARE: u64 = 5;

/// Probes missed in a row that make a region count as down.
pub const ROUTE_MISSED_PROBES: u32 = 3;

/// Answered in a row, over so much time, that make it count as up again: longer than it takes to be given up, or one
/// that answers every other second would be left and returned to for ever.
pub const ROUTE_RETURN_PROBES: u32 = 6;
/// See [`ROUTE_RETURN_PROBES`].
pub const ROUTE_RETURN_MS: u64 = 2_500;
/// A region that falls again before it was up for so long needs twice as many probes the next time, up to 2^4 as many.
pub const ROUTE_FORGIVE_MS: u64 = 60_000;
/// See [`ROUTE_FORGIVE_MS`].
pub const ROUTE_FALLS_MAX: u32 = 4;

/// A region is preferred to the present one if it is nearer by this share of the present cost, and by so much time, for
/// so many of its probes in a row. The share keeps far regions apart, whose delays vary by milliseconds; the time near
/// ones, of which 0.2 and 0.3 ms are the same to any client.
pub const ROUTE_BETTER_PERCENT: u64 = 20;
/// See [`ROUTE_BETTER_PERCENT`].
pub const ROUTE_BETTER_US: u64 = 1_000;
/// See [`ROUTE_BETTER_PERCENT`].
pub const ROUTE_BETTER_PROBES: u32 = 5;

/// A region once chosen is kept for so long, unless it is down.
pub const ROUTE_HOLD_MS: u64 = 5_000;

/// Probes of each region, one after the other, before the first choice, and how long that waits for regions that do
/// not answer once one has.
pub const ROUTE_FIRST_PROBES: u32 = 3;
/// See [`ROUTE_FIRST_PROBES`].
pub const ROUTE_SETTLE_MS: u64 = 1_000;

/// How fast two clocks may run apart, in parts per million: 100 for each, what cheap quartz is sold with.
pub const ROUTE_DRIFT_PPM: u64 = 200;

/// Peers whose links a node measures; a cluster of 10 sites with 5 voters each has 50 nodes.
pub const ROUTE_PEERS_MAX: usize = 256;

/// Time between two looks of a client for a newer region map. Failing that, it looks more often.
pub const ROUTE_REFRESH_MS: u64 = 30_000;

/// Connections of a gateway, of all protocols together. Each has a socket and a buffer either way: 1 GiB at most.
pub const GATEWAY_CONNECTIONS_MAX: usize = 16_384;
/// See [`GATEWAY_CONNECTIONS_MAX`].
pub const GATEWAY_BUFFER_BYTES: usize = 32 << 10;

const _: () = assert!(SEGMENT_BYTES_MAX <= VALUE_BYTES_MAX, "a segment's value must fit the header");
const _: () = assert!(ORPHANED_HEIGHTS < SUPPRESSED_HEIGHTS, "first the primary is told, then it is blamed");
const _: () = assert!(COMMAND_BYTES_MAX <= BATCH_BYTES_MAX, "every command fits some batch");
const _: () = assert!(ORDERING_PROPOSAL_BYTES_MAX + 4096 <= SYNC_RESPONSE_BYTES_MAX, "an answer has room for a block");
const _: () = assert!(SYNC_RESPONSE_BYTES_MAX <= ORDERING_MESSAGE_BYTES_MAX);
const _: () = assert!(PREFIX_BYTES_MAX <= KEY_BYTES_MAX, "a prefix is the beginning of a key");
const _: () = assert!(POLICY_BYTES_MAX < COMMAND_BYTES_MAX, "a policy travels as a command");
const _: () = assert!(
    TENANTS_MAX * (POLICY_BYTES_MAX + NAME_BYTES_MAX) + NAMESPACES_MAX * (PREFIX_BYTES_MAX + 512) + MEMBERS_MAX * 2048
        <= ORDERING_MESSAGE_BYTES_MAX,
    "the largest state fits a message"
);
const _: () = assert!(SEGMENT_BYTES_MAX.is_power_of_two() && SEGMENT_BYTES_MIN.is_power_of_two());
const _: () = assert!(SEGMENT_BYTES_MIN >= 16 * BUCKET_BYTES, "a page of the index holds two windows of eight");
const _: () = assert!(RECEIVE_BUFFER_COUNT.is_power_of_two(), "the kernel masks buffer ids");
const _: () = assert!(MAILBOX_SLOTS.is_power_of_two(), "mailbox positions are masked");
const _: () = assert!(FORWARDED_MAX <= MAILBOX_SLOTS, "one connection alone must not fill a mailbox");
const _: () = assert!(CONNECTION_COUNT_MAX < 1 << 24, "a connection slot has 24 bits in user data");
const _: () = assert!(L0_KEY_BYTES_MAX < 256 && L0_VALUE_BYTES_MAX < 1 << 16, "a slot's head counts them");
const _: () = assert!(L0_SLOT_WORDS.is_multiple_of(8) && L0_SPILL_WORDS.is_multiple_of(8), "lines are not shared");
const _: () = assert!(2 + L0_KEY_BYTES_MAX / 8 < L0_SLOT_WORDS, "the longest key leaves room for a cell's number");
const _: () = assert!(EMBEDDED_STRIPES_MAX <= u16::MAX as usize, "a stripe is found as a shard is");
const _: () = assert!(EMBEDDED_VALUE_INLINE_BYTES < 256 && EMBEDDED_VALUE_INLINE_BYTES.is_multiple_of(8));
const _: () = assert!(EMBEDDED_ARENA_BYTES_MIN >= EMBEDDED_SEGMENT_COUNT_MIN * SEGMENT_BYTES_MIN);
const _: () = assert!(L0_REPORTS.is_power_of_two() && L0_REPORTS_PER_MS < L0_REPORTS);
const _: () = assert!(NEAR_SUBSCRIBERS_MAX == u64::BITS as usize, "a bucket's mask has a bit for each");
const _: () = assert!(NEAR_BUCKETS_MAX.is_power_of_two() && NEAR_BUCKETS_MAX <= 1 << 16, "a bucket has 16 bits");
const _: () = assert!(NEAR_BUCKETS_PER_PUSH * 4 < OUTPUT_BYTES_HIGH, "one push fits its connection's bound");
const _: () = assert!(TOP_BACKOFF_MS_MIN <= TOP_BACKOFF_MS && TOP_BACKOFF_MS <= TOP_BACKOFF_MS_MAX);
const _: () = assert!(NEAR_LEASE_MS < NEAR_SILENCE_MS, "a lease ends before its server is given up");
const _: () = assert!(MEMCACHED_KEY_BYTES_MAX < 256, "a part's key has its length in a byte");
const _: () = assert!(MEMCACHED_KEY_BYTES_MAX <= KEY_BYTES_MAX && MEMCACHED_LINE_BYTES_MAX <= SMALL_FRAME_BYTES);
const _: () = assert!(REPLICATION_BUCKETS == 256, "a bucket's number is a byte");
const _: () =
    assert!(SEGMENT_BYTES_MAX + KEY_BYTES_MAX + 4096 <= REPLICATION_FRAME_BYTES_MAX, "the largest record fits");
const _: () = assert!(REPLICATION_FETCH_BYTES_MAX + SEGMENT_BYTES_MAX + KEY_BYTES_MAX < REPLICATION_FRAME_BYTES_MAX);
const _: () =
    assert!(REPLICATION_FRAME_BYTES_MAX < REPLICATION_OUTBOX_BYTES_MAX, "a stream keeps a few of the largest");
const _: () = assert!(REPLICATION_FRAME_BYTES_MAX + 4096 <= CLUSTER_REPLICATION_BYTES_MAX, "links carry every frame");
const _: () = assert!(REPLICATION_RING_SLOTS.is_power_of_two(), "mailbox positions are masked");
const _: () = assert!(REPLICATION_SHARES_MAX < 256, "a record counts them in a byte");
const _: () = assert!(ADMIN_TOKEN_BYTES_MIN < ADMIN_TOKEN_BYTES_MAX);
const _: () = assert!(REGION_HOMES.is_power_of_two() && REGION_HOMES <= 256, "a home is bits of a hash, and a byte");
const _: () = assert!(
    STRONG_KEYS_PER_MESSAGE * (STRONG_VALUE_BYTES_MAX + KEY_BYTES_MAX + 64) < CLUSTER_STRONG_BYTES_MAX,
    "the longest values fit a message"
);
const _: () = assert!(STRONG_PAGE_BYTES * 2 + STRONG_VALUE_BYTES_MAX + KEY_BYTES_MAX < CLUSTER_STRONG_BYTES_MAX);
const _: () = assert!(STRONG_WRITES_MAX * (REGION_VOTERS_MAX - 1) <= CLUSTER_CALLS_MAX, "each asks every other voter");
const _: () = assert!(HEARTBEAT_MS < PREEMPT_TIMER_MS, "the heartbeat must come first");
const _: () = assert!(1000 % ADMIN_TICK_MS == 0, "a second has a whole number of events");
