use crate::base::hash::HashSeed;
use crate::base::limits;
use crate::base::prng::Prng;
use crate::cache::{Accounting, Config, Store};
use crate::engine::Protocol;
use crate::engine::direct::Direct;

const SEGMENT_BYTES: usize = 64 << 10;

fn shard() -> Direct<Vec<u8>> {
    let config = Config { segment_bytes: SEGMENT_BYTES, seed: HashSeed(1), accounting: Accounting::Memory };
    Direct::new(Store::new(vec![0; 64 * SEGMENT_BYTES], config), HashSeed(1), Protocol::Memcached)
}

/// Holds a conversation: each line is what is said (`|` for the end of a line), `=>` and what is answered.
fn talk(shard: &mut Direct<Vec<u8>>, conversation: &str) {
    for line in conversation.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (said, expected) = line.split_once("=>").expect("something said and something answered");
        let bytes = |text: &str| text.trim().replace('|', "\r\n");
        let answered = String::from_utf8_lossy(shard.exchange(bytes(said).as_bytes()).0).into_owned();
        assert_eq!(answered, bytes(expected), "said {said}");
    }
}

/// What stands behind a flag in an answer.
fn flag(shard: &mut Direct<Vec<u8>>, said: &str, letter: char) -> u64 {
    let answered = String::from_utf8_lossy(shard.exchange(said.as_bytes()).0).into_owned();
    let head = answered.lines().next().unwrap_or_default();
    let word = head.split(' ').skip(1).find_map(|word| word.strip_prefix(letter));
    word.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{said}: no {letter} in {answered}"))
}

#[test]
fn values_are_stored_and_read_with_their_flags() {
    talk(
        &mut shard(),
        "get k| => END|
         set k 5 0 3|abc| => STORED|
         get k| => VALUE k 5 3|abc|END|
         add k 0 0 1|x| => NOT_STORED|
         replace k 4294967295 0 2|xy| => STORED|
         get k| => VALUE k 4294967295 2|xy|END|
         replace nothing 0 0 1|x| => NOT_STORED|
         append k 1 0 1|z| => STORED|
         prepend k 1 0 1|w| => STORED|
         get k| => VALUE k 4294967295 4|wxyz|END|
         append nothing 0 0 1|z| => NOT_STORED|
         set k 0 0 0|| => STORED|
         get k| => VALUE k 0 0||END|
         delete k| => DELETED|
         delete k| => NOT_FOUND|
         set k 0 -1 1|x| => STORED|
         get k| => END|
         set k 0 0 1 noreply|x|add k 0 0 1 noreply|y|get k| => VALUE k 0 1|x|END|
         incr k 1 noreply|delete k noreply|touch k 0 noreply|get k| => END|",
    );
}

#[test]
fn several_keys_are_answered_in_their_order_or_not_at_all() {
    let mut shard = shard();
    talk(
        &mut shard,
        "set a 0 0 1|1|set b 0 0 1|2| => STORED|STORED|
         get a nothing b a| => VALUE a 0 1|1|VALUE b 0 1|2|VALUE a 0 1|1|END|
         gat 0 a b| => VALUE a 0 1|1|VALUE b 0 1|2|END|
         gat 0| => END|
         gat -1 a b| => VALUE a 0 1|1|VALUE b 0 1|2|END|
         get a b| => END|",
    );
    let long = "k".repeat(limits::MEMCACHED_KEY_BYTES_MAX + 1);
    talk(&mut shard, &format!("set a 0 0 1|1|get a {long} a| => STORED|CLIENT_ERROR bad command line format|"));
}

/// More keys than a turn, an output and the bounds of a connection take at once.
#[test]
fn a_retrieval_of_very_many_keys_is_answered_whole() {
    let mut shard = shard();
    let value = "v".repeat(1000);
    talk(&mut shard, &format!("set k 0 0 1000|{value}| => STORED|"));
    let count = 2_000;
    let answered = shard.exchange(format!("get {}\r\nmn\r\n", "k ".repeat(count)).as_bytes()).0;
    let expected = format!("{}END\r\nMN\r\n", format!("VALUE k 0 1000\r\n{value}\r\n").repeat(count));
    // What does not fit its output waits until some of it has been taken.
    let mut all = answered.to_vec();
    while all.len() < expected.len() {
        let more = shard.exchange(b"").0;
        assert!(!more.is_empty(), "{} of {} bytes", all.len(), expected.len());
        all.extend_from_slice(more);
    }
    assert!(all == expected.as_bytes());
}

