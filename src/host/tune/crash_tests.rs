//! Every moment at which apply or undo can be killed, made by hand, and undone.
//!
//! The moments are put together from their parts: the journal up to some byte, the settings that had been written by
//! then, and the one that was being written in each of its halves. No switch in the product is needed for that, and none
//! of the moments is left to luck; the luck of real kills is tried in `tests/host_apply.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::host::tune::apply::{Apply, Untouched, apply, preview};
use crate::host::tune::change::{Change, Kind};
use crate::host::tune::journal::{Entry, Journal, Lock, STATE_DIRECTORY};
use crate::host::tune::report::{Outcome, Report};
use crate::host::tune::undo::{undo, undo_preview};
use crate::host::tune::write::{NoRings, Rings, Settings};

/// Makes half of a write in a tree.
type Half = Box<dyn Fn(&Tree)>;

/// A machine of a few files.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Tree {
        let root = std::env::temp_dir().join(format!("spinetail-tune-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (path, text) in [
            ("proc/sys/kernel/random/boot_id", "first\n"),
            ("proc/sys/vm/swappiness", "60\n"),
            ("proc/sys/vm/dirty_ratio", "20\n"),
            ("proc/sys/vm/dirty_bytes", "0\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
            ("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000000\n"),
            ("proc/irq/24/smp_affinity_list", "0-3\n"),
            ("etc/systemd/system/old.service.d/50-host.conf", "[Service]\nNice=1\n"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let private = fs::Permissions::from_mode(0o640);
        fs::set_permissions(root.join("etc/systemd/system/old.service.d/50-host.conf"), private).unwrap();
        fs::create_dir_all(root.join("var/lib")).unwrap();
        Tree(root)
    }

    fn changes() -> Vec<Change> {
        [
            (Kind::Value, "proc/sys/vm/swappiness", "1"),
            (Kind::Choice, "sys/kernel/mm/transparent_hugepage/enabled", "madvise"),
            (Kind::Value, "proc/sys/vm/dirty_ratio", "5"),
            (Kind::Mask, "sys/class/net/eth0/queues/rx-0/rps_cpus", "3"),
            (Kind::List, "proc/irq/24/smp_affinity_list", "0"),
            (Kind::File, "etc/systemd/system/new.service.d/50-host.conf", "[Service]\nNice=2\n"),
            (Kind::File, "etc/systemd/system/old.service.d/50-host.conf", "[Service]\nNice=3\n"),
        ]
        .map(|(kind, path, want)| Change::new(kind, path, want, "a test"))
        .to_vec()
    }

    fn apply(&self, changes: &[Change]) -> Report {
        let lock = Lock::take(&self.0).unwrap();
        apply(&lock, Apply { root: &self.0, rings: &NoRings, profile: "test", changes, now_s: 1 }).unwrap()
    }

    fn undo(&self) -> Report {
        undo(&self.0, &NoRings, 2).unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn journal(&self) -> PathBuf {
        self.path(STATE_DIRECTORY).join("journal.jsonl")
    }

    /// Everything but the journal's own folder: folders, and files with their bytes and modes.
    fn everything(&self) -> BTreeMap<PathBuf, Option<(Vec<u8>, u32)>> {
        let mut found = BTreeMap::new();
        gather(&self.0, &self.0, &mut found);
        found
    }

    /// Makes one path what it is in `other`: a file with its folders, or nothing and without the folders made for it.
    fn take_from(&self, other: &Tree, entry: &Entry) {
        let (from, to) = (other.path(&entry.path), self.path(&entry.path));
        if from.exists() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        } else {
            let _ = fs::remove_file(to);
            entry.made.iter().rev().for_each(|folder| {
                let _ = fs::remove_dir(self.path(folder));
            });
        }
    }

    /// Half of a write to one path: a setting cut short; a file whose neighbour is there, whole or not.
    fn halves(&self, entry: &Entry, bytes: &[u8]) -> Vec<Half> {
        let path = entry.path.clone();
        let bytes = bytes.to_vec();
        if entry.kind != Kind::File {
            return (0..bytes.len())
                .map(|cut| {
                    let (path, part) = (path.clone(), bytes[..cut].to_vec());
                    Box::new(move |tree: &Tree| fs::write(tree.path(&path), &part).unwrap()) as Half
                })
                .collect();
        }
        let mut halves: Vec<Half> = Vec::new();
        for made in 1..=entry.made.len() {
            let folders = entry.made[..made].to_vec();
            halves.push(Box::new(move |tree: &Tree| {
                folders.iter().for_each(|folder| fs::create_dir_all(tree.path(folder)).unwrap());
            }));
        }
        for cut in 0..=bytes.len() {
            let (path, part) = (path.clone(), bytes[..cut].to_vec());
            halves.push(Box::new(move |tree: &Tree| {
                let full = tree.path(&path);
                fs::create_dir_all(full.parent().unwrap()).unwrap();
                fs::write(full.with_file_name(".50-host.conf.spinetail"), &part).unwrap();
            }));
        }
        halves
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn gather(root: &Path, folder: &Path, into: &mut BTreeMap<PathBuf, Option<(Vec<u8>, u32)>>) {
    for found in fs::read_dir(folder).unwrap() {
        let path = found.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_owned();
        if name == Path::new("var/lib/spinetail") {
            continue;
        }
        if path.is_dir() {
            into.insert(name, None);
            gather(root, &path, into);
        } else {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            into.insert(name, Some((fs::read(&path).unwrap(), mode)));
        }
    }
}

#[test]
fn what_was_applied_is_undone_to_the_byte_and_only_once() {
    let tree = Tree::new("once");
    let before = tree.everything();
    let report = tree.apply(&Tree::changes());
    assert_eq!(report.count(Outcome::Done), Tree::changes().len(), "{report:#?}");
    assert_eq!(tree.text("sys/kernel/mm/transparent_hugepage/enabled"), "always [madvise] never\n");
    assert_eq!(tree.apply(&Tree::changes()).count(Outcome::Already), Tree::changes().len());
    let report = tree.undo();
    assert_eq!(report.count(Outcome::Restored), Tree::changes().len(), "{report:#?}");
    assert_eq!(tree.everything(), before);
    assert_eq!(tree.undo(), Report::default());
    assert_eq!(tree.everything(), before);
}

#[test]
fn apply_killed_at_any_moment_is_undone_to_the_byte() {
    let (pristine, applied) = (Tree::new("apply-pristine"), Tree::new("apply-applied"));
    let before = pristine.everything();
    applied.apply(&Tree::changes());
    let (_, entries) = Journal::peek(&applied.0).unwrap().unwrap();
    let journal = fs::read(applied.journal()).unwrap();
    let ends: Vec<usize> = (1..=journal.len()).filter(|&end| journal[end - 1] == b'\n').collect();
    assert_eq!(ends.len(), entries.len() + 1, "a line each, and the header");
    let tree = Tree::new("apply-killed");
    let mut moments = 0;
    let mut undone = |cut: usize, done: usize, half: &dyn Fn(&Tree)| {
        entries[..done].iter().for_each(|entry| tree.take_from(&applied, entry));
        half(&tree);
        fs::create_dir_all(tree.path(STATE_DIRECTORY)).unwrap();
        fs::write(tree.journal(), &journal[..cut]).unwrap();
        let report = tree.undo();
        assert_eq!(report.count(Outcome::Failed), 0, "{report:#?}");
        assert_eq!(tree.everything(), before, "journal cut at {cut}, {done} written");
        assert!(!tree.journal().exists() || cut < ends[0], "journal cut at {cut}");
        moments += 1;
    };
    for cut in 0..=journal.len() {
        // That any torn line reads as the lines before it is shown byte by byte in `journal_tests`; here the whole
        // of undo is run, which syncs, at each byte of the header and then at every eleventh.
        if cut > ends[0] && !ends.contains(&cut) && cut % 11 != 0 {
            continue;
        }
        // Whole lines so far, less the header: so many settings may have been touched.
        let recorded = ends.iter().filter(|&&end| end <= cut).count().saturating_sub(1);
        undone(cut, recorded, &|_| {});
        if !ends.contains(&cut) || recorded == 0 {
            continue;
        }
        let last = &entries[recorded - 1];
        undone(cut, recorded - 1, &|_| {});
        let new = fs::read(applied.path(&last.path)).unwrap();
        for half in pristine.halves(last, &new) {
            undone(cut, recorded - 1, &*half);
        }
    }
    assert!(moments > 250, "{moments}");
}

#[test]
fn undo_killed_at_any_moment_is_finished_by_the_next() {
    let (pristine, applied) = (Tree::new("undo-pristine"), Tree::new("undo-applied"));
    let before = pristine.everything();
    applied.apply(&Tree::changes());
    let (_, entries) = Journal::peek(&applied.0).unwrap().unwrap();
    let journal = fs::read(applied.journal()).unwrap();
    let tree = Tree::new("undo-killed");
    let undone = |restored: usize, half: &dyn Fn(&Tree)| {
        let (touched, back) = entries.split_at(entries.len() - restored);
        touched.iter().for_each(|entry| tree.take_from(&applied, entry));
        back.iter().rev().for_each(|entry| tree.take_from(&pristine, entry));
        half(&tree);
        fs::create_dir_all(tree.path(STATE_DIRECTORY)).unwrap();
        fs::write(tree.journal(), &journal).unwrap();
        tree.undo();
        assert_eq!(tree.everything(), before, "{restored} of {} restored", entries.len());
    };
    for restored in 0..=entries.len() {
        undone(restored, &|_| {});
        let Some(next) = entries.len().checked_sub(restored + 1).map(|index| &entries[index]) else { continue };
        if let Some(old) = &next.old {
            for half in pristine.halves(next, &old.bytes) {
                undone(restored, &*half);
            }
        } else {
            undone(restored, &|tree| fs::remove_file(tree.path(&next.path)).unwrap()); // and its folders are left
        }
    }
}

#[test]
fn another_profile_begins_where_the_machine_was() {
    let tree = Tree::new("another");
    let before = tree.everything();
    tree.apply(&Tree::changes());
    let other = [Change::new(Kind::Value, "proc/sys/vm/swappiness", "10", "another")];
    let shown = preview(&tree.0, &NoRings, &other).unwrap();
    assert_eq!(shown.count(Outcome::Would), Tree::changes().len(), "{shown:#?}");
    let report = tree.apply(&other);
    assert_eq!(report.count(Outcome::Restored), Tree::changes().len() - 1, "{report:#?}");
    let (_, entries) = Journal::peek(&tree.0).unwrap().unwrap();
    assert_eq!(entries.len(), 1, "{entries:#?}");
    assert_eq!(entries[0].old.as_ref().unwrap().bytes, b"60\n");
    let mut expected = before.clone();
    expected.get_mut(Path::new("proc/sys/vm/swappiness")).unwrap().as_mut().unwrap().0 = b"10\n".to_vec();
    assert_eq!(tree.everything(), expected);
    let report = tree.undo();
    assert_eq!(report.count(Outcome::Overridden), 0, "what the second apply left is ours: {report:#?}");
    assert_eq!(tree.everything(), before);
}

#[test]
fn the_machine_before_the_first_apply_is_what_plans_are_made_for() {
    let tree = Tree::new("untouched");
    tree.apply(&Tree::changes());
    let untouched = Untouched::open(&tree.0, &NoRings).unwrap();
    assert_eq!(untouched.text("proc/sys/vm/swappiness").as_deref(), Some("60"));
    assert_eq!(untouched.text("proc/sys/vm/dirty_bytes").as_deref(), Some("0"));
    assert_eq!(untouched.read(Kind::File, "etc/systemd/system/new.service.d/50-host.conf"), None);
}

#[test]
fn a_value_that_somebody_else_changed_is_restored_and_told() {
    let tree = Tree::new("overridden");
    let before = tree.everything();
    tree.apply(&Tree::changes());
    fs::write(tree.path("proc/sys/vm/swappiness"), "33\n").unwrap();
    fs::write(tree.path("proc/sys/vm/dirty_bytes"), "4096\n").unwrap(); // a companion: nobody's doing but ours
    let report = tree.undo();
    let told: Vec<_> = report.rows.iter().filter(|row| row.outcome == Outcome::Overridden).collect();
    assert_eq!(told.len(), 1, "{report:#?}");
    assert!(told[0].path.ends_with("swappiness") && told[0].why.contains("33"), "{told:?}");
    assert_eq!(tree.everything(), before);
}

#[test]
fn after_a_reboot_only_files_are_undone() {
    let tree = Tree::new("reboot");
    let before = tree.everything();
    tree.apply(&Tree::changes());
    // The kernel begins anew, with a value of its own here and there.
    fs::write(tree.path("proc/sys/kernel/random/boot_id"), "second\n").unwrap();
    fs::write(tree.path("proc/sys/vm/swappiness"), "45\n").unwrap();
    let report = tree.undo();
    assert_eq!(report.count(Outcome::Gone), Tree::changes().len() - 1, "with the companion: {report:#?}");
    assert_eq!(report.count(Outcome::Restored), 2, "{report:#?}");
    assert_eq!(tree.text("proc/sys/vm/swappiness"), "45\n");
    assert!(!tree.path("etc/systemd/system/new.service.d").exists());
    assert_eq!(tree.everything().len(), before.len());
}

#[test]
fn apply_after_a_reboot_keeps_the_first_files_and_takes_new_values() {
    let tree = Tree::new("reapply");
    tree.apply(&Tree::changes());
    fs::write(tree.path("proc/sys/kernel/random/boot_id"), "second\n").unwrap();
    fs::write(tree.path("proc/sys/vm/swappiness"), "45\n").unwrap();
    tree.apply(&Tree::changes());
    tree.undo();
    assert_eq!(tree.text("proc/sys/vm/swappiness"), "45\n");
    assert_eq!(tree.text("etc/systemd/system/old.service.d/50-host.conf"), "[Service]\nNice=1\n");
    assert!(!tree.path("etc/systemd/system/new.service.d").exists());
}

#[test]
fn what_is_not_there_or_turns_only_one_way_is_refused_and_the_rest_done() {
    let tree = Tree::new("refused");
    let modules = tree.path("proc/sys/kernel/modules_disabled");
    fs::write(&modules, "0\n").unwrap();
    let before = tree.everything();
    let mut changes = Tree::changes();
    changes.push(Change::new(Kind::Value, "proc/sys/vm/no_such", "1", "a test"));
    changes.push(Change::new(Kind::Value, "proc/sys/kernel/modules_disabled", "1", "a test"));
    let report = tree.apply(&changes);
    assert_eq!(report.count(Outcome::Done), Tree::changes().len(), "{report:#?}");
    let refused: Vec<&str> = report.troubles().map(|row| row.why.as_str()).collect();
    assert_eq!(refused.len(), 1);
    assert!(refused[0].contains("next boot"), "{refused:?}");
    let absent: Vec<_> = report.rows.iter().filter(|row| row.outcome == Outcome::Absent).collect();
    assert!(absent.len() == 1 && absent[0].why.contains("no such setting"), "{absent:?}");
    assert_eq!(fs::read_to_string(modules).unwrap(), "0\n");
    tree.undo();
    assert_eq!(tree.everything(), before);
}

#[test]
fn what_no_undo_can_put_back_is_refused_also_in_a_dry_run() {
    let tree = Tree::new("one-way");
    let names = ["kernel/tainted", "net/ipv4/ip_forward", "net/ipv6/conf/all/disable_ipv6", "vm/nr_hugepages"];
    let changes = names.map(|name| {
        fs::create_dir_all(tree.path(&format!("proc/sys/{name}")).parent().unwrap()).unwrap();
        fs::write(tree.path(&format!("proc/sys/{name}")), "0\n").unwrap();
        Change::new(Kind::Value, format!("proc/sys/{name}"), "1", "a test")
    });
    let before = tree.everything();
    for report in [preview(&tree.0, &NoRings, &changes).unwrap(), tree.apply(&changes)] {
        assert_eq!(report.count(Outcome::Refused), names.len(), "{report:#?}");
        assert!(report.rows.iter().all(|row| !row.remedy.is_empty()));
    }
    assert_eq!(tree.everything(), before);
    // What is as wanted already needs no undo.
    let already = [Change::new(Kind::Value, "proc/sys/net/ipv4/ip_forward", "0", "a test")];
    assert_eq!(tree.apply(&already).count(Outcome::Already), 1);
}

#[test]
fn one_of_a_pair_that_is_not_in_force_is_rehearsed_by_the_other() {
    use std::os::unix::fs::MetadataExt as _;
    let tree = Tree::new("pair");
    let settings = Settings::new(&tree.0, &NoRings);
    let written = |name: &str| {
        let found = fs::metadata(tree.path(&format!("proc/sys/vm/{name}"))).unwrap();
        (found.mtime(), found.mtime_nsec())
    };
    let (ratio, bytes) = (written("dirty_ratio"), written("dirty_bytes"));
    std::thread::sleep(std::time::Duration::from_millis(20)); // a clock tick of the file system
    let change = Change::new(Kind::Value, "proc/sys/vm/dirty_bytes", "4194304", "a test");
    let old = settings.read(Kind::Value, &change.path).unwrap();
    settings.rehearse(&change, old.as_ref()).unwrap();
    assert_ne!(written("dirty_ratio"), ratio);
    assert_eq!(written("dirty_bytes"), bytes, "0 is what the kernel would not take");
    let before = tree.everything();
    assert_eq!(tree.apply(&[change]).count(Outcome::Done), 1);
    let (_, entries) = Journal::peek(&tree.0).unwrap().unwrap();
    assert_eq!(entries[0].path, "proc/sys/vm/dirty_ratio", "its companion first, so that undo writes it last");
    fs::write(tree.path("proc/sys/vm/dirty_ratio"), "0\n").unwrap(); // as the kernel does
    assert_eq!(tree.undo().troubles().count(), 0);
    assert_eq!(tree.everything(), before);
}

#[test]
fn a_symbolic_link_in_a_files_place_is_refused() {
    let tree = Tree::new("link");
    let target = tree.path("etc/elsewhere");
    fs::write(&target, "x").unwrap();
    std::os::unix::fs::symlink(&target, tree.path("etc/link.conf")).unwrap();
    let report = tree.apply(&[Change::new(Kind::File, "etc/link.conf", "y", "a test")]);
    assert_eq!(report.count(Outcome::Refused), 1, "{report:#?}");
    assert_eq!(fs::read_to_string(target).unwrap(), "x");
}

#[test]
fn a_link_in_the_neighbours_place_is_not_followed() {
    let tree = Tree::new("neighbour");
    let before = tree.everything();
    let target = tree.path("etc/precious");
    fs::write(&target, "precious").unwrap();
    let beside = tree.path("etc/systemd/system/old.service.d/.50-host.conf.spinetail");
    std::os::unix::fs::symlink(&target, beside).unwrap();
    assert_eq!(tree.apply(&Tree::changes()).troubles().count(), 0);
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert_eq!(tree.undo().troubles().count(), 0);
    fs::remove_file(target).unwrap();
    assert_eq!(tree.everything(), before);
}

#[test]
fn a_file_that_cannot_be_written_is_refused_and_its_journal_ends_all_the_same() {
    let tree = Tree::new("unwritable");
    std::os::unix::fs::symlink("nowhere", tree.path("etc/systemd/system/new.service.d")).unwrap();
    fs::create_dir(tree.path("etc/systemd/system/old.service.d/.50-host.conf.spinetail")).unwrap();
    let report = tree.apply(&Tree::changes());
    let why: Vec<&str> = report.troubles().map(|row| row.why.as_str()).collect();
    assert!(why.len() == 2 && why.iter().all(|why| why.contains("in the way")), "{report:#?}");
    // The same where it came between the rehearsal and the write: it is in the journal, and was never made.
    let path = "etc/systemd/system/new.service.d/50-host.conf";
    let (header, mut entries) = Journal::peek(&tree.0).unwrap().unwrap();
    let old = "etc/systemd/system/old.service.d/50-host.conf";
    for (path, made) in [(path, vec!["etc/systemd/system/new.service.d".to_owned()]), (old, Vec::new())] {
        let held = fs::read(tree.path(path))
            .ok()
            .map(|_| Settings::new(&tree.0, &NoRings).read(Kind::File, path).unwrap().unwrap());
        let sequence = entries.last().unwrap().sequence + 1;
        entries.push(Entry {
            sequence,
            path: path.to_owned(),
            old: held,
            made,
            kind: Kind::File,
            ..entries[0].clone()
        });
    }
    Journal::replace(&tree.0, header, entries).unwrap();
    assert_eq!(tree.undo().troubles().count(), 0);
    assert!(!tree.journal().exists());
}

#[test]
fn links_that_lead_out_of_the_root_are_refused_and_the_rest_is_done() {
    let (tree, outside) = (Tree::new("contained"), Tree::new("outside"));
    let before = outside.everything();
    for folder in ["proc/sys/vm", "etc/systemd/system"] {
        fs::remove_dir_all(tree.path(folder)).unwrap();
        std::os::unix::fs::symlink(outside.path(folder), tree.path(folder)).unwrap();
    }
    let report = tree.apply(&Tree::changes());
    let refused: Vec<&str> = report.troubles().map(|row| row.why.as_str()).collect();
    assert!(refused.len() == 4 && refused.iter().all(|why| why.contains("leads out of")), "{report:#?}");
    assert_eq!(report.count(Outcome::Done), Tree::changes().len() - 4);
    assert_eq!(outside.everything(), before);
    // A link that came after the apply leads undo nowhere either.
    fs::rename(tree.path("proc/irq"), outside.path("irq")).unwrap();
    std::os::unix::fs::symlink(outside.path("irq"), tree.path("proc/irq")).unwrap();
    let report = tree.undo();
    assert_eq!(report.troubles().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["proc/irq/24/smp_affinity_list"]);
    assert_eq!(outside.text("irq/24/smp_affinity_list"), "0\n");
}

#[test]
fn a_folder_in_which_somebody_put_something_stays() {
    let tree = Tree::new("folder");
    tree.apply(&Tree::changes());
    let theirs = tree.path("etc/systemd/system/new.service.d/60-theirs.conf");
    fs::write(&theirs, "x").unwrap();
    assert_eq!(tree.undo().count(Outcome::Failed), 0);
    assert!(theirs.exists());
}

#[test]
fn a_device_that_went_away_is_no_failure_of_undo() {
    let tree = Tree::new("gone");
    tree.apply(&Tree::changes());
    fs::remove_dir_all(tree.path("sys/class/net/eth0")).unwrap();
    let report = tree.undo();
    assert_eq!((report.count(Outcome::Gone), report.count(Outcome::Failed)), (1, 0), "{report:#?}");
    assert!(!tree.journal().exists());
}

#[test]
fn looking_writes_nothing() {
    let tree = Tree::new("looking");
    let before = tree.everything();
    let shown = preview(&tree.0, &NoRings, &Tree::changes()).unwrap();
    assert_eq!(shown.count(Outcome::Would), Tree::changes().len());
    assert_eq!(undo_preview(&tree.0, &NoRings).unwrap(), Report::default());
    assert_eq!(undo(&tree.0, &NoRings, 1).unwrap(), Report::default());
    assert_eq!(tree.everything(), before);
    assert!(!tree.path("var/lib/spinetail").exists());
}

#[test]
fn an_interrupt_whose_number_is_another_devices_now_is_left_alone() {
    let tree = Tree::new("reused");
    let interrupts = |name: &str| format!("      CPU0  CPU1\n 24:   1   2  PCI-MSIX-0000:00:03.0  0-edge  {name}\n");
    fs::write(tree.path("proc/interrupts"), interrupts("eth0-TxRx-0")).unwrap();
    tree.apply(&Tree::changes());
    let (_, entries) = Journal::peek(&tree.0).unwrap().unwrap();
    let of: Vec<&str> = entries.iter().filter_map(|entry| entry.of.as_deref()).collect();
    assert_eq!(of, ["eth0-TxRx-0"]);
    fs::write(tree.path("proc/interrupts"), interrupts("nvme0q1")).unwrap();
    fs::write(tree.path("proc/irq/24/smp_affinity_list"), "1\n").unwrap();
    let untouched = Untouched::open(&tree.0, &NoRings).unwrap();
    assert_eq!(untouched.text("proc/irq/24/smp_affinity_list").as_deref(), Some("1"), "the other's own beginning");
    for report in [undo_preview(&tree.0, &NoRings).unwrap(), tree.undo()] {
        let gone: Vec<_> = report.rows.iter().filter(|row| row.outcome == Outcome::Gone).collect();
        assert!(gone.len() == 1 && gone[0].why.contains("eth0-TxRx-0") && gone[0].why.contains("nvme0q1"), "{gone:?}");
        assert_eq!(report.troubles().count(), 0);
    }
    assert_eq!(tree.text("proc/irq/24/smp_affinity_list"), "1\n");
    assert!(!tree.journal().exists());
}

#[test]
fn an_interrupt_that_nobody_uses_any_more_is_put_back() {
    let tree = Tree::new("asleep");
    fs::write(tree.path("proc/interrupts"), "  CPU0\n 24:  1  PCI-MSIX  0-edge  eth0-TxRx-0\n").unwrap();
    tree.apply(&Tree::changes());
    fs::write(tree.path("proc/interrupts"), "  CPU0\n").unwrap();
    tree.undo();
    assert_eq!(tree.text("proc/irq/24/smp_affinity_list"), "0-3\n");
}

#[test]
fn a_file_that_somebody_edited_is_kept_before_it_is_overwritten() {
    let tree = Tree::new("edited");
    let before = tree.everything();
    tree.apply(&Tree::changes());
    let (old, new) = ("etc/systemd/system/old.service.d/50-host.conf", "etc/systemd/system/new.service.d/50-host.conf");
    fs::write(tree.path(old), "theirs").unwrap();
    fs::write(tree.path(new), "also theirs").unwrap();
    let report = tree.undo();
    assert_eq!(report.count(Outcome::Overridden), 2, "{report:#?}");
    for (path, text) in [(old, "theirs"), (new, "also theirs")] {
        let kept = format!("{STATE_DIRECTORY}/kept/{}.2", path.replace('/', "-"));
        assert_eq!(tree.text(&kept), text);
        assert!(report.rows.iter().any(|row| row.path == path && row.why.contains(&kept)), "{report:#?}");
    }
    assert_eq!(tree.everything(), before);
    // Another apply overwrites it as well, and what undo finds of its own is not kept.
    tree.apply(&Tree::changes());
    fs::write(tree.path(old), "theirs again").unwrap();
    tree.apply(&Tree::changes());
    tree.undo();
    let kept = fs::read_dir(tree.path(STATE_DIRECTORY).join("kept")).unwrap();
    let mut kept: Vec<String> = kept.map(|kept| fs::read_to_string(kept.unwrap().path()).unwrap()).collect();
    kept.sort();
    assert_eq!(kept, ["also theirs", "theirs", "theirs again"]);
}

#[test]
fn a_machine_that_does_not_say_which_boot_it_is_is_not_changed() {
    let tree = Tree::new("no-boot");
    fs::remove_file(tree.path("proc/sys/kernel/random/boot_id")).unwrap();
    let before = tree.everything();
    let lock = Lock::take(&tree.0).unwrap();
    let changes = Tree::changes();
    let what = Apply { root: &tree.0, rings: &NoRings, profile: "test", changes: &changes, now_s: 1 };
    let refused = apply(&lock, what).unwrap_err().to_string();
    assert!(refused.contains("boot_id") && refused.contains("Nothing was changed"), "{refused}");
    assert_eq!(tree.everything(), before);
    drop(lock);
    // Nor is what was applied before taken for an earlier boot's, and forgotten.
    let tree = Tree::new("no-boot-any-more");
    let before = tree.everything();
    tree.apply(&changes);
    fs::remove_file(tree.path("proc/sys/kernel/random/boot_id")).unwrap();
    assert!(undo(&tree.0, &NoRings, 2).is_err() && tree.journal().exists());
    fs::write(tree.path("proc/sys/kernel/random/boot_id"), "first\n").unwrap();
    tree.undo();
    assert_eq!(tree.everything(), before);
}

/// A card in memory whose driver asks for its interrupts anew when its rings change.
struct Restless<'t>(Card, &'t Tree);

impl Rings for Restless<'_> {
    fn read(&self, interface: &str) -> std::io::Result<String> {
        self.0.read(interface)
    }

    fn write(&self, interface: &str, sizes: &str) -> std::io::Result<()> {
        if self.read(interface)? != sizes {
            fs::write(self.1.path("proc/irq/24/smp_affinity_list"), "0-3\n")?;
        }
        self.0.write(interface, sizes)
    }
}

#[test]
fn what_a_later_write_moved_is_told_and_undo_ends_where_it_began() {
    let tree = Tree::new("restless");
    let card = Restless(Card(std::cell::RefCell::new("rx 256 tx 256".to_owned())), &tree);
    fs::write(tree.path("proc/irq/24/smp_affinity_list"), "0-1\n").unwrap();
    let rings = Change::new(Kind::Rings, "sys/class/net/eth0", "rx 512 tx 512", "a test");
    let interrupt = Change::new(Kind::List, "proc/irq/24/smp_affinity_list", "0", "a test");
    let run = |changes: &[Change]| {
        let lock = Lock::take(&tree.0).unwrap();
        apply(&lock, Apply { root: &tree.0, rings: &card, profile: "test", changes, now_s: 1 }).unwrap()
    };
    let report = run(&[interrupt.clone(), rings.clone()]);
    let moved: Vec<_> = report.troubles().collect();
    assert!(moved.len() == 1 && moved[0].outcome == Outcome::Moved && moved[0].why.contains("0-3"), "{report:#?}");
    undo(&tree.0, &card, 2).unwrap();
    assert_eq!(tree.text("proc/irq/24/smp_affinity_list"), "0-1\n");
    // In the order of a plan nothing moves; undo meets the interrupt first and looks at it again after the rings.
    assert_eq!(run(&[rings, interrupt]).count(Outcome::Done), 2);
    assert_eq!(undo(&tree.0, &card, 2).unwrap().troubles().count(), 0);
    assert_eq!(
        (tree.text("proc/irq/24/smp_affinity_list"), card.read("eth0").unwrap()),
        ("0-1\n".into(), "rx 256 tx 256".into())
    );
}

/// A card that takes no sizes any more once it was given others than its own, and keeps half of them.
struct Broken(Card);

impl Rings for Broken {
    fn read(&self, interface: &str) -> std::io::Result<String> {
        self.0.read(interface)
    }

    fn write(&self, interface: &str, sizes: &str) -> std::io::Result<()> {
        if self.read(interface)? == sizes {
            return Ok(());
        }
        self.0.write(interface, "rx 512 tx 256")?;
        Err(std::io::Error::from_raw_os_error(libc::EINVAL))
    }
}

#[test]
fn a_failed_write_that_cannot_be_put_back_at_once_is_failed_and_stays_in_the_journal() {
    let tree = Tree::new("broken");
    let card = Broken(Card(std::cell::RefCell::new("rx 256 tx 256".to_owned())));
    let changes = [Change::new(Kind::Rings, "sys/class/net/eth0", "rx 512 tx 512", "a test")];
    let lock = Lock::take(&tree.0).unwrap();
    let what = Apply { root: &tree.0, rings: &card, profile: "test", changes: &changes, now_s: 1 };
    let report = apply(&lock, what).unwrap();
    assert_eq!(report.rows[0].outcome, Outcome::Failed, "{report:#?}");
    assert!(report.rows[0].why.contains("could not be put back"), "{report:#?}");
    assert_eq!(Journal::peek(&tree.0).unwrap().unwrap().1.len(), 1);
}

/// A card in memory: rings have no file.
struct Card(std::cell::RefCell<String>);

impl Rings for Card {
    fn read(&self, interface: &str) -> std::io::Result<String> {
        assert_eq!(interface, "eth0");
        Ok(self.0.borrow().clone())
    }

    fn write(&self, _: &str, sizes: &str) -> std::io::Result<()> {
        // As many cards do: a multiple of 32.
        let numbers = sizes.split(' ').map(|word| match word.parse::<u32>() {
            Ok(number) => (number / 32 * 32).to_string(),
            Err(_) => word.to_owned(),
        });
        *self.0.borrow_mut() = numbers.collect::<Vec<_>>().join(" ");
        Ok(())
    }
}

#[test]
fn what_a_card_makes_of_its_rings_is_told_and_undone() {
    let tree = Tree::new("rings");
    let card = Card(std::cell::RefCell::new("rx 256 tx 256".to_owned()));
    let changes = [Change::new(Kind::Rings, "sys/class/net/eth0", "rx 500 tx 512", "a test")];
    let lock = Lock::take(&tree.0).unwrap();
    let what = Apply { root: &tree.0, rings: &card, profile: "test", changes: &changes, now_s: 1 };
    let report = apply(&lock, what).unwrap();
    drop(lock);
    assert_eq!(report.rows[0].outcome, Outcome::Given, "{report:#?}");
    assert!(report.rows[0].why.contains("wanted rx 500 tx 512, kernel gave rx 480 tx 512"), "{report:#?}");
    let report = undo(&tree.0, &card, 2).unwrap();
    assert_eq!(report.rows[0].outcome, Outcome::Restored, "what the card made of it is ours too: {report:#?}");
    assert_eq!(*card.0.borrow(), "rx 256 tx 256");
}
