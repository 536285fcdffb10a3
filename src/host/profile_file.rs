//! The TOML file of a profile: the list of its keys with what each means, what it defaults to and
//! what a wrong value costs; the writer that prints them, and the reader that refuses anything else.
//!
//! The reader looks at the keys itself before serde does. Serde would refuse the same files, but
//! with one message for all of them; here an unknown key is told its nearest neighbour, a missing
//! one an example, and every complaint its file, line and key.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::base::limits;
use crate::host::files::read_bounded;
use crate::host::profile::{CoreWish, Profile, ProfileError, SHIPPED, Source};

/// Letters a misspelt key may differ in and still be recognised.
const MISSPELLING_MAX: usize = 3;

/// One key of the file.
struct Key {
    section: &'static str,
    name: &'static str,
    /// Whether a file without it means something.
    presence: Presence,
    /// A value to show to whoever left the key out.
    example: &'static str,
    /// Meaning, unit, default and cost, printed above the key.
    comment: &'static str,
}

/// Whether a file may leave a key out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// It must be there.
    Required,
    /// It has a default.
    Defaulted,
    /// Left out, it says that something stays as it is.
    Optional,
}

use Presence::{Defaulted, Optional, Required};

const fn key(
    section: &'static str,
    name: &'static str,
    presence: Presence,
    example: &'static str,
    comment: &'static str,
) -> Key {
    Key { section, name, presence, example, comment }
}

/// The section whose keys are names of kernel parameters, and so not in this list.
const SYSCTL: &str = "sysctl";

/// Sections whose keys the list does not hold: serde looks at them alone.
const FREE_SECTIONS: [&str; 2] = [SYSCTL, "calibration"];

/// What stands above that section.
const SYSCTL_COMMENT: &str = "Kernel parameters by their sysctl names, numbers or text, for the whole host: 'spinetail host apply'\n\
                              writes them and remembers what was there. Every one is checked by 'spinetail host check'.";

