//! The TOML file of a profile: the list of its keys with what each means, what it defaults to and
//! what a wrong value costs; the writer that prints them, and the reader that refuses anything else.
//!
//! The reader looks at the keys itself before serde does. Serde would refuse the same files, but
//! with one message for all of them; here an unknown key is told its nearest neighbour, a missing
//! one an example, and every complaint its file, line and key.

use std::fs;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::host::profile::{Profile, ProfileError};

/// Letters a misspelt key may differ in and still be recognised.
const MISSPELLING_MAX: usize = 3;

/// One key of the file.
struct Key {
    section: &'static str,
    name: &'static str,
    /// A value to show to whoever left a key out that has no default.
    example: Option<&'static str>,
    /// Meaning, unit, default and cost, printed above the key.
    comment: &'static str,
}

const KEYS: [Key; 10] = [
    Key {
        section: "machine",
        name: "name",
        example: Some("\"edge-7\""),
        comment: "Short name of this kind of machine, shown in reports. Required. Changes nothing else.",
    },
    Key {
        section: "machine",
        name: "description",
        example: None,
        comment: "A sentence for people. Default: empty. Changes nothing.",
    },
    Key {
        section: "cores",
        name: "data",
        example: Some("\"2-15\""),
        comment: "Cores that run one shard each, as the kernel numbers them: ranges and numbers. Required.\n\
                  Name one hardware thread per physical core and leave its siblings idle: two shards on one\n\
                  physical core share its caches and execution units. A core that other programs use as well\n\
                  puts their time slices into the tail of the latency.",
    },
    Key {
        section: "cores",
        name: "housekeeping",
        example: None,
        comment: "Cores for everything but requests: admin, metrics, logs, cluster. Same form, none may be in data.\n\
                  Default: \"\" (every core that this process may use and no shard runs on).",
    },
    Key {
        section: "memory",
        name: "total",
        example: Some("\"1GiB\""),
        comment: "Memory of the whole process, everything included, in KiB, MiB or GiB; shared evenly by the shards.\n\
                  Required; at least 8MiB a shard. Too little costs misses. Too much costs the process: the kernel\n\
                  kills it when memory runs out, or swaps.",
    },
    Key {
        section: "memory",
        name: "pages",
        example: None,
        comment: "Pages to ask for: \"2MiB\" (set aside by the administrator, per NUMA node), \"transparent\" (2 MiB\n\
                  where the kernel finds them) or \"4KiB\". Default: \"transparent\". Each falls back to the next.\n\
                  Smaller pages cost more address translations on every lookup in a large cache.",
    },
    Key {
        section: "memory",
        name: "populate",
        example: None,
        comment: "Touch all memory at start: true or false. Default: true. False starts sooner; then the first\n\
                  write to every page waits for the kernel, and a lack of memory shows under load.",
    },
    Key {
        section: "memory",
        name: "bind",
        example: None,
        comment: "Bind each shard's memory to the NUMA node of its core: true or false. Default: true. False lets\n\
                  memory come from another node when its own is full: slower on every access, but it starts.",
    },
    Key {
        section: "network",
        name: "poll",
        example: None,
        comment: "What an idle shard does: \"spin\" looks again at once and keeps its core at 100 %; \"park\" sleeps\n\
                  and pays a wake-up; \"adaptive\" spins while pauses are short. Default: \"spin\". Spinning on a core that is shared, or billed\n\
                  by use, takes the time from others and from the kernel's own network work.",
    },
    Key {
        section: "network",
        name: "io",
        example: None,
        comment: "Kernel interface: \"auto\" (io_uring where granted, else epoll), \"io_uring\" (or refuse to start)\n\
                  or \"epoll\". Default: \"auto\". epoll costs at most 10 % more core time per request.",
    },
];

impl Profile {
    /// Reads and validates the profile in a file, as far as that goes without a machine.
    ///
    /// The error names the file, the line and the key, and says what to write instead.
    pub fn read(path: &Path) -> Result<Profile, ProfileError> {
        let text = fs::read_to_string(path).map_err(|error| ProfileError {
            file: Some(path.display().to_string()),
            line: None,
            key: None,
            message: format!(
                "cannot be read ({error}): name a file from hw-profiles/, or write one with \
                 'spinetail host detect --write FILE'"
            ),
        })?;
        Profile::parse(&text).map_err(|error| ProfileError { file: Some(path.display().to_string()), ..error })
    }

