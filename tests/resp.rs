//! RESP against servers of two shards: what spans shards is answered in order, all or none, and told to everybody who
//! is to hear of it.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::resp::{Resp, Two, Value, encode, hello3};
use common::{DELETE, FLUSH, PATIENCE, SET, eventually};
use spinetail::base::prng::Prng;

const MS: Duration = Duration::from_millis(1);

// --- Several keys ----------------------------------------------------------------------------

#[test]
fn commands_about_many_keys_answer_in_the_order_of_their_words() {
    let Some(mut two) = Two::start() else { return };
    let names = [two.keys("order", 0, 12), two.keys("order", 1, 12)].concat();
    let (mut prng, mut stored) = (Prng::new(1), BTreeMap::<String, String>::new());
    let mut clients = two.pair();
    for round in 0..1500 {
        let keys: Vec<&String> = (0..=prng.below(9)).map(|_| &names[prng.below(names.len() as u64) as usize]).collect();
        let line = keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(" ");
        let client = &mut clients[round % 2];
        let there = keys.iter().filter(|key| stored.contains_key(**key)).count();
        match prng.below(6) {
            0 | 1 => {
                let values = keys.iter().map(|key| stored.get(*key).map_or("nil", String::as_str));
                let expected = format!("[{}]", values.collect::<Vec<_>>().join(" "));
                assert_eq!(client.say(&format!("MGET {line}")), expected, "round {round}: {line}");
            }
            2 | 3 => {
                // Of a key that is named twice the last value stays.
                let pairs: Vec<(&String, String)> =
                    keys.iter().enumerate().map(|(place, key)| (*key, format!("{round}.{place}"))).collect();
                let words: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} {value}")).collect();
                assert_eq!(client.say(&format!("MSET {}", words.join(" "))), "OK");
                stored.extend(pairs.into_iter().map(|(key, value)| (key.clone(), value)));
            }
            4 => {
                let command = ["DEL", "UNLINK"][prng.below(2) as usize];
                let gone = keys.iter().filter(|key| stored.remove(**key).is_some()).count();
                assert_eq!(client.say(&format!("{command} {line}")), format!(":{gone}"), "round {round}: {line}");
            }
            _ => {
                let command = ["EXISTS", "TOUCH"][prng.below(2) as usize];
                assert_eq!(client.say(&format!("{command} {line}")), format!(":{there}"), "round {round}: {line}");
            }
        }
    }
    two.assert_serves();
}

#[test]
fn pipelines_of_ten_thousand_mixed_commands_are_answered_in_order() {
    let Some(mut two) = Two::start() else { return };
    thread::scope(|scope| {
        for (name, mut client) in ["left", "right"].into_iter().zip(two.pair()) {
            let keys = [two.keys(name, 0, 20), two.keys(name, 1, 20)].concat();
            scope.spawn(move || {
                let (commands, expected) = mixed(&keys, 10_000);
                let mut stream = client.stream().try_clone().unwrap();
                let sender = thread::spawn(move || stream.write_all(&commands).unwrap());
                for (place, (line, expected)) in expected.iter().enumerate() {
                    assert_eq!(&client.reply().to_string(), expected, "{name}, command {place}: {line}");
                }
                sender.join().unwrap();
                assert!(!client.has_more(10 * MS), "more came than was asked for");
            });
        }
    });
    two.assert_serves();
}

/// Commands as bytes, and each with its reply.
fn mixed(keys: &[String], count: usize) -> (Vec<u8>, Vec<(String, String)>) {
    let mut prng = Prng::new(keys.len() as u64);
    let mut stored = HashMap::<&str, i64>::new();
    let mut expected: Vec<(String, String)> = Vec::new();
    let shown = |number: Option<&i64>| number.map_or("nil".to_string(), i64::to_string);
    while expected.len() < count {
        let key = keys[prng.below(keys.len() as u64) as usize].as_str();
        let other = keys[prng.below(keys.len() as u64) as usize].as_str();
        let number = prng.below(1000) as i64;
        let mut push = |line: String, reply: String| expected.push((line, reply));
        match prng.below(14) {
            0 | 1 => {
                stored.insert(key, number);
                push(format!("SET {key} {number}"), "OK".into());
            }
            2 | 3 => push(format!("GET {key}"), shown(stored.get(key))),
            4 => {
                let sum = stored.entry(key).or_default();
                *sum += number;
                push(format!("INCRBY {key} {number}"), format!(":{sum}"));
            }
            5 => {
                let values = [key, other, key].map(|key| shown(stored.get(key)));
                push(format!("MGET {key} {other} {key}"), format!("[{}]", values.join(" ")));
            }
            6 => {
                stored.insert(key, number);
                stored.insert(other, number + 1);
                push(format!("MSET {key} {number} {other} {}", number + 1), "OK".into());
            }
            7 => {
                let gone = [key, other].iter().filter(|key| stored.remove(**key).is_some()).count();
                push(format!("DEL {key} {other}"), format!(":{gone}"));
            }
            8 => push(format!("ECHO {number}"), number.to_string()),
            9 => push("GET".into(), "-ERR wrong number of arguments for 'get' command".into()),
            10 => {
                let moved = stored.remove(key);
                if let Some(moved) = moved {
                    stored.insert(other, moved);
                }
                let reply = if moved.is_some() { "OK" } else { "-ERR no such key" };
                push(format!("RENAME {key} {other}"), reply.into());
            }
            11 => push(format!("STRLEN {key}"), format!(":{}", stored.get(key).map_or(0, |it| it.to_string().len()))),
            12 => {
                push("MULTI".into(), "OK".into());
                push(format!("SET {key} {number}"), "QUEUED".into());
                push(format!("INCR {other}"), "QUEUED".into());
                push(format!("GET {key}"), "QUEUED".into());
                stored.insert(key, number);
                *stored.entry(other).or_default() += 1;
                push("EXEC".into(), format!("[OK :{} {}]", stored[other], stored[key]));
            }
            _ => {
                let is_new = !stored.contains_key(key) && !stored.contains_key(other);
                if is_new {
                    stored.insert(key, 1);
                    stored.insert(other, 2);
                }
                push(format!("MSETNX {key} 1 {other} 2"), format!(":{}", i64::from(is_new)));
            }
        }
    }
    let mut bytes = Vec::new();
    expected.iter().for_each(|(line, _)| encode(&line.split(' ').collect::<Vec<_>>(), &mut bytes));
    (bytes, expected)
}

#[test]
fn msetnx_over_two_shards_is_all_or_none_for_eight_who_race() {
    const ROUNDS: usize = 250;
    let Some(mut two) = Two::start() else { return };
    let rounds: Vec<Vec<String>> = (0..ROUNDS)
        .map(|round| [two.keys(&format!("r{round}."), 0, 3), two.keys(&format!("r{round}."), 1, 3)].concat())
        .collect();
    let start = Barrier::new(8);
    let asked: Mutex<Vec<Asked>> = Mutex::default();
    thread::scope(|scope| {
        for racer in 0..8 {
            let mut client = two.client_at(racer as i64 % 2);
            let (start, asked, rounds) = (&start, &asked, &rounds);
            scope.spawn(move || {
                let mut prng = Prng::new(racer as u64 + 1);
                for (round, keys) in rounds.iter().enumerate() {
                    let mut named: BTreeSet<usize> = (0..3).map(|_| prng.below(6) as usize).collect();
                    named.insert(racer % 6);
                    let words: Vec<String> = named.iter().map(|key| format!("{} {racer}", keys[*key])).collect();
                    start.wait();
                    let has_won = client.ask(&format!("MSETNX {}", words.join(" "))).integer() == 1;
                    asked.lock().unwrap().push(Asked { round, racer, named, has_won });
                }
            });
        }
    });
    let (mut client, asked) = (two.client(), asked.into_inner().unwrap());
    for (round, keys) in rounds.iter().enumerate() {
        let mut expected = vec!["nil".to_string(); 6];
        let (won, lost): (Vec<&Asked>, _) = asked.iter().filter(|it| it.round == round).partition(|it| it.has_won);
        for Asked { racer, named, .. } in &won {
            for key in named {
                assert_eq!(expected[*key], "nil", "round {round}: two have won key {key}");
                expected[*key] = racer.to_string();
            }
        }
        assert_eq!(client.say(&format!("MGET {}", keys.join(" "))), format!("[{}]", expected.join(" ")));
        assert!(!won.is_empty(), "nobody has won round {round}");
        for Asked { named, .. } in lost {
            assert!(named.iter().any(|key| expected[*key] != "nil"), "round {round}: {named:?} lost to nobody");
        }
    }
    two.assert_serves();
}

/// One racer's MSETNX and what came of it.
struct Asked {
    round: usize,
    racer: usize,
    named: BTreeSet<usize>,
    has_won: bool,
}

