//! The hand that touches: reads a setting, tries whether it could be put back, writes it, restores it.
//!
//! A rehearsal is a write of what is there already: if the kernel takes the old value now, it takes it
//! at undo. It finds, before anything is changed, the interrupts the kernel moves itself (EPERM, EIO), mounts
//! without writing (EROFS), a missing permission (EACCES), values that can be left and not entered again (EINVAL).
//! The bytes written are those just read, in their place and without truncating, so that a process
//! killed in its rehearsal has changed nothing.
//!
//! The kernel's settings take one write(2) each. Ordinary files in their place (a recorded machine below
//! `--root`) are told by their length, which is that of their content: sysfs says 4096, procfs 0.
//!
//! A whole file is never written where it stands: a neighbour is written, synced, and renamed over it. The
//! neighbour's name is fixed, so that undo finds and removes what a killed process left.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use crate::base::limits::TUNE_SETTING_BYTES_MAX;
use crate::host::ethtool;
use crate::host::nics::parse_interrupts;
use crate::host::tune::change::{Change, Held, Kind, Owner, in_force_instead};
use crate::host::tune::journal::{Entry, STATE_DIRECTORY};
use crate::host::tune::paths::{below, create_anew, dead_link, make_directories, sync_parent};

/// The settings below a root.
#[derive(Clone, Copy)]
pub struct Settings<'s> {
    root: &'s Path,
    rings: &'s dyn Rings,
}

/// Ring sizes of network cards, which have no file.
pub trait Rings {
    /// `rx 512 tx 512` for an interface.
    fn read(&self, interface: &str) -> io::Result<String>;
    /// Sets what [`Rings::read`] reads.
    fn write(&self, interface: &str, sizes: &str) -> io::Result<()>;
}

/// Asks the cards of the machine this runs on.
#[derive(Clone, Copy, Debug)]
pub struct Cards;

/// For roots that are no machine: no card answers.
#[derive(Clone, Copy, Debug)]
pub struct NoRings;

/// Why a setting cannot be changed, or not be changed back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was found, in a sentence.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
    /// Which kind of trouble.
    pub trouble: Trouble,
}

/// Kinds of trouble that are not alike in what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Somebody else could: the machine is refused as a whole if nothing else is found.
    Permission,
    /// The kernel keeps this one to itself, and nothing is wrong with that.
    Kept,
    /// This kernel does not have it. Profiles name settings of many kernels, and `host check` counts it as well.
    Absent,
    /// Anything else.
    Other,
}

/// What came of restoring one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It is what it was, and had been changed by us.
    Restored,
    /// It was what it was already.
    AsBefore,
    /// It is what it was; somebody else had changed it meanwhile.
    Overridden {
        /// To this, for people.
        value: String,
        /// Where their version of a file is kept.
        kept: Option<PathBuf>,
    },
    /// The device or kernel module it belonged to has gone, and the setting with it.
    Gone,
    /// It is not what it was.
    Failed(Refusal),
}

/// The names of interrupts, as their drivers gave them. A number alone is not for ever one device's.
#[derive(Clone, Debug, Default)]
pub struct Actions(BTreeMap<usize, String>);

impl Actions {
    /// Whose a setting of an interrupt is; `None` for other settings, and for an interrupt that nobody uses.
    pub fn of(&self, path: &str) -> Option<&str> {
        let number = path.strip_prefix("proc/irq/")?.split('/').next()?.parse().ok()?;
        self.0.get(&number).map(String::as_str)
    }
}

impl Rings for Cards {
    fn read(&self, interface: &str) -> io::Result<String> {
        if !Path::new("/sys/class/net").join(interface).exists() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let answers = ethtool::ask(interface).and_then(|text| ethtool::parse(&text).ok());
        let rings = answers.and_then(|answers| answers.rings);
        let rings = rings.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        Ok(format!("rx {} tx {}", rings.rx, rings.tx))
    }

    fn write(&self, interface: &str, sizes: &str) -> io::Result<()> {
        let (rx, tx) = parse_rings(sizes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        ethtool::set_rings(interface, rx, tx)
    }
}

impl Rings for NoRings {
    fn read(&self, _: &str) -> io::Result<String> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    fn write(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

impl<'s> Settings<'s> {
    /// The settings below `root`.
    pub fn new(root: &'s Path, rings: &'s dyn Rings) -> Settings<'s> {
        Settings { root, rings }
    }

    /// The root.
    pub fn root(&self) -> &'s Path {
        self.root
    }