    /// The same for the text of a file.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        let document = DeTable::parse(text).map_err(|error| syntax_error(text, None, &error))?;
        let document = document.get_ref();
        refuse_unknown(text, document)?;
        refuse_missing(text, document)?;
        let profile: Profile = toml::from_str(text).map_err(|error| syntax_error(text, Some(document), &error))?;
        profile.validate_alone().map_err(|error| {
            let span = error.key.as_deref().and_then(|key| span_of(document, key));
            ProfileError { line: span.map(|span| line_of(text, span.start)), ..error }
        })?;
        Ok(profile)
    }

    /// The text of a file that [`Profile::read`] turns into an equal profile, each key explained.
    pub fn to_toml_text(&self) -> String {
        let values = toml::Table::try_from(self).expect("a profile holds strings, booleans and tables of them");
        let mut text = String::from(
            "# A Spinetail hardware profile. Check it with 'spinetail host check --profile FILE',\n\
             # use it with 'spinetail serve --profile FILE'.\n",
        );
        let mut section = "";
        for key in &KEYS {
            if key.section != section {
                section = key.section;
                text.push_str(&format!("\n[{section}]\n"));
            }
            let comment_lines = key.comment.lines().chain(self.remark(key));
            comment_lines.for_each(|line| text.push_str(&format!("# {line}\n")));
            let value = &values[key.section][key.name];
            text.push_str(&format!("{} = {value}\n", key.name));
        }
        text
    }

    /// What to add to a key's comment in this very profile.
    fn remark(&self, key: &Key) -> Option<&'static str> {
        let alone = self.cores.data.len() == 1 && self.cores.housekeeping.is_empty();
        (key.section == "cores" && key.name == "data" && alone)
            .then_some("One core only: on a machine of two or three the others are left to clients that run on it too.")
    }
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
    let sections = || KEYS.iter().map(|key| key.section);
    for (section, value) in document.iter() {
        let line = Some(line_of(text, section.span().start));
        let section: &str = section.get_ref();
        let complain = |key: String, message| ProfileError { file: None, line, key: Some(key), message };
        if !sections().any(|known| known == section) {
            let home = KEYS.iter().find(|key| key.name == section);
            let message = match (home, closest(section, sections())) {
                (Some(key), _) => format!("no such section; the key of that name goes under [{}]", key.section),
                (None, Some(known)) => format!("no such section; did you mean [{known}]?"),
                (None, None) => "no such section; there are machine, cores, memory and network".to_owned(),
            };
            return Err(complain(section.to_owned(), message));
        }
        let DeValue::Table(keys) = value.get_ref() else {
            return Err(complain(section.to_owned(), format!("is a section, not a key: write [{section}]")));
        };
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
    for key in &KEYS {
        let Some(example) = key.example else { continue };
        let section = document.iter().find(|(name, _)| name.get_ref() == key.section);
        let present = section.and_then(|(_, keys)| keys.get_ref().get(key.name)).is_some();
        if !present {
            return Err(ProfileError {
                file: None,
                line: section.map(|(name, _)| line_of(text, name.span().start)),
                key: Some(format!("{}.{}", key.section, key.name)),
                message: format!("is missing: add a line like '{} = {example}' under [{}]", key.name, key.section),
            });
        }
    }
    Ok(())
}

/// A complaint of the parser, with its line, and its key where the keys are known already.
fn syntax_error(text: &str, document: Option<&DeTable<'_>>, error: &toml::de::Error) -> ProfileError {
    let start = error.span().map(|span| span.start);
    let key = document.zip(start).and_then(|(document, start)| {
        let paths = KEYS.iter().map(|key| format!("{}.{}", key.section, key.name));
        paths.into_iter().find(|path| span_of(document, path).is_some_and(|span| span.contains(&start)))
    });
    ProfileError { file: None, line: start.map(|start| line_of(text, start)), key, message: error.message().to_owned() }
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
    use super::*;
    use crate::host::memory::PageWish;
    use crate::host::profile::{Cores, Io, Machine, Memory, Network, Poll};
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
        assert_eq!(profile.cores.data, [1, 2, 3]);
        assert_eq!(profile.cores.housekeeping, Vec::<usize>::new());
        let memory = Memory { total_bytes: 1 << 30, pages: PageWish::Transparent, populate: true, bind: true };
        assert_eq!(profile.memory, memory);
        assert_eq!(profile.network, Network { poll: Poll::Spin, io: Io::Auto });
    }

    #[test]
    fn written_profile_reads_back_equal() {
        let machine = Topology::detect(Path::new("/")).unwrap();
        let detected = Profile::auto(&machine, &machine.core_ids());
        let odd = Profile {
            machine: Machine { name: "a \"b\" \\ c # d".to_owned(), description: "two\nlines\t'''".to_owned() },
            cores: Cores { data: vec![1, 5, 6, 7], housekeeping: vec![0, 9] },
            memory: Memory { total_bytes: (1 << 30) + 1, pages: PageWish::Small, populate: false, bind: false },
            network: Network { poll: Poll::Park, io: Io::IoUring },
        };
        for profile in [detected, odd] {
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
        assert!(KEYS.iter().all(|key| key.comment.contains("Default") || key.comment.contains("Required")));
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
        assert_eq!(refusal, "cores.zebra: no such key; [cores] has data, housekeeping");
    }

    #[test]
    fn unknown_section_is_refused() {
        assert!(
            refusal_in_file(&format!("{SMALLEST}[netwrk]\n"))
                .contains("p.toml:7: netwrk: no such section; did you mean [network]?")
        );
        assert!(refusal(&format!("{SMALLEST}[zebra]\n")).contains("machine, cores, memory and network"));
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
