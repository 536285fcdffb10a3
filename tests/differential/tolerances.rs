//! What may differ between the servers compared, and why. Nothing else may.
//!
//! A row is asked only where two replies are not the same bytes. A run's report counts how often each was needed.
//! Rows whose commands are not sent at all in the common stream say so.

use crate::engine::Facts;
use crate::resp;

/// A difference that is right.
#[derive(Debug)]
pub struct Tolerance {
    /// What reports call it.
    pub name: &'static str,
    pub reason: &'static str,
    /// Whether it explains these two replies (reference, other).
    pub accepts: fn(&[u8], &[u8], Facts) -> bool,
    /// The next row to ask.
    pub or: Option<&'static Tolerance>,
}

// --- RESP --------------------------------------------------------------------------------------

/// TTL, EXPIRETIME.
pub static SECONDS: Tolerance = Tolerance {
    name: "seconds",
    reason: "the two servers set and read their clocks at different moments; rounding makes a second of it",
    accepts: |reference, other, facts| near(reference, other, 1 + facts.skew.as_secs() as i64),
    or: Some(&FAR),
};

/// PTTL, PEXPIRETIME.
pub static MILLISECONDS: Tolerance = Tolerance {
    name: "milliseconds",
    reason: "the two servers set and read their clocks at different moments: 50 ms and what the slowest batch took",
    accepts: |reference, other, facts| near(reference, other, 50 + facts.skew.as_millis() as i64),
    or: Some(&FAR),
};

/// TTL and its kin, beyond what an entry can hold.
pub static FAR: Tolerance = Tolerance {
    name: "expiry after the year 10,000",
    reason: "an entry holds 48 bits of milliseconds from the server's start; what is later is stored as that",
    accepts: |reference, other, _| match (resp::integer(reference), resp::integer(other)) {
        (Some(one), Some(two)) => {
            let last_ms = 1 << 48;
            let is_last = |number: i64| number > last_ms - 1_000_000_000 && number < last_ms + 10_000_000_000_000;
            one > two && (is_last(two) || is_last(two.saturating_mul(1000)))
        }
        _ => false,
    },
    or: None,
};

/// KEYS.
pub static KEY_ORDER: Tolerance = Tolerance {
    name: "order of KEYS",
    reason: "no order is promised: the sorted replies must be equal",
    accepts: |reference, other, _| match (resp::children(reference), resp::children(other)) {
        (Some((head, mut ours)), Some((other_head, mut theirs))) => {
            ours.sort_unstable();
            theirs.sort_unstable();
            head == other_head && ours == theirs
        }
        _ => false,
    },
    or: None,
};

/// HELLO.
pub static HELLO: Tolerance = Tolerance {
    name: "who HELLO says answers",
    reason: "version, connection id and modules are the server's own, and it may say more; the form, the fields of Redis \
             in their order and `proto` must be equal",
    accepts: |reference, other, _| match (resp::children(reference), resp::children(other)) {
        (Some((head, ours)), Some((other_head, theirs))) => {
            let private = |name: &[u8]| {
                [&b"server"[..], b"version", b"id", b"modules"]
                    .iter()
                    .any(|own| name.ends_with(&[own, &b"\r\n"[..]].concat()))
            };
            let same = |(one, two): (&[&[u8]], &[&[u8]])| one[0] == two[0] && (private(one[0]) || one[1..] == two[1..]);
            head[0] == other_head[0] && ours.len() <= theirs.len() && ours.chunks(2).zip(theirs.chunks(2)).all(same)
        }
        _ => false,
    },
    or: None,
};

/// OBJECT ENCODING of a value that was not just set.
pub static ENCODING: Tolerance = Tolerance {
    name: "OBJECT ENCODING of a changed value",
    reason: "Redis names the way a value came about (an appended one is raw, a counted one int), which a server that \
             stores bytes cannot know; directly after SET the names must be equal",
    accepts: |reference, other, _| {
        let known = |reply: &[u8]| [&b"$3\r\nint\r\n"[..], b"$3\r\nraw\r\n", b"$6\r\nembstr\r\n"].contains(&reply);
        known(reference) && known(other)
    },
    or: None,
};

