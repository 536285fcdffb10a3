//! The scripts that lock and counter libraries send, and what each of them does.
//!
//! This server runs no Lua. A script of one call, `return redis.call("incrby", KEYS[1], ARGV[1])`, is that command. The few scripts that cache clients depend on all do one step on one key, so each is known
//! by its text, without what does not matter in it (spaces, the kind of quotes, upper and lower case), and done by the
//! shard like any other command. A script is called by the SHA-1 of its text as the client spelt it, once it has been
//! seen: by EVAL, by SCRIPT LOAD, or because it is spelt as in the table.

use std::sync::{Mutex, OnceLock, PoisonError};

use sha1::{Digest, Sha1};

use crate::base::limits;

/// What a known script does with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Removes the key if its value is the first argument.
    CompareAndDelete,
    /// Sets its time to live, the second argument, if its value is the first.
    CompareAndExpire {
        /// Seconds, or milliseconds.
        in_seconds: bool,
    },
    /// Adds the second argument to its time to live, or sets it if the third is not "0".
    CompareAndExtend,
    /// Adds the first argument if the key is there.
    IncrementIfExists {
        /// The answer where it is not.
        otherwise: Otherwise,
    },
}

/// What a script answers where its key is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// Nothing.
    Null,
    /// Zero.
    Zero,
}

impl Script {
    /// Its text, in one of the spellings it has.
    pub fn source(self) -> &'static [u8] {
        let spelt = KNOWN.iter().find(|(_, script)| *script == self);
        spelt.expect("each is in the table").0.as_bytes()
    }

    /// How many arguments it takes behind its key.
    pub fn arguments(self) -> usize {
        match self {
            Script::CompareAndDelete | Script::IncrementIfExists { .. } => 1,
            Script::CompareAndExpire { .. } => 2,
            Script::CompareAndExtend => 3,
        }
    }
}

/// A word of the command that a script of one call is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Text(Vec<u8>),
    Key(usize),
    Argument(usize),
}

/// What is known of a script that was seen.
#[derive(Clone, Debug)]
enum Seen {
    Known(Script),
    Call(Vec<Word>),
}

/// The script of this text.
pub fn by_source(source: &[u8]) -> Option<Script> {
    let found = recognised(source)?;
    remember(sha_of(source), Seen::Known(found));
    Some(found)
}

/// Notes a script that a client wants to call by its SHA-1. Answers whether it is one of those that are done here.
pub fn load(source: &[u8]) -> bool {
    by_source(source).is_some() || call_of(source).map(|words| remember(sha_of(source), Seen::Call(words))).is_some()
}

/// The command that a script of one call is, given the text or the SHA-1 of the script, how many keys follow, and
/// keys and arguments.
pub fn call(is_sha: bool, script: &[u8], key_count: usize, given: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
    let words = if is_sha {
        match find(script)? {
            Seen::Call(words) => words,
            Seen::Known(_) => return None,
        }
    } else {
        let words = call_of(script)?;
        remember(sha_of(script), Seen::Call(words.clone()));
        words
    };
    let (keys, arguments) = given.split_at_checked(key_count)?;
    let filled = words.into_iter().map(|word| match word {
        Word::Text(text) => Some(text),
        Word::Key(number) => keys.get(number).map(|key| key.to_vec()),
        Word::Argument(number) => arguments.get(number).map(|argument| argument.to_vec()),
    });
    filled.collect()
}

/// The words of `return redis.call(…)`.
fn call_of(source: &[u8]) -> Option<Vec<Word>> {
    let text = std::str::from_utf8(source).ok().filter(|text| text.len() <= SOURCE_BYTES_MAX)?.trim();
    let text = text.trim_end_matches(';').trim_end().strip_prefix("return")?.trim_start();
    let mut rest = text.strip_prefix("redis.call(")?.strip_suffix(')')?.trim();
    let mut words = Vec::new();
    while !rest.is_empty() {
        let (word, after) = match rest.as_bytes()[0] {
            quote @ (b'\'' | b'"') => {
                let end = rest[1..].find(char::from(quote))? + 1;
                let text = &rest[1..end];
                if text.contains('\\') {
                    return None;
                }
                (Word::Text(text.as_bytes().to_vec()), &rest[end + 1..])
            }
            b'0'..=b'9' => {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                (Word::Text(rest.as_bytes()[..end].to_vec()), &rest[end..])
            }
            _ => {
                let (name, inside) = rest.split_once('[')?;
                let (number, after) = inside.split_once(']')?;
                let number = number.trim().parse::<usize>().ok()?.checked_sub(1)?;
                match name.trim() {
                    "KEYS" => (Word::Key(number), after),
                    "ARGV" => (Word::Argument(number), after),
                    _ => return None,
                }
            }
        };
        words.push(word);
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if after.is_empty() => after,
            None => return None,
        };
    }
    matches!(words.first(), Some(Word::Text(_))).then_some(words)
}