#[test]
fn rename_and_copy_keep_value_and_expiry_between_any_two_shards() {
    let Some(mut two) = Two::start() else { return };
    let large: Vec<u8> = (0..100_000u32).map(|number| (number * 31) as u8).collect();
    let mut clients = two.pair();
    for (from, to) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for (at, client) in clients.iter_mut().enumerate() {
            let told = format!("from shard {from} to {to} by a client at {at}");
            let (from, to) = (two.key("from", from), two.key("to", to));
            for value in [&b""[..], b"\r\n\0\xff", &large] {
                assert_eq!(client.ask_words(&[b"SET", from.as_bytes(), value]).to_string(), "OK");
                assert_eq!(client.say(&format!("PEXPIRE {from} 100000")), ":1");
                let expires = client.ask(&format!("PEXPIRETIME {from}"));
                assert_eq!(client.say(&format!("SET {to} other EX 5")), "OK");
                assert_eq!(client.say(&format!("RENAMENX {from} {to}")), ":0", "{told}");
                assert_eq!(client.say(&format!("COPY {from} {to}")), ":0", "{told}");
                assert_eq!(client.say(&format!("GET {to}")), "other", "{told}");

                assert_eq!(client.say(&format!("COPY {from} {to} REPLACE")), ":1", "{told}");
                assert_eq!(client.ask(&format!("GET {from}")), Value::Bulk(value.to_vec()), "{told}");
                assert_eq!(client.ask(&format!("GET {to}")), Value::Bulk(value.to_vec()), "{told}");
                assert_eq!(client.ask(&format!("PEXPIRETIME {to}")), expires, "{told}");

                assert_eq!(client.say(&format!("SET {to} other")), "OK");
                assert_eq!(client.say(&format!("RENAME {from} {to}")), "OK", "{told}");
                assert_eq!(client.say(&format!("GET {from}")), "nil", "{told}");
                assert_eq!(client.ask(&format!("GET {to}")), Value::Bulk(value.to_vec()), "{told}");
                assert_eq!(client.ask(&format!("PEXPIRETIME {to}")), expires, "{told}");

                assert_eq!(client.say(&format!("RENAMENX {to} {from}")), ":1", "{told}");
                assert_eq!(client.ask(&format!("PEXPIRETIME {from}")), expires, "{told}");

                // Who has no expiry brings none, whatever was there.
                assert_eq!(client.say(&format!("SET {to} other EX 5")), "OK");
                assert_eq!(client.say(&format!("PERSIST {from}")), ":1");
                assert_eq!(client.say(&format!("RENAME {from} {to}")), "OK", "{told}");
                assert_eq!(client.say(&format!("PTTL {to}")), ":-1", "{told}");
                assert_eq!(client.say(&format!("RENAME {from} {to}")), "-ERR no such key", "{told}");
                assert_eq!(client.say(&format!("DEL {from} {to}")), ":1", "{told}");
            }
        }
    }
    two.assert_serves();
}

// --- Transactions ----------------------------------------------------------------------------