/// OBJECT REFCOUNT.
pub static REFCOUNT: Tolerance = Tolerance {
    name: "OBJECT REFCOUNT",
    reason: "Redis shares the integers below 10,000; only that there is a count must be equal",
    accepts: |reference, other, _| resp::integer(reference).is_some() && resp::integer(other).is_some(),
    or: None,
};

/// Keys that are empty or longer than 1,024 bytes.
pub static KEY_LENGTH: Tolerance = Tolerance {
    name: "keys that are empty or longer than 1,024 bytes",
    reason: "refused here (10 bits of length in an item's header), taken by Redis; the reference is cleaned up after",
    accepts: |_, other, _| other.starts_with(b"-"),
    or: None,
};

/// Values above the server's item limit.
pub static VALUE_LENGTH: Tolerance = Tolerance {
    name: "values above the item limit",
    reason: "a value must fit one segment of the arena, Redis takes 512 MB; the key is deleted on both after",
    accepts: |_, other, _| other.starts_with(b"-"),
    or: None,
};

/// Whatever the clean-up after one of the two above replies.
pub static CLEANED_UP: Tolerance = Tolerance {
    name: "deleting what only the reference holds",
    reason: "follows a value or key that was refused",
    accepts: |_, _, _| true,
    or: None,
};

/// EVAL.
pub static SCRIPT_ERROR: Tolerance = Tolerance {
    name: "text of an error within a script",
    reason: "names places in Lua's source, which is not run here; both must be errors of the same class",
    accepts: |reference, other, _| {
        let class = |reply: &[u8]| reply.split(|&byte| byte == b' ').next().map(<[u8]>::to_vec);
        reference.starts_with(b"-") && class(reference) == class(other)
    },
    or: Some(&SCRIPT_SHAPE),
};

/// EVAL with other numbers of keys and arguments than the script uses.
pub static SCRIPT_SHAPE: Tolerance = Tolerance {
    name: "scripts called with too few or too many",
    reason: "the scripts that are known here are known with their number of keys and arguments; Lua sees nil and goes on",
    accepts: |_, other, _| other.starts_with(b"-ERR this script takes"),
    or: None,
};

/// INCRBYFLOAT.
pub static FLOAT: Tolerance = Tolerance {
    name: "last places of a sum",
    reason: "Redis adds in its machine's long double and prints the noise, another one on each architecture; here \
             decimals are added as they are. Sums of eighths must be equal to the byte; the key is set anew after others",
    accepts: |reference, other, _| match (
        resp::bulk(reference).and_then(decimals),
        resp::bulk(other).and_then(decimals),
    ) {
        // Sixty bits of the larger, and what is left over where most of two large ones cancel out.
        (Some(one), Some(two)) => one.abs_diff(two) <= (one.unsigned_abs().max(two.unsigned_abs()) >> 60) + 100_000,
        _ => match (resp::bulk(reference).and_then(float), resp::bulk(other).and_then(float)) {
            (Some(one), Some(two)) => (one - two).abs() <= 1e-12 * one.abs(),
            _ => false,
        },
    },
    or: None,
};

// --- memcached ---------------------------------------------------------------------------------

/// `gets`, `gats`, and the flag `c`.
pub static UNIQUE: Tolerance = Tolerance {
    name: "uniques (cas)",
    reason: "each server counts its own: for each key they must be equal and differ when those of the other do, which \
             is checked beside this row",
    accepts: |reference, other, _| {
        [reference, other].iter().all(|word| text(word).is_some_and(|word| word.parse::<u64>().is_ok()))
    },
    or: None,
};

