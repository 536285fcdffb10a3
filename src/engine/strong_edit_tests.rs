//! A strong key answers as any other key does.

use std::collections::HashMap;

use super::*;
use crate::base::hash::HashSeed;
use crate::base::prng::Prng;
use crate::base::time::unix_ms;
use crate::cache::{Accounting, Config, Store};
use crate::engine::Protocol;
use crate::engine::direct::Direct;
use crate::wire::resp::{Resp, single_request};
use crate::wire::{Codec, Reply};

/// Strong keys without a cluster.
#[derive(Default)]
struct Keys(HashMap<Vec<u8>, Held>);

impl Keys {
    fn say(&mut self, frame: &[u8]) -> String {
        let request = single_request(frame, false).unwrap();
        let key = request.command.key().unwrap().to_vec();
        let held = self.0.get(&key).cloned().filter(|held| held.expires_ms == 0 || held.expires_ms > unix_ms());
        let edited = match request.command {
            Command::Get { .. } | Command::Delete { .. } if held.is_none() => Edited::of(Status::NotFound),
            Command::Get { .. } => Edited { value: held.unwrap().value, ..Edited::of(Status::Ok) },
            Command::Delete { .. } => Edited::changed(None),
            command => {
                assert!(is_edit(&command), "{command:?}");
                edit(&command, held, unix_ms())
            }
        };
        match edited.change {
            Some(Some(held)) => _ = self.0.insert(key, held),
            Some(None) => _ = self.0.remove(&key),
            None => {}
        }
        let mut reply = Vec::new();
        let answer = Reply { status: edited.status, value: &edited.value, number: edited.number };
        Resp::encode_reply(&request, &answer, &mut reply);
        String::from_utf8_lossy(&reply).into_owned()
    }
}

fn frame(words: &[&str]) -> Vec<u8> {
    let mut frame = format!("*{}\r\n", words.len()).into_bytes();
    words.iter().for_each(|word| frame.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
    frame
}

#[test]
fn whatever_is_asked_a_strong_key_answers_as_any_other() {
    const DELETE_IF: &str =
        r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end"#;
    // Moments, so that both answer the same whenever they are asked; far ones, one that has passed, nonsense.
    let moments = ["4000000000", "4100000000", "1", "-5", "x"];
    let values = ["", "7", "a", "9223372036854775807", "-2.5"];
    let config = Config { segment_bytes: 64 << 10, seed: HashSeed(5), accounting: Accounting::Memory };
    let mut shard = Direct::new(Store::new(vec![0; 64 * (64 << 10)], config), HashSeed(5), Protocol::Resp);
    let (mut keys, mut random) = (Keys::default(), Prng::new(8));
    let mut refusals = 0;
    for step in 0..60_000 {
        let mut pick = |of: &[&'static str]| of[random.below(of.len() as u64) as usize];
        let key = pick(&["k1", "k2", "k3"]);
        let value = pick(&values);
        let moment = pick(&moments);
        let condition = pick(&["NX", "XX", "GT", "LT"]);
        let words: &[&str] =
            match pick(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"]) {
                "a" => &["GET", key],
                "b" => &["SET", key, value],
                "c" => &["SET", key, value, pick(&["NX", "XX", "KEEPTTL", "GET"])],
                "d" => &["SET", key, value, "EXAT", "4000000000", pick(&["NX", "XX", "GET"])],
                "e" => &["SET", key, value, "NX", "GET"],
                "f" => &["GETSET", key, value],
                "g" => &[pick(&["GETDEL", "DEL", "EXISTS", "STRLEN", "PERSIST", "TOUCH"]), key],
                "h" => &[pick(&["EXPIRETIME", "PEXPIRETIME", "TYPE"]), key],
                "i" => &[pick(&["EXPIREAT", "PEXPIREAT"]), key, moment],
                "j" => &["EXPIREAT", key, moment, condition],
                "k" => &["GETEX", key, "EXAT", pick(&["4000000000", "4200000000", "x"])],
                "l" => &["GETEX", key, "PERSIST"],
                "m" => &["APPEND", key, value],
                "n" => &["INCRBY", key, pick(&["1", "-3", "9223372036854775807"])],
                "o" => &["INCRBYFLOAT", key, pick(&["0.5", "-1", "3e2"])],
                _ => &["EVAL", DELETE_IF, "1", key, value],
            };
        let frame = frame(words);
        let expected = String::from_utf8_lossy(shard.exchange(&frame).0).into_owned();
        // What makes no sense is refused before anybody is asked.
        if single_request(&frame, false).is_none() {
            refusals += 1;
            assert!(expected.starts_with('-'), "{words:?}: {expected}");
            continue;
        }
        assert_eq!(keys.say(&frame), expected, "step {step}: {words:?}");
    }
    assert!(refusals < 10_000, "{refusals}");
}

#[test]
fn times_to_live_are_the_holders() {
    let set = |ttl_ms| Command::Set { key: b"k", value: b"v", ttl_ms, mode: Mode::Set };
    let held = |expires_ms| Some(Held { value: b"v".to_vec(), expires_ms });
    assert_eq!(edit(&set(50), None, 1_000).change, Some(held(1_050)));
    assert_eq!(edit(&set(0), None, 1_000).change, Some(held(0)));
    let number = |command: &Command<'_>, expires_ms| edit(command, held(expires_ms), 1_000).number;
    assert_eq!(number(&Command::Ttl { key: b"k" }, 1_050), 50);
    assert_eq!(number(&Command::Ttl { key: b"k" }, 0), u64::MAX);
    let touch = Command::Touch { key: b"k", ttl_ms: 20 };
    assert_eq!(edit(&touch, held(1_050), 1_000).change, Some(held(1_020)));
    assert_eq!(edit(&touch, None, 1_000).status, Status::NotFound);
    let extend = Edit::IfEqual { expected: Some(b"v"), then: Then::Extend(30) };
    assert_eq!(edit(&Command::Edit { key: b"k", edit: extend }, held(1_050), 1_000).change, Some(held(1_080)));
    // What a value may be at all, and no longer.
    let long = vec![0; limits::STRONG_VALUE_BYTES_MAX];
    let append = Command::Edit { key: b"k", edit: Edit::Append { bytes: &long } };
    assert_eq!(edit(&append, None, 0).status, Status::Ok);
    let refused = edit(&append, held(0), 0);
    assert_eq!((refused.status, refused.change), (Status::ValueTooLarge, None));
}
