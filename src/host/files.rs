//! The files of a machine: sysfs and procfs below a directory, or a recording of them in one file.
//!
//! Detection reads through [`Files`] and nothing else, which gives two things. A test holds the
//! two-socket machine nobody has at hand; and a user whose machine is read wrongly can send what was
//! read (`spinetail host detect --record my.tree`), because `Files` remembers every answer it gave.
//!
//! A recording is text, one entry after the other, its paths relative to the root:
//!
//! ```text
//! == sys/devices/system/cpu/online
//! 0-31
//! == sys/class/net/eth0 -> ../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0
//! == proc/irq/38/smp_affinity_list
//! 0
//! ```
//!
//! - Paths are those that were asked for. A link is an entry of its own and is never followed: what
//!   stands behind it is recorded under the name it was asked by. So a directory needs no entry; it is
//!   there when something below it is.
//! - An entry without text is a name that a directory listed and nobody read.
//! - A line of content that begins with `==` or a backslash has a backslash put before it.
//! - `cpu{0-3,8}` in a path stands for `cpu0` to `cpu3` and `cpu8`, each with that content: forty cores
//!   alike are one entry. Written recordings do not use it.
//! - What stands before the first entry is a comment.
//!
//! A file that is missing is an ordinary answer (containers hide half of sysfs). A file that is there
//! and makes no sense is an error which names it, because guessing would pin threads to the wrong cores.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::base::limits;
use crate::host::cpu_list::parse_cpu_list;

/// How the name of a recording ends.
pub const RECORDING_SUFFIX: &str = "tree";

/// What was read of a machine, path by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Text(String),
    Link(String),
}

/// The files of one machine.
#[derive(Debug)]
pub struct Files {
    source: Source,
    /// What was answered so far, where somebody wants to know.
    answered: Option<RefCell<Recording>>,
}

#[derive(Debug)]
enum Source {
    Directory(PathBuf),
    Recorded { path: PathBuf, recording: Recording },
}

impl Recording {
    /// Reads the text of a recording; the error names the line.
    pub fn parse(text: &str) -> Result<Recording, String> {
        let mut entries = BTreeMap::new();
        // What the lines to come are content of; none before the first entry and behind a link.
        let mut open: Option<(usize, &str, String)> = None;
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            if let Some(head) = line.strip_prefix("== ") {
                if let Some((number, path, content)) = open.take() {
                    insert(&mut entries, number, path, &Entry::Text(content))?;
                }
                match head.split_once(" -> ") {
                    Some((path, target)) => insert(&mut entries, number, path, &Entry::Link(target.trim().to_owned()))?,
                    None => open = Some((number, head, String::new())),
                }
            } else if line.starts_with("==") {
                return Err(format!("line {number}: '{line}' begins no entry: write '== path' or '\\==' for content"));
            } else if let Some((_, _, content)) = &mut open {
                content.push_str(line.strip_prefix('\\').unwrap_or(line));
                content.push('\n');
            } else if !entries.is_empty() && !line.is_empty() {
                return Err(format!("line {number}: '{line}' follows a link, which has no content"));
            }
        }
        if let Some((number, path, content)) = open {
            insert(&mut entries, number, path, &Entry::Text(content))?;
        }
        if entries.is_empty() {
            return Err(
                "it has no line '== path'; 'spinetail host detect --record FILE' writes one that has".to_owned()
            );
        }
        Ok(Recording { entries })
    }

    /// The text that [`Recording::parse`] reads.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (path, entry) in &self.entries {
            match entry {
                Entry::Link(target) => {
                    let _ = writeln!(text, "== {path} -> {target}");
                }
                Entry::Text(content) => {
                    let _ = writeln!(text, "== {path}");
                    for line in content.lines() {
                        let escape = if line.starts_with("==") || line.starts_with('\\') { "\\" } else { "" };
                        let _ = writeln!(text, "{escape}{line}");
                    }
                }
            }
        }
        text
    }

    /// Paths that have text or a link, ascending.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Names below a directory, one level deep.
    fn names(&self, directory: &str) -> BTreeSet<String> {
        let prefix = format!("{directory}/");
        let below = self.entries.range(prefix.clone()..).map(|(path, _)| path);
        let below = below.map_while(|path| path.strip_prefix(prefix.as_str()));
        below.filter_map(|rest| rest.split('/').next().map(str::to_owned)).collect()
    }
}

