use super::*;
use crate::base::prng::Prng;

const VALUE_BYTES_MAX: usize = 10_000;

fn decode(bytes: &[u8]) -> Decoded<'_> {
    Memcached::decode(bytes, VALUE_BYTES_MAX)
}

fn asked(text: &str) -> (&[u8], Ask<'_>) {
    match decode(text.as_bytes()) {
        Decoded::Request(Request { command: Command::Memcached { key, ask }, .. }, length) => {
            assert_eq!(length, text.len(), "{text:?}");
            (key, ask)
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

/// What a frame is refused with, and whether its connection is closed.
fn refused(text: &str) -> (String, bool) {
    match decode(text.as_bytes()) {
        Decoded::Refused(refusal) => {
            let mut out = Vec::new();
            if !(refusal.id == SILENT && refusal.status == Status::Ok) {
                Memcached::encode_refusal(&refusal, "", &mut out);
            }
            (String::from_utf8(out).unwrap(), refusal.status.closes())
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn classic_commands_are_understood() {
    let read = |exptime, with_cas| Ask::Read { exptime, with_cas, ends: true };
    assert_eq!(asked("get k\r\n"), (b"k".as_slice(), read(None, false)));
    assert_eq!(asked("get k\n"), (b"k".as_slice(), read(None, false)));
    assert_eq!(asked("  get  k  \r\n"), (b"k".as_slice(), read(None, false)));
    assert_eq!(asked("gets k\r\n").1, read(None, true));
    assert_eq!(asked("gat -3 k\r\n").1, read(Some(Exptime(-3)), false));
    assert_eq!(asked("gats 5 k\r\n").1, read(Some(Exptime(5)), true));
    let store =
        |value, flags, exptime, how, is_quiet| Ask::Store { value, flags, exptime: Exptime(exptime), how, is_quiet };
    assert_eq!(asked("set k 7 5 2\r\nab\r\n").1, store(b"ab", 7, 5, Storing::Set, false));
    assert_eq!(asked("set k 4294967295 -1 2 noreply\r\n\r\n\r\n").1, store(b"\r\n", u32::MAX, -1, Storing::Set, true));
    assert_eq!(asked("add k 0 0 0\r\n\r\n").1, store(b"", 0, 0, Storing::Add, false));
    assert_eq!(asked("replace k 0 0 1\r\nx\r\n").1, store(b"x", 0, 0, Storing::Replace, false));
    assert_eq!(asked("append k 0 0 1\r\nx\r\n").1, store(b"x", 0, 0, Storing::Append, false));
    assert_eq!(asked("prepend k 0 0 1 noreply\r\nx\r\n").1, store(b"x", 0, 0, Storing::Prepend, true));
    assert_eq!(asked("cas k 0 0 1 9\r\nx\r\n").1, store(b"x", 0, 0, Storing::Cas(9), false));
    assert_eq!(asked("delete k\r\n").1, Ask::Delete { is_quiet: false });
    assert_eq!(asked("delete k 0 noreply\r\n").1, Ask::Delete { is_quiet: true });
    assert_eq!(asked("touch k 10\r\n").1, Ask::Touch { exptime: Exptime(10), is_quiet: false });
    assert_eq!(
        asked("incr k 18446744073709551615\r\n").1,
        Ask::Count { by: u64::MAX, is_down: false, is_quiet: false }
    );
    assert_eq!(asked("decr k 1 noreply\r\n").1, Ask::Count { by: 1, is_down: true, is_quiet: true });
    assert!(matches!(decode(b"mn\r\n"), Decoded::Request(Request { command: Command::Noop, .. }, 4)));
}

#[test]
fn meta_commands_are_taken_apart_and_their_flags_left_to_their_shard() {
    let meta = |verb, flags, value| Ask::Meta { verb, flags, value, is_encoded: false };
    assert_eq!(asked("mg k s v\r\n"), (b"k".as_slice(), meta(Verb::Get, b" s v", b"")));
    assert_eq!(asked("ms k 2 T5 c\r\nab\r\n").1, meta(Verb::Set, b" T5 c", b"ab"));
    assert_eq!(asked("ms k 0\r\n\r\n").1, meta(Verb::Set, b"", b""));
    assert_eq!(asked("md k q\r\n").1, meta(Verb::Delete, b" q", b""));
    assert_eq!(asked("ma k\r\n").1, meta(Verb::Arithmetic, b"", b""));
    assert_eq!(asked("me k\r\n").1, meta(Verb::Debug, b"", b""));
    for text in ["mg Zm9v s b\r\n", "ms Zm9v 2 b\r\nab\r\n", "md Zm9v b\r\n", "me Zm9v b\r\n"] {
        assert_eq!(decode(text.as_bytes()), Decoded::Front(text.len()), "{text}");
    }
}

#[test]
fn what_is_not_about_one_key_is_only_measured() {
    for text in
        ["get a b\r\n", "gats 1 a b\r\n", "gat 1\r\n", "stats\r\n", "stats items\r\n", "flush_all 0 noreply\r\n"]
    {
        assert_eq!(decode(text.as_bytes()), Decoded::Front(text.len()), "{text}");
    }
    for text in ["version\r\n", "quit\r\n", "verbosity 1\r\n", "watch\r\n", "shutdown\r\n", "lru_crawler enable\r\n"] {
        assert_eq!(decode(text.as_bytes()), Decoded::Front(text.len()), "{text}");
    }
    // The line of a value that is too large; the front passes over the value.
    let text = format!("set k 0 0 {}\r\n", VALUE_BYTES_MAX + limits::KEY_BYTES_MAX);
    assert_eq!(decode(text.as_bytes()), Decoded::Front(text.len()));
    let keys = "some-key ".repeat(20_000);
    let text = format!("get {keys}\r\n");
    assert_eq!(decode(text.as_bytes()), Decoded::Front(text.len()));
}

#[test]
fn what_is_wrong_is_said_as_memcached_says_it() {
    let long_key = "k".repeat(251);
    let error = || ("ERROR\r\n".to_string(), false);
    let format = || ("CLIENT_ERROR bad command line format\r\n".to_string(), false);
    for text in [
        "\r\n",
        "\n",
        " \r\n",
        "x\r\n",
        "bogus\r\n",
        "get\r\n",
        "GET k\r\n",
        "set k 0 0\r\n",
        "set k 0 0 1 2 3\r\n",
        "cas k 0 0 1 \r\n",
        "incr k\r\n",
        "touch k\r\n",
        "delete\r\n",
        "verbosity\r\n",
        "mg\r\n",
        "mx k\r\n",
        "ms\r\n",
        "lru tune 1\r\n",
        "slabs\r\n",
        "flush_all 1 2 3\r\n",
        "GET HTTP\r\n",
    ] {
        assert_eq!(refused(text), error(), "{text:?}");
    }
    for text in [
        "set k x 0 1\r\n",
        "set k 0 x 1\r\n",
        "set k 0 0 x\r\n",
        "set k 0 0 -1\r\n",
        "set k 0 0 4294967295\r\n",
        "set k 0 0 2147483647\r\n",
        "set k -1 0 1\r\n",
        "cas k 0 0 1 x\r\n",
        "verbosity x\r\n",
        "slabs automove x\r\n",
        "ms k\r\n",
        "ms k x\r\n",
        "ms k -1\r\n",
        "me\r\n",
    ] {
        assert_eq!(refused(text), format(), "{text:?}");
    }
    for command in ["get", "gets", "delete", "mg", "md", "ma", "me"] {
        assert_eq!(refused(&format!("{command} {long_key}\r\n")), format());
    }
    for rest in ["0 0 1\r\n", "0 0 1 noreply\r\n"] {
        let expected = if rest.contains("noreply") { String::new() } else { format().0 };
        assert_eq!(refused(&format!("set {long_key} {rest}")), (expected, false));
    }
    assert_eq!(refused("set k 0 0 2\r\nabc\r\n").0, "CLIENT_ERROR bad data chunk\r\n");
    assert_eq!(refused("set k 0 0 2 noreply\r\nabc\r\n").0, "");
    assert_eq!(refused("incr k x\r\n").0, "CLIENT_ERROR invalid numeric delta argument\r\n");
    assert_eq!(refused("incr k -1\r\n").0, "CLIENT_ERROR invalid numeric delta argument\r\n");
    assert_eq!(refused("touch k x\r\n").0, "CLIENT_ERROR invalid exptime argument\r\n");
    assert_eq!(refused("gat x k\r\n").0, "CLIENT_ERROR invalid exptime argument\r\n");
    assert_eq!(refused("flush_all x\r\n").0, "CLIENT_ERROR invalid exptime argument\r\n");
    let usage = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";
    assert_eq!(refused("delete k 10\r\n").0, usage);
    let flags = "s ".repeat(20);
    assert_eq!(refused(&format!("mg k {flags}\r\n")).0, "CLIENT_ERROR options flags are too long\r\n");
    assert_eq!(refused(&format!("md k {flags}\r\n")).0, "CLIENT_ERROR options flags too long\r\n");
}

#[test]
fn what_is_not_this_protocol_is_closed() {
    assert_eq!(refused("GET / HTTP/1.1\r\n"), (String::new(), true));
    assert!(matches!(decode(b"\x80\x0b\0\0"), Decoded::Refused(refusal) if refusal.status.closes()));
    let long = "x".repeat(limits::MEMCACHED_LINE_BYTES_MAX + 1);
    assert_eq!(refused(&long), (String::new(), true));
    assert_eq!(refused(&format!("{long}\r\n")), (String::new(), true));
    let long = format!("get {}", "x ".repeat(limits::MEMCACHED_KEYS_BYTES_MAX / 2));
    assert!(refused(&long).1);
}

#[test]
fn a_frame_that_has_begun_waits_for_all_of_it() {
    let frames = [
        "get key\r\n",
        "set key 1 2 5\r\nab\r\nc\r\n",
        "set key 1 2 3 noreply\r\nabc\r\n",
        "cas k 0 0 1 5\r\nx\r\n",
        "ms key 4 T5 k\r\nabcd\r\n",
        "ms Zm9v 4 b\r\nabcd\r\n",
        "mg key v\r\n",
        "get a b c\r\n",
        "incr k 1\r\n",
        "mn\r\n",
    ];
    for frame in frames {
        let whole = decode(frame.as_bytes());
        assert!(matches!(whole, Decoded::Request(_, length) | Decoded::Front(length) if length == frame.len()));
        for cut in 0..frame.len() {
            match decode(&frame.as_bytes()[..cut]) {
                Decoded::Incomplete(needed) => assert!(cut < needed && needed <= frame.len(), "{frame:?} at {cut}"),
                other => panic!("{frame:?} at {cut}: {other:?}"),
            }
        }
        // Whatever follows makes no difference.
        for rest in ["get x\r\n", "\r\n", "zzzzzzzzzzzzzzzz"] {
            assert_eq!(decode(format!("{frame}{rest}").as_bytes()), whole, "{frame:?} and {rest:?}");
        }
    }
}

#[test]
fn plain_requests_are_read_as_their_lines_are() {
    // A space more takes the other way through the decoder.
    for (plain, other) in [
        ("get key\r\n", "get  key\r\n"),
        ("set key 0 0 3\r\nabc\r\n", "set  key 0 0 3\r\nabc\r\n"),
        ("set k 4294967295 99999999 0\r\n\r\n", "set k 4294967295 99999999  0\r\n\r\n"),
    ] {
        assert_eq!(asked(plain), asked(other));
    }
    for length in [1, 7, 8, 9, 249, 250] {
        let key = "k".repeat(length);
        assert_eq!(asked(&format!("get {key}\r\n")), asked(&format!("get {key} \r\n")));
    }
}

#[test]
fn times_mean_what_memcached_says() {
    use crate::wire::request::Expiry;
    assert_eq!(Exptime(0).expiry(), Expiry::Never);
    assert_eq!(Exptime(5).expiry(), Expiry::In(5_000));
    assert_eq!(Exptime(60 * 60 * 24 * 30).expiry(), Expiry::In(1000 * 60 * 60 * 24 * 30));
    assert_eq!(Exptime(60 * 60 * 24 * 30 + 1).expiry(), Expiry::At(1000 * (60 * 60 * 24 * 30 + 1)));
    assert_eq!(Exptime(-1).expiry(), Expiry::At(i64::MIN));
    assert_eq!(Exptime(i32::MAX).expiry(), Expiry::At(1000 * i64::from(i32::MAX)));
    assert_eq!(asked("touch k 4294967295\r\n").1, Ask::Touch { exptime: Exptime(-1), is_quiet: false });
}

#[test]
fn where_memory_is_short_the_stream_goes_on_only_if_its_place_is_known() {
    let refusal = Memcached::busy(b"set k 0 0 100\r\nabc", 117);
    assert_eq!((refusal.status, refusal.frame_bytes), (Status::Busy, 117));
    assert!(Memcached::busy(b"get a b c d", 12).status.closes());
}

#[test]
fn no_bytes_make_it_panic_and_it_always_goes_on() {
    let words: [&[u8]; 28] = [
        b"get", b"gets", b"gat", b"set", b"add", b"cas", b"mg", b"ms", b"md", b"ma", b"me", b"mn", b"incr", b"touch",
        b"delete", b" ", b" ", b"\r\n", b"\r\n", b"\n", b"0", b"5", b"-1", b"noreply", b"k", b"b", b"\x80", b"\0",
    ];
    let mut prng = Prng::new(11);
    for _ in 0..50_000 {
        let mut bytes = Vec::new();
        for _ in 0..prng.below(14) {
            bytes.extend_from_slice(words[prng.below(words.len() as u64) as usize]);
            if prng.below(3) > 0 {
                bytes.push(b' ');
            }
        }
        match decode(&bytes) {
            Decoded::Request(_, length) | Decoded::Front(length) => assert!((1..=bytes.len()).contains(&length)),
            Decoded::Incomplete(needed) => assert!(needed > bytes.len()),
            Decoded::Refused(refusal) => assert!(refusal.frame_bytes > 0 || refusal.status.closes()),
        }
    }
}