#[test]
fn counters_wrap_stop_at_zero_and_keep_their_length() {
    talk(
        &mut shard(),
        "incr n 1| => NOT_FOUND|
         decr n 1| => NOT_FOUND|
         set n 3 0 2|10| => STORED|
         decr n 1| => 9|
         get n| => VALUE n 3 2|9 |END|
         incr n 1| => 10|
         decr n 100| => 0|
         get n| => VALUE n 3 2|0 |END|
         incr n 18446744073709551615| => 18446744073709551615|
         incr n 2| => 1|
         set n 0 0 1|x| => STORED|
         incr n 1| => CLIENT_ERROR cannot increment or decrement non-numeric value|
         set n 0 0 0|| => STORED|
         incr n 1| => CLIENT_ERROR cannot increment or decrement non-numeric value|
         set n 0 0 2|-1| => STORED|
         incr n 1| => CLIENT_ERROR cannot increment or decrement non-numeric value|",
    );
}

#[test]
fn versions_are_compared() {
    let mut shard = shard();
    talk(
        &mut shard,
        "cas k 0 0 1 1|x| => NOT_FOUND|
         set k 0 0 1|x| => STORED|
         cas k 0 0 1 0|y| => EXISTS|
         cas k 0 0 1 1|y| => EXISTS|",
    );
    let version = |shard: &mut Direct<Vec<u8>>| {
        let answered = String::from_utf8_lossy(shard.exchange(b"gets k\r\n").0).into_owned();
        answered.lines().next().unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let first = version(&mut shard);
    assert_eq!(version(&mut shard), first, "reading changes nothing");
    talk(
        &mut shard,
        &format!("cas k 0 0 1 {first}|y|cas k 0 0 1 {first}|z|get k| => STORED|EXISTS|VALUE k 0 1|y|END|"),
    );
    for change in
        ["set k 0 0 1|5|=>STORED|", "incr k 1|=>6|", "append k 0 0 1|0|=>STORED|", "replace k 0 0 1|1|=>STORED|"]
    {
        let before = version(&mut shard);
        talk(&mut shard, change);
        let after = version(&mut shard);
        assert_ne!(before, after, "{change}");
    }
}

#[test]
fn touched_keys_live_as_long_as_they_are_told() {
    talk(
        &mut shard(),
        "touch k 10| => NOT_FOUND|
         set k 0 0 1|x| => STORED|
         mg k t| => HD t-1|
         touch k 100| => TOUCHED|
         mg k t| => HD t100|
         touch k -1| => TOUCHED|
         get k| => END|",
    );
}

#[test]
fn meta_commands_answer_what_their_flags_ask_for() {
    talk(
        &mut shard(),
        "mg k s v| => EN|
         mg k s v q|mn| => MN|
         mg k O123 k| => EN O123 kk|
         ms k 2 F9 T100 O1 k|ab| => HD O1 kk|
         mg k k f s t v Oxyz| => VA 2 kk f9 s2 t100 Oxyz|ab|
         mg k| => HD|
         mg k t T200 v| => VA 2 t100|ab|
         mg k T300 t| => HD t300|
         ms k 1 ME|x| => NS|
         ms other 1 MR|x| => NS|
         ms k 1 MA|c|ms k 1 MP|z| => HD|HD|
         mg k v f t| => VA 4 f9 t300|zabc|
         ms k 1 q MS|x|md k q|mn| => MN|
         md k| => NF|
         md k q O5| => NF O5|
         ms k 1 MX|x| => CLIENT_ERROR invalid mode for ms M token|
         ms k 1 S S|x| => CLIENT_ERROR invalid flag|
         mg k s s| => CLIENT_ERROR duplicate flag|
         md k s s| => CLIENT_ERROR invalid or duplicate flag|
         mg k O123456789012345678901234567890123| => CLIENT_ERROR opaque token too long|
         mg k q !| => CLIENT_ERROR invalid flag|
         me k| => EN|",
    );
}

#[test]
fn keys_in_base64_are_other_keys() {
    let mut shard = shard();
    talk(
        &mut shard,
        "ms IGZvbyA= 2 b k|ab| => HD kIGZvbyA= b|
         mg IGZvbyA= v| => EN|
         mg IGZvbyA= b v k| => VA 2 kIGZvbyA= b|ab|
         ma IGZvbyA= b| => CLIENT_ERROR cannot increment or decrement non-numeric value|
         ms ! 2 b|ab| => CLIENT_ERROR error decoding key|
         md ! b| => CLIENT_ERROR invalid or duplicate flag|
         me ! b| => CLIENT_ERROR bad command line format|
         ms IGZvbyA= 2 b|abc|get x| => CLIENT_ERROR bad data chunk|ERROR|END|
         md IGZvbyA= b q| =>
         mg IGZvbyA= b| => EN|",
    );
    let answered = shard.exchange(b"ms IGZvbyA= 0 b\r\n\r\nme IGZvbyA= b\r\n").0;
    let answered = String::from_utf8_lossy(answered);
    assert!(answered.starts_with("HD\r\nME IGZvbyA= exp=-1 la=0 cas=0 fetch=no cls=1 size="), "{answered}");
}

#[test]
fn meta_arithmetic_makes_counts_and_compares() {
    let mut shard = shard();
    talk(
        &mut shard,
        "ma n| => NF|
         ma n q O7| => NF O7|
         ma n N0 J13 v t| => VA 2 t-1|13|
         ma n N0 J13 v D30| => VA 2|43|
         ma n MD D3 v| => VA 2|40|
         ma n M- D9999 v| => VA 1|0|
         mg n v| => VA 2|0 |
         ma n M+ T90 t O1 k| => HD t90 O1 kn|
         ma n q|mn| => MN|
         ma n Mx| => CLIENT_ERROR invalid mode for ma M token|
         ma n Dx| => CLIENT_ERROR invalid or duplicate flag|
         ma fresh N30 q t| => HD t30|",
    );
    let first = flag(&mut shard, "ma n c\r\n", 'c');
    talk(&mut shard, &format!("ma n C{}| => EX|", first + 1000));
    let second = flag(&mut shard, &format!("ma n C{first} c\r\n"), 'c');
    assert_ne!(first, second);
}

#[test]
fn whoever_wins_brings_the_value_and_the_others_are_told() {
    let mut shard = shard();
    talk(
        &mut shard,
        "mg k N30 s v t| => VA 0 s0 t30 W||
         mg k N30 s v| => VA 0 s0 Z||
         ms k 2 T100|ab| => HD|
         mg k N30 v t| => VA 2 t100|ab|
         mg k R30 t| => HD t100|
         mg k R130 t| => HD t100 W|
         mg k R130 t| => HD t100 Z|",
    );
    let version = flag(&mut shard, "mg k c\r\n", 'c');
    talk(
        &mut shard,
        &format!(
            "ms k 1 C{}|x| => EX|
             ms k 1 C{version}|y| => HD|
             mg k v| => VA 1|y|",
            version + 1
        ),
    );
}

#[test]
fn stale_values_are_served_until_a_new_one_comes() {
    let mut shard = shard();
    talk(&mut shard, "set k 7 0 3|moo|set other 0 0 1|x| => STORED|STORED|");
    let before = flag(&mut shard, "mg k c\r\n", 'c');
    talk(&mut shard, "md k I T30| => HD|");
    let version = flag(&mut shard, "mg k c\r\n", 'c');
    assert!(version > before, "whoever read it before may not store over it");
    talk(&mut shard, "mg k v t f| => VA 3 t30 f7 Z X|moo|");
    talk(
        &mut shard,
        &format!(
            "ms k 1 T90 C{before}|f| => EX|
             ms k 1 I T90 C{before}|f| => HD|
             mg k v t| => VA 1 t30 Z X|f|
             ms k 1 I C0|f| => EX|
             ms nothing 1 I C5|f| => NF|"
        ),
    );
    let version = flag(&mut shard, "mg k c\r\n", 'c');
    talk(
        &mut shard,
        &format!(
            "md k C{}| => EX|
             ms k 1 T90 C{version}|g| => HD|
             mg k v t| => VA 1 t90|g|
             md k I| => HD|
             mg k v| => VA 1 X W|g|
             mg k v| => VA 1 Z X|g|
             md nothing I| => NF|",
            version + 1
        ),
    );
}

#[test]
fn hits_and_idle_times_are_told_as_they_were() {
    talk(
        &mut shard(),
        "ms k 1|x| => HD|
         mg k h l| => HD h0 l0|
         mg k h| => HD h1|
         ms u 1|x| => HD|
         mg u u h| => HD h0|
         mg u h| => HD h0|
         mg u u h| => HD h1|",
    );
}

#[test]
fn values_that_are_too_large_are_passed_over_and_leave_nothing_stale() {
    let mut shard = shard();
    let length = SEGMENT_BYTES;
    let value = "x".repeat(length);
    let too_large = "SERVER_ERROR object too large for cache|";
    talk(&mut shard, "set k 0 0 1|x|add kept 0 0 1|x| => STORED|STORED|");
    talk(&mut shard, &format!("set k 0 0 {length}|{value}|get k| => {too_large}END|"));
    talk(&mut shard, &format!("append kept 0 0 {length}|{value}|get kept| => {too_large}VALUE kept 0 1|x|END|"));
    talk(&mut shard, &format!("ms kept {length} q|{value}|get kept| => {too_large}END|"));
    talk(&mut shard, &format!("set k 0 0 {length} noreply|{value}|get k| => END|"));
    talk(&mut shard, "ms Zm9v 1 b|x| => HD|");
    talk(&mut shard, &format!("ms Zm9v {length} b|{value}|get foo| => {too_large}END|"));
    // Two halves that fit each by itself.
    let half = "y".repeat(length / 2);
    talk(&mut shard, &format!("set k 0 0 {0}|{half}|append k 0 0 {0}|{half}| => STORED|NOT_STORED|", length / 2));
}

#[test]
fn the_server_answers_about_itself() {
    let mut shard = shard();
    talk(
        &mut shard,
        "verbosity 1| => OK|
         verbosity 1 noreply|mn| => MN|
         flush_all| => OK|
         set k 0 0 1|x|flush_all 0|get k| => STORED|OK|END|
         set k 0 0 1|x|flush_all noreply|get k| => STORED|END|
         set k 0 0 1|x|flush_all 1000|get k| => STORED|OK|VALUE k 0 1|x|END|
         stats cachedump 1 1| => CLIENT_ERROR stats cachedump not allowed|
         stats bogus| => ERROR|",
    );
}

#[test]
fn statistics_are_counted_and_set_back() {
    let mut shard = shard();
    let of = |shard: &mut Direct<Vec<u8>>, said: &str, name: &str| -> String {
        let answered = String::from_utf8_lossy(shard.exchange(said.as_bytes()).0).into_owned();
        assert!(answered.ends_with("END\r\n"), "{answered}");
        let line = answered.lines().find_map(|line| line.strip_prefix("STAT ")?.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {answered}")).to_string()
    };
    shard.exchange(b"set a 0 0 1\r\n1\r\nget a\r\nget b\r\ndelete b\r\nincr a 1\r\ndecr b 1\r\ncas a 0 0 1 9\r\nx\r\n");
    shard.exchange(b"set gone 0 -1 1\r\nx\r\nget gone x\r\ntouch b 1\r\ngat 0 a\r\n");
    for (name, expected) in [
        ("cmd_get", "4"),
        ("get_hits", "1"),
        ("get_misses", "3"),
        ("get_expired", "1"),
        ("curr_items", "1"),
        ("total_items", "2"),
        ("delete_misses", "1"),
        ("incr_hits", "1"),
        ("decr_misses", "1"),
        ("cas_badval", "1"),
        ("touch_misses", "1"),
        ("touch_hits", "1"),
        ("pointer_size", "64"),
        ("threads", "1"),
    ] {
        assert_eq!(of(&mut shard, "stats\r\n", name), expected, "{name}");
    }
    assert_eq!(of(&mut shard, "stats slabs\r\n", "1:used_chunks"), "1");
    assert_eq!(of(&mut shard, "stats items\r\n", "items:1:number"), "1");
    assert_eq!(of(&mut shard, "stats settings\r\n", "cas_enabled"), "yes");
    talk(&mut shard, "stats reset| => RESET|");
    for (name, expected) in [("cmd_get", "0"), ("cmd_set", "0"), ("cas_badval", "0"), ("curr_items", "1")] {
        assert_eq!(of(&mut shard, "stats\r\n", name), expected, "{name}");
    }
}

#[test]
fn uses_are_counted_by_prefix_while_somebody_looks() {
    talk(
        &mut shard(),
        "stats detail dump| => END|
         stats detail on| => OK|
         set foo:1 0 0 1|x|get foo:1 foo:2|delete foo:3| => STORED|VALUE foo:1 0 1|x|END|NOT_FOUND|
         stats detail dump| => PREFIX foo get 2 hit 1 set 1 del 1|END|
         stats reset|stats detail dump| => RESET|END|
         stats detail off|get foo:1|stats detail dump| => OK|VALUE foo:1 0 1|x|END|END|",
    );
}

#[test]
fn whoever_says_quit_or_something_else_is_let_go() {
    let mut shard = shard();
    let mut is_open = |said: &[u8], expected: &str| {
        let (answered, open) = shard.exchange(said);
        assert_eq!(String::from_utf8_lossy(answered), expected);
        open
    };
    assert!(is_open(b"mn\r\n", "MN\r\n"));
    assert!(!is_open(b"mn\r\nquit\r\nmn\r\n", "MN\r\n"));
    assert!(!is_open(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ""));
    assert!(!is_open(b"\x80\x0b\0\0\0\0\0\0", "ERROR\r\n"));
    assert!(!is_open(&[b'x'; 3000], ""));
    assert!(is_open(b"set k 0 0 3\r\nab", ""));
}

/// However a stream is cut into pieces, it is answered the same.
#[test]
fn a_stream_in_pieces_is_answered_like_the_whole() {
    let mut prng = Prng::new(5);
    for _ in 0..100 {
        let mut stream = String::new();
        for _ in 0..60 {
            let (key, other) = (prng.below(4), prng.below(4));
            let value = "v".repeat(prng.below(20) as usize);
            let length = value.len();
            stream.push_str(&match prng.below(14) {
                0 => format!("set k{key} 3 0 {length}\r\n{value}\r\n"),
                1 => format!("add k{key} 0 100 {length} noreply\r\n{value}\r\n"),
                2 => format!("append k{key} 0 0 {length}\r\n{value}\r\n"),
                3 => format!("set k{key} 0 0 {}\r\n{value}\r\n", length.saturating_sub(1)),
                4 => format!("get k{key} k{other} none\r\n"),
                5 => format!("ms k{key} {length} T100 k q\r\n{value}\r\n"),
                6 => format!("mg k{key} v s t f k q\r\n"),
                7 => format!("ma k{key} N100 J5 v\r\n"),
                8 => format!("md k{key} I q\r\n"),
                9 => format!("delete k{key}\r\nbogus\r\n\r\n"),
                10 => format!("set k{key} 0 0 70000\r\n{}\r\n", "x".repeat(70_000)),
                11 => format!("ms Zm9v {length} b\r\n{value}\r\nmg Zm9v b v k\r\n"),
                12 => "mn\r\nverbosity 1\r\n".to_string(),
                _ => format!("get k{key}\r\n"),
            });
        }
        let stream = stream.as_bytes();
        let whole = shard().exchange(stream).0.to_vec();
        let (mut shard, mut pieces, mut at) = (shard(), Vec::new(), 0);
        while at < stream.len() {
            let end = (at + 1 + prng.below(if at % 2 == 0 { 20 } else { 3000 }) as usize).min(stream.len());
            pieces.extend_from_slice(shard.exchange(&stream[at..end]).0);
            at = end;
        }
        assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&pieces));
    }
}