impl Files {
    /// Opens a machine's files: a directory (`/` for the machine this runs on), or a recording
    /// `NAME.tree`, whose ending may be left off.
    pub fn open(root: &Path) -> Result<Files, String> {
        if root.is_dir() {
            return Ok(Files { source: Source::Directory(root.to_owned()), answered: None });
        }
        let mut longer = root.as_os_str().to_owned();
        longer.push(".");
        longer.push(RECORDING_SUFFIX);
        let longer = PathBuf::from(longer);
        let recorded = if root.exists() || !longer.exists() { root.to_owned() } else { longer };
        let failed = |reason: &dyn std::fmt::Display| format!("{} is no recording: {reason}", recorded.display());
        let text = read_bounded(&recorded, limits::RECORDING_BYTES_MAX).map_err(|error| failed(&error))?;
        let recording = Recording::parse(&text).map_err(|reason| failed(&reason))?;
        Ok(Files::recorded(&recorded, recording))
    }

    /// The files in `recording`; complaints say that they stand in `path`.
    pub fn recorded(path: &Path, recording: Recording) -> Files {
        Files { source: Source::Recorded { path: path.to_owned(), recording }, answered: None }
    }

    /// From now on keeps what it answers, for [`Files::recording`].
    pub fn remembering(self) -> Files {
        Files { answered: Some(RefCell::default()), ..self }
    }

    /// What was answered since [`Files::remembering`]; nothing without it.
    pub fn recording(&self) -> Recording {
        let Some(answered) = &self.answered else { return Recording::default() };
        let all = answered.borrow();
        // A directory that was listed is there anyway when something below it was read.
        let needed = |(path, entry): &(&String, &Entry)| match entry {
            Entry::Text(text) if text.is_empty() => all.names(path).is_empty(),
            _ => true,
        };
        let kept = all.entries.iter().filter(needed).map(|(path, entry)| (path.clone(), entry.clone()));
        Recording { entries: kept.collect() }
    }

    /// These are the files of the machine this runs on, so the kernel may be asked what they leave out.
    pub fn live(&self) -> bool {
        matches!(&self.source, Source::Directory(root) if root == Path::new("/"))
    }

    /// Where all of them stand, for people.
    pub(crate) fn root(&self) -> String {
        match &self.source {
            Source::Directory(path) | Source::Recorded { path, .. } => path.display().to_string(),
        }
    }

    /// Where a file stands, for people.
    pub(crate) fn display(&self, relative: &str) -> String {
        match &self.source {
            Source::Directory(root) => root.join(relative).display().to_string(),
            Source::Recorded { path, .. } => format!("{} in {}", relative, path.display()),
        }
    }

    /// The text without surrounding space; `None` when missing, unreadable or empty.
    pub(crate) fn text(&self, relative: &str) -> Option<String> {
        let text = match &self.source {
            Source::Directory(root) => read_bounded(&root.join(relative), limits::HOST_FILE_BYTES_MAX).ok()?,
            Source::Recorded { recording, .. } => match recording.entries.get(relative)? {
                Entry::Text(text) => text.clone(),
                Entry::Link(_) => return None,
            },
        };
        let trimmed = text.trim().to_owned();
        self.remember(relative, Entry::Text(text));
        (!trimmed.is_empty()).then_some(trimmed)
    }

    /// An answer that no file holds but `asked` gets from the kernel of a live machine. It is recorded
    /// below `relative` like a file, and read from there in a recording.
    pub(crate) fn text_or_asked(&self, relative: &str, asked: impl FnOnce() -> Option<String>) -> Option<String> {
        if !self.live() {
            return self.text(relative);
        }
        let text = asked()?;
        self.remember(relative, Entry::Text(text.clone()));
        Some(text)
    }

    /// Where a link points, as it is written.
    pub(crate) fn link(&self, relative: &str) -> Option<String> {
        let target = match &self.source {
            Source::Directory(root) => fs::read_link(root.join(relative)).ok()?.to_str()?.to_owned(),
            Source::Recorded { recording, .. } => match recording.entries.get(relative)? {
                Entry::Link(target) => target.clone(),
                Entry::Text(_) => return None,
            },
        };
        self.remember(relative, Entry::Link(target.clone()));
        Some(target)
    }

    /// The last name in a link's target: a driver's name behind `driver`.
    pub(crate) fn link_name(&self, relative: &str) -> Option<String> {
        self.link(relative)?.rsplit('/').next().map(str::to_owned)
    }