const KEYS: [Key; 33] = [
    key(
        "machine",
        "name",
        Required,
        "\"edge-7\"",
        "Short name of this kind of machine, shown in reports. Required. Changes nothing else.",
    ),
    key("machine", "description", Defaulted, "\"\"", "A sentence for people. Default: empty. Changes nothing."),
    key(
        "match",
        "architecture",
        Optional,
        "\"x86_64\"",
        "How a machine of this kind is recognised: \"x86_64\" or \"aarch64\". Default: any. On another kind\n\
         'host apply' refuses; 'serve' and 'host check' say what differs and go on.",
    ),
    key(
        "match",
        "processor",
        Optional,
        "\"EPYC 9\"",
        "Text within the processor's model name, several with | between them. Default: any.",
    ),
    key("match", "sockets", Optional, "2", "Sockets. Default: any number."),
    key("match", "virtual", Optional, "false", "Whether it is a virtual machine. Default: either."),
    key(
        "match",
        "limited",
        Optional,
        "false",
        "Whether a control group limits core time or memory, as it does in most containers. Default: either.",
    ),
    key(
        "cores",
        "data",
        Required,
        "\"2-15\"",
        "Cores that run one shard each. Required. A list as the kernel numbers them (\"2-15,18\"), \"N/node\" or\n\
         \"N/socket\" (so many physical cores of each NUMA node, or socket), or \"rest\" (one thread of every physical core that nothing else\n\
         is given). A core that other programs use as well puts their time slices into the tail of the latency.",
    ),
    key(
        "cores",
        "housekeeping",
        Defaulted,
        "\"0\"",
        "Cores for everything but requests: admin, metrics, logs, cluster. A list, none of it in data, \"N/node\" or \"N/socket\".\n\
         Default: \"\" (every core that this process may use and no shard runs on).",
    ),
    key(
        "cores",
        "irq",
        Defaulted,
        "\"0\"",
        "Cores that take interrupts. A list, none of it in data, \"N/node\" or \"N/socket\". Default: \"\" (those for housekeeping).\n\
         An interrupt on a data core stops its shard for some microseconds, and the softirq behind it for more.",
    ),
    key(
        "cores",
        "siblings",
        Defaulted,
        "false",
        "Whether two shards may run on the two threads of one physical core: true or false. Default: false; they\n\
         would share its caches and execution units, which costs each of them more than it brings both.",
    ),
    key(
        "memory",
        "total",
        Optional,
        "\"1GiB\"",
        "Memory of the whole process, everything included, in KiB, MiB or GiB, or a share of the machine's or its\n\
         control group's (\"60%\"); divided evenly among the shards. Required, or else per_shard. At least 8MiB a\n\
         shard. Too little costs misses. Too much costs the process: the kernel kills it when memory runs out, or swaps.",
    ),
    key(
        "memory",
        "per_shard",
        Optional,
        "\"4GiB\"",
        "Memory of each shard, in place of total. Default: total, divided.",
    ),
    key(
        "memory",
        "pages",
        Defaulted,
        "\"transparent\"",
        "Pages to ask for: \"2MiB\" (set aside by the administrator or 'host apply', per NUMA node), \"transparent\"\n\
         (2 MiB where the kernel finds them) or \"4KiB\". Default: \"transparent\". Each falls back to the next.\n\
         Smaller pages cost more address translations on every lookup in a large cache.",
    ),
    key(
        "memory",
        "populate",
        Defaulted,
        "true",
        "Touch all memory at start: true or false. Default: true. False starts sooner; then the first\n\
         write to every page waits for the kernel, and a lack of memory shows under load.",
    ),
    key(
        "memory",
        "bind",
        Defaulted,
        "true",
        "Bind each shard's memory to the NUMA node of its core: true or false. Default: true. False lets the kernel\n\
         place it, which is where the shard first touches it unless that node is full. Nothing on one node.",
    ),
    key(
        "memory",
        "remote",
        Defaulted,
        "false",
        "Start a shard although its memory was found on another node: true or false. Default: false; every access\n\
         would cross to the other node. Nothing on one node.",
    ),
    key(
        "network",
        "poll",
        Defaulted,
        "\"spin\"",
        "What an idle shard does: \"spin\" looks again at once and keeps its core at 100 %; \"park\" sleeps\n\
         and pays a wake-up; \"adaptive\" spins while pauses are short. Default: \"spin\". Spinning on a core that is\n\
         shared, or billed by use, takes the time from others and from the kernel's own network work.",
    ),
    key(
        "network",
        "io",
        Defaulted,
        "\"auto\"",
        "Kernel interface: \"auto\" (io_uring where granted, else epoll), \"io_uring\" (or refuse to start)\n\
         or \"epoll\". Default: \"auto\". What epoll costs more is measured by scripts/drivers.",
    ),
    key(
        "nic",
        "interfaces",
        Defaulted,
        "\"eth0,ens*\"",
        "Network cards that this section is about: names with commas between them, * for any ending.\n\
         Default: \"\" (every physical one that is up).",
    ),
    key(
        "nic",
        "queue_cores",
        Defaulted,
        "\"auto\"",
        "Cores that take the interrupts of queue 0, 1, 2 and so on, in turn: a list in that order, or \"auto\" (cores.irq,\n\
         those on the card's node first). Default: \"auto\". None may be a data core.",
    ),
    key(
        "nic",
        "xps",
        Defaulted,
        "true",
        "Give each shard a send queue of its own (XPS): true or false. Default: false, which leaves it as it is.\n\
         Two cores that send on one queue take turns at its lock.",
    ),
    key(
        "nic",
        "rps",
        Optional,
        "false",
        "Spread received packets over cores.irq in software (RPS): true or false. Left out: as it is. Worth it where\n\
         a card has fewer queues than there are cores for interrupts, and a detour otherwise.",
    ),
    key(
        "nic",
        "rfs_entries",
        Optional,
        "0",
        "Flows that the kernel steers to the core that reads them (RFS), a power of two; 0 is off. Left out: as it is.\n\
         It moves the work of a packet to its shard's core: good for one stream, bad for a tail.",
    ),
    key(
        "nic",
        "rx_ring",
        Optional,
        "4096",
        "Descriptors of each receive queue. Left out: as it is. More survive a longer burst, fewer stay in the cache.",
    ),
    key("nic", "tx_ring", Optional, "4096", "Descriptors of each send queue. Left out: as it is."),
    key(
        "nic",
        "busy_poll_us",
        Optional,
        "50",
        "Microseconds for which a shard that spins and has nothing to do polls its connections' cards, in place of their\n\
         interrupts (NAPI busy polling, registered with its ring). Left out: 0, off. Needs a card whose driver polls, and\n\
         Linux 6.9. With gro_flush_timeout_ns and napi_defer_hard_irqs the interrupt stays off meanwhile. Not measured by\n\
         this project on a card; without one it costs a system call each time a shard looks.",
    ),
    key(
        "nic",
        "gro_flush_timeout_ns",
        Optional,
        "200000",
        "Nanoseconds after which a card that is being polled falls back to its timer. Left out: as it is. With\n\
         napi_defer_hard_irqs it keeps the card's interrupt off while a shard polls. Never without busy_poll_us: where\n\
         nobody polls, packets wait for this timer.",
    ),
    key(
        "nic",
        "napi_defer_hard_irqs",
        Optional,
        "2",
        "Empty polls before the card's interrupt is switched on again. Left out: as it is.",
    ),
    key(
        "power",
        "governor",
        Optional,
        "\"performance\"",
        "Frequency governor of the data cores. Left out: as it is. Others let a core slow down in pauses, and the\n\
         first requests after one meet it slow.",
    ),
    key(
        "power",
        "idle_us_max",
        Optional,
        "1",
        "Longest time in microseconds that an idle data core may need to wake; deeper idle states are switched off.\n\
         Left out: as they are. Matters to shards that park; costs power.",
    ),
    key(
        "kernel",
        "cmdline",
        Defaulted,
        "[\"nohz_full={data}\"]",
        "Words that the kernel's command line should have; {data}, {housekeeping} and {irq} stand for these lists of\n\
         cores. Default: none. Checked and suggested, never written.",
    ),
    key(
        "kernel",
        "partition",
        Defaulted,
        "false",
        "Whether 'host apply' makes the appliance's cores a partition that the scheduler puts nothing else on (cgroup v2\n\
         cpuset, by systemd drop-ins): true or false. Default: false. The system keeps all other cores, so one must be\n\
         neither in data nor in housekeeping. Isolates without a boot; the timer's\n\
         tick and managed interrupts stay, which nohz_full= and isolcpus=managed_irq keep away.",
    ),
];

