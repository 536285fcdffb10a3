//! What a journal takes, what it forgives, and what it refuses.

use std::fs;
use std::path::PathBuf;

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let root = std::env::temp_dir().join(format!("spinetail-journal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        Scratch(root)
    }

    fn journal_path(&self) -> PathBuf {
        self.0.join(STATE_DIRECTORY).join(NAME)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn header() -> Header {
    Header { format: FORMAT, boot_id: Some("b".to_owned()), profile: "p".to_owned(), started_s: 7 }
}

fn entry(path: &str, old: &[u8], new: &[u8]) -> Entry {
    Entry {
        sequence: 0,
        kind: Kind::Value,
        path: path.to_owned(),
        old: Some(Held { bytes: old.to_vec(), owner: None }),
        left: vec![new.to_vec()],
        made: Vec::new(),
        of: None,
    }
}

/// A journal of three entries, one of them with a second value, one a file that was not there.
fn written(scratch: &Scratch) -> (Journal, Lock) {
    let lock = Lock::take(&scratch.0).unwrap();
    let mut journal = Journal::replace(&scratch.0, header(), Vec::new()).unwrap();
    journal.record(entry("proc/sys/vm/swappiness", b"60\n", b"1\n")).unwrap();
    let file = Entry {
        kind: Kind::File,
        old: None,
        made: vec!["etc/x".to_owned(), "etc/x/y".to_owned()],
        ..entry("etc/x/y/z", b"", b"text")
    };
    journal.record(file).unwrap();
    let sequence = journal.record(entry("sys/a", &[0xff, 0, b'\n'], b"2")).unwrap();
    journal.record_left(sequence, b"480\n").unwrap();
    (journal, lock)
}

#[test]
fn what_was_recorded_is_read_back() {
    let scratch = Scratch::new("back");
    let (journal, _lock) = written(&scratch);
    let read = Journal::open(&scratch.0).unwrap().unwrap();
    assert_eq!((&read.header, &read.entries), (&journal.header, &journal.entries));
    assert_eq!(read.entries[2].left, [b"2".to_vec(), b"480\n".to_vec()]);
    assert_eq!(read.entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    let replaced = Journal::replace(&scratch.0, read.header, read.entries[1..].to_vec()).unwrap();
    assert_eq!(Journal::open(&scratch.0).unwrap().unwrap().entries, replaced.entries);
}

#[test]
fn every_prefix_reads_as_its_whole_lines() {
    let scratch = Scratch::new("prefix");
    let (journal, _lock) = written(&scratch);
    let bytes = fs::read(scratch.journal_path()).unwrap();
    for cut in 0..=bytes.len() {
        fs::write(scratch.journal_path(), &bytes[..cut]).unwrap();
        let lines = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
        let read = Journal::open(&scratch.0).unwrap();
        assert_eq!(read.is_some(), lines > 0, "{cut}");
        let Some(mut read) = read else { continue };
        assert_eq!(read.entries.len(), (lines - 1).min(3), "{cut}");
        // Whatever was torn off, the next record stands on a line of its own.
        read.record(entry("sys/next", b"1", b"2")).unwrap();
        assert_eq!(Journal::open(&scratch.0).unwrap().unwrap().entries, read.entries, "{cut}");
        assert_eq!(journal.entries[..read.entries.len() - 1].len(), read.entries.len() - 1);
    }
}

#[test]
fn any_changed_byte_of_a_whole_line_is_refused_with_its_line() {
    let scratch = Scratch::new("damage");
    let (_journal, _lock) = written(&scratch);
    let bytes = fs::read(scratch.journal_path()).unwrap();
    for at in 0..bytes.len() - 1 {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let line = bytes[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
        fs::write(scratch.journal_path(), &changed).unwrap();
        match Journal::open(&scratch.0) {
            Err(JournalError::Damaged { line: named, .. }) => assert_eq!(named, line, "{at}"),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn a_journal_of_another_format_is_refused_with_what_to_do() {
    let scratch = Scratch::new("format");
    let _lock = Lock::take(&scratch.0).unwrap();
    Journal::replace(&scratch.0, Header { format: 2, ..header() }, Vec::new()).unwrap();
    let complaint = Journal::open(&scratch.0).unwrap_err().to_string();
    assert!(complaint.contains("journal.jsonl:1: ") && complaint.contains("version that applied"), "{complaint}");
}

#[test]
fn paths_that_lead_out_of_the_root_are_refused() {
    for path in ["/etc/passwd", "sys/../../etc/passwd"] {
        let scratch = Scratch::new("climb");
        let _lock = Lock::take(&scratch.0).unwrap();
        Journal::replace(&scratch.0, header(), vec![Entry { sequence: 1, ..entry(path, b"", b"") }]).unwrap();
        assert!(matches!(Journal::open(&scratch.0), Err(JournalError::Damaged { line: 2, .. })));
    }
}

#[test]
fn the_lock_is_held_by_one() {
    let scratch = Scratch::new("lock");
    let lock = Lock::take(&scratch.0).unwrap();
    assert!(matches!(Lock::take(&scratch.0), Err(JournalError::Busy(_))));
    drop(lock);
    assert!(Lock::take(&scratch.0).is_ok());
}

#[test]
fn a_retired_journal_is_kept_once_and_no_longer_open() {
    let scratch = Scratch::new("retired");
    let (journal, _lock) = written(&scratch);
    journal.retire(9).unwrap();
    assert!(Journal::open(&scratch.0).unwrap().is_none());
    let kept = fs::read_to_string(scratch.journal_path().with_file_name("journal.undone")).unwrap();
    assert!(kept.lines().last().unwrap().contains("\"undone_s\":9"), "{kept}");
}

#[test]
fn a_state_folder_or_journal_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new("others");
    let (journal, lock) = written(&scratch);
    drop((journal, lock));
    let folder = scratch.0.join(STATE_DIRECTORY);
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for folder in [folder.clone(), folder.parent().unwrap().to_owned()] {
        mode(&folder, 0o775);
        let refused = Lock::take(&scratch.0).unwrap_err();
        assert!(matches!(&refused, JournalError::Open { .. }) && refused.to_string().contains("nothing was changed"));
        assert!(matches!(Lock::take_existing(&scratch.0), Err(JournalError::Open { .. })));
        mode(&folder, 0o755);
    }
    mode(&scratch.journal_path(), 0o660);
    assert!(matches!(Journal::open(&scratch.0), Err(JournalError::Open { .. })));
    mode(&scratch.journal_path(), 0o600);
    assert!(Lock::take(&scratch.0).is_ok() && Journal::open(&scratch.0).unwrap().is_some());
}

#[test]
fn links_in_the_place_of_the_journals_files_are_not_followed() {
    use std::os::unix::fs::symlink;
    let scratch = Scratch::new("links");
    let folder = scratch.0.join(STATE_DIRECTORY);
    fs::create_dir_all(&folder).unwrap();
    let target = scratch.0.join("precious");
    fs::write(&target, "precious").unwrap();
    symlink(&target, folder.join("journal.next")).unwrap();
    Journal::replace(&scratch.0, header(), Vec::new()).unwrap();
    assert!(fs::symlink_metadata(scratch.journal_path()).unwrap().is_file());
    for name in ["lock", NAME] {
        let _ = fs::remove_file(folder.join(name));
        symlink(&target, folder.join(name)).unwrap();
    }
    assert!(matches!(Lock::take(&scratch.0), Err(JournalError::Refused { .. })));
    assert!(matches!(Journal::open(&scratch.0), Err(JournalError::Refused { .. })));
    assert_eq!(fs::read_to_string(target).unwrap(), "precious");
}

#[test]
fn a_state_folder_outside_of_the_root_is_refused() {
    let scratch = Scratch::new("outside");
    fs::create_dir_all(scratch.0.join("root")).unwrap();
    fs::create_dir_all(scratch.0.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", scratch.0.join("root/var")).unwrap();
    assert!(Lock::take(&scratch.0.join("root")).unwrap_err().to_string().contains("leads out of"));
    assert_eq!(fs::read_dir(scratch.0.join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_value_that_is_recorded_is_not_recorded_again() {
    let scratch = Scratch::new("again");
    let (mut journal, _lock) = written(&scratch);
    let length = || fs::metadata(scratch.journal_path()).unwrap().len();
    let before = length();
    for left in [&b"2"[..], b"480\n", b"2"] {
        journal.record_left(3, left).unwrap();
    }
    assert_eq!(length(), before);
    journal.record_left(3, b"481\n").unwrap();
    assert!(length() > before);
    assert_eq!(Journal::open(&scratch.0).unwrap().unwrap().entries, journal.entries);
}

#[test]
fn what_could_not_be_read_again_is_not_appended() {
    let scratch = Scratch::new("bound");
    let (mut journal, _lock) = written(&scratch);
    let entries = journal.entries.clone();
    journal.file.set_len(TUNE_JOURNAL_BYTES_MAX).unwrap();
    let refused = journal.record(entry("proc/sys/vm/more", b"1", b"2")).unwrap_err().to_string();
    assert!(refused.contains("16777216") && refused.contains("host undo"), "{refused}");
    assert!(journal.record_left(3, b"9").is_err());
    assert_eq!(journal.entries, entries);
}

#[test]
fn a_boot_without_a_name_is_never_the_same() {
    let of = |boot_id: Option<&str>| Header { boot_id: boot_id.map(str::to_owned), ..header() };
    assert!(of(Some("b")).is_of(Some("b")));
    assert!(!of(Some("b")).is_of(Some("c")) && !of(Some("b")).is_of(None) && !of(None).is_of(None));
}
