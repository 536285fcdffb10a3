//! The journal: what every setting was before it was touched, on disk before the touch.
//!
//! One JSON object a line. The first line says whose journal it is, the others what is about to happen:
//!
//!   {"format":1,"boot_id":"…","profile":"edge-7","started_s":1764140000,"sum":"…"}
//!   {"sequence":1,"kind":"value","path":"proc/sys/vm/swappiness","old":{"bytes":"NjAK"},"new":"MQ==",…,"sum":"…"}
//!   {"sequence":1,"left":"Mgo=","sum":"…"}       the kernel made something else of it, or another apply did
//!
//! A line is appended and synced before the write it describes. So whatever moment the process is killed at, or
//! the power goes, one of three things is true of each setting, and undo need not know which: it is untouched and
//! not in the journal; it is in the journal and untouched; it is in the journal and touched, wholly or by half.
//!
//! A last line without its newline was being appended when the end came: its write had not begun, and it is cut
//! off. Anything else that does not add up is damage, and is refused with file and line, since an undo by half
//! would look like a whole one. `sum` is XXH3 of the line before it: a flipped bit in the middle of a recorded
//! value is valid JSON and valid base64, and would be restored with confidence.
//!
//! The journal is only ever appended to, or replaced as a whole by a rename.
//!
//! Two processes never hold one journal: [`Lock`] is taken before it is read, by the kernel's own lock, which
//! goes when the process does, however it goes.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_64;

use crate::base::limits::TUNE_JOURNAL_BYTES_MAX;
use crate::host::process::effective_user;
use crate::host::tune::change::{Held, Kind, Owner};
use crate::host::tune::paths::{below, create_anew, make_directories, not_ours, open_to_others, sync_directory};

/// Where the journal lives, below the root.
pub const STATE_DIRECTORY: &str = "var/lib/spinetail/host";

/// A journal that is open for appending.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: File,
    /// The first line.
    pub header: Header,
    /// Everything touched, in the order in which it was.
    pub entries: Vec<Entry>,
}

/// Whose journal it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the lines that follow.
    pub format: u32,
    /// The boot whose values are recorded; `None` where the kernel does not say.
    pub boot_id: Option<String>,
    /// Name of the profile applied.
    pub profile: String,
    /// When, in seconds of Unix time.
    pub started_s: u64,
}

/// One setting that was, or was about to be, touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number, ascending in the journal.
    pub sequence: u64,
    /// The form of the setting.
    pub kind: Kind,
    /// Path below the root.
    pub path: String,
    /// What it held before the first touch; `None` is a file that was not there.
    pub old: Option<Held>,
    /// What apply may have left in it, the newest last. Empty for a companion, which only the kernel changes.
    pub left: Vec<Vec<u8>>,
    /// Folders that were made for it, the outermost first.
    pub made: Vec<String>,
    /// The device whose setting it was, where the path is a number that another may have had since: an interrupt's
    /// name.
    pub of: Option<String>,
}

/// Why a journal cannot be used.
#[derive(Debug)]
pub enum JournalError {
    /// A line makes no sense.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// Another process holds it.
    Busy(PathBuf),
    /// Others may write it, and so say what root restores.
    Open {
        /// The file or folder.
        path: PathBuf,
        /// What lets them.
        why: String,
    },
    /// The file system refuses.
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// Its answer.
        error: io::Error,
    },
}

/// Held while the machine is changed; the kernel releases it when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the state directory if need be, and takes the lock in it without waiting.
    pub fn take(root: &Path) -> Result<Lock, JournalError> {
        let directory = below(root, STATE_DIRECTORY).map_err(refused(&root.join(STATE_DIRECTORY), "made"))?;
        make_directories(&directory).map_err(|(folder, error)| refused(&folder, "made")(error))?;
        Lock::take_in(&directory)
    }

    /// The same where nothing may be made: `None` without a state directory.
    pub fn take_existing(root: &Path) -> Result<Option<Lock>, JournalError> {
        let directory = below(root, STATE_DIRECTORY).map_err(refused(&root.join(STATE_DIRECTORY), "used"))?;
        if directory.is_dir() { Lock::take_in(&directory).map(Some) } else { Ok(None) }
    }

    fn take_in(directory: &Path) -> Result<Lock, JournalError> {
        if let Some(why) = open_to_others(directory).map_err(refused(directory, "looked at"))? {
            return Err(JournalError::Open { path: directory.to_owned(), why });
        }
        let path = directory.join("lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(refused(&path, "opened"))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(JournalError::Busy(path)),
            Err(TryLockError::Error(error)) => Err(refused(&path, "locked")(error)),
        }
    }
}