impl Profile {
    /// Reads and validates the profile in a file, as far as that goes without a machine; or one that is shipped, by
    /// its name, where there is no such file.
    ///
    /// The error names the file, the line and the key, and says what to write instead.
    pub fn read(path: &Path) -> Result<Profile, ProfileError> {
        if let Some((name, text)) = SHIPPED.iter().find(|(name, _)| path == Path::new(name) && !path.is_file()) {
            return Profile::parse_file(text, Some(format!("hw-profiles/{name}.toml")));
        }
        let text = read_bounded(path, limits::PROFILE_BYTES_MAX).map_err(|error| ProfileError {
            file: Some(path.display().to_string()),
            line: None,
            key: None,
            message: format!(
                "cannot be read ({error}): name a file, or one that is shipped ({}), or write one with \
                 'spinetail host detect --write FILE'",
                SHIPPED.map(|(name, _)| name).join(", ")
            ),
        })?;
        Profile::parse_file(&text, Some(path.display().to_string()))
    }

    /// The same for the text of a file.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        Profile::parse_file(text, None)
    }

    fn parse_file(text: &str, file: Option<String>) -> Result<Profile, ProfileError> {
        let in_file = |error: ProfileError| ProfileError { file: file.clone(), ..error };
        let document = DeTable::parse(text).map_err(|error| in_file(syntax_error(text, None, &error)))?;
        let document = document.get_ref();
        refuse_unknown(text, document).map_err(in_file)?;
        refuse_missing(text, document).map_err(in_file)?;
        let profile: Profile =
            toml::from_str(text).map_err(|error| in_file(syntax_error(text, Some(document), &error)))?;
        let profile = Profile { source: Source { lines: lines_of(text, document), file }, ..profile };
        profile.validate_alone()?;
        Ok(profile)
    }

    /// The text of a file that [`Profile::read`] turns into an equal profile, each key explained.
    pub fn to_toml_text(&self) -> String {
        let values =
            toml::Table::try_from(self).expect("a profile holds strings, numbers, booleans and tables of them");
        let mut text = String::from(
            "# A Spinetail hardware profile. Check it with 'spinetail host check --profile FILE',\n\
             # use it with 'spinetail serve --profile FILE'. A key behind # is left out and says what could stand there.\n",
        );
        let mut section = "";
        for key in &KEYS {
            if key.section != section {
                section = key.section;
                text.push_str(&format!("\n[{section}]\n"));
            }
            let comment_lines = key.comment.lines().chain(self.remark(key));
            comment_lines.for_each(|line| text.push_str(&format!("# {line}\n")));
            match values.get(key.section).and_then(|keys| keys.get(key.name)) {
                Some(value) => text.push_str(&format!("{} = {value}\n", key.name)),
                None => text.push_str(&format!("#{} = {}\n", key.name, key.example)),
            }
        }
        text.push_str(&format!("\n[{SYSCTL}]\n"));
        SYSCTL_COMMENT.lines().for_each(|line| text.push_str(&format!("# {line}\n")));
        for (name, value) in &self.sysctl {
            text.push_str(&format!("\"{name}\" = {}\n", toml::Value::from(value.as_str())));
        }
        if let Some(figures) = values.get("calibration").and_then(toml::Value::as_table) {
            text.push_str("\n[calibration]\n# Written by 'spinetail host calibrate'.\n");
            figures.iter().for_each(|(name, value)| text.push_str(&format!("{name} = {value}\n")));
        }
        text
    }

    /// What to add to a key's comment in this very profile.
    fn remark(&self, key: &Key) -> Option<&'static str> {
        let alone = matches!(&self.cores.data, CoreWish::List(data) if data.len() == 1);
        (key.section == "cores" && key.name == "data" && alone && self.cores.housekeeping.is_none())
            .then_some("One core only: on a machine of two or three the others are left to clients that run on it too.")
    }
}

