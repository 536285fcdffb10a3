//! The commands of RESP that this server has, and what is to be said about each.
//!
//! The table is the only place that knows a command's name: decoding, COMMAND, the queue of MULTI and the counts of
//! INFO all go by it, so what is listed is what is served.

/// One command's row.
#[derive(Debug)]
pub struct Row {
    /// Which it is.
    pub command: Cmd,
    /// Its name, in lower case.
    pub name: &'static str,
    /// Words it takes, the name included; negative for "at least".
    pub arity: i32,
    /// What COMMAND says about it.
    pub flags: &'static [&'static str],
    /// Its keys: the first, the last (negative: counted from the end) and the step between them; 0 for none.
    pub keys: (i32, i32, i32),
    /// The group it is documented in.
    pub group: &'static str,
    /// The version of Redis that brought it.
    pub since: &'static str,
    /// What it does.
    pub summary: &'static str,
}

macro_rules! commands {
    ($($variant:ident: $name:literal, $arity:literal, [$($flag:literal),*], ($first:literal, $last:literal, $step:literal),
       $group:literal, $since:literal, $summary:literal;)*) => {
        /// A command.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each is what its row says")]
        pub enum Cmd { $($variant,)* }

        /// All commands, in the order of their numbers.
        pub static COMMANDS: &[Row] = &[
            $(Row { command: Cmd::$variant, name: $name, arity: $arity, flags: &[$($flag),*], keys: ($first, $last, $step),
                group: $group, since: $since, summary: $summary },)*
        ];

        impl Cmd {
            /// The command of that name, in lower case.
            #[inline]
            #[expect(non_upper_case_globals, reason = "named after the variants")]
            fn of_lower(name: &[u8]) -> Option<Cmd> {
                $(const $variant: &[u8] = $name.as_bytes();)*
                match name {
                    $($variant => Some(Cmd::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    Get: "get", 2, ["readonly", "fast"], (1, 1, 1), "string", "1.0.0", "Returns a value.";
    Set: "set", -3, ["write", "denyoom"], (1, 1, 1), "string", "1.0.0", "Stores a value, with a condition and a time to live if wanted.";
    SetNx: "setnx", 3, ["write", "denyoom", "fast"], (1, 1, 1), "string", "1.0.0", "Stores a value if the key is not there.";
    SetEx: "setex", 4, ["write", "denyoom"], (1, 1, 1), "string", "2.0.0", "Stores a value with a time to live in seconds.";
    PSetEx: "psetex", 4, ["write", "denyoom"], (1, 1, 1), "string", "2.6.0", "Stores a value with a time to live in milliseconds.";
    GetSet: "getset", 3, ["write", "denyoom", "fast"], (1, 1, 1), "string", "1.0.0", "Stores a value and returns the one before.";
    GetEx: "getex", -2, ["write", "fast"], (1, 1, 1), "string", "6.2.0", "Returns a value and changes when it expires.";
    GetDel: "getdel", 2, ["write", "fast"], (1, 1, 1), "string", "6.2.0", "Returns a value and removes the key.";
    MGet: "mget", -2, ["readonly", "fast"], (1, -1, 1), "string", "1.0.0", "Returns several values, each as of its own moment.";
    MSet: "mset", -3, ["write", "denyoom"], (1, -1, 2), "string", "1.0.1", "Stores several values, each by itself.";
    MSetNx: "msetnx", -3, ["write", "denyoom"], (1, -1, 2), "string", "1.0.1", "Stores several values if none of the keys is there, all or none.";
    Append: "append", 3, ["write", "denyoom", "fast"], (1, 1, 1), "string", "2.0.0", "Adds to the end of a value.";
    StrLen: "strlen", 2, ["readonly", "fast"], (1, 1, 1), "string", "2.2.0", "Returns the length of a value.";
    GetRange: "getrange", 4, ["readonly"], (1, 1, 1), "string", "2.4.0", "Returns part of a value.";
    Substr: "substr", 4, ["readonly"], (1, 1, 1), "string", "1.0.0", "Returns part of a value; the older name of GETRANGE.";
    SetRange: "setrange", 4, ["write", "denyoom"], (1, 1, 1), "string", "2.2.0", "Overwrites part of a value.";
    GetBit: "getbit", 3, ["readonly", "fast"], (1, 1, 1), "bitmap", "2.2.0", "Returns one bit of a value.";
    SetBit: "setbit", 4, ["write", "denyoom"], (1, 1, 1), "bitmap", "2.2.0", "Sets one bit of a value and returns what it was.";
    Incr: "incr", 2, ["write", "denyoom", "fast"], (1, 1, 1), "string", "1.0.0", "Adds one to an integer.";
    Decr: "decr", 2, ["write", "denyoom", "fast"], (1, 1, 1), "string", "1.0.0", "Takes one from an integer.";
    IncrBy: "incrby", 3, ["write", "denyoom", "fast"], (1, 1, 1), "string", "1.0.0", "Adds to an integer.";
    DecrBy: "decrby", 3, ["write", "denyoom", "fast"], (1, 1, 1), "string", "1.0.0", "Takes from an integer.";
    IncrByFloat: "incrbyfloat", 3, ["write", "denyoom", "fast"], (1, 1, 1), "string", "2.6.0", "Adds to a decimal number.";
    Del: "del", -2, ["write"], (1, -1, 1), "generic", "1.0.0", "Removes keys.";
    Unlink: "unlink", -2, ["write", "fast"], (1, -1, 1), "generic", "4.0.0", "Removes keys; the same as DEL here.";
    Exists: "exists", -2, ["readonly", "fast"], (1, -1, 1), "generic", "1.0.0", "Counts the keys that are there.";
    Type: "type", 2, ["readonly", "fast"], (1, 1, 1), "generic", "1.0.0", "Returns the type of a value, which is always string.";
    Touch: "touch", -2, ["readonly", "fast"], (1, -1, 1), "generic", "3.2.1", "Counts the keys that are there as used.";
    Persist: "persist", 2, ["write", "fast"], (1, 1, 1), "generic", "2.2.0", "Takes a key's expiry away.";
    Rename: "rename", 3, ["write"], (1, 2, 1), "generic", "1.0.0", "Gives a value another key.";
    RenameNx: "renamenx", 3, ["write", "fast"], (1, 2, 1), "generic", "1.0.0", "Gives a value another key if nothing is stored there.";
    Copy: "copy", -3, ["write", "denyoom"], (1, 2, 1), "generic", "6.2.0", "Stores a value under another key as well.";
    Keys: "keys", 2, ["readonly", "sort_for_script"], (0, 0, 0), "generic", "1.0.0", "Returns the keys that match a pattern.";
    RandomKey: "randomkey", 1, ["readonly"], (0, 0, 0), "generic", "1.0.0", "Returns a key drawn at random.";
    Scan: "scan", -2, ["readonly"], (0, 0, 0), "generic", "2.8.0", "Goes through all keys, some at a time.";
    Object: "object", -2, ["readonly"], (2, 2, 1), "generic", "2.2.3", "Asks about how a value is kept.";
    Expire: "expire", -3, ["write", "fast"], (1, 1, 1), "generic", "1.0.0", "Sets a time to live in seconds.";
    PExpire: "pexpire", -3, ["write", "fast"], (1, 1, 1), "generic", "2.6.0", "Sets a time to live in milliseconds.";
    ExpireAt: "expireat", -3, ["write", "fast"], (1, 1, 1), "generic", "1.2.0", "Sets the second of Unix time at which a key expires.";
    PExpireAt: "pexpireat", -3, ["write", "fast"], (1, 1, 1), "generic", "2.6.0", "Sets the millisecond of Unix time at which a key expires.";
    Ttl: "ttl", 2, ["readonly", "fast"], (1, 1, 1), "generic", "1.0.0", "Returns the seconds a key has left.";
    PTtl: "pttl", 2, ["readonly", "fast"], (1, 1, 1), "generic", "2.6.0", "Returns the milliseconds a key has left.";
    ExpireTime: "expiretime", 2, ["readonly", "fast"], (1, 1, 1), "generic", "7.0.0", "Returns the second of Unix time at which a key expires.";
    PExpireTime: "pexpiretime", 2, ["readonly", "fast"], (1, 1, 1), "generic", "7.0.0", "Returns the millisecond of Unix time at which a key expires.";
    Eval: "eval", -3, ["noscript", "stale", "skip_monitor", "no_mandatory_keys", "movablekeys"], (0, 0, 0), "scripting", "2.6.0", "Runs one of the known scripts of lock and counter libraries.";
    EvalSha: "evalsha", -3, ["noscript", "stale", "skip_monitor", "no_mandatory_keys", "movablekeys"], (0, 0, 0), "scripting", "2.6.0", "Runs one of the known scripts by its SHA-1.";
    Script: "script", -2, ["noscript"], (0, 0, 0), "scripting", "2.6.0", "Asks which scripts are known.";
    Function: "function", -2, ["noscript"], (0, 0, 0), "scripting", "7.0.0", "FLUSH only: there are no functions to remove.";
    Multi: "multi", 1, ["noscript", "loading", "stale", "fast", "allow_busy"], (0, 0, 0), "transactions", "1.2.0", "Begins a transaction.";
    Exec: "exec", 1, ["noscript", "loading", "stale", "skip_slowlog"], (0, 0, 0), "transactions", "1.2.0", "Does everything since MULTI in one step.";
    Discard: "discard", 1, ["noscript", "loading", "stale", "fast", "allow_busy"], (0, 0, 0), "transactions", "2.0.0", "Forgets everything since MULTI.";
    Watch: "watch", -2, ["noscript", "loading", "stale", "fast", "allow_busy"], (1, -1, 1), "transactions", "2.2.0", "Lets the next EXEC happen only if these keys do not change.";
    Unwatch: "unwatch", 1, ["noscript", "loading", "stale", "fast", "allow_busy"], (0, 0, 0), "transactions", "2.2.0", "Forgets all watched keys.";
    Subscribe: "subscribe", -2, ["pubsub", "noscript", "loading", "stale"], (0, 0, 0), "pubsub", "2.0.0", "Listens to channels.";
    PSubscribe: "psubscribe", -2, ["pubsub", "noscript", "loading", "stale"], (0, 0, 0), "pubsub", "2.0.0", "Listens to channels that match patterns.";
    Unsubscribe: "unsubscribe", -1, ["pubsub", "noscript", "loading", "stale"], (0, 0, 0), "pubsub", "2.0.0", "Stops listening to channels.";
    PUnsubscribe: "punsubscribe", -1, ["pubsub", "noscript", "loading", "stale"], (0, 0, 0), "pubsub", "2.0.0", "Stops listening to patterns.";
    Publish: "publish", 3, ["pubsub", "loading", "stale", "fast"], (0, 0, 0), "pubsub", "2.0.0", "Sends a message to all who listen to a channel.";
    PubSub: "pubsub", -2, ["pubsub", "loading", "stale"], (0, 0, 0), "pubsub", "2.8.0", "Asks who listens.";
    Ping: "ping", -1, ["fast"], (0, 0, 0), "connection", "1.0.0", "Answers.";
    Echo: "echo", 2, ["loading", "stale", "fast"], (0, 0, 0), "connection", "1.0.0", "Returns what was sent.";
    Hello: "hello", -1, ["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"], (0, 0, 0), "connection", "6.0.0", "Agrees on a version of the protocol.";
    Auth: "auth", -2, ["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"], (0, 0, 0), "connection", "1.0.0", "Authenticates a connection.";
    Select: "select", 2, ["loading", "stale", "fast"], (0, 0, 0), "connection", "1.0.0", "Chooses database 0, the only one.";
    Quit: "quit", -1, ["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"], (0, 0, 0), "connection", "1.0.0", "Closes the connection.";
    Reset: "reset", 1, ["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"], (0, 0, 0), "connection", "6.2.0", "Makes the connection as it was when it came.";
    Client: "client", -2, ["noscript", "loading", "stale"], (0, 0, 0), "connection", "2.4.0", "Asks about connections and sets what they are told.";
    Command: "command", -1, ["loading", "stale"], (0, 0, 0), "server", "2.8.13", "Asks which commands there are.";
    Config: "config", -2, ["admin", "noscript", "loading", "stale"], (0, 0, 0), "server", "2.0.0", "Reads and sets parameters.";
    Info: "info", -1, ["loading", "stale"], (0, 0, 0), "server", "1.0.0", "Returns figures about the server.";
    Time: "time", 1, ["loading", "stale", "fast"], (0, 0, 0), "server", "2.6.0", "Returns the time of the server's clock.";
    DbSize: "dbsize", 1, ["readonly", "fast"], (0, 0, 0), "server", "1.0.0", "Counts the keys.";
    FlushDb: "flushdb", -1, ["write"], (0, 0, 0), "server", "1.0.0", "Removes all keys.";
    FlushAll: "flushall", -1, ["write"], (0, 0, 0), "server", "1.0.0", "Removes all keys.";
    Memory: "memory", -2, ["readonly"], (2, 2, 1), "server", "4.0.0", "USAGE: asks how many bytes a key takes.";
    Latency: "latency", -2, ["admin", "noscript", "loading", "stale"], (0, 0, 0), "server", "2.8.13", "HISTOGRAM: returns service times.";
}

impl Cmd {
    /// The command of that name, however it is spelt.
    #[inline]
    pub fn of(name: &[u8]) -> Option<Cmd> {
        let mut lower = [0u8; NAME_BYTES_MAX];
        let spelt = lower.get_mut(..name.len())?;
        spelt.copy_from_slice(name);
        spelt.make_ascii_lowercase();
        Cmd::of_lower(spelt)
    }

    /// The command of that number.
    #[inline]
    pub fn of_number(number: u8) -> Option<Cmd> {
        COMMANDS.get(usize::from(number)).map(|row| row.command)
    }

    /// What is to be said about it.
    #[inline]
    pub fn row(self) -> &'static Row {
        &COMMANDS[self as usize]
    }

    /// The subcommands it has and how many words each takes, both names included; negative for "at least".
    pub fn subcommands(self) -> &'static [(&'static str, i32)] {
        match self {
            Cmd::Object => &[("encoding", 3), ("freq", 3), ("idletime", 3), ("refcount", 3), ("help", 2)],
            Cmd::Memory => &[("usage", -3), ("help", 2)],
            Cmd::Client => &[
                ("id", 2),
                ("info", 2),
                ("list", -2),
                ("setname", 3),
                ("getname", 2),
                ("setinfo", 4),
                ("no-evict", 3),
                ("no-touch", 3),
                ("kill", -3),
                ("pause", -3),
                ("unpause", 2),
                ("reply", 3),
                ("tracking", -3),
                ("caching", 3),
                ("trackinginfo", 2),
                ("getredir", 2),
                ("help", 2),
            ],
            Cmd::Config => &[("get", -3), ("set", -4), ("resetstat", 2), ("rewrite", 2)],
            Cmd::Command => &[("count", 2), ("docs", -2), ("info", -2), ("list", -2), ("getkeys", -3)],
            Cmd::PubSub => {
                &[("channels", -2), ("numsub", -2), ("numpat", 2), ("shardchannels", -2), ("shardnumsub", -2)]
            }
            Cmd::Script => &[("load", 3), ("exists", -3), ("flush", -2), ("kill", 2)],
            Cmd::Latency => &[("histogram", -2), ("latest", 2), ("history", 3), ("reset", -2)],
            Cmd::Function => &[("flush", -2), ("list", -2)],
            _ => &[],
        }
    }

    /// Whether it changes keys: what a pause of writes holds back.
    pub fn writes(self) -> bool {
        self.row().flags.contains(&"write")
    }
}

impl Row {
    /// Whether the command may have so many words, its name included.
    #[inline]
    pub fn takes(&self, words: usize) -> bool {
        if self.arity >= 0 { words == self.arity as usize } else { words >= self.arity.unsigned_abs() as usize }
    }

    /// The places of a command's keys among its words.
    pub fn key_places(&self, words: usize) -> impl Iterator<Item = usize> + use<> {
        let (first, last, step) = self.keys;
        let last = if last < 0 { words as i32 + last } else { last };
        let end = if first == 0 { 0 } else { (last + 1).clamp(0, words as i32) as usize };
        (first as usize..end).step_by(step.max(1) as usize)
    }
}

/// The longest name there is.
const NAME_BYTES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name_and_its_number() {
        for (number, row) in COMMANDS.iter().enumerate() {
            assert_eq!(Cmd::of(row.name.to_ascii_uppercase().as_bytes()), Some(row.command), "{}", row.name);
            assert_eq!(Cmd::of_number(number as u8), Some(row.command));
            assert!(row.name.len() <= NAME_BYTES_MAX);
        }
        assert_eq!((Cmd::of(b"lpush"), Cmd::of(&[b'a'; 99]), Cmd::of_number(255)), (None, None, None));
    }

    #[test]
    fn keys_are_where_the_row_says() {
        let places = |cmd: Cmd, words| cmd.row().key_places(words).collect::<Vec<_>>();
        assert_eq!(places(Cmd::MSet, 5), [1, 3]);
        assert_eq!(places(Cmd::MGet, 4), [1, 2, 3]);
        assert_eq!(places(Cmd::Rename, 3), [1, 2]);
        assert_eq!(places(Cmd::Object, 3), [2]);
        assert!(places(Cmd::Ping, 2).is_empty());
    }
}