#[test]
fn exec_over_two_shards_is_seen_whole_by_everybody() {
    const EACH: i64 = 1000;
    let Some(mut two) = Two::start() else { return };
    let accounts = [two.keys("account", 0, 4), two.keys("account", 1, 4)].concat();
    let mut client = two.client();
    accounts.iter().for_each(|account| assert_eq!(client.say(&format!("SET {account} {EACH}")), "OK"));
    let moves = two.key("moves", 1);
    let (is_over, moved, refused, looked) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for writer in 0..3 {
            let mut client = two.client_at(writer % 2);
            let (accounts, moves, is_over, moved, refused) = (&accounts, &moves, &is_over, &moved, &refused);
            scope.spawn(move || {
                let mut prng = Prng::new(writer as u64 + 1);
                while !is_over.load(Ordering::Relaxed) {
                    let (from, to) = (&accounts[prng.below(4) as usize], &accounts[4 + prng.below(4) as usize]);
                    let (from, to) = if prng.below(2) == 0 { (from, to) } else { (to, from) };
                    assert_eq!(client.say(&format!("WATCH {from} {to}")), "OK");
                    let balance = |client: &mut Resp, of: &str| client.ask(&format!("GET {of}")).text().parse::<i64>();
                    let (here, there) = (balance(&mut client, from).unwrap(), balance(&mut client, to).unwrap());
                    let amount = prng.below(50) as i64;
                    let (here, there) =
                        (format!("SET {from} {}", here - amount), format!("SET {to} {}", there + amount));
                    let replies = client.ask_all(&["MULTI", &here, &there, &format!("INCR {moves}"), "EXEC"]);
                    let counter = if replies[4] == "nil" { refused } else { moved };
                    assert!(replies[4] == "nil" || replies[4].starts_with("[OK OK :"), "{replies:?}");
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for reader in 0..2 {
            let mut client = two.client_at(reader);
            let (accounts, is_over, looked) = (&accounts, &is_over, &looked);
            scope.spawn(move || {
                let one_by_one: Vec<String> = accounts.iter().map(|account| format!("GET {account}")).collect();
                let together = [format!("MGET {}", accounts.join(" "))];
                while !is_over.load(Ordering::Relaxed) {
                    for commands in [&one_by_one[..], &together] {
                        client.add_line("MULTI");
                        commands.iter().for_each(|command| client.add_line(command));
                        client.add_line("EXEC");
                        client.flush();
                        (0..=commands.len()).for_each(|_| assert!(!client.reply().is_error()));
                        let mut balances = client.reply().elements().to_vec();
                        if let [Value::Array(all)] = &balances[..] {
                            balances = all.clone();
                        }
                        let sum: i64 = balances.iter().map(|balance| balance.text().parse::<i64>().unwrap()).sum();
                        assert_eq!(sum, accounts.len() as i64 * EACH, "{balances:?}");
                        looked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        thread::sleep(1500 * MS);
        is_over.store(true, Ordering::Relaxed);
    });
    let (moved, refused, looked) = (moved.into_inner(), refused.into_inner(), looked.into_inner());
    println!("{moved} transactions, {refused} refused because of WATCH, {looked} sums");
    assert_eq!(client.say(&format!("GET {moves}")), moved.to_string());
    assert!(moved > 100 && looked > 100, "{moved} transactions, {looked} sums");
    assert!(refused > 0, "nobody ever met another: WATCH was not tested");
    two.assert_serves();
}

#[test]
fn whoever_has_seen_half_of_a_transaction_sees_the_other_half() {
    let Some(mut two) = Two::start() else { return };
    let halves = [two.key("half", 0), two.key("half", 1)];
    let (is_over, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for leader in 0..2 {
            let (mut client, halves, is_over) = (two.client_at(leader), &halves, &is_over);
            scope.spawn(move || {
                // Between the halves there is work that takes the shards several steps.
                let (here, there) = (&format!("{}.moved", halves[0]), &format!("{}.moved", halves[1]));
                let lines = [
                    "MULTI".to_string(),
                    format!("INCR {}", halves[leader as usize]),
                    format!("SET {here} 1"),
                    format!("RENAME {here} {there}"),
                    format!("RENAME {there} {here}"),
                    format!("INCR {}", halves[1 - leader as usize]),
                    "EXEC".to_string(),
                ];
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                while !is_over.load(Ordering::Relaxed) {
                    let reply = &client.ask_all(&lines)[6];
                    let words: Vec<&str> = reply[1..reply.len() - 1].split(' ').collect();
                    assert!(words.len() == 5 && words[0] == words[4] && words[1..4] == ["OK"; 3], "{reply}");
                }
            });
        }
        for reader in 0..2 {
            let mut clients = two.pair();
            let (halves, is_over, seen) = (&halves, &is_over, &seen);
            scope.spawn(move || {
                let mut round = reader;
                while !is_over.load(Ordering::Relaxed) {
                    // One half by one connection, then the other by any: no MULTI, each at the shard that owns it or not.
                    let (first, second) = (round % 2, round / 2 % 2);
                    let number = |value: Value| if value == Value::Null { 0 } else { value.text().parse().unwrap() };
                    let before: i64 = number(clients[first].ask(&format!("GET {}", halves[first])));
                    let after: i64 = number(clients[second].ask(&format!("GET {}", halves[1 - first])));
                    assert!(after >= before, "half {first} was {before}, then the other {after}");
                    round += 1;
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(1000 * MS);
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(seen.into_inner() > 1000);
    two.assert_serves();
}

#[test]
fn no_update_is_lost_between_transactions_and_plain_commands() {
    let Some(mut two) = Two::start() else { return };
    let keys = [two.key("sum", 0), two.key("sum", 1)];
    let mut client = two.client();
    assert_eq!(client.say(&format!("MSET {} 0 {} 0", keys[0], keys[1])), "OK");
    let (is_over, added, committed) =
        (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)], AtomicU64::new(0));
    thread::scope(|scope| {
        for shard in 0..2 {
            let (mut client, key, is_over, added) = (two.client(), &keys[shard], &is_over, &added[shard]);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    client.ask(&format!("INCR {key}")).integer();
                    added.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_micros(200));
                }
            });
            let (mut client, keys, is_over, committed) = (two.client_at(shard as i64), &keys, is_over, &committed);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(client.say(&format!("WATCH {} {}", keys[0], keys[1])), "OK");
                    let now = client.ask(&format!("MGET {} {}", keys[0], keys[1]));
                    let set = |number: usize| {
                        let value: i64 = now.elements()[number].text().parse().unwrap();
                        format!("SET {} {}", keys[number], value + 1)
                    };
                    let replies = client.ask_all(&["MULTI", &set(0), &set(1), "EXEC"]);
                    committed.fetch_add(u64::from(replies[3] == "[OK OK]"), Ordering::Relaxed);
                }
            });
        }
        thread::sleep(1000 * MS);
        is_over.store(true, Ordering::Relaxed);
    });
    let (committed, added) = (committed.into_inner(), added.map(AtomicU64::into_inner));
    println!("{committed} transactions beside {added:?} plain additions");
    assert!(committed > 50 && added.iter().all(|added| *added > 50), "{committed} beside {added:?}");
    assert_eq!(
        client.say(&format!("MGET {} {}", keys[0], keys[1])),
        format!("[{} {}]", committed + added[0], committed + added[1])
    );
    two.assert_serves();
}

#[test]
fn watch_sees_every_kind_of_change_at_either_shard() {
    let Some(mut two) = Two::start() else { return };
    let mut native = two.server.connect();
    let mut other = two.client();
    for mut client in two.pair() {
        for shard in 0..2 {
            let (key, elsewhere) = (two.key("watched", shard), two.key("elsewhere", 1 - shard));
            let sets = |line: &str| line.replace("KEY", &key).replace("ELSEWHERE", &elsewhere);
            // What happens between WATCH and MULTI, and whether EXEC goes ahead.
            let cases: &[(&str, bool)] = &[
                ("", true),
                ("GET KEY", true),
                ("EXISTS KEY", true),
                ("TOUCH KEY", true),
                ("SET ELSEWHERE 2", true),
                ("SET KEY 1 NX", true),
                ("SET KEY 1", false),
                ("SET KEY 2", false),
                ("SET KEY 2 XX", false),
                ("INCR KEY", false),
                ("APPEND KEY x", false),
                ("SETRANGE KEY 0 x", false),
                ("MSET ELSEWHERE 1 KEY 1", false),
                ("DEL KEY", false),
                ("GETDEL KEY", false),
                ("PEXPIRE KEY 100000", false),
                ("RENAME KEY ELSEWHERE", false),
                ("RENAME ELSEWHERE KEY", false),
                ("COPY ELSEWHERE KEY REPLACE", false),
                ("FLUSHALL", false),
                ("FLUSHDB", false),
                ("native SET", false),
                ("native DELETE", false),
                ("native FLUSH", false),
                ("mine", false),
                ("expiry", false),
                ("UNWATCH", true),
                ("transaction", false),
            ];
            for (change, goes) in cases {
                let told = format!("{change}, key of shard {shard}");
                other.say(&sets("MSET KEY 1 ELSEWHERE 1"));
                if *change == "expiry" {
                    assert_eq!(other.say(&sets("PEXPIRE KEY 40")), ":1");
                }
                assert_eq!(client.say(&sets("WATCH ELSEWHERE_2 KEY")), "OK");
                match *change {
                    "" => {}
                    "native SET" => assert_eq!(native.ask(SET, key.as_bytes(), b"1").status, 0),
                    "native DELETE" => assert_eq!(native.ask(DELETE, key.as_bytes(), b"").status, 0),
                    "native FLUSH" => assert_eq!(native.ask(FLUSH, b"", b"").status, 0),
                    "mine" => assert_eq!(client.say(&sets("SET KEY 1")), "OK"),
                    "expiry" => thread::sleep(60 * MS),
                    "UNWATCH" => {
                        assert_eq!(other.say(&sets("SET KEY 1")), "OK");
                        assert_eq!(client.say("UNWATCH"), "OK");
                    }
                    "transaction" => {
                        let replies = other.ask_all(&["MULTI", &sets("SET ELSEWHERE 1"), &sets("SET KEY 1"), "EXEC"]);
                        assert_eq!(replies[3], "[OK OK]");
                    }
                    change => assert!(!other.ask(&sets(change)).is_error(), "{told}"),
                }
                let replies = client.ask_all(&["MULTI", &sets("SET KEY mine"), &sets("SET ELSEWHERE mine"), "EXEC"]);
                assert_eq!(replies[3], if *goes { "[OK OK]" } else { "nil" }, "{told}");
                assert_eq!(client.say(&sets("GET KEY")) == "mine", *goes, "{told}");
                // The watch is over, whatever came of it.
                other.say(&sets("SET KEY 3"));
                assert_eq!(client.ask_all(&["MULTI", "PING", "EXEC"])[2], "[PONG]", "{told}");
            }
        }
    }
    two.assert_serves();
}

#[test]
fn an_error_in_the_middle_of_exec_leaves_the_others_done() {
    let Some(mut two) = Two::start() else { return };
    let (a, b) = (two.key("a", 0), two.key("b", 1));
    for mut client in two.pair() {
        assert_eq!(client.say(&format!("DEL {a} {b}")).len(), 2);
        let lines = [
            "MULTI".to_string(),
            format!("SET {a} text"),
            format!("INCR {a}"),
            format!("SET {b} 7"),
            format!("SETRANGE {b} -1 x"),
            format!("RENAME {a}.no {b}"),
            format!("INCR {b}"),
            format!("MGET {b} {a}"),
            "EXEC".to_string(),
        ];
        let replies = client.ask_all(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(
            replies[8],
            "[OK -ERR value is not an integer or out of range OK -ERR offset is out of range -ERR no such key :8 [8 text]]"
        );
        // What cannot be queued spoils the whole.
        for wrong in ["NOSUCHCOMMAND", "GET"] {
            let replies = client.ask_all(&["MULTI", &format!("SET {a} 1"), wrong, &format!("SET {b} 1"), "EXEC"]);
            assert!(replies[2].starts_with("-ERR ") && replies[3] == "QUEUED", "{replies:?}");
            assert!(replies[4].starts_with("-EXECABORT "), "{replies:?}");
        }
        assert_eq!(client.say(&format!("MGET {a} {b}")), "[text 8]");
    }
    two.assert_serves();
}

#[test]
fn a_client_that_leaves_right_after_exec_leaves_all_or_nothing_and_the_next_goes_ahead() {
    let Some(mut two) = Two::start() else { return };
    let (a, b) = (two.key("a", 0), two.key("b", 1));
    let mut watcher = two.client();
    let lines = ["MULTI".to_string(), format!("INCR {a}"), format!("INCR {b}"), "EXEC".to_string()];
    for round in 0..400 {
        let mut client = two.client();
        let count = if round % 5 == 4 { 20 } else { 1 };
        for _ in 0..count {
            lines.iter().for_each(|line| client.add_line(line));
        }
        client.flush();
        match round % 3 {
            // Unread replies make this a reset.
            0 => client.close(),
            1 => drop(client),
            _ => client.stream().shutdown(std::net::Shutdown::Write).unwrap(),
        }
        if round % 10 == 0 {
            let replies = watcher.ask_all(&["MULTI", &format!("GET {a}"), &format!("GET {b}"), "EXEC"]);
            let (first, second) = replies[3][1..replies[3].len() - 1].split_once(' ').expect("two values");
            assert_eq!(first, second, "round {round}");
        }
    }
    let both = format!("MGET {a} {b}");
    let before = watcher.say(&both);
    assert!(!before.contains("nil"), "nothing was done: {before}");
    let started = Instant::now();
    assert!(watcher.ask_all(&lines.iter().map(String::as_str).collect::<Vec<_>>())[3].starts_with("[:"));
    assert!(started.elapsed() < Duration::from_secs(1), "the next EXEC took {:?}", started.elapsed());
    two.assert_serves();
}

#[test]
fn a_client_killed_in_the_middle_of_multi_has_done_nothing() {
    let Some(mut two) = Two::start() else { return };
    let (a, b) = (two.key("a", 0), two.key("b", 1));
    let mut killer = two.client();
    assert_eq!(killer.say(&format!("MSET {a} 1 {b} 1")), "OK");
    for round in 0..40 {
        let mut client = two.client_at(round % 2);
        let id = client.ask("CLIENT ID").integer();
        let replies =
            client.ask_all(&[&format!("WATCH {a} {b}"), "MULTI", &format!("SET {a} 2"), &format!("SET {b} 2")]);
        assert_eq!(replies, ["OK", "OK", "QUEUED", "QUEUED"]);
        if round % 4 < 2 {
            assert_eq!(killer.say(&format!("CLIENT KILL ID {id}")), ":1");
            let _ = client.send_raw(b"*1\r\n$4\r\nEXEC\r\n");
            assert!(client.is_closed_within(PATIENCE), "a killed client is still connected");
        } else {
            client.close();
        }
        assert_eq!(killer.say(&format!("MGET {a} {b}")), "[1 1]");
    }
    assert!(
        eventually(PATIENCE, || killer.ask("CLIENT LIST").text().lines().count() == 1),
        "gone clients are listed: {}",
        killer.say("CLIENT LIST")
    );
    two.assert_serves();
}

// --- The key space ---------------------------------------------------------------------------

#[test]
fn scan_finds_every_key_that_stays_while_others_come_and_go_and_the_table_grows() {
    const STAY: usize = 50_000;
    let Some(mut two) = Two::start() else { return };
    let fill = |client: &mut Resp, name: &str, from: usize, to: usize| {
        for first in (from..to).step_by(500) {
            client.add(
                &["MSET".to_string()]
                    .into_iter()
                    .chain((first..(first + 500).min(to)).flat_map(|number| [format!("{name}:{number}"), "x".into()]))
                    .collect::<Vec<_>>(),
            );
        }
        client.flush();
        (from..to).step_by(500).for_each(|_| assert_eq!(client.reply().to_string(), "OK"));
    };
    fill(&mut two.client(), "stay", 0, STAY);
    let (is_over, churned) = (AtomicBool::new(false), AtomicU64::new(0));
    let scanned = thread::scope(|scope| {
        let (is_over, churned, two, fill) = (&is_over, &churned, &two, &fill);
        scope.spawn(move || {
            let mut client = two.client();
            let mut round = 0;
            while !is_over.load(Ordering::Relaxed) {
                fill(&mut client, "go", round * 1000, (round + 1) * 1000);
                if round >= 2 {
                    let names: Vec<String> =
                        ((round - 2) * 1000..(round - 1) * 1000 - 100).map(|number| format!("go:{number}")).collect();
                    client.add(&[vec!["UNLINK".to_string()], names].concat());
                    client.flush();
                    assert_eq!(client.reply().integer(), 900);
                }
                round += 1;
                churned.fetch_add(1000, Ordering::Relaxed);
            }
        });
        let mut scans = Vec::new();
        for (client, count) in two.pair().iter_mut().zip([10, 500]) {
            scans.push(scan(client, &format!("COUNT {count}")).0);
        }
        is_over.store(true, Ordering::Relaxed);
        scans
    });
    let churned = churned.into_inner();
    assert!(churned >= 2000, "only {churned} keys came and went");
    for found in scanned {
        let stayed = found.iter().filter(|key| key.starts_with("stay:")).count();
        assert_eq!(stayed, STAY, "a scan has missed some");
    }
    assert_eq!(two.server.counter("evicted"), 0, "the server is too small for this test");

    // Nothing moves any more: all say the same.
    let [mut a, mut b] = two.pair();
    let (found, steps) = scan(&mut a, "");
    // A digit at a time: the keys of one reply must fit the memory for replies.
    let ending = |digit: u32| b.ask(&format!("KEYS *{digit}")).elements().iter().map(Value::text).collect::<Vec<_>>();
    let keys: BTreeSet<String> = (0..10).flat_map(ending).collect();
    assert!(keys == found, "KEYS has {} keys, SCAN {} in {steps} steps", keys.len(), found.len());
    assert_eq!(a.ask("DBSIZE").integer() as usize, keys.len());
    let matched = scan(&mut b, "MATCH *:1234? COUNT 1000").0;
    assert_eq!(
        matched,
        keys.iter().filter(|key| key.contains(":1234") && key.len() == key.find(':').unwrap() + 6).cloned().collect()
    );
    for client in [&mut a, &mut b] {
        let key = client.ask("RANDOMKEY").text();
        assert!(keys.contains(&key), "RANDOMKEY drew '{key}', which is not there");
    }
    assert_eq!(b.say("FLUSHALL"), "OK");
    assert_eq!((a.say("DBSIZE"), a.say("RANDOMKEY"), a.say("KEYS *")), (":0".into(), "nil".into(), "[]".into()));
    assert!(scan(&mut a, "").0.is_empty());
    two.assert_serves();
}

#[test]
fn randomkey_draws_from_both_shards() {
    let Some(mut two) = Two::start() else { return };
    let mut client = two.client();
    let keys = [two.keys("drawn", 0, 50), two.keys("drawn", 1, 50)].concat();
    keys.iter().for_each(|key| assert_eq!(client.say(&format!("SET {key} 1")), "OK"));
    for mut client in two.pair() {
        let mut drawn = [0, 0];
        for _ in 0..200 {
            drawn[two.shard_of(&client.ask("RANDOMKEY").text())] += 1;
        }
        // A fair coin leaves these bounds once in a billion times.
        assert!(drawn.iter().all(|times| (57..=143).contains(times)), "drawn by shard: {drawn:?}");
    }
    two.assert_serves();
}

/// The keys that one whole SCAN finds, and its steps.
fn scan(client: &mut Resp, options: &str) -> (BTreeSet<String>, usize) {
    let (mut found, mut cursor, mut steps) = (BTreeSet::new(), "0".to_string(), 0);
    loop {
        let reply = client.ask(format!("SCAN {cursor} {options}").trim_end());
        let [next, keys] = reply.elements() else { panic!("no reply to SCAN: {reply}") };
        found.extend(keys.elements().iter().map(Value::text));
        steps += 1;
        cursor = next.text();
        if cursor == "0" {
            return (found, steps);
        }
        assert!(steps < 200_000, "the scan does not end");
    }
}

// --- Channels --------------------------------------------------------------------------------

#[test]
fn messages_reach_channels_and_patterns_at_both_shards_in_the_order_of_each_sender() {
    const EACH: usize = 1500;
    let Some(mut two) = Two::start() else { return };
    // At each shard: one by channel, one by pattern, each in RESP2 and RESP3.
    let mut listeners = Vec::new();
    for shard in 0..2 {
        for is_pattern in [false, true] {
            for is_resp3 in [false, true] {
                let mut client = two.client_at(shard);
                if is_resp3 {
                    client = hello3(client);
                }
                let line = if is_pattern { "PSUBSCRIBE ne?s" } else { "SUBSCRIBE news" };
                client.add_line(line);
                client.flush();
                let told = client.next().expect("a confirmation").to_string();
                assert!(told.ends_with(&format!("[{} :1]", line.to_lowercase())), "{told}");
                listeners.push((client, is_pattern, is_resp3));
            }
        }
    }
    let count = listeners.len();
    thread::scope(|scope| {
        for (sender, mut client) in two.pair().into_iter().enumerate() {
            scope.spawn(move || {
                for number in 0..EACH {
                    client.add(&["PUBLISH".to_string(), "news".into(), format!("{sender} {number}")]);
                    // Nobody listens to this one.
                    client.add_line("PUBLISH nuws no");
                    if number % 50 == 49 {
                        client.flush();
                        for _ in 0..50 {
                            assert_eq!(client.reply().integer() as usize, count);
                            assert_eq!(client.reply().integer(), 0);
                        }
                    }
                }
            });
        }
        for (client, is_pattern, is_resp3) in &mut listeners {
            scope.spawn(move || {
                let head: &[&str] = if *is_pattern { &["pmessage", "ne?s", "news"] } else { &["message", "news"] };
                let mut next = [0; 2];
                for _ in 0..2 * EACH {
                    let message = client.next().expect("a message");
                    assert_eq!(matches!(message, Value::Push(_)), *is_resp3);
                    let words: Vec<String> = message.elements().iter().map(Value::text).collect();
                    let (text, before) = words.split_last().unwrap();
                    assert_eq!(before, head);
                    let (sender, number) = text.split_once(' ').expect("a sender and a number");
                    let sender: usize = sender.parse().unwrap();
                    assert_eq!(number, next[sender].to_string(), "out of order from sender {sender}");
                    next[sender] += 1;
                }
            });
        }
    });
    let mut client = two.client();
    assert_eq!(client.say("PUBSUB NUMSUB news none"), "[news :4 none :0]");
    assert_eq!(client.say("PUBSUB CHANNELS"), "[news]");
    assert_eq!(client.say("PUBSUB NUMPAT"), ":1");
    drop(listeners);
    assert!(eventually(PATIENCE, || client.say("PUBSUB NUMSUB news") == "[news :0]"));
    assert_eq!((client.say("PUBSUB NUMPAT"), client.say("PUBLISH news x")), (":0".into(), ":0".into()));
    two.assert_serves();
}

#[test]
fn a_listener_that_never_reads_is_dropped_and_the_others_hear_everything() {
    let Some(mut two) = Two::start() else { return };
    flood(&two, 1);
    two.server.assert_within_memory(64 << 20);
    two.assert_serves();
}

#[test]
fn several_listeners_that_never_read_cost_the_others_nothing() {
    let Some(mut two) = Two::start() else { return };
    flood(&two, 4);
    two.server.assert_within_memory(64 << 20);
    two.assert_serves();
}

#[test]
fn a_listener_that_is_dropped_is_counted_no_more() {
    let Some(mut two) = Two::start() else { return };
    let mut lazy = two.client();
    assert_eq!(lazy.say("SUBSCRIBE flood"), "[subscribe flood :1]");
    let (mut sender, text, started) = (two.client(), "x".repeat(8000), Instant::now());
    while sender.ask_words(&["PUBLISH", "flood", &text]).integer() == 1 {
        assert!(started.elapsed() < 2000 * MS, "it is still listening");
    }
    assert_eq!(sender.say("PUBSUB NUMSUB flood"), "[flood :0]");
    two.assert_serves();
}

/// Sends 24 MB to `count` listeners that never read, and one at each shard that does, the lazy ones at each shard in turn.
fn flood(two: &Two, count: usize) {
    const MESSAGES: u64 = 3000;
    let text = "x".repeat(8000);
    for shard in 0..2 {
        let mut lazy: Vec<Resp> = (0..count).map(|_| two.client_at(shard)).collect();
        let mut keen = two.pair();
        for client in lazy.iter_mut().chain(&mut keen) {
            assert_eq!(client.say("SUBSCRIBE flood"), "[subscribe flood :1]");
        }
        let heard = [AtomicU64::new(0), AtomicU64::new(0)];
        thread::scope(|scope| {
            for (client, heard) in keen.iter_mut().zip(&heard) {
                scope.spawn(move || {
                    for number in 0..MESSAGES {
                        let Ok(message) = client.try_reply() else { panic!("closed before message {number}") };
                        assert!(message.elements()[2].text().starts_with(&format!("{number} ")), "message {number}");
                        heard.store(number + 1, Ordering::Relaxed);
                    }
                });
            }
            let mut sender = two.client_at(1 - shard);
            for number in 0..MESSAGES {
                sender.ask_words(&["PUBLISH", "flood", &format!("{number} {text}")]).integer();
                // Those who read are never far behind: it is not they who fill the memory.
                let near = || heard.iter().all(|heard| heard.load(Ordering::Relaxed) + 8 > number);
                assert!(eventually_soon(near), "a keen listener has not heard {number} messages");
            }
        });
        for client in &mut lazy {
            // What it was sent before is whole, and then there is no more.
            let mut number = 0;
            while let Ok(message) = client.try_reply() {
                assert!(message.elements()[2].text().starts_with(&format!("{number} ")), "message {number}");
                number += 1;
            }
            assert!(number < MESSAGES, "24 MB fit between the server and one who does not read");
        }
    }
}

/// Waits five seconds for what comes in microseconds.
fn eventually_soon(holds: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !holds() {
        if started.elapsed() > Duration::from_secs(5) {
            return false;
        }
        thread::yield_now();
    }
    true
}

// --- Clients' caches -------------------------------------------------------------------------

/// What a key was, from when to when, as far as its only writer knows.
#[derive(Clone, Copy)]
struct State {
    /// When the write was sent that made it so.
    from: Instant,
    /// When the next write had been acknowledged, if there was one, or it expired.
    until: Option<Instant>,
    value: Option<u64>,
}

/// A client that keeps what it reads until it is told otherwise.
struct Caching {
    client: Resp,
    held: HashMap<usize, Option<u64>>,
    told: u64,
}

impl Caching {
    fn forget(&mut self, numbers: &HashMap<String, usize>) {
        while let Some(push) = self.client.pushes.pop_front() {
            match push.elements() {
                [Value::Bulk(kind), Value::Null] if kind == b"invalidate" => self.held.clear(),
                [Value::Bulk(kind), Value::Array(keys)] if kind == b"invalidate" => {
                    for key in keys {
                        self.held.remove(&numbers[&key.text()]);
                    }
                }
                _ => panic!("{push}"),
            }
            self.told += 1;
        }
    }

    /// Keeps a reply; what came before it is heard first.
    fn keep(&mut self, number: usize, reply: &Value, numbers: &HashMap<String, usize>) {
        self.forget(numbers);
        let value = if *reply == Value::Null { None } else { Some(reply.text().parse().expect("a number")) };
        self.held.insert(number, value);
    }

    fn read(&mut self, keys: &[String], wanted: &[usize], how: u64, numbers: &HashMap<String, usize>) {
        match how {
            // All in one.
            0 => {
                let words: Vec<&str> =
                    ["MGET"].into_iter().chain(wanted.iter().map(|number| keys[*number].as_str())).collect();
                let reply = self.client.ask_words(&words);
                wanted.iter().zip(reply.elements()).for_each(|(number, reply)| self.keep(*number, reply, numbers));
            }
            1 => {
                self.client.add_line("MULTI");
                wanted.iter().for_each(|number| self.client.add_line(&format!("GET {}", keys[*number])));
                self.client.add_line("EXEC");
                self.client.flush();
                (0..=wanted.len()).for_each(|_| assert!(!self.client.reply().is_error()));
                let reply = self.client.reply();
                wanted.iter().zip(reply.elements()).for_each(|(number, reply)| self.keep(*number, reply, numbers));
            }
            // Together: news may come between the replies.
            _ => {
                wanted.iter().for_each(|number| self.client.add_line(&format!("GET {}", keys[*number])));
                self.client.flush();
                for number in wanted {
                    let reply = self.client.reply();
                    self.keep(*number, &reply, numbers);
                }
            }
        }
    }
}

#[test]
fn a_client_that_drops_what_it_is_told_to_drop_serves_nothing_stale() {
    const STALE_MAX: Duration = Duration::from_secs(1);
    let Some(mut two) = Two::start() else { return };
    let keys = [two.keys("near", 0, 100), two.keys("near", 1, 100)].concat();
    let numbers: HashMap<String, usize> = keys.iter().cloned().zip(0..).collect();
    let began = Instant::now();
    let absent = State { from: began, until: None, value: None };
    let history: Vec<Mutex<Vec<State>>> = keys.iter().map(|_| Mutex::new(vec![absent])).collect();
    let (writing, is_over) = (AtomicU64::new(3), AtomicBool::new(false));
    let (hits, told) = (AtomicU64::new(0), AtomicU64::new(0));
    let caches: Mutex<Vec<Caching>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for writer in 0..3 {
            let mut client = two.client_at(writer as i64 % 2);
            let (keys, history, writing) = (&keys, &history, &writing);
            scope.spawn(move || {
                let (mut prng, mut version) = (Prng::new(writer as u64 + 1), 0);
                while began.elapsed() < 1200 * MS {
                    // A key has one writer, so that it knows the order of its values.
                    let mine = || (prng.below(keys.len() as u64 / 3) as usize) * 3 + writer;
                    let chosen: Vec<usize> = std::iter::repeat_with(mine).take(2).collect();
                    let chosen: Vec<usize> = chosen.into_iter().filter(|number| *number < keys.len()).collect();
                    let Some(&number) = chosen.first() else { continue };
                    version += 1;
                    let key = &keys[number];
                    let sent = Instant::now();
                    let mut changed = vec![(number, Some(version), None)];
                    match prng.below(10) {
                        0..=3 => assert_eq!(client.say(&format!("SET {key} {version}")), "OK"),
                        4 | 5 => {
                            let ttl = 30 + prng.below(200);
                            changed[0].2 = Some(ttl);
                            assert_eq!(client.say(&format!("SET {key} {version} PX {ttl}")), "OK");
                        }
                        6 => {
                            client.ask(&format!("DEL {key}")).integer();
                            changed[0].1 = None;
                        }
                        7 if chosen.len() == 2 && chosen[0] != chosen[1] => {
                            let other = &keys[chosen[1]];
                            assert_eq!(client.say(&format!("MSET {key} {version} {other} {version}")), "OK");
                            changed.push((chosen[1], Some(version), None));
                        }
                        8 if chosen.len() == 2 && chosen[0] != chosen[1] => {
                            let lines = [format!("SET {key} {version}"), format!("DEL {}", keys[chosen[1]])];
                            let replies = client.ask_all(&["MULTI", &lines[0], &lines[1], "EXEC"]);
                            assert!(replies[3].starts_with("[OK :"), "{replies:?}");
                            changed.push((chosen[1], None, None));
                        }
                        _ => {
                            assert_eq!(client.say(&format!("SET {key} {version}")), "OK");
                        }
                    }
                    let acknowledged = Instant::now();
                    for (number, value, ttl) in changed {
                        let mut states = history[number].lock().unwrap();
                        let last = states.last_mut().unwrap();
                        last.until = Some(last.until.unwrap_or(acknowledged).min(acknowledged));
                        let expires = ttl.map(|ttl| acknowledged + MS * ttl as u32);
                        states.push(State { from: sent, until: expires, value });
                        if let Some(ttl) = ttl {
                            states.push(State { from: sent + MS * ttl as u32 - 5 * MS, until: None, value: None });
                        }
                    }
                }
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for reader in 0..4 {
            let mut client = hello3(two.client_at(reader % 2));
            assert_eq!(client.say("CLIENT TRACKING ON"), "OK");
            let (keys, numbers, history, is_over) = (&keys, &numbers, &history, &is_over);
            let (hits, told, caches) = (&hits, &told, &caches);
            scope.spawn(move || {
                let mut caching = Caching { client, held: HashMap::new(), told: 0 };
                let (mut prng, mut served) = (Prng::new(reader as u64 + 77), Vec::new());
                while !is_over.load(Ordering::Relaxed) {
                    caching.client.gather_pushes();
                    caching.forget(numbers);
                    let wanted: Vec<usize> = (0..3).map(|_| prng.below(keys.len() as u64) as usize).collect();
                    let now = Instant::now();
                    let missing: Vec<usize> =
                        wanted.iter().filter(|number| !caching.held.contains_key(number)).copied().collect();
                    for number in &wanted {
                        if let Some(value) = caching.held.get(number) {
                            served.push((now, *number, *value));
                        }
                    }
                    if missing.is_empty() {
                        thread::sleep(Duration::from_micros(50));
                    } else {
                        caching.read(keys, &missing, prng.below(5), numbers);
                    }
                }
                hits.fetch_add(served.len() as u64, Ordering::Relaxed);
                told.fetch_add(caching.told, Ordering::Relaxed);
                caches.lock().unwrap().push(caching);
                for (at, number, value) in served {
                    let states = history[number].lock().unwrap();
                    let was_so = states.iter().any(|state| {
                        state.value == value
                            && state.from <= at
                            && state.until.is_none_or(|until| until + STALE_MAX >= at)
                    });
                    let key = &keys[number];
                    assert!(was_so, "'{key}' was served as {value:?} at {:?}, too old", at - began);
                }
            });
        }
        assert!(eventually(PATIENCE, || writing.load(Ordering::Relaxed) == 0));
        // Keys expire for a quarter of a second more.
        thread::sleep(400 * MS);
        is_over.store(true, Ordering::Relaxed);
    });
    let (hits, told) = (hits.into_inner(), told.into_inner());
    println!("{hits} hits, {told} news");
    assert!(hits > 1000 && told > 100, "{hits} hits, {told} news: nothing was tested");
    let mut plain = two.client();
    let is_nil = |value: &Value| if *value == Value::Null { None } else { value.text().parse::<u64>().ok() };
    let truth: Vec<Option<u64>> =
        plain.ask(&format!("MGET {}", keys.join(" "))).elements().iter().map(is_nil).collect();
    for caching in caches.into_inner().unwrap().iter_mut() {
        caching.client.gather_pushes();
        caching.forget(&numbers);
        let wrong: Vec<_> = caching.held.iter().filter(|(number, value)| truth[**number] != **value).collect();
        assert!(wrong.is_empty(), "held, but not so: {wrong:?}");
        assert!(!caching.held.is_empty(), "nothing is held at the end");
    }
    two.assert_serves();
}

#[test]
fn what_a_client_has_read_is_told_once_when_it_changes_in_any_way() {
    let Some(mut two) = Two::start() else { return };
    let mut native = two.server.connect();
    let mut other = two.client();
    for shard in 0..2 {
        let mut client = hello3(two.client_at(shard));
        assert_eq!(client.say("CLIENT TRACKING ON"), "OK");
        for owner in 0..2 {
            let (key, elsewhere) = (two.key("told", owner), two.key("elsewhere", 1 - owner));
            let changes = [
                "SET KEY 1",
                "INCR KEY",
                "DEL KEY",
                "MSET ELSEWHERE 2 KEY 2",
                "PEXPIRE KEY 30",
                "RENAME KEY ELSEWHERE",
                "RENAME ELSEWHERE KEY",
                "COPY ELSEWHERE KEY REPLACE",
                "EXPIRE KEY -1",
                "GETDEL KEY",
                "native SET",
                "native DELETE",
                "mine",
            ];
            for change in changes {
                let told = format!("{change}, client at shard {shard}, key at {owner}");
                other.say(&format!("MSET {key} 1 {elsewhere} 1"));
                client.gather_pushes();
                client.pushes.clear();
                for read in ["GET", "MGET", "TTL", "STRLEN", "EXISTS"] {
                    client.ask(&format!("{read} {key}"));
                }
                match change {
                    "native SET" => assert_eq!(native.ask(SET, key.as_bytes(), b"1").status, 0),
                    "native DELETE" => assert_eq!(native.ask(DELETE, key.as_bytes(), b"").status, 0),
                    "mine" => assert_eq!(client.say(&format!("SET {key} 5")), "OK"),
                    change => {
                        let line = change.replace("KEY", &key).replace("ELSEWHERE", &elsewhere);
                        assert!(!other.ask(&line).is_error(), "{told}");
                    }
                }
                assert_eq!(
                    client.push_within(PATIENCE).map(|it| it.to_string()),
                    Some(format!(">[invalidate [{key}]]")),
                    "{told}"
                );
                // It was told; until it reads again there is no more to tell.
                other.say(&format!("SET {key} 9"));
                assert_eq!(client.say("PING"), "PONG");
                assert_eq!(client.push_within(5 * MS), None, "{told}");
            }
            for flush in ["FLUSHALL", "FLUSHDB", "native FLUSH"] {
                client.ask(&format!("GET {key}"));
                match flush {
                    "native FLUSH" => assert_eq!(native.ask(FLUSH, b"", b"").status, 0),
                    flush => assert_eq!(other.say(flush), "OK"),
                }
                // Each shard tells for itself.
                assert_eq!(client.push(), ">[invalidate nil]", "{flush}");
                client.push_within(20 * MS);
            }
            // A key that is not there is remembered as well, and one with an expiry is told when it comes.
            assert_eq!(client.say(&format!("GET {key}")), "nil");
            other.say(&format!("SET {key} 1 PX 40"));
            assert_eq!(client.push(), format!(">[invalidate [{key}]]"));
            assert_eq!(client.say(&format!("GET {key}")), "1");
            assert_eq!(client.push(), format!(">[invalidate [{key}]]"));
            assert_eq!(client.say(&format!("GET {key}")), "nil");
        }
        assert_eq!(client.say("CLIENT TRACKING OFF"), "OK");
    }
    two.assert_serves();
}

#[test]
fn an_expiry_is_told_however_often_keys_that_live_long_were_read() {
    let Some(mut two) = Two::start() else { return };
    for owner in 0..2 {
        let (long, short) = (two.key("long", owner), two.key("short", owner));
        let mut client = hello3(two.client());
        assert_eq!(client.say("CLIENT TRACKING ON"), "OK");
        assert_eq!(client.say(&format!("SET {long} 1 EX 10000")), "OK");
        for _ in 0..10 {
            (0..2000).for_each(|_| client.add_line(&format!("GET {long}")));
            client.flush();
            (0..2000).for_each(|_| assert_eq!(client.reply().to_string(), "1"));
        }
        client.pushes.clear();
        assert_eq!(client.say(&format!("SET {short} 1 PX 50")), "OK");
        assert_eq!(client.say(&format!("GET {short}")), "1");
        let told = client.push_within(Duration::from_secs(1)).map(|push| push.to_string());
        assert_eq!(told, Some(format!(">[invalidate [{short}]]")), "key of shard {owner}");
    }
    two.assert_serves();
}

#[test]
fn what_is_read_after_much_was_forgotten_is_told_when_it_changes_and_not_before() {
    let Some(mut two) = Two::start() else { return };
    let mut client = hello3(two.client());
    let mut other = two.client();
    assert_eq!(client.say("CLIENT TRACKING ON"), "OK");
    // Many times what is remembered of 64 MiB.
    for first in (0..40_000).step_by(500) {
        let names: Vec<String> = (first..first + 500).map(|number| format!("many:{number}")).collect();
        client.add(&[&["MGET".to_string()], &names[..]].concat());
        client.flush();
        client.reply();
    }
    while client.push_within(50 * MS).is_some() {}
    for owner in 0..2 {
        let key = two.key("calm", owner);
        assert_eq!(client.say(&format!("GET {key}")), "nil");
        // The oldest make room for it; it itself stays.
        let told = format!(">[invalidate [{key}]]");
        while let Some(push) = client.push_within(50 * MS) {
            assert_ne!(push.to_string(), told, "told without a change");
        }
        assert_eq!(other.say(&format!("SET {key} 1")), "OK");
        assert_eq!(client.push(), told);
    }
    two.assert_serves();
}

#[test]
fn broadcasts_tell_of_every_key_with_a_prefix_at_either_shard() {
    let Some(mut two) = Two::start() else { return };
    for shard in 0..2 {
        let mut client = hello3(two.client_at(shard));
        assert_eq!(client.say("CLIENT TRACKING ON BCAST PREFIX user: PREFIX job:"), "OK");
        let mut writer = two.client_at(1 - shard);
        let mut expected = BTreeSet::new();
        for number in 0..500 {
            let name = ["user:", "job:", "other:", "use"][number % 4];
            let key = format!("{name}{number}");
            writer.add_line(&format!("SET {key} {number}"));
            if number % 4 < 2 {
                expected.insert(key);
            }
        }
        writer.flush();
        (0..500).for_each(|_| assert_eq!(writer.reply().to_string(), "OK"));
        assert_eq!(told_keys(&mut client, &expected), expected);
        assert_eq!(client.push_within(5 * MS), None);

        // Those that expire are told again, none of them read.
        let expiring: BTreeSet<String> = (0..40).map(|number| format!("user:soon{number}")).collect();
        expiring.iter().for_each(|key| assert_eq!(writer.say(&format!("SET {key} 1 PX 150")), "OK"));
        assert_eq!(told_keys(&mut client, &expiring), expiring);
        assert_eq!(told_keys(&mut client, &expiring), expiring, "expiries");

        assert_eq!(client.say("CLIENT TRACKING OFF"), "OK");
        assert_eq!(writer.say("MSET user:1 1 user:2 2 user:3 3 user:4 4"), "OK");
        assert_eq!(client.push_within(20 * MS), None);
    }
    two.assert_serves();
}

/// Keys that a client is told to drop, until all of `expected` are among them or no more comes.
fn told_keys(client: &mut Resp, expected: &BTreeSet<String>) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    while !told.is_superset(expected)
        && let Some(push) = client.push_within(Duration::from_secs(2))
    {
        told.extend(push.elements()[1].elements().iter().map(Value::text));
    }
    told
}

#[test]
fn a_broadcast_begins_with_its_acknowledgement() {
    let Some(mut two) = Two::start() else { return };
    let mut writers = two.pair();
    let keys = [two.key("now", 0), two.key("now", 1)];
    let mut clients = two.pair().map(hello3);
    for round in 0..200 {
        let (client, writer) = (&mut clients[round % 2], &mut writers[round / 2 % 2]);
        let key = &keys[round / 4 % 2];
        assert_eq!(client.say("CLIENT TRACKING ON BCAST PREFIX now"), "OK");
        assert_eq!(writer.say(&format!("SET {key} {round}")), "OK");
        assert_eq!(
            client.push_within(Duration::from_secs(1)).map(|it| it.to_string()),
            Some(format!(">[invalidate [{key}]]")),
            "round {round}"
        );
        assert_eq!(client.say("CLIENT TRACKING OFF"), "OK");
    }
    two.assert_serves();
}

#[test]
fn broadcasts_tell_of_ten_thousand_expiries() {
    let Some(mut two) = Two::start() else { return };
    let mut client = hello3(two.client_at(0));
    let mut writer = two.client_at(1);
    assert_eq!(client.say("CLIENT TRACKING ON BCAST PREFIX soon:"), "OK");
    let all: BTreeSet<String> = (0..10_000).map(|number| format!("soon:{number}")).collect();
    let reader = thread::spawn(move || {
        // Written, then expired; or "all" at any time after the last was written.
        let (mut told, mut is_all) = (HashMap::<String, usize>::new(), false);
        let until = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < until && !(told.len() == 10_000 && told.values().all(|times| *times >= 2)) {
            let Some(push) = client.push_within(100 * MS) else { continue };
            match &push.elements()[1] {
                Value::Null => is_all = true,
                keys => keys.elements().iter().for_each(|key| *told.entry(key.text()).or_default() += 1),
            }
        }
        (told, is_all)
    });
    for keys in all.iter().collect::<Vec<_>>().chunks(500) {
        keys.iter().for_each(|key| writer.add_line(&format!("SET {key} x PX 1000")));
        writer.flush();
        keys.iter().for_each(|_| assert_eq!(writer.reply().to_string(), "OK"));
    }
    let (told, is_all) = reader.join().unwrap();
    let twice = told.values().filter(|times| **times >= 2).count();
    assert!(
        is_all || twice == 10_000,
        "of 10,000 keys {} were told as written and {twice} as expired, none as 'all'",
        told.len()
    );
    two.assert_serves();
}

#[test]
fn opt_in_tells_only_of_what_was_read_after_caching_yes() {
    let Some(mut two) = Two::start() else { return };
    let (a, b, c) = (two.key("a", 0), two.key("b", 1), two.key("c", 1));
    let mut other = two.client();
    for mut client in two.pair().map(hello3) {
        assert_eq!(client.say("CLIENT TRACKING ON OPTIN"), "OK");
        other.say(&format!("MSET {a} 1 {b} 1 {c} 1"));
        // MGET over both shards counts as the next command; the one behind it does not.
        assert_eq!(
            client.ask_all(&["CLIENT CACHING YES", &format!("MGET {a} {b}"), &format!("GET {c}")]),
            ["OK", "[1 1]", "1"]
        );
        assert_eq!(other.say(&format!("MSET {c} 2 {b} 2 {a} 2")), "OK");
        let told: BTreeSet<String> = [client.push(), client.push()].into();
        assert_eq!(told, BTreeSet::from([format!(">[invalidate [{a}]]"), format!(">[invalidate [{b}]]")]));
        assert_eq!(client.push_within(10 * MS), None);
        assert_eq!(client.ask_all(&["CLIENT TRACKING OFF", "CLIENT TRACKING ON OPTOUT"]), ["OK", "OK"]);
        client.ask_all(&["CLIENT CACHING NO", &format!("GET {a}"), &format!("GET {b}")]);
        assert_eq!(other.say(&format!("MSET {a} 4 {b} 4")), "OK");
        assert_eq!(client.push(), format!(">[invalidate [{b}]]"));
        assert_eq!(client.push_within(10 * MS), None);
        assert_eq!(client.say("CLIENT TRACKING OFF"), "OK");
    }
    two.assert_serves();
}

#[test]
fn client_caching_is_about_the_whole_transaction_that_follows() {
    let Some(mut two) = Two::start() else { return };
    let (a, b) = (two.key("a", 0), two.key("b", 1));
    let mut other = two.client();
    for mut client in two.pair().map(hello3) {
        assert_eq!(client.say("CLIENT TRACKING ON OPTIN"), "OK");
        let lines = ["CLIENT CACHING YES", "MULTI", &format!("GET {a}"), &format!("GET {b}"), "EXEC"];
        client.ask_all(&lines);
        assert_eq!(other.say(&format!("MSET {a} 3 {b} 3")), "OK");
        let told = told_keys(&mut client, &BTreeSet::from([a.clone(), b.clone()]));
        assert_eq!(told, BTreeSet::from([a.clone(), b.clone()]));
        // And about that one alone.
        client.ask_all(&[&format!("GET {a}"), &format!("GET {b}")]);
        assert_eq!(other.say(&format!("MSET {a} 4 {b} 4")), "OK");
        assert_eq!(client.push_within(10 * MS), None);
    }
    two.assert_serves();
}

#[test]
fn a_client_that_wants_no_loop_is_told_only_of_what_others_change() {
    let Some(mut two) = Two::start() else { return };
    let (a, b) = (two.key("a", 0), two.key("b", 1));
    let mut other = two.client();
    for mode in ["NOLOOP", "BCAST NOLOOP"] {
        for mut client in two.pair().map(hello3) {
            assert_eq!(client.say(&format!("CLIENT TRACKING ON {mode}")), "OK");
            for key in [&a, &b] {
                client.ask(&format!("GET {key}"));
                assert_eq!(client.say(&format!("SET {key} mine")), "OK");
                assert_eq!(client.ask_all(&["MULTI", &format!("SET {key} mine"), "EXEC"])[2], "[OK]");
                assert_eq!(client.push_within(10 * MS), None, "{mode}");
                client.ask(&format!("GET {key}"));
                assert_eq!(other.say(&format!("SET {key} other")), "OK");
                assert_eq!(client.push(), format!(">[invalidate [{key}]]"), "{mode}");
            }
            assert_eq!(client.say(&format!("MSET {a} mine {b} mine")), "OK");
            assert_eq!(client.push_within(10 * MS), None, "{mode}");
        }
    }
    two.assert_serves();
}

#[test]
fn news_are_redirected_to_a_client_of_either_shard_and_version() {
    let Some(mut two) = Two::start() else { return };
    let (a, b) = (two.key("a", 0), two.key("b", 1));
    let mut other = two.client();
    for (from, to) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for mode in ["", " BCAST"] {
            // RESP2: a client that listens to the channel of invalidations.
            let mut receiver = two.client_at(to);
            let id = receiver.ask("CLIENT ID").integer();
            assert_eq!(receiver.say("SUBSCRIBE __redis__:invalidate"), "[subscribe __redis__:invalidate :1]");
            let mut client = two.client_at(from);
            assert_eq!(client.say(&format!("CLIENT TRACKING ON REDIRECT {id}{mode}")), "OK");
            assert_eq!(client.say("CLIENT GETREDIR"), format!(":{id}"));
            for key in [&a, &b] {
                client.ask(&format!("GET {key}"));
                assert_eq!(other.say(&format!("SET {key} 1")), "OK");
                assert_eq!(receiver.reply().to_string(), format!("[message __redis__:invalidate [{key}]]"));
            }
            assert_eq!(other.say("FLUSHALL"), "OK");
            assert_eq!(receiver.reply().to_string(), "[message __redis__:invalidate nil]");
            assert!(!client.has_more(5 * MS), "the client itself is told too");
            drop((client, receiver));

            let mut receiver = hello3(two.client_at(to));
            let id = receiver.ask("CLIENT ID").integer();
            let mut client = hello3(two.client_at(from));
            assert_eq!(client.say(&format!("CLIENT TRACKING ON REDIRECT {id}{mode}")), "OK");
            for key in [&a, &b] {
                client.ask(&format!("GET {key}"));
                assert_eq!(other.say(&format!("SET {key} 2")), "OK");
                assert_eq!(receiver.push(), format!(">[invalidate [{key}]]"));
            }
            // The receiver leaves: with the next news the client hears of that.
            receiver.close();
            assert!(eventually(PATIENCE, || !other.ask("CLIENT LIST").text().contains(&format!("id={id} "))));
            client.ask(&format!("GET {a}"));
            assert_eq!(other.say(&format!("SET {a} 3")), "OK");
            assert_eq!(client.push(), format!(">[tracking-redir-broken :{id}]"), "from {from} to {to}{mode}");
            client.close();
        }
    }
    let mut client = two.client();
    assert!(client.ask("CLIENT TRACKING ON REDIRECT 123456789").is_error());
    two.assert_serves();
}

// --- Connections -----------------------------------------------------------------------------

#[test]
fn client_list_and_kill_reach_both_shards() {
    let Some(mut two) = Two::start() else { return };
    let mut killer = two.client_at(0);
    let mut clients: Vec<Resp> = (0..8).map(|number| two.client_at(number % 2)).collect();
    let ids: Vec<i64> = clients.iter_mut().map(|client| client.ask("CLIENT ID").integer()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.say(&format!("CLIENT SETNAME name{number}")), "OK");
        assert_eq!(client.say("CLIENT GETNAME"), format!("name{number}"));
    }
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap_or("").to_string()
    };
    let listed = |killer: &mut Resp, options: &str| -> BTreeMap<i64, String> {
        let text = killer.ask(format!("CLIENT LIST {options}").trim_end()).text();
        text.lines().map(|line| (field(line, "id").parse().unwrap(), line.to_string())).collect()
    };
    assert!(eventually(PATIENCE, || listed(&mut killer, "").len() == 9), "{:?}", listed(&mut killer, ""));
    let all = listed(&mut killer, "");
    for (number, (id, client)) in ids.iter().zip(&clients).enumerate() {
        assert_eq!(field(&all[id], "name"), format!("name{number}"));
        assert_eq!(field(&all[id], "addr"), client.stream().local_addr().unwrap().to_string());
        assert_eq!(field(&all[id], "laddr"), two.address.to_string());
    }
    let two_ids: Vec<i64> = listed(&mut killer, &format!("ID {} {}", ids[2], ids[3])).into_keys().collect();
    assert_eq!(two_ids.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([ids[2], ids[3]]));

    let address = clients[1].stream().local_addr().unwrap();
    assert_eq!(killer.say(&format!("CLIENT KILL {address}")), "OK");
    assert_eq!(killer.say(&format!("CLIENT KILL {address}")), "-ERR No such client");
    assert_eq!(killer.say(&format!("CLIENT KILL ID {}", ids[0])), ":1");
    assert_eq!(killer.say(&format!("CLIENT KILL ADDR {}", clients[3].stream().local_addr().unwrap())), ":1");
    for number in [2, 5] {
        clients[number].say("SUBSCRIBE channel");
    }
    assert_eq!(listed(&mut killer, "TYPE pubsub").len(), 2);
    assert_eq!(killer.say("CLIENT KILL TYPE pubsub"), ":2");
    for number in [0, 1, 2, 3, 5] {
        assert!(clients[number].is_closed_within(PATIENCE), "client {number} was killed and is there");
    }
    for number in [4, 6, 7] {
        assert_eq!(clients[number].say("PING"), "PONG", "client {number} was not killed");
    }
    // Oneself is spared unless one says otherwise.
    assert_eq!(killer.say("CLIENT KILL TYPE normal"), ":3");
    assert_eq!(killer.say("PING"), "PONG");
    assert_eq!(listed(&mut killer, "").len(), 1);
    killer.send_raw(b"CLIENT KILL TYPE normal SKIPME no\r\n").unwrap();
    assert!(killer.is_closed_within(PATIENCE));
    two.assert_serves();
}

#[test]
fn a_pause_holds_all_or_writes_at_both_shards_and_ends_by_itself() {
    let Some(mut two) = Two::start() else { return };
    let (a, b) = (two.key("a", 0), two.key("b", 1));
    let mut commander = two.client();
    let mut clients: Vec<Resp> = [two.pair(), two.pair()].into_iter().flatten().collect();
    assert_eq!(commander.say(&format!("MSET {a} 1 {b} 1")), "OK");
    let reads = [format!("GET {a}"), format!("GET {b}"), format!("MGET {a} {b}")];
    let writes = [format!("SET {a} 1"), format!("SET {b} 1"), format!("MSET {a} 1 {b} 1")];
    // How long each client takes for these.
    let time = |clients: &mut [Resp], lines: &[String]| -> Vec<Duration> {
        thread::scope(|scope| {
            let threads: Vec<_> = clients
                .iter_mut()
                .enumerate()
                .map(|(number, client)| {
                    let line = &lines[number % lines.len()];
                    scope.spawn(move || {
                        let started = Instant::now();
                        assert!(!client.ask(line).is_error());
                        started.elapsed()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    };
    for lines in [&reads, &writes] {
        assert_eq!(commander.say("CLIENT PAUSE 300 ALL"), "OK");
        let took = time(&mut clients, lines);
        assert!(took.iter().all(|took| (250 * MS..1500 * MS).contains(took)), "{lines:?} took {took:?}");
    }
    assert_eq!(commander.say("CLIENT PAUSE 300 WRITE"), "OK");
    let took = time(&mut clients, &reads);
    assert!(took.iter().all(|took| *took < 200 * MS), "reads took {took:?}");
    let took = time(&mut clients, &writes);
    assert!(took.iter().all(|took| (50 * MS..1500 * MS).contains(took)), "writes took {took:?}");
    // Transactions that write wait, others do not.
    assert_eq!(commander.say("CLIENT PAUSE 300 WRITE"), "OK");
    let started = Instant::now();
    assert_eq!(clients[0].ask_all(&["MULTI", &reads[0], &reads[1], "EXEC"])[3], "[1 1]");
    assert!(started.elapsed() < 200 * MS);
    assert_eq!(clients[1].ask_all(&["MULTI", &writes[0], &writes[1], "EXEC"])[3], "[OK OK]");
    assert!((250 * MS..1500 * MS).contains(&started.elapsed()), "{:?}", started.elapsed());
    // And what was paused goes on when it is told to.
    assert_eq!(commander.say("CLIENT PAUSE 20000"), "OK");
    let started = Instant::now();
    for client in &mut clients {
        client.add_line(&format!("INCR {a}"));
        client.flush();
    }
    thread::sleep(20 * MS);
    assert_eq!(commander.say("CLIENT UNPAUSE"), "OK");
    let mut counts: Vec<i64> = clients.iter_mut().map(|client| client.reply().integer()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 3, 4, 5]);
    assert!(started.elapsed() < 1000 * MS);
    two.assert_serves();
}

#[test]
fn a_pause_begins_with_its_acknowledgement() {
    let Some(mut two) = Two::start() else { return };
    let (mut commanders, mut clients) = (two.pair(), two.pair());
    for round in 0..100 {
        let (commander, client) = (&mut commanders[round % 2], &mut clients[round / 2 % 2]);
        let started = Instant::now();
        assert_eq!(commander.say("CLIENT PAUSE 10"), "OK");
        assert_eq!(client.say("PING"), "PONG");
        let took = started.elapsed();
        assert!(took >= 9 * MS, "round {round}: an answer came after {took:?} of a pause of 10 ms");
    }
    two.assert_serves();
}

#[test]
fn client_reply_keeps_back_what_it_says_whichever_shard_answers() {
    let Some(mut two) = Two::start() else { return };
    let (a, b) = (two.key("a", 0), two.key("b", 1));
    for mut client in two.pair() {
        assert_eq!(client.say(&format!("MSET {a} 1 {b} 2")), "OK");
        for (skipped, kept) in [(&a, &b), (&b, &a)] {
            for skipped in [
                format!("GET {skipped}"),
                format!("MGET {a} {b}"),
                format!("RENAME {skipped} {skipped}"),
                "NOSUCHCOMMAND".into(),
                "GET".into(),
            ] {
                for line in ["CLIENT REPLY SKIP", &skipped, &format!("STRLEN {kept}"), "PING"] {
                    client.add_line(line);
                }
                client.flush();
                assert_eq!((client.reply().to_string(), client.reply().to_string()), (":1".into(), "PONG".into()));
            }
        }
        client.add_line("CLIENT REPLY OFF");
        for round in 0..100 {
            for line in [
                format!("SET {a} {round}"),
                format!("SET {b} {round}"),
                format!("MGET {a} {b}"),
                "PING".into(),
                "MULTI".into(),
                format!("INCR {a}"),
                format!("INCR {b}"),
                "EXEC".into(),
            ] {
                client.add_line(&line);
            }
        }
        client.add_line("CLIENT REPLY ON");
        client.add_line(&format!("MGET {a} {b}"));
        client.flush();
        assert_eq!((client.reply().to_string(), client.reply().to_string()), ("OK".into(), "[100 100]".into()));
        assert!(!client.has_more(10 * MS));
    }
    two.assert_serves();
}

#[test]
fn sigterm_in_the_middle_of_everything_ends_with_zero_within_five_seconds() {
    let Some(mut two) = Two::start() else { return };
    let (a, b) = (two.key("a", 0), two.key("b", 1));
    let is_over = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let mut idle = two.client();
    assert_eq!(idle.say("SUBSCRIBE news"), "[subscribe news :1]");
    let mut tracking = hello3(two.client());
    assert_eq!(tracking.say("CLIENT TRACKING ON BCAST"), "OK");
    let mut open = two.client();
    assert_eq!(open.ask_all(&[&format!("WATCH {a} {b}"), "MULTI", &format!("GET {a}")])[2], "QUEUED");
    let lines = Arc::new([
        "MULTI".to_string(),
        format!("INCR {a}"),
        format!("INCR {b}"),
        "EXEC".to_string(),
        format!("MGET {a} {b}"),
        format!("RENAME {a} {a}"),
        "PUBLISH news x".to_string(),
        format!("MSETNX {a} 1 {b} 1"),
    ]);
    let status = thread::scope(|scope| {
        for number in 0..4 {
            let mut client = two.client_at(number % 2);
            let (is_over, done, lines) = (&is_over, &done, lines.clone());
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut bytes = Vec::new();
                    lines.iter().for_each(|line| encode(&line.split(' ').collect::<Vec<_>>(), &mut bytes));
                    if client.send_raw(&bytes).is_err() {
                        return;
                    }
                    for _ in 0..lines.len() {
                        if client.try_reply().is_err() {
                            return;
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        thread::sleep(300 * MS);
        two.server.terminate();
        let started = Instant::now();
        // They go on a little: a server waits for the replies of those who have asked.
        thread::sleep(500 * MS);
        is_over.store(true, Ordering::Relaxed);
        let status = two.server.wait(Duration::from_secs(5).saturating_sub(started.elapsed()));
        println!("left after {:?}", started.elapsed());
        status
    });
    assert_eq!(status.code(), Some(0), "{}", two.server.stderr());
    assert!(done.into_inner() > 100, "there was no traffic");
}