impl Journal {
    /// Opens the journal below `root`, if there is one, and cuts off what was being appended at the last end.
    pub fn open(root: &Path) -> Result<Option<Journal>, JournalError> {
        let directory = root.join(STATE_DIRECTORY);
        let path = directory.join(NAME);
        let Some((header, entries, whole_bytes)) = read(&path)? else { return Ok(None) };
        let file = OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let file = file.map_err(refused(&path, "opened"))?;
        if let Some(why) = not_ours(&file.metadata().map_err(refused(&path, "opened"))?) {
            return Err(JournalError::Open { path, why });
        }
        let cut = file.set_len(whole_bytes).and_then(|()| file.sync_all());
        cut.map_err(refused(&path, "cut to its whole lines"))?;
        Ok(Some(Journal { directory, file, header, entries }))
    }

    /// What the journal below `root` says, without opening it for anything.
    pub fn peek(root: &Path) -> Result<Option<(Header, Vec<Entry>)>, JournalError> {
        let read = read(&root.join(STATE_DIRECTORY).join(NAME))?;
        Ok(read.map(|(header, entries, _)| (header, entries)))
    }

    /// Puts a journal of these entries in place of whatever is there, all at once.
    pub fn replace(root: &Path, header: Header, entries: Vec<Entry>) -> Result<Journal, JournalError> {
        let directory = root.join(STATE_DIRECTORY);
        let (path, next) = (directory.join(NAME), directory.join("journal.next"));
        let mut text = line_of(&header);
        for entry in &entries {
            entry_lines(entry).iter().for_each(|line| text.push_str(line));
        }
        refuse_longer(&path, text.len() as u64)?;
        let create = || {
            let mut file = create_anew(&next)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&next, &path)?;
            sync_directory(&directory)?;
            Ok(file)
        };
        let file = create().map_err(refused(&path, "written"))?;
        Ok(Journal { directory, file, header, entries })
    }

    /// Records what is about to be touched. When this returns, it is on disk.
    pub fn record(&mut self, mut entry: Entry) -> Result<u64, JournalError> {
        assert!(self.entry(&entry.path).is_none(), "{}: a setting's first old value is the only one", entry.path);
        assert!(entry.left.len() <= 1, "{}: what was left comes after what was there", entry.path);
        let sequence = self.entries.last().map_or(0, |last| last.sequence) + 1;
        entry.sequence = sequence;
        for line in entry_lines(&entry) {
            self.append(&line)?;
        }
        self.entries.push(entry);
        Ok(sequence)
    }

    /// Records that a setting in the journal was given, or is about to be given, another value.
    pub fn record_left(&mut self, sequence: u64, left: &[u8]) -> Result<(), JournalError> {
        let entry = self.entries.iter().find(|entry| entry.sequence == sequence);
        let entry = entry.expect("only what is in the journal has a sequence");
        if entry.left.iter().any(|before| before == left) {
            return Ok(());
        }
        let line = line_of(&LeftLine { sequence, left: BASE64.encode(left) });
        self.append(&line)?;
        let entry = self.entries.iter_mut().find(|entry| entry.sequence == sequence);
        entry.expect("it was there above").left.push(left.to_vec());
        Ok(())
    }

    /// What is recorded of a path.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// Ends the journal after everything was restored. The last one is kept as `journal.undone`, for people.
    pub fn retire(mut self, now_s: u64) -> Result<(), JournalError> {
        let (path, undone) = (self.directory.join(NAME), self.directory.join("journal.undone"));
        // For people only. A disk without a free byte must not keep an undo from ending.
        let _ = self.append(&line_of(&UndoneLine { undone_s: now_s }));
        let renamed = fs::rename(&path, &undone).and_then(|()| sync_directory(&self.directory));
        renamed.map_err(refused(&path, "renamed"))
    }

    fn append(&mut self, line: &str) -> Result<(), JournalError> {
        let path = self.directory.join(NAME);
        let length = self.file.metadata().map_err(refused(&path, APPENDED))?.len();
        refuse_longer(&path, length + line.len() as u64)?;
        self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()).map_err(refused(&path, APPENDED))
    }
}

