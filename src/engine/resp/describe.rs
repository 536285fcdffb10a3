//! COMMAND: which commands there are.

use std::ops::DerefMut;

use crate::engine::core::Core;
use crate::engine::resp::front::{subcommand, wrong_arity};
use crate::wire::glob;
use crate::wire::resp::commands::{COMMANDS, Cmd, Row};
use crate::wire::resp::encode;

impl<M: DerefMut<Target = [u8]>> Core<M> {
    pub(super) fn command_command(&mut self, words: &[&[u8]], is_resp3: bool, reply: &mut Vec<u8>) {
        let Some(sub) = words.first() else {
            encode::array(COMMANDS.len(), reply);
            return COMMANDS.iter().for_each(|row| describe(row, is_resp3, reply));
        };
        match (sub.to_ascii_uppercase().as_slice(), &words[1..]) {
            (b"COUNT", []) => encode::integer(COMMANDS.len() as i64, reply),
            (b"INFO", []) => {
                encode::array(COMMANDS.len(), reply);
                COMMANDS.iter().for_each(|row| describe(row, is_resp3, reply));
            }
            (b"INFO", names) => {
                encode::array(names.len(), reply);
                for name in names {
                    match Cmd::of(name) {
                        Some(cmd) => describe(cmd.row(), is_resp3, reply),
                        None => encode::null_array(is_resp3, reply),
                    }
                }
            }
            (b"DOCS", names) => {
                let wanted: Vec<&Row> = match names {
                    [] => COMMANDS.iter().collect(),
                    names => names.iter().filter_map(|name| Cmd::of(name)).map(Cmd::row).collect(),
                };
                encode::map(wanted.len(), is_resp3, reply);
                wanted.iter().for_each(|row| document(row, is_resp3, reply));
            }
            (b"LIST", []) => list(|_| true, reply),
            (b"LIST", [by, kind, value]) if by.eq_ignore_ascii_case(b"FILTERBY") => {
                let value = value.to_ascii_lowercase();
                match kind.to_ascii_uppercase().as_slice() {
                    b"PATTERN" => list(|row| glob::matches(&value, row.name.as_bytes()), reply),
                    b"ACLCAT" => list(|row| categories(row).iter().any(|it| it.as_bytes()[1..] == *value), reply),
                    b"MODULE" => list(|_| false, reply),
                    _ => encode::error("ERR syntax error", reply),
                }
            }
            (b"LIST", _) => encode::error("ERR syntax error", reply),
            (b"GETKEYS", [name, rest @ ..]) => get_keys(name, rest, reply),
            (b"COUNT" | b"GETKEYS", _) => wrong_arity(Cmd::Command, sub).write(reply),
            _ => subcommand(Cmd::Command, sub, reply),
        }
    }
}

fn list(is_wanted: impl Fn(&Row) -> bool, reply: &mut Vec<u8>) {
    let wanted: Vec<&Row> = COMMANDS.iter().filter(|row| is_wanted(row)).collect();
    encode::array(wanted.len(), reply);
    wanted.iter().for_each(|row| encode::bulk(row.name.as_bytes(), reply));
}

/// The ten things that COMMAND INFO says.
fn describe(row: &Row, is_resp3: bool, reply: &mut Vec<u8>) {
    let (first, last, step) = row.keys;
    let categories = categories(row);
    encode::array(10, reply);
    encode::bulk(row.name.as_bytes(), reply);
    encode::integer(i64::from(row.arity), reply);
    encode::set(row.flags.len(), is_resp3, reply);
    row.flags.iter().for_each(|flag| encode::simple(flag, reply));
    for number in [first, last, step] {
        encode::integer(i64::from(number), reply);
    }
    encode::set(categories.len(), is_resp3, reply);
    categories.iter().for_each(|category| encode::simple(category, reply));
    // Tips, key specifications, subcommands.
    (0..3).for_each(|_| encode::array(0, reply));
}

fn document(row: &Row, is_resp3: bool, reply: &mut Vec<u8>) {
    encode::bulk(row.name.as_bytes(), reply);
    encode::map(3, is_resp3, reply);
    for (name, value) in [("summary", row.summary), ("since", row.since), ("group", row.group)] {
        encode::bulk(name.as_bytes(), reply);
        encode::bulk(value.as_bytes(), reply);
    }
}

/// The categories of access rules that a command belongs to.
fn categories(row: &Row) -> Vec<&'static str> {
    let has = |flag| row.flags.contains(&flag);
    let mut categories = Vec::new();
    for (category, is_in) in [
        ("@keyspace", row.group == "generic" || matches!(row.command, Cmd::DbSize | Cmd::FlushAll | Cmd::FlushDb)),
        ("@read", has("readonly")),
        ("@write", has("write")),
        ("@string", row.group == "string"),
        ("@pubsub", has("pubsub")),
        ("@admin", has("admin")),
        ("@dangerous", has("admin") || matches!(row.command, Cmd::Keys | Cmd::FlushAll | Cmd::FlushDb | Cmd::Info)),
        ("@connection", row.group == "connection"),
        ("@transaction", row.group == "transactions"),
        ("@scripting", row.group == "scripting"),
    ] {
        if is_in {
            categories.push(category);
        }
    }
    categories.push(if has("fast") { "@fast" } else { "@slow" });
    categories
}

fn get_keys(name: &[u8], words: &[&[u8]], reply: &mut Vec<u8>) {
    let Some(cmd) = Cmd::of(name) else { return encode::error("ERR Invalid command specified", reply) };
    let count = words.len() + 1;
    if !cmd.row().takes(count) {
        return encode::error("ERR Invalid number of arguments specified for command", reply);
    }
    let keys: Vec<&[u8]> = match cmd {
        Cmd::Eval | Cmd::EvalSha => {
            let given =
                words.get(1).and_then(|word| std::str::from_utf8(word).ok()?.parse::<usize>().ok()).unwrap_or(0);
            words[2..].iter().take(given).copied().collect()
        }
        _ => cmd.row().key_places(count).filter_map(|place| words.get(place - 1).copied()).collect(),
    };
    if keys.is_empty() {
        return encode::error("ERR The command has no key arguments", reply);
    }
    encode::array(keys.len(), reply);
    keys.iter().for_each(|key| encode::bulk(key, reply));
}