    /// What identifies the running kernel's boot, where it says.
    pub fn boot_id(&self) -> Option<String> {
        let text = fs::read_to_string(self.root.join(BOOT_ID)).ok()?;
        Some(text.trim().to_owned()).filter(|id| !id.is_empty())
    }

    /// The names of its interrupts.
    pub fn actions(&self) -> Actions {
        let text = fs::read_to_string(self.root.join("proc/interrupts")).unwrap_or_default();
        Actions(parse_interrupts(&text).into_iter().collect())
    }

    /// What a setting holds; `None` if it is not there.
    pub fn read(&self, kind: Kind, path: &str) -> io::Result<Option<Held>> {
        if kind == Kind::Rings {
            let sizes = self.rings.read(interface(path))?;
            return Ok(Some(Held { bytes: sizes.into_bytes(), owner: None }));
        }
        let full = below(self.root, path)?;
        if kind == Kind::File && fs::symlink_metadata(&full).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an ordinary file"));
        }
        let file = match OpenOptions::new().read(true).open(&full) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(file) => file,
        };
        let mut bytes = Vec::new();
        let length = (&file).take(TUNE_SETTING_BYTES_MAX + 1).read_to_end(&mut bytes)? as u64;
        if length > TUNE_SETTING_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {TUNE_SETTING_BYTES_MAX} bytes"),
            ));
        }
        let owner = (kind == Kind::File).then(|| file.metadata()).transpose()?;
        let owner = owner.map(|found| Owner { mode: found.mode() & 0o7777, user: found.uid(), group: found.gid() });
        Ok(Some(Held { bytes, owner }))
    }

    /// Whether `change` could be undone, without changing anything: the old value is written over itself.
    pub fn rehearse(&self, change: &Change, old: Option<&Held>) -> Result<(), Refusal> {
        match (change.kind, old) {
            (Kind::File, _) => self.rehearse_file(&change.path),
            (_, None) => Err(refusal(&change.path, &io::Error::from(io::ErrorKind::NotFound))),
            (kind, Some(old)) => {
                if let Some(other) = in_force_instead(&change.path, &old.bytes)
                    && let Some(held) = self.read(kind, &other).ok().flatten()
                    && !kind.same(&held.bytes, b"0")
                {
                    return self.write_over(kind, &other, &held.bytes).map_err(|error| refusal(&other, &error));
                }
                self.write_over(kind, &change.path, &old.bytes).map_err(|error| refusal(&change.path, &error))?;
                let read = self.read(kind, &change.path).map_err(|error| refusal(&change.path, &error))?;
                match read {
                    Some(now) if kind.same(&now.bytes, &old.bytes) => Ok(()),
                    now => Err(Refusal {
                        why: format!(
                            "it held {}, which was written back, and reads {} now",
                            kind.shown(&old.bytes),
                            now.map_or("nothing".to_owned(), |now| kind.shown(&now.bytes))
                        ),
                        remedy: "leave it out of the profile: what cannot be put back is not changed".to_owned(),
                        trouble: Trouble::Other,
                    }),
                }
            }
        }
    }

    /// Writes what `change` wants over `old`; answers what the setting reads then.
    pub fn write(&self, change: &Change, old: Option<&Held>) -> Result<Held, Refusal> {
        let refuse = |error: io::Error| refusal(&change.path, &error);
        if change.kind == Kind::File {
            let full = below(self.root, &change.path).map_err(refuse)?;
            let parent = full.parent().expect("a file stands in a folder");
            make_directories(parent).map_err(|(_, error)| refuse(error))?;
            replace_file(&full, change.want.as_bytes(), old.and_then(|held| held.owner)).map_err(refuse)?;
        } else {
            let held = old.map_or(&[][..], |held| &held.bytes);
            self.write_anew(change.kind, &change.path, &change.want, held).map_err(refuse)?;
        }
        let read = self.read(change.kind, &change.path).map_err(refuse)?;
        read.ok_or_else(|| refuse(io::Error::from(io::ErrorKind::NotFound)))
    }

    /// Puts back what an entry records, and reads it back. May be repeated, also after half of it. A file that somebody
    /// else has changed since is kept, under a name with `now_s`.
    pub fn restore(&self, entry: &Entry, now_s: u64) -> Restored {
        let fail = |error: io::Error| Restored::Failed(refusal(&entry.path, &error));
        let now = match self.read(entry.kind, &entry.path) {
            Ok(now) => now,
            // A card that went away took its rings along; ENODEV is what its driver answers.
            Err(error) if entry.kind == Kind::Rings && error.raw_os_error() == Some(libc::ENODEV) => {
                return Restored::Gone;
            }
            Err(error) => return fail(error),
        };
        if entry.kind == Kind::File {
            return self.restore_file(entry, now, now_s).unwrap_or_else(fail);
        }
        let (Some(now), Some(old)) = (now, &entry.old) else { return Restored::Gone };
        if now.bytes == old.bytes {
            return Restored::AsBefore;
        }
        if let Err(error) = self.write_back(entry.kind, &entry.path, &old.bytes) {
            return fail(error);
        }
        match self.read(entry.kind, &entry.path) {
            Err(error) => fail(error),
            Ok(read) if read.as_ref().is_some_and(|read| entry.kind.same(&read.bytes, &old.bytes)) => {
                judge(entry, &now.bytes)
            }
            Ok(read) => Restored::Failed(Refusal {
                why: format!(
                    "{} was written back, it reads {}",
                    entry.kind.shown(&old.bytes),
                    read.map_or("nothing".to_owned(), |read| entry.kind.shown(&read.bytes))
                ),
                remedy: if entry.path.contains("hugepages") {
                    "pages that a program holds stay: stop it, then 'spinetail host undo' again".to_owned()
                } else {
                    "run 'spinetail host undo' again".to_owned()
                },
                trouble: Trouble::Other,
            }),
        }
    }

    /// The old bytes over themselves, without truncating.
    fn write_over(&self, kind: Kind, path: &str, held: &[u8]) -> io::Result<()> {
        if kind == Kind::Rings {
            return self.rings.write(interface(path), &String::from_utf8_lossy(held));
        }
        let full = below(self.root, path)?;
        let file = OpenOptions::new().write(true).open(&full)?;
        if is_plain(&file, held)? || kind != Kind::Choice {
            return write_once(file, held);
        }
        write_once(file, &kind.encoded(&String::from_utf8_lossy(held), held, false))
    }

    fn write_anew(&self, kind: Kind, path: &str, want: &str, held: &[u8]) -> io::Result<()> {
        if kind == Kind::Rings {
            return self.rings.write(interface(path), want);
        }
        let file = OpenOptions::new().write(true).open(below(self.root, path)?)?;
        let plain = is_plain(&file, held)?;
        if plain {
            file.set_len(0)?;
        }
        write_once(file, &kind.encoded(want, held, plain))
    }

    fn write_back(&self, kind: Kind, path: &str, old: &[u8]) -> io::Result<()> {
        if kind == Kind::Rings {
            return self.rings.write(interface(path), &String::from_utf8_lossy(old));
        }
        let full = below(self.root, path)?;
        let file = OpenOptions::new().write(true).open(&full)?;
        if is_plain(&file, &fs::read(&full)?)? {
            file.set_len(0)?;
            return write_once(file, old);
        }
        match kind {
            Kind::Choice => write_once(file, &kind.encoded(&String::from_utf8_lossy(old), old, false)),
            _ => write_once(file, old),
        }
    }

    /// Whether a file could be made or replaced in its folder, or in the nearest one that exists: an unnamed
    /// file is opened there and closed, of which no end can leave a trace.
    fn rehearse_file(&self, path: &str) -> Result<(), Refusal> {
        let full = below(self.root, path).map_err(|error| refusal(path, &error))?;
        let in_the_way = |what: String| Refusal {
            why: format!("{what} is in the way"),
            remedy: "remove it, after looking at what it is for".to_owned(),
            trouble: Trouble::Other,
        };
        if let Some(link) = dead_link(self.root, path) {
            return Err(in_the_way(format!("/{link}, a link that leads nowhere,")));
        }
        if fs::symlink_metadata(neighbour(&full)).is_ok_and(|found| found.is_dir()) {
            return Err(in_the_way(format!("{}, a folder,", neighbour(&full).display())));
        }
        let folder = full.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(self.root);
        match OpenOptions::new().write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(folder) {
            Ok(_) => Ok(()),
            // A file system without unnamed files; whether it can be written shows when it is.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => Ok(()),
            Err(error) => Err(refusal(path, &error)),
        }
    }

    /// Copies a file that is neither ours nor what was there before to a folder beside the journal, before it is
    /// overwritten: somebody wrote it. Answers where.
    pub(super) fn keep_theirs(&self, entry: &Entry, now: Option<&Held>, now_s: u64) -> io::Result<Option<PathBuf>> {
        let Some(theirs) = now else { return Ok(None) };
        let known = entry.left.iter().chain(entry.old.as_ref().map(|old| &old.bytes));
        if entry.kind != Kind::File || known.into_iter().any(|known| *known == theirs.bytes) {
            return Ok(None);
        }
        let folder = below(self.root, &format!("{STATE_DIRECTORY}/kept"))?;
        make_directories(&folder).map_err(|(_, error)| error)?;
        // The whole path is its name: every unit's drop-in has the same last one.
        let name = format!("{}.{now_s}", entry.path.replace('/', "-"));
        let kept = folder.join(&name);
        // In one second only a repetition finds the same name taken: by what it wrote itself, or by half of that.
        let mut file = create_anew(&kept)?;
        file.write_all(&theirs.bytes)?;
        file.sync_all()?;
        sync_parent(&kept)?;
        Ok(Some(kept))
    }

    fn restore_file(&self, entry: &Entry, now: Option<Held>, now_s: u64) -> io::Result<Restored> {
        let full = below(self.root, &entry.path)?;
        let beside = neighbour(&full);
        match fs::remove_file(&beside) {
            Ok(()) => sync_parent(&beside)?, // half of a write that never came to its rename
            // A folder of that name is nobody's half of a write.
            Err(error) if is_nothing_of_ours(&error) => {}
            Err(error) => return Err(error),
        }
        let mut restored = Restored::AsBefore;
        if now != entry.old {
            let kept = self.keep_theirs(entry, now.as_ref(), now_s)?;
            match &entry.old {
                Some(old) => replace_file(&full, &old.bytes, old.owner)?,
                None => {
                    fs::remove_file(&full)?;
                    sync_parent(&full)?;
                }
            }
            let bytes = now.map_or(Vec::new(), |now| now.bytes);
            restored = match judge(entry, &bytes) {
                Restored::Overridden { value, .. } => Restored::Overridden { value, kept },
                other => other,
            };
        }
        for folder in entry.made.iter().rev() {
            let folder = below(self.root, folder)?;
            match fs::remove_dir(&folder) {
                Ok(()) => sync_parent(&folder)?,
                // Somebody else keeps something there, and with it the folder.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => break,
                // It was never made: something else has its place, which apply did not get past either.
                Err(error) if is_nothing_of_ours(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(restored)
    }
}

/// What an error means for the setting at `path`, and what to do.
pub(super) fn refusal(path: &str, error: &io::Error) -> Refusal {
    let interrupt = path.starts_with("proc/irq/");
    let number = error.raw_os_error();
    let (why, remedy, trouble) = match (number, error.kind()) {
        (Some(libc::EPERM | libc::EIO), _) if interrupt => (
            "the kernel deals this interrupt itself (one queue for each core)".to_owned(),
            "to keep it off data cores: isolcpus=managed_irq,… on the kernel command line".to_owned(),
            Trouble::Kept,
        ),
        (_, io::ErrorKind::NotFound) => ("this kernel has no such setting".to_owned(), String::new(), Trouble::Absent),
        (_, io::ErrorKind::PermissionDenied) => {
            (format!("may not be written ({error})"), "run as root".to_owned(), Trouble::Permission)
        }
        (_, io::ErrorKind::ReadOnlyFilesystem) => (
            "is mounted without writing".to_owned(),
            "run on the host, not in a container; or mount it for writing".to_owned(),
            Trouble::Other,
        ),
        (Some(libc::EINVAL), _) => (
            "the kernel does not take this value".to_owned(),
            "leave it out of the profile: what cannot be put back is not changed".to_owned(),
            Trouble::Other,
        ),
        (Some(libc::EBUSY), _) => ("is in use".to_owned(), "stop what uses it, then again".to_owned(), Trouble::Other),
        (Some(libc::EOPNOTSUPP), _) | (_, io::ErrorKind::Unsupported) => (
            "the device's driver cannot do it".to_owned(),
            "leave it out of the profile (0 leaves it as it is)".to_owned(),
            Trouble::Other,
        ),
        (None, io::ErrorKind::InvalidInput) => {
            (error.to_string(), "remove what is in the way, or leave it out of the profile".to_owned(), Trouble::Other)
        }
        _ => (error.to_string(), "leave it out of the profile, or see 'dmesg'".to_owned(), Trouble::Other),
    };
    Refusal { why, remedy, trouble }
}

/// Whether a name that was to be removed is not there, or is something that this program never makes of it.
fn is_nothing_of_ours(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory)
}

/// What identifies the running kernel's boot.
pub(super) const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";

/// Mode of a file that is new: everybody may read it.
const NEW_FILE_MODE: u32 = 0o644;

fn judge(entry: &Entry, now: &[u8]) -> Restored {
    let ours = entry.left.is_empty() || entry.left.iter().any(|left| entry.kind.same(left, now));
    if ours { Restored::Restored } else { Restored::Overridden { value: entry.kind.shown(now), kept: None } }
}

/// Whether a file is an ordinary one, as long as its content says.
fn is_plain(file: &File, content: &[u8]) -> io::Result<bool> {
    Ok(file.metadata()?.len() == content.len() as u64)
}

/// One write(2): the kernel's settings take no second half.
fn write_once(mut file: File, bytes: &[u8]) -> io::Result<()> {
    match file.write(bytes)? {
        written if written == bytes.len() => Ok(()),
        written => Err(io::Error::new(io::ErrorKind::WriteZero, format!("{written} of {} bytes taken", bytes.len()))),
    }
}

/// Puts `bytes` at `path` all at once; with `owner`, as theirs.
fn replace_file(path: &Path, bytes: &[u8], owner: Option<Owner>) -> io::Result<()> {
    let beside = neighbour(path);
    let mut file = create_anew(&beside)?;
    file.write_all(bytes)?;
    if let Some(owner) = owner {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (owner.user, owner.group) {
            fchown(&file, Some(owner.user), Some(owner.group))?;
        }
    }
    // After the owner: a change of owner takes away set-user-ID bits.
    file.set_permissions(fs::Permissions::from_mode(owner.map_or(NEW_FILE_MODE, |owner| owner.mode)))?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}

/// The name under which a file is written before it is one.
fn neighbour(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    path.with_file_name(format!(".{name}.spinetail"))
}

/// Reads `rx 512 tx 256`.
fn parse_rings(sizes: &str) -> Option<(u32, u32)> {
    match sizes.split_whitespace().collect::<Vec<_>>()[..] {
        ["rx", rx, "tx", tx] => Some((rx.parse().ok()?, tx.parse().ok()?)),
        _ => None,
    }
}

/// The interface in `sys/class/net/eth0`.
fn interface(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(path: &str, number: i32) -> Trouble {
        let refusal = refusal(path, &io::Error::from_raw_os_error(number));
        assert!(!refusal.why.is_empty());
        assert!(!refusal.remedy.is_empty() || refusal.trouble == Trouble::Absent, "{refusal:?}");
        refusal.trouble
    }

    #[test]
    fn interrupts_that_the_kernel_deals_itself_are_its_own_and_nothing_else_is() {
        for number in [libc::EPERM, libc::EIO] {
            assert_eq!(trouble("proc/irq/36/smp_affinity_list", number), Trouble::Kept);
        }
        assert_eq!(trouble("proc/sys/vm/swappiness", libc::EIO), Trouble::Other);
        assert_eq!(trouble("proc/sys/vm/swappiness", libc::EPERM), Trouble::Permission);
        // Opening the file is refused to whoever is not root, before the kernel is asked about the interrupt.
        assert_eq!(trouble("proc/irq/36/smp_affinity_list", libc::EACCES), Trouble::Permission);
    }

    #[test]
    fn only_a_missing_permission_is_one_that_another_user_would_have() {
        for number in [libc::EROFS, libc::EINVAL, libc::EBUSY, libc::EOPNOTSUPP, libc::ENOSPC] {
            assert_eq!(trouble("sys/class/net/eth0", number), Trouble::Other, "{number}");
        }
        assert_eq!(trouble("proc/sys/vm/no_such", libc::ENOENT), Trouble::Absent);
    }

    #[test]
    fn ring_sizes_are_read_as_they_are_written() {
        assert_eq!(parse_rings("rx 512 tx 256"), Some((512, 256)));
        for text in ["", "rx 512", "rx a tx 1", "tx 1 rx 2", "rx 1 tx 2 x"] {
            assert_eq!(parse_rings(text), None, "{text}");
        }
    }
}