impl Header {
    /// Whether this boot's values are recorded. A boot without a name is none that can be recognised.
    pub fn is_of(&self, boot_id: Option<&str>) -> bool {
        boot_id.is_some() && self.boot_id.as_deref() == boot_id
    }
}

impl JournalError {
    /// Whether this user may not read it.
    pub fn is_hidden(&self) -> bool {
        matches!(self, JournalError::Refused { error, .. } if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Damaged { path, line, what } => write!(
                f,
                "{}:{line}: {what}. Nothing was changed: restore this file from a copy, or look at what it records \
                 (old values in base64), restore that by hand and remove it",
                path.display()
            ),
            JournalError::Busy(path) => {
                write!(f, "{} is held: another 'host apply' or 'host undo' runs, wait for its end", path.display())
            }
            JournalError::Open { path, why } => {
                let remedy = if effective_user() == 0 {
                    "see what others left there, then 'chown root' and 'chmod go-w', or remove it"
                } else {
                    "run as root"
                };
                write!(
                    f,
                    "{} {why}, so what it says is not restored, and nothing was changed: {remedy}",
                    path.display()
                )
            }
            JournalError::Refused { path, what, error } => {
                write!(f, "{} cannot be {what}: {error}", path.display())?;
                if *what == APPENDED {
                    f.write_str("; nothing more is changed, and 'spinetail host undo' restores what was")?;
                }
                match error.kind() {
                    io::ErrorKind::PermissionDenied => f.write_str("; run as root"),
                    io::ErrorKind::ReadOnlyFilesystem => f.write_str("; without a journal nothing is changed"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for JournalError {}

fn refused<'p>(path: &'p Path, what: &'static str) -> impl Fn(io::Error) -> JournalError + 'p {
    move |error| JournalError::Refused { path: path.to_owned(), what, error }
}

/// What could not be read again is not written.
fn refuse_longer(path: &Path, bytes: u64) -> Result<(), JournalError> {
    if bytes <= TUNE_JOURNAL_BYTES_MAX {
        return Ok(());
    }
    let why = format!("it would have {bytes} bytes, and {TUNE_JOURNAL_BYTES_MAX} are the most that is read again");
    Err(refused(path, APPENDED)(io::Error::new(io::ErrorKind::FileTooLarge, why)))
}

// --- The lines -------------------------------------------------------------------------------

const NAME: &str = "journal.jsonl";

/// What is being done to the journal while a machine is being changed.
const APPENDED: &str = "appended to";

/// The format this file describes.
pub const FORMAT: u32 = 1;

/// Between a line's content and its sum.
const SUM: &str = ",\"sum\":\"";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine {
    sequence: u64,
    kind: Kind,
    path: String,
    old: Option<HeldLine>,
    /// Absent for a companion.
    new: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    made: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldLine {
    bytes: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftLine {
    sequence: u64,
    left: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UndoneLine {
    undone_s: u64,
}

/// The lines that record an entry: itself, and one for each value after its first.
fn entry_lines(entry: &Entry) -> Vec<String> {
    let old = entry.old.as_ref();
    let line = EntryLine {
        sequence: entry.sequence,
        kind: entry.kind,
        path: entry.path.clone(),
        old: old.map(|held| HeldLine { bytes: BASE64.encode(&held.bytes), owner: held.owner }),
        new: entry.left.first().map(|left| BASE64.encode(left)),
        made: entry.made.clone(),
        of: entry.of.clone(),
    };
    let later = entry.left.iter().skip(1);
    let later = later.map(|left| line_of(&LeftLine { sequence: entry.sequence, left: BASE64.encode(left) }));
    std::iter::once(line_of(&line)).chain(later).collect()
}

/// A line with its sum and its newline.
fn line_of<T: Serialize>(content: &T) -> String {
    let text = serde_json::to_string(content).expect("numbers, texts and lists of them");
    let body = text.strip_suffix('}').expect("an object");
    format!("{body}{SUM}{:016x}\"}}\n", xxh3_64(body.as_bytes()))
}

/// Header, entries and the bytes of whole lines; `None` if there is no journal, or one without a whole line:
/// it was being made when the end came, and nothing had been touched.
fn read(path: &Path) -> Result<Option<(Header, Vec<Entry>, u64)>, JournalError> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(path, "read")(error)),
        Ok(file) => file,
    };
    let length = file.metadata().map_err(refused(path, "read"))?.len();
    let damaged = |line, what: String| JournalError::Damaged { path: path.to_owned(), line, what };
    if length > TUNE_JOURNAL_BYTES_MAX {
        return Err(damaged(1, format!("{length} bytes are more than a journal ever has ({TUNE_JOURNAL_BYTES_MAX})")));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(TUNE_JOURNAL_BYTES_MAX).read_to_end(&mut bytes).map_err(refused(path, "read"))?;
    let whole_bytes = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let mut header: Option<Header> = None;
    let mut entries: Vec<Entry> = Vec::new();
    let mut lines = bytes[..whole_bytes].split(|&byte| byte == b'\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        if lines.peek().is_none() {
            break; // what stands behind the last newline: nothing
        }
        let number = index + 1;
        let body = body_of(line).map_err(|what| damaged(number, what))?;
        let taken = match &header {
            None => parse::<Header>(&body).and_then(|read| match read.format {
                FORMAT => {
                    header = Some(read);
                    Ok(())
                }
                other => Err(format!("format {other} is not {FORMAT}: undo with the version that applied it")),
            }),
            Some(_) => take_line(&body, &mut entries),
        };
        taken.map_err(|what| damaged(number, what))?;
    }
    Ok(header.map(|header| (header, entries, whole_bytes as u64)))
}

fn take_line(body: &str, entries: &mut Vec<Entry>) -> Result<(), String> {
    if let Ok(line) = parse::<LeftLine>(body) {
        let entry = entries.iter_mut().find(|entry| entry.sequence == line.sequence);
        let entry = entry.ok_or_else(|| format!("sequence {} was never begun", line.sequence))?;
        entry.left.push(decode(&line.left)?);
        return Ok(());
    }
    if parse::<UndoneLine>(body).is_ok() {
        return Ok(()); // everything was restored, only the rename is missing; undo says so once more
    }
    let line: EntryLine = parse(body)?;
    if entries.last().is_some_and(|last| line.sequence <= last.sequence) {
        return Err(format!("sequence {} does not ascend", line.sequence));
    }
    if entries.iter().any(|entry| entry.path == line.path) {
        return Err(format!("{} is recorded twice", line.path));
    }
    let old = match line.old {
        None => None,
        Some(held) => Some(Held { bytes: decode(&held.bytes)?, owner: held.owner }),
    };
    let left = line.new.map(|new| decode(&new)).transpose()?.into_iter().collect();
    let climbs = |path: &String| path.starts_with('/') || path.split('/').any(|part| part == "..");
    if climbs(&line.path) || line.made.iter().any(climbs) {
        return Err(format!("{} leads out of the root", line.path));
    }
    let EntryLine { sequence, kind, path, made, of, .. } = line;
    entries.push(Entry { sequence, kind, path, old, left, made, of });
    Ok(())
}

/// The line without its sum, if that is right.
fn body_of(line: &[u8]) -> Result<String, String> {
    let line = str::from_utf8(line).map_err(|_| "the line is no text".to_owned())?;
    let (body, rest) = line.rsplit_once(SUM).ok_or("the line has no sum")?;
    let sum = rest.strip_suffix("\"}").and_then(|sum| u64::from_str_radix(sum, 16).ok());
    if sum != Some(xxh3_64(body.as_bytes())) {
        return Err("the line and its sum disagree".to_owned());
    }
    Ok(format!("{body}}}"))
}

fn parse<T: DeserializeOwned>(body: &str) -> Result<T, String> {
    serde_json::from_str(body).map_err(|error| error.to_string())
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(text).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