    /// The path behind a link, relative to the root; by the letters, as sysfs links only what is there.
    pub(crate) fn link_path(&self, relative: &str) -> Option<String> {
        let target = self.link(relative)?;
        let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { relative.split('/').collect() };
        parts.pop(); // the link's own name
        for part in target.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                name => parts.push(name),
            }
        }
        Some(parts.join("/"))
    }

    /// A whole number; -1 is what the kernel writes where the firmware told it nothing.
    pub(crate) fn number(&self, relative: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.text(relative) else { return Ok(None) };
        if text == "-1" {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| self.senseless(relative, &text, "a number"))
    }

    /// A number of something this program counts with: a core, a node, a queue.
    pub(crate) fn index(&self, relative: &str) -> Result<Option<usize>, String> {
        let Some(number) = self.number(relative)? else { return Ok(None) };
        let index = usize::try_from(number).ok().filter(|&index| index <= u32::MAX as usize);
        index.map(Some).ok_or_else(|| self.senseless(relative, &number.to_string(), "a number that small things have"))
    }

    /// `0` or `1`.
    pub(crate) fn switch(&self, relative: &str) -> Result<Option<bool>, String> {
        match self.text(relative).as_deref() {
            None => Ok(None),
            Some("0") => Ok(Some(false)),
            Some("1") => Ok(Some(true)),
            Some(text) => Err(self.senseless(relative, text, "0 or 1")),
        }
    }

    /// A list of cores or nodes.
    pub(crate) fn list(&self, relative: &str) -> Result<Option<Vec<usize>>, String> {
        let Some(text) = self.text(relative) else { return Ok(None) };
        // Some kernels print a null pointer where nothing is configured.
        if text == "(null)" {
            return Ok(None);
        }
        parse_cpu_list(&text).map(Some).map_err(|_| self.senseless(relative, &text, "a list of cores"))
    }

    /// The complaint about a file that is there and makes no sense.
    pub(crate) fn senseless(&self, relative: &str, text: &str, wanted: &str) -> String {
        let text: String = text.chars().take(SHOWN_CHARS_MAX).collect();
        format!("{} holds '{text}', which is not {wanted}: is the right sysfs mounted there?", self.display(relative))
    }

    /// Names in a directory, ascending by their letters; none when it is missing.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        self.names_where(directory, |_| true)
    }

    /// Numbers N of the entries `prefixN` in a directory, ascending.
    pub(crate) fn numbered(&self, directory: &str, prefix: &str) -> Vec<usize> {
        let number = |name: &str| name.strip_prefix(prefix)?.parse::<usize>().ok();
        let names = self.names_where(directory, |name| number(name).is_some());
        let mut numbers: Vec<usize> = names.iter().filter_map(|name| number(name)).collect();
        numbers.sort_unstable();
        numbers
    }

    fn names_where(&self, directory: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut names: Vec<String> = match &self.source {
            Source::Directory(root) => {
                let Ok(entries) = fs::read_dir(root.join(directory)) else { return Vec::new() };
                entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
            }
            Source::Recorded { recording, .. } => recording.names(directory).into_iter().collect(),
        };
        names.retain(|name| wanted(name));
        names.sort_unstable();
        if let Some(answered) = &self.answered {
            let entries = &mut answered.borrow_mut().entries;
            for name in names.iter().filter(|name| !name.contains('{')) {
                entries.entry(format!("{directory}/{name}")).or_insert_with(|| Entry::Text(String::new()));
            }
        }
        names
    }

    /// A path with a brace would be read as several, and is left out: nothing in sysfs has one unless somebody
    /// named an interface so.
    fn remember(&self, relative: &str, entry: Entry) {
        if let Some(answered) = &self.answered
            && !relative.contains('{')
        {
            answered.borrow_mut().entries.insert(relative.to_owned(), entry);
        }
    }
}

/// Puts `entry` under `path`, or under each path its braces stand for.
/// The text of a file of so many bytes at most. Only files: a device has no end, and a pipe may never have one.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut text = String::new();
    let read = fs::File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if read as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes")));
    }
    Ok(text)
}

fn insert(entries: &mut BTreeMap<String, Entry>, number: usize, path: &str, entry: &Entry) -> Result<(), String> {
    let path = path.trim();
    if path.matches('{').count() > BRACES_MAX {
        return Err(format!("line {number}: a path has more than {BRACES_MAX} braces: write it out"));
    }
    if let Some((before, rest)) = path.split_once('{') {
        // Each path it stands for has a copy of the content.
        if let Entry::Text(text) = entry
            && text.len() > BRACED_BYTES_MAX
        {
            return Err(format!("line {number}: more than {BRACED_BYTES_MAX} bytes are the same for several paths"));
        }
        let (list, after) =
            rest.split_once('}').ok_or_else(|| format!("line {number}: '{path}' has a brace that is not closed"))?;
        for one in parse_cpu_list(list).map_err(|reason| format!("line {number}: {reason}"))? {
            insert(entries, number, &format!("{before}{one}{after}"), entry)?;
        }
        return Ok(());
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("line {number}: '{path}' is not a path below a root: write it like sys/class"));
    }
    if entries.len() == limits::RECORDING_ENTRIES_MAX {
        return Err(format!("line {number}: there are more than {} entries", limits::RECORDING_ENTRIES_MAX));
    }
    match entries.insert(path.to_owned(), entry.clone()) {
        Some(_) => Err(format!("line {number}: {path} is recorded twice: remove one")),
        None => Ok(()),
    }
}