/// Every key of a profile with its meaning, as a table for the documentation.
pub fn reference() -> String {
    let mut text = String::from("| key | meaning |\n|---|---|\n");
    for key in &KEYS {
        let meaning = key.comment.replace('\n', " ").replace('|', "\\|");
        text.push_str(&format!("| `{}.{}` | {meaning} |\n", key.section, key.name));
    }
    text.push_str(&format!("| `{SYSCTL}.*` | {} |\n", SYSCTL_COMMENT.replace('\n', " ")));
    text
}

/// The candidate that `word` most likely meant, if one is near.
pub fn closest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let near = MISSPELLING_MAX.min(word.len() / 2);
    candidates
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= near)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn refuse_unknown(text: &str, document: &DeTable<'_>) -> Result<(), ProfileError> {
    let sections = || KEYS.iter().map(|key| key.section).chain(FREE_SECTIONS);
    for (section, value) in document.iter() {
        let line = Some(line_of(text, section.span().start));
        let section: &str = section.get_ref();
        let complain = |key: String, message| ProfileError { file: None, line, key: Some(key), message };
        if !sections().any(|known| known == section) {
            let home = KEYS.iter().find(|key| key.name == section);
            let message = match (home, closest(section, sections())) {
                (Some(key), _) => format!("no such section; the key of that name goes under [{}]", key.section),
                (None, Some(known)) => format!("no such section; did you mean [{known}]?"),
                (None, None) => {
                    let mut names: Vec<&str> = sections().collect();
                    names.dedup();
                    format!("no such section; there are {}", names.join(", "))
                }
            };
            return Err(complain(section.to_owned(), message));
        }
        let DeValue::Table(keys) = value.get_ref() else {
            return Err(complain(section.to_owned(), format!("is a section, not a key: write [{section}]")));
        };
        if FREE_SECTIONS.contains(&section) {
            continue;
        }
        for (name, _) in keys.iter() {
            let line = Some(line_of(text, name.span().start));
            let name: &str = name.get_ref();
            if !KEYS.iter().any(|key| key.section == section && key.name == name) {
                let key = Some(format!("{section}.{name}"));
                return Err(ProfileError { file: None, line, key, message: unknown_key(section, name) });
            }
        }
    }
    Ok(())
}