/// The script that was seen with this SHA-1, in hexadecimal digits.
pub fn by_sha(sha: &[u8]) -> Option<Script> {
    match find(sha)? {
        Seen::Known(script) => Some(script),
        Seen::Call(_) => None,
    }
}

/// Whether a script was seen with this SHA-1.
pub fn is_seen(sha: &[u8]) -> bool {
    find(sha).is_some()
}

fn find(sha: &[u8]) -> Option<Seen> {
    let sha = std::str::from_utf8(sha).ok()?.to_ascii_lowercase();
    let seen = seen().lock().unwrap_or_else(PoisonError::into_inner);
    seen.iter().find(|(known, _)| *known == sha).map(|(_, script)| script.clone())
}

/// The SHA-1 of a script's text, in hexadecimal digits.
pub fn sha_of(source: &[u8]) -> String {
    Sha1::digest(source).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The scripts seen so far, all shards'.
fn seen() -> &'static Mutex<Vec<(String, Seen)>> {
    static SEEN: OnceLock<Mutex<Vec<(String, Seen)>>> = OnceLock::new();
    SEEN.get_or_init(|| {
        let spelt = KNOWN.iter().map(|(text, script)| (sha_of(text.as_bytes()), Seen::Known(*script)));
        Mutex::new(spelt.collect())
    })
}

fn remember(sha: String, script: Seen) {
    let mut seen = seen().lock().unwrap_or_else(PoisonError::into_inner);
    if seen.iter().any(|(known, _)| *known == sha) {
        return;
    }
    if seen.len() == limits::SCRIPTS_SEEN_MAX {
        // Whoever spells scripts anew all the time sends them again.
        seen.remove(KNOWN.len());
    }
    seen.push((sha, script));
}

/// The script whose text this is but for what does not matter.
fn recognised(source: &[u8]) -> Option<Script> {
    if source.len() > SOURCE_BYTES_MAX {
        return None;
    }
    let bare = bare(source);
    KNOWN.iter().find(|(text, _)| self::bare(text.as_bytes()) == bare).map(|(_, script)| *script)
}

/// A text without comments, spaces, semicolons and parentheses around conditions, in lower case and with one kind of
/// quotes.
fn bare(source: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(source).to_lowercase().replace('\'', "\"");
    let code = text.lines().map(|line| line.split("--").next().unwrap_or_default());
    let mut bare: String = code.flat_map(str::chars).filter(|c| !c.is_whitespace() && *c != ';').collect();
    bare = bare.replace("if(exists==1)then", "ifexists==1then");
    bare.into_bytes()
}

const COMPARE_AND_DELETE: Script = Script::CompareAndDelete;
const COMPARE_AND_EXPIRE: Script = Script::CompareAndExpire { in_seconds: true };
const COMPARE_AND_PEXPIRE: Script = Script::CompareAndExpire { in_seconds: false };

