use super::*;
use crate::base::prng::Prng;
use crate::wire::request::{Edit, Expiry, Mode};
use crate::wire::resp::client::{decode_reply, encode_request};

const VALUE_BYTES_MAX: usize = 10_000;

fn array(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_words(words.iter().copied(), &mut out);
    out
}

fn line(text: &str) -> Vec<u8> {
    array(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

/// What a line of words is answered, by a shard that holds every key with value `v`.
fn answered(text: &str, status: Status, number: u64) -> String {
    let frame = line(text);
    let mut out = Vec::new();
    match Resp::decode(&frame, VALUE_BYTES_MAX) {
        Decoded::Request(request, length) => {
            assert_eq!(length, frame.len());
            Resp::encode_reply(&request, &Reply { status, value: b"v", number }, &mut out);
        }
        other => panic!("{text}: {other:?}"),
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn commands_of_one_key_are_understood_and_answered_in_their_own_form() {
    let ok = |text| answered(text, Status::Ok, 7);
    let missing = |text| answered(text, Status::NotFound, 0);
    assert_eq!((ok("GET k"), missing("gEt k")), ("$1\r\nv\r\n".into(), "$-1\r\n".into()));
    assert_eq!((ok("SET k v"), ok("set k v ex 10 nx")), ("+OK\r\n".into(), "+OK\r\n".into()));
    assert_eq!(
        (answered("SET k v NX", Status::Exists, 0), ok("SET k v GET")),
        ("$-1\r\n".into(), "$1\r\nv\r\n".into())
    );
    assert_eq!((ok("DEL k"), missing("DEL k")), (":1\r\n".into(), ":0\r\n".into()));
    assert_eq!((ok("SETNX k v"), answered("SETNX k v", Status::Exists, 0)), (":1\r\n".into(), ":0\r\n".into()));
    assert_eq!((ok("INCRBY k 7"), answered("DECR k", Status::Ok, -3i64 as u64)), (":7\r\n".into(), ":-3\r\n".into()));
    assert_eq!((ok("PTTL k"), missing("TTL k")), (":7\r\n".into(), ":-2\r\n".into()));
    assert_eq!(
        (answered("TTL k", Status::Ok, 1500), answered("TTL k", Status::Ok, u64::MAX)),
        (":2\r\n".into(), ":-1\r\n".into())
    );
    assert_eq!((ok("TYPE k"), missing("TYPE k")), ("+string\r\n".into(), "+none\r\n".into()));
    assert_eq!((ok("STRLEN k"), missing("GETRANGE k 0 1")), (":7\r\n".into(), "$0\r\n\r\n".into()));
}

#[test]
fn a_time_to_live_and_a_condition_reach_the_request() {
    let command = |text: &str| match Resp::decode(&line(text), VALUE_BYTES_MAX) {
        Decoded::Request(request, _) => format!("{:?}", request.command),
        other => format!("{other:?}"),
    };
    let store = |value: &[u8], expiry, mode, old| {
        format!("{:?}", Command::Edit { key: b"k", edit: Edit::Store { value, expiry, mode, old } })
    };
    assert_eq!(command("SET k v XX PX 1500"), store(b"v", Expiry::In(1500), Mode::Replace, false));
    assert_eq!(command("SET k v exat 10 get"), store(b"v", Expiry::At(10_000), Mode::Set, true));
    assert_eq!(command("SET k v KEEPTTL NX"), store(b"v", Expiry::Keep, Mode::Add, false));
    for refused in
        ["SET k v EX", "SET k v EX 0", "SET k v NX XX", "SET k v EX 1 PX 1", "SET k v KEEPTTL EX 1", "GET", "GET a b"]
    {
        assert!(command(refused).starts_with("Front"), "{refused} is answered by the engine");
    }
}

#[test]
fn what_is_wrong_with_a_command_is_said_as_redis_says_it() {
    let problem = |text: &str| {
        let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        let problem = single::command(Cmd::of(words[0]).unwrap(), &words, VALUE_BYTES_MAX).unwrap_err();
        String::from_utf8(problem.text()).unwrap()
    };
    assert_eq!(problem("GET"), "ERR wrong number of arguments for 'get' command");
    assert_eq!(problem("SET k v EX"), "ERR syntax error");
    assert_eq!(problem("SET k v EX 0"), "ERR invalid expire time in 'set' command");
    assert_eq!(problem("SET k v EX 9223372036854775807"), "ERR invalid expire time in 'set' command");
    assert_eq!(problem("INCRBY k 1.5"), "ERR value is not an integer or out of range");
    assert_eq!(problem("INCRBY k +1"), "ERR value is not an integer or out of range");
    assert_eq!(problem("DECRBY k -9223372036854775808"), "ERR decrement would overflow");
    assert_eq!(problem("EXPIRE k 1 NX GT"), "ERR NX and XX, GT or LT options at the same time are not compatible");
    assert_eq!(problem("EXPIRE k 1 AB"), "ERR Unsupported option AB");
    assert_eq!(problem("SETRANGE k -1 x"), "ERR offset is out of range");
    assert_eq!(problem("INCRBYFLOAT k x"), "ERR value is not a valid float");
    assert_eq!(problem("EVALSHA abc 1 k"), "NOSCRIPT No matching script. Please use EVAL.");
}

#[test]
fn a_frame_cut_anywhere_is_incomplete_and_never_something_else() {
    for words in [&[b"SET".as_slice(), b"key", b"a\r\nvalue", b"EX", b"10"][..], &[b"GET", b"key"], &[b"MULTI"]] {
        let frame = array(words);
        for cut in 0..frame.len() {
            match Resp::decode(&frame[..cut], VALUE_BYTES_MAX) {
                Decoded::Incomplete(needed) => assert!(needed > cut && needed <= frame.len(), "cut {cut}: {needed}"),
                other => panic!("cut {cut}: {other:?}"),
            }
        }
    }
    assert!(matches!(Resp::decode(b"PING", 10), Decoded::Incomplete(_)));
    assert_eq!(Resp::decode(b"PING\r\n", 10), Decoded::Front(6));
}

/// A command of thirty thousand words that comes in pieces is not read anew with each of them.
#[test]
fn a_long_command_says_how_much_it_needs_at_least() {
    let frame = array(&vec![b"k".as_slice(); 30_000]);
    let (mut arrived, mut looks) = (1460, 0);
    while let Decoded::Incomplete(needed) = Resp::decode(&frame[..arrived], VALUE_BYTES_MAX) {
        looks += 1;
        arrived = needed.max(arrived + 1460).min(frame.len());
    }
    assert!(looks < 40, "{looks} looks");
}

#[test]
fn hostile_lengths_are_refused_and_random_bytes_never_panic() {
    let refused = |bytes: &[u8]| match Resp::decode(bytes, VALUE_BYTES_MAX) {
        Decoded::Refused(refusal) => {
            let mut out = Vec::new();
            Resp::encode_refusal(&refusal, "", &mut out);
            (refusal.status, String::from_utf8(out).unwrap())
        }
        other => panic!("{other:?}"),
    };
    let text = |bytes: &[u8]| refused(bytes).1;
    assert_eq!(text(b"*1\r\n$99999999999999999999\r\n"), "-ERR Protocol error: invalid bulk length\r\n");
    assert_eq!(text(b"*99999999\r\n"), "-ERR Protocol error: invalid multibulk length\r\n");
    assert_eq!(text(b"*1000000000\r\n"), "-ERR Protocol error: invalid multibulk length\r\n");
    assert_eq!(text(b"*1\r\n$-5\r\n"), "-ERR Protocol error: invalid bulk length\r\n");
    assert_eq!(text(b"*1\r\nfoo\r\n"), "-ERR Protocol error: expected '$', got 'f'\r\n");
    assert_eq!(refused(b"*1\r\n$4\r\nPINGxx").0, Status::Malformed);
    assert_eq!(refused(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n").0, Status::ValueTooLarge);
    assert_eq!(refused(b"*0\r\n").0, Status::Ok);
    assert_eq!(refused(&vec![b'a'; INLINE_BYTES_MAX + 1]).1, "-ERR Protocol error: too big inline request\r\n");
    let mut prng = Prng::new(3);
    let alphabet = b"*$+-:0123456789\r\n\r\nGETSET \0\"'";
    for _ in 0..200_000 {
        let bytes: Vec<u8> =
            (0..prng.below(48)).map(|_| alphabet[prng.below(alphabet.len() as u64) as usize]).collect();
        match Resp::decode(&bytes, VALUE_BYTES_MAX) {
            Decoded::Request(_, length) | Decoded::Front(length) => {
                assert!(length > 0 && length <= bytes.len());
                if bytes[0] != b'*' {
                    inline_words(&bytes[..length]);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn inline_words_may_be_quoted() {
    let words = |text: &str| {
        inline_words(text.as_bytes())
            .map(|words| words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>())
    };
    assert_eq!(words("set  k \"a b\\n\\x41\""), Some(vec!["set".into(), "k".into(), "a b\nA".into()]));
    assert_eq!(words("set k 'it\\'s'"), Some(vec!["set".into(), "k".into(), "it's".into()]));
    assert_eq!(words("set k \"\""), Some(vec!["set".into(), "k".into(), String::new()]));
    assert_eq!((words("set k \"open"), words("set k \"a\"b"), words("'\\")), (None, None, None));
}

#[test]
fn what_the_client_sends_and_reads_is_what_the_server_reads_and_sends() {
    let mut frame = Vec::new();
    encode_request(&Command::Set { key: b"k", value: b"v\r\n", ttl_ms: 9, mode: Mode::Set }, &mut frame);
    let Decoded::Request(request, length) = Resp::decode(&frame, 100) else { panic!("not a request") };
    let edit = Edit::Store { value: b"v\r\n", expiry: Expiry::In(9), mode: Mode::Set, old: false };
    assert_eq!((request.command, length), (Command::Edit { key: b"k", edit }, frame.len()));
    let mut reply = Vec::new();
    let get = Request { id: request_id(Cmd::Get, false), want_version: false, command: Command::Get { key: b"k" } };
    Resp::encode_reply(&get, &Reply { status: Status::Ok, value: b"abc", number: 0 }, &mut reply);
    for cut in 0..reply.len() {
        assert_eq!(decode_reply(&reply[..cut]), Ok(None));
    }
    assert_eq!(decode_reply(&reply).unwrap().unwrap().0.value, b"abc");
    assert_eq!(decode_reply(b"$-1\r\n").unwrap().unwrap().0.status, Status::NotFound);
    assert_eq!(decode_reply(b"_\r\n").unwrap().unwrap().0.status, Status::NotFound);
    assert_eq!(decode_reply(b"-ERR no\r\n").unwrap().unwrap().0.status, Status::Unsupported);
    assert!(decode_reply(b"\xb5\x01\n").is_err());
}