/// The flag `t`.
pub static TIME_LEFT: Tolerance = Tolerance {
    name: "t, the seconds left",
    reason: "memcached's clock ticks once a second, at another moment than ours",
    accepts: |reference, other, facts| match (decimal(reference), decimal(other)) {
        (Some(one), Some(two)) => one >= 0 && two >= 0 && one.abs_diff(two) <= 1 + facts.skew.as_secs(),
        _ => false,
    },
    or: None,
};

/// The flag `l`.
pub static LAST_ACCESS: Tolerance = Tolerance {
    name: "l, the seconds since the last access",
    reason: "memcached notes an access only where its queues need it, so the numbers say different things; both must \
             be times that this run has lasted",
    accepts: |reference, other, facts| {
        let within = 2 + facts.elapsed.as_secs() as i64;
        [reference, other].iter().all(|word| decimal(word).is_some_and(|seconds| (0..=within).contains(&seconds)))
    },
    or: None,
};

/// The flag `k`.
pub static KEY_SPELLING: Tolerance = Tolerance {
    name: "k in base64 or not",
    reason: "memcached keeps with an item how the key was spelt when it was stored, and loses it with mg N, ma N and \
             append; which key it is must be equal",
    accepts: |_, _, _| true,
    or: None,
};

/// `version`.
pub static VERSION: Tolerance = Tolerance {
    name: "version",
    reason: "each tells its own",
    accepts: |_, other, _| other.len() > b"VERSION ".len(),
    or: None,
};

/// `me`.
pub static ITEM_DUMP: Tolerance = Tolerance {
    name: "me, after its first word",
    reason: "dumps the server's own structures; only whether the item is there must be equal",
    accepts: |_, _, _| true,
    or: None,
};

fn decimal(word: &[u8]) -> Option<i64> {
    text(word)?.parse().ok()
}

fn text(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok()
}

fn float(word: &[u8]) -> Option<f64> {
    text(word)?.parse().ok()
}

/// A number in units of 10^-17, where that fits.
fn decimals(word: &[u8]) -> Option<i128> {
    let text = text(word)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let places = 17_usize.checked_sub(fraction.len())?;
    format!("{whole}{fraction}{}", "0".repeat(places)).parse().ok()
}

/// Integers that differ by no more than this; below zero they say something else than a time.
fn near(reference: &[u8], other: &[u8], at_most: i64) -> bool {
    match (resp::integer(reference), resp::integer(other)) {
        (Some(one), Some(two)) if one >= 0 && two >= 0 => one.abs_diff(two) <= at_most as u64,
        _ => false,
    }
}

// --- Not sent, so that nothing has to be explained ------------------------------------------------

/// What the streams leave out, and why.
#[expect(dead_code, reason = "for readers: the table is to be whole in one place")]
pub const NOT_SENT: &[(&str, &str)] = &[
    ("other data types of Redis", "not served"),
    ("SELECT and COPY to other databases", "there is one: the reference is started with --databases 1"),
    ("OBJECT IDLETIME, OBJECT FREQ", "what the eviction policy knows is not the reference's"),
    ("memcached's binary protocol", "not served; deprecated there"),
    ("t with a T or N that has passed", "memcached 1.6.18 answers the time left as an unsigned number there"),
    ("hexadecimal floats", "Redis leaves reading to strtold, which takes 0x10; nobody else does"),
    ("counting at 2^63 and more", "memcached 1.6.18 looks for a sign beyond the end of the value: not the same twice"),
    ("ma with T", "memcached 1.6.18 loses the time where the number needs another digit; here it counts"),
    ("counting in white space", "memcached 1.6.18 reads on beyond the end of the value: not the same twice"),
    ("counting while a value is being sent", "memcached counts in a copy then, without padding, marks and T"),
    ("lines of more than 1,024 bytes", "memcached closes or not by how much it has read at once"),
    ("E where the reference does not know it", "newer than Debian 12; then only its refusal could be compared"),
    ("stats, slabs, lru, lru_crawler, watch", "about memcached's own insides"),
    ("times to live that end while the run looks", "no reply may depend on how fast a machine is"),
];