/// Scripts as their authors spell them.
const KNOWN: &[(&str, Script)] = &[
    // The lock of Redis's own documentation, and of most libraries.
    (
        r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end"#,
        COMPARE_AND_DELETE,
    ),
    (
        r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("pexpire",KEYS[1],ARGV[2]) else return 0 end"#,
        COMPARE_AND_PEXPIRE,
    ),
    (
        r#"if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("expire",KEYS[1],ARGV[2]) else return 0 end"#,
        COMPARE_AND_EXPIRE,
    ),
    // The same with the value in a variable, as in redis-py's Lock: release, reacquire, extend.
    (
        r#"local token = redis.call('get', KEYS[1])
           if not token or token ~= ARGV[1] then return 0 end
           redis.call('del', KEYS[1])
           return 1"#,
        COMPARE_AND_DELETE,
    ),
    (
        r#"local token = redis.call('get', KEYS[1])
           if not token or token ~= ARGV[1] then return 0 end
           redis.call('pexpire', KEYS[1], ARGV[2])
           return 1"#,
        COMPARE_AND_PEXPIRE,
    ),
    (
        r#"local token = redis.call('get', KEYS[1])
           if not token or token ~= ARGV[1] then return 0 end
           local expiration = redis.call('pttl', KEYS[1])
           if not expiration then expiration = 0 end
           if expiration < 0 then return 0 end
           local newttl = ARGV[2]
           if ARGV[3] == "0" then newttl = ARGV[2] + expiration end
           redis.call('pexpire', KEYS[1], newttl)
           return 1"#,
        Script::CompareAndExtend,
    ),
    // Counters that must not come to life by being counted, as in django-redis.
    (
        r#"local exists = redis.call('EXISTS', KEYS[1])
           if (exists == 1) then return redis.call('INCRBY', KEYS[1], ARGV[1]) else return false end"#,
        Script::IncrementIfExists { otherwise: Otherwise::Null },
    ),
    (
        r#"if redis.call("exists",KEYS[1]) == 1 then return redis.call("incrby",KEYS[1],ARGV[1]) else return nil end"#,
        Script::IncrementIfExists { otherwise: Otherwise::Null },
    ),
    (
        r#"if redis.call("exists",KEYS[1]) == 1 then return redis.call("incrby",KEYS[1],ARGV[1]) else return false end"#,
        Script::IncrementIfExists { otherwise: Otherwise::Null },
    ),
    (
        r#"if redis.call("exists",KEYS[1]) == 1 then return redis.call("incrby",KEYS[1],ARGV[1]) else return 0 end"#,
        Script::IncrementIfExists { otherwise: Otherwise::Zero },
    ),
];

/// A longer text is none of the table's.
const SOURCE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_known_however_it_is_laid_out() {
        let spelt: [(&str, Option<Script>); 5] = [
            (
                "if redis.call('get', KEYS[1]) == ARGV[1]\nthen\n  return redis.call('del', KEYS[1]) -- release\nelse\n return 0\nend\n",
                Some(Script::CompareAndDelete),
            ),
            (
                "if redis.call('GET',KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE',KEYS[1],ARGV[2]) else return 0 end",
                Some(COMPARE_AND_PEXPIRE),
            ),
            ("return 1", None),
            ("if redis.call('get', KEYS[2]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end", None),
            ("", None),
        ];
        for (text, script) in spelt {
            assert_eq!(by_source(text.as_bytes()), script, "{text}");
            assert_eq!(by_sha(sha_of(text.as_bytes()).to_uppercase().as_bytes()), script, "{text}");
        }
        assert_eq!(sha_of(b"return 1"), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "SHA-1 as everybody computes it");
    }

    #[test]
    fn a_script_of_one_call_is_that_command() {
        let filled = |source: &str, keys: usize, given: &[&str]| {
            let given: Vec<&[u8]> = given.iter().map(|word| word.as_bytes()).collect();
            call(false, source.as_bytes(), keys, &given)
                .map(|words| words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>())
        };
        let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_string()).collect::<Vec<_>>());
        assert_eq!(
            filled("return redis.call('SET', KEYS[1], ARGV[1], \"px\", 100);", 1, &["k", "v"]),
            words(&["SET", "k", "v", "px", "100"])
        );
        assert_eq!(filled("return redis.call('get', KEYS[2])", 1, &["k", "v"]), None);
        assert_eq!(filled("return redis.call(KEYS[1])", 1, &["k"]), None);
        assert_eq!(filled("return redis.call('get', KEYS[1]) + 1", 1, &["k"]), None);
        assert_eq!(filled("return redis.call('get', 'a' .. 'b')", 0, &[]), None);
        assert_eq!(filled("return 1", 0, &[]), None);
        let source = b"return redis.call('get', KEYS[1])";
        assert!(load(source) && is_seen(sha_of(source).as_bytes()) && by_sha(sha_of(source).as_bytes()).is_none());
        assert_eq!(call(true, sha_of(source).as_bytes(), 1, &[b"k"]), Some(vec![b"get".to_vec(), b"k".to_vec()]));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_table_stays() {
        for number in 0..2 * limits::SCRIPTS_SEEN_MAX {
            by_source(format!("{}-- {number}", KNOWN[0].0).as_bytes()).expect("a comment changes nothing");
        }
        assert!(seen().lock().unwrap().len() <= limits::SCRIPTS_SEEN_MAX);
        assert_eq!(by_sha(sha_of(KNOWN[0].0.as_bytes()).as_bytes()), Some(Script::CompareAndDelete));
    }
}