fn unknown_key(section: &str, name: &str) -> String {
    let here = || KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return format!("no such key; did you mean {}.{name}, under [{}]?", key.section, key.section);
    }
    if let Some(known) = closest(name, here()) {
        return format!("no such key; did you mean {section}.{known}?");
    }
    if let Some(known) = closest(name, KEYS.iter().map(|key| key.name)) {
        let home = KEYS.iter().find(|key| key.name == known).map_or(section, |key| key.section);
        return format!("no such key; did you mean {home}.{known}, under [{home}]?");
    }
    format!("no such key; [{section}] has {}", here().collect::<Vec<_>>().join(", "))
}

fn refuse_missing(text: &str, document: &DeTable<'_>) -> Result<(), ProfileError> {
    let keys_of = |section: &str| document.iter().find(|(name, _)| name.get_ref() == section);
    let has = |section: &str, key: &str| keys_of(section).is_some_and(|(_, keys)| keys.get_ref().get(key).is_some());
    let missing = |key: &Key, more: &str| {
        let line = keys_of(key.section).map(|(name, _)| line_of(text, name.span().start));
        let message =
            format!("is missing: add a line like '{} = {}'{more} under [{}]", key.name, key.example, key.section);
        Err(ProfileError { file: None, line, key: Some(format!("{}.{}", key.section, key.name)), message })
    };
    for key in &KEYS {
        if key.presence == Required && !has(key.section, key.name) {
            return missing(key, "");
        }
        // One of two must be there, and serde knows no such rule.
        if key.section == "memory" && key.name == "total" && !has("memory", "total") && !has("memory", "per_shard") {
            return missing(key, " or 'per_shard = \"4GiB\"'");
        }
    }
    Ok(())
}

/// A complaint of the parser, with its line, and its key where the keys are known already.
fn syntax_error(text: &str, document: Option<&DeTable<'_>>, error: &toml::de::Error) -> ProfileError {
    let start = error.span().map(|span| span.start);
    let key = document.zip(start).and_then(|(document, start)| {
        let paths = lines_of(text, document).into_keys().filter(|path| path.contains('.'));
        paths.into_iter().find(|path| span_of(document, path).is_some_and(|span| span.contains(&start)))
    });
    ProfileError { file: None, line: start.map(|start| line_of(text, start)), key, message: error.message().to_owned() }
}

/// Lines of all keys.
fn lines_of(text: &str, document: &DeTable<'_>) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for (section, keys) in document.iter() {
        lines.insert(section.get_ref().to_string(), line_of(text, section.span().start));
        let DeValue::Table(keys) = keys.get_ref() else { continue };
        for (name, _) in keys.iter() {
            lines.insert(format!("{}.{}", section.get_ref(), name.get_ref()), line_of(text, name.span().start));
        }
    }
    lines
}