/// Lists in one path of a recording: a core, and one of what it has several of.
const BRACES_MAX: usize = 2;

/// Bytes of an entry that stands for several paths. What cores have in common is short.
const BRACED_BYTES_MAX: usize = 4096;

/// As much of a senseless file as a complaint shows.
const SHOWN_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "A comment.\n== a/one\n1\n== a/b -> ../c\n\n== a/b/two\n\\== two\n\\\\\n\n== empty\n";

    fn recorded(text: &str) -> Files {
        Files::recorded(Path::new("some.tree"), Recording::parse(text).unwrap())
    }

    #[test]
    fn recording_is_read_and_written_alike() {
        let recording = Recording::parse(TREE).unwrap();
        assert_eq!(recording.paths().collect::<Vec<_>>(), ["a/b", "a/b/two", "a/one", "empty"]);
        assert_eq!(Recording::parse(&recording.to_text()), Ok(recording));
        let files = recorded(TREE);
        assert_eq!(files.text("a/b/two").as_deref(), Some("== two\n\\"));
        assert_eq!(files.text("empty"), None);
        assert_eq!(files.number("a/one"), Ok(Some(1)));
        assert_eq!(files.names("a"), ["b", "one"]);
        assert_eq!((files.link("a/b").as_deref(), files.link_path("a/b").as_deref()), (Some("../c"), Some("c")));
    }

    #[test]
    fn braces_stand_for_each_number_in_them() {
        let files = recorded("== cpu{0,2-3}/index{0-1}/size\n32K\n");
        assert_eq!(files.numbered("", "cpu"), Vec::<usize>::new());
        assert_eq!(files.names("cpu2"), ["index0", "index1"]);
        assert_eq!(files.text("cpu3/index1/size").as_deref(), Some("32K"));
        assert_eq!(files.text("cpu1/index1/size"), None);
    }

    #[test]
    fn recordings_that_are_none_are_refused_with_the_line() {
        let refused = [
            ("A text like any other.\n", "no line"),
            ("== /etc/passwd\n", "line 1"),
            ("== a\n1\n== ../a\n", "line 3"),
            ("== a\n== a\n", "twice"),
            ("== cpu{0-1}\n== cpu1\n", "twice"),
            ("== cpu{0-\n", "not closed"),
            ("== cpu{x}\n", "list of cores"),
            ("== a -> b\n1\n", "line 2"),
            ("== a\n==b\n", "line 2"),
            ("== a/{0-8191}/{0-8191}\n", "entries"),
        ];
        for (text, reason) in refused {
            let complaint = Recording::parse(text).unwrap_err();
            assert!(complaint.contains(reason), "{text}: {complaint}");
        }
    }

    #[test]
    fn what_was_answered_is_what_a_recording_answers() {
        let files = recorded(TREE).remembering();
        files.text("a/one");
        files.names("a");
        files.text("missing");
        files.link("a/b");
        assert_eq!(files.recording(), Recording::parse("== a/b -> ../c\n== a/one\n1\n").unwrap());
    }

    #[test]
    fn ending_of_a_recording_may_be_left_off() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host");
        for name in ["vm-2core", "vm-2core.tree"] {
            let files = Files::open(&root.join(name)).unwrap();
            assert_eq!(files.text("sys/devices/system/cpu/online").as_deref(), Some("0-1"));
            assert!(!files.live());
        }
    }

    #[test]
    fn root_that_is_nothing_is_refused_with_its_name() {
        for root in ["/nonexistent-machine", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
            let complaint = Files::open(Path::new(root)).unwrap_err();
            assert!(complaint.starts_with(root), "{complaint}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_refused_with_their_file() {
        let files = recorded("== n\nmany\n== s\n2\n== l\n3-1\n== none\n-1\n");
        let complaints = [files.number("n").unwrap_err(), files.switch("s").unwrap_err(), files.list("l").unwrap_err()];
        for (complaint, name) in complaints.iter().zip(["n in some.tree", "s in some.tree", "l in some.tree"]) {
            assert!(complaint.starts_with(name), "{complaint}");
        }
        assert_eq!(files.number("none"), Ok(None));
        assert_eq!(files.number("missing"), Ok(None));
    }
}