/// Where the value of `section.name` stands in the text.
fn span_of(document: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let (section, name) = path.split_once('.')?;
    let keys = document.iter().find(|(key, _)| key.get_ref() == section)?.1;
    keys.get_ref().get(name).map(|value| value.span())
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// Levenshtein's distance, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::memory::PageWish;
    use crate::host::profile::{
        Cores, Io, Kernel, Machine, Match, Memory, MemoryWish, Network, NicWish, Poll, Power, QueueCores,
    };
    use crate::host::topology::Topology;

    const SMALLEST: &str = "[machine]\nname = \"x\"\n[cores]\ndata = \"1-3\"\n[memory]\ntotal = \"1GiB\"\n";

    fn refusal(text: &str) -> String {
        Profile::parse(text).unwrap_err().to_string()
    }

    /// The complaint as a user sees it, with a file in front, so that the line shows too.
    fn refusal_in_file(text: &str) -> String {
        let error = Profile::parse(text).unwrap_err();
        ProfileError { file: Some("p.toml".to_owned()), ..error }.to_string()
    }

    #[test]
    fn smallest_file_gets_the_defaults() {
        let profile = Profile::parse(SMALLEST).unwrap();
        assert_eq!(profile.cores.data, CoreWish::List(vec![1, 2, 3]));
        assert!(profile.cores.housekeeping.is_none() && profile.cores.irq.is_none() && !profile.cores.siblings);
        let memory = Memory {
            total: Some(MemoryWish::Bytes(1 << 30)),
            per_shard_bytes: None,
            pages: PageWish::Transparent,
            populate: true,
            bind: true,
            remote: false,
        };
        assert_eq!(profile.memory, memory);
        assert_eq!(profile.network, Network { poll: Poll::Spin, io: Io::Auto });
        assert_eq!((profile.nic, profile.power, profile.kernel), Default::default());
    }

    #[test]
    fn written_profile_reads_back_equal() {
        let machine = Topology::detect(Path::new("/")).unwrap();
        let detected = Profile::auto(&machine, &machine.core_ids());
        let odd = Profile {
            machine: Machine { name: "a \"b\" \\ c # d".to_owned(), description: "two\nlines\t'''".to_owned() },
            matches: Match { processor: Some("a|b".to_owned()), limited: Some(true), ..Match::default() },
            cores: Cores {
                data: CoreWish::List(vec![1, 5, 6, 7]),
                housekeeping: CoreWish::List(vec![0, 9]),
                irq: CoreWish::PerNode(2),
                siblings: true,
            },
            memory: Memory {
                total: Some(MemoryWish::Bytes((1 << 30) + 1)),
                per_shard_bytes: None,
                pages: PageWish::Small,
                populate: false,
                bind: false,
                remote: true,
            },
            network: Network { poll: Poll::Park, io: Io::IoUring },
            nic: NicWish {
                interfaces: "eth0,ens*".to_owned(),
                queue_cores: QueueCores::List(vec![9, 0, 9]),
                xps: true,
                rps: Some(false),
                rfs_entries: Some(0),
                rx_ring: Some(1),
                tx_ring: Some(2),
                busy_poll_us: Some(3),
                gro_flush_timeout_ns: Some(4),
                napi_defer_hard_irqs: Some(5),
            },
            power: Power { governor: Some("performance".to_owned()), idle_us_max: Some(1) },
            kernel: Kernel { cmdline: vec!["nohz_full={data}".to_owned(), "\"".to_owned()], partition: true },
            sysctl: [
                ("vm.swappiness".to_owned(), "0".to_owned()),
                ("net.ipv4.tcp_rmem".to_owned(), "1\t2 3".to_owned()),
            ]
            .into(),
            calibration: None,
            source: Source::default(),
        };
        let by_share = Profile {
            memory: Memory { total: Some(MemoryWish::Percent(60)), ..odd.memory.clone() },
            cores: Cores { data: CoreWish::Rest, ..odd.cores.clone() },
            ..odd.clone()
        };
        let by_shard = Profile {
            memory: Memory { total: None, per_shard_bytes: Some(1 << 30), ..odd.memory.clone() },
            ..odd.clone()
        };
        for profile in [detected, odd, by_share, by_shard] {
            let text = profile.to_toml_text();
            assert_eq!(Profile::parse(&text), Ok(profile), "{text}");
        }
    }

    #[test]
    fn written_profile_explains_every_key() {
        let text = Profile::parse(SMALLEST).unwrap().to_toml_text();
        let lines: Vec<&str> = text.lines().collect();
        let keys: Vec<usize> =
            (0..lines.len()).filter(|&i| lines[i].contains(" = ") && lines[i - 1].starts_with('#')).collect();
        assert_eq!(keys.len(), KEYS.len());
        let says = |key: &Key| match key.presence {
            Required => key.comment.contains("Required"),
            Defaulted => key.comment.contains("Default"),
            Optional => {
                key.comment.contains("Default") || key.comment.contains("Required") || key.comment.contains("Left out")
            }
        };
        assert!(KEYS.iter().all(says));
    }

    #[test]
    fn the_readme_of_the_profiles_lists_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("hw-profiles/README.md");
        let text = fs::read_to_string(&path).unwrap();
        if std::env::var_os("SPINETAIL_UPDATE_REFERENCE").is_some() {
            let (before, _) = text.split_once("| key |").unwrap_or((&text, ""));
            return fs::write(path, format!("{before}{}", reference())).unwrap();
        }
        assert!(text.ends_with(&reference()), "out of date: SPINETAIL_UPDATE_REFERENCE=1 cargo test the_readme_of");
    }

    #[test]
    fn lone_data_core_is_explained() {
        let text = SMALLEST.replace("1-3", "0");
        assert!(Profile::parse(&text).unwrap().to_toml_text().contains("left to clients"));
        assert!(!Profile::parse(SMALLEST).unwrap().to_toml_text().contains("left to clients"));
    }

    #[test]
    fn unknown_key_is_told_its_neighbour() {
        let refusal = refusal_in_file(&SMALLEST.replace("total", "totl = \"1\"\ntotal"));
        assert_eq!(refusal, "p.toml:6: memory.totl: no such key; did you mean memory.total?");
    }

    #[test]
    fn key_in_the_wrong_section_is_told_its_own() {
        assert!(refusal(&SMALLEST.replace("data", "poll = \"spin\"\ndata")).contains("network.poll, under [network]"));
        assert!(refusal(&SMALLEST.replace("data", "pol = \"spin\"\ndata")).contains("did you mean network.poll"));
        assert!(refusal(&format!("data = \"1\"\n{SMALLEST}")).contains("goes under [cores]"));
    }

    #[test]
    fn unknown_key_without_a_neighbour_is_told_the_list() {
        let refusal = refusal(&SMALLEST.replace("data", "zebra = 1\ndata"));
        assert_eq!(refusal, "cores.zebra: no such key; [cores] has data, housekeeping, irq, siblings");
    }

    #[test]
    fn unknown_section_is_refused() {
        assert!(
            refusal_in_file(&format!("{SMALLEST}[netwrk]\n"))
                .contains("p.toml:7: netwrk: no such section; did you mean [network]?")
        );
        assert!(refusal(&format!("{SMALLEST}[zebra]\n")).contains("machine, match, cores, memory, network, nic"));
        assert!(refusal("cores = 1\n").contains("write [cores]"));
    }

    #[test]
    fn missing_key_is_told_an_example() {
        let complaint = refusal_in_file(&SMALLEST.replace("data = \"1-3\"\n", ""));
        assert_eq!(complaint, "p.toml:3: cores.data: is missing: add a line like 'data = \"2-15\"' under [cores]");
        assert!(refusal("").contains("machine.name: is missing"));
        assert!(refusal("[machine]\nname = \"x\"\n[cores]\ndata = \"1\"\n").contains("memory.total: is missing"));
    }

    #[test]
    fn value_that_makes_no_sense_is_refused_with_line_and_key() {
        let cases = [
            ("\"1-3\"", "\"3-1\"", "p.toml:4: cores.data: '3-1' is not a list of cores"),
            ("\"1-3\"", "3", "p.toml:4: cores.data: invalid type: integer"),
            ("\"1GiB\"", "\"1GB\"", "p.toml:6: memory.total: '1GB' is not a size"),
            ("\"1GiB\"", "\"1GiB\"\npages = \"1GiB\"", "p.toml:7: memory.pages: unknown variant `1GiB`"),
            ("\"1GiB\"", "\"1GiB\"\nbind = \"no\"", "p.toml:7: memory.bind: invalid type: string"),
        ];
        for (from, to, expected) in cases {
            let refusal = refusal_in_file(&SMALLEST.replace(from, to));
            assert!(refusal.starts_with(expected), "{refusal}");
        }
    }

    #[test]
    fn broken_syntax_is_refused_with_its_line() {
        assert!(refusal_in_file("[machine]\nname = \"x\n").starts_with("p.toml:2: "));
        assert!(refusal_in_file(&format!("{SMALLEST}total = \"2GiB\"\n")).starts_with("p.toml:7: "));
    }

    #[test]
    fn impossible_profile_is_refused_with_its_line() {
        let overlap = SMALLEST.replace("data", "housekeeping = \"1\"\ndata");
        assert!(refusal_in_file(&overlap).starts_with("p.toml:4: cores.housekeeping: core 1 is in cores.data too"));
        assert!(refusal_in_file(&SMALLEST.replace("1GiB", "1MiB")).starts_with("p.toml:6: memory.total: "));
        assert!(refusal_in_file(&SMALLEST.replace("1-3", "")).starts_with("p.toml:4: cores.data: no core is named"));
    }

    #[test]
    fn missing_file_is_refused_by_name() {
        let refusal = Profile::read(Path::new("/nowhere/p.toml")).unwrap_err().to_string();
        assert!(refusal.starts_with("/nowhere/p.toml: cannot be read"), "{refusal}");
    }

    #[test]
    fn edit_distance_counts_letters() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
    }
}
