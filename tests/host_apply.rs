//! `host apply` and `host undo` as an operator runs them: on this very machine inside namespaces of its own where that
//! can be had, and on folders of files that stand for machines nobody has at hand.
//!
//! The real settings (sysctls, interrupts, huge pages) are this machine's: each test that touches them puts them
//! back by 'undo', checks that it did, and puts back by hand what it did not.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::*;

// --- This machine ----------------------------------------------------------------------------

/// One at a time: the kernel's settings are everybody's.
static MACHINE: Mutex<()> = Mutex::new(());

const PROFILE: &str = r#"
[machine]
name = "test"
[cores]
data = "1"
housekeeping = "0"
irq = "0"
[memory]
total = "64MiB"
pages = "2MiB"
[network]
poll = "park"
[nic]
interfaces = "va"
xps = true
rps = true
rfs_entries = 512
busy_poll_us = 50
gro_flush_timeout_ns = 200000
napi_defer_hard_irqs = 2
[kernel]
cmdline = ["nohz_full={data}"]
[sysctl]
"vm.swappiness" = 7
"vm.stat_interval" = 11
"vm.dirty_ratio" = 17
"vm.dirty_background_bytes" = 67108864
"kernel.timer_migration" = 0
"net.core.somaxconn" = 5000
"net.ipv4.tcp_max_syn_backlog" = 5001
"kernel.no_such_parameter" = 1
"#;

/// This machine with a network, a sysfs, a journal and a systemd folder of its own.
struct Namespace {
    holder: Child,
    profile: String,
    _scratch: Scratch,
}

impl Namespace {
    /// `None`, and says so, where that cannot be had.
    fn new(name: &str, setup: &str) -> Option<Namespace> {
        if !is_root() {
            eprintln!("SKIPPED: only root can change a machine");
            return None;
        }
        if thread::available_parallelism().map_or(1, usize::from) < 2 {
            eprintln!("SKIPPED: one core for shards and one for interrupts are two");
            return None;
        }
        let scratch = Scratch::new(&format!("apply-{name}"));
        let profile = scratch.file("profile.toml");
        fs::write(&profile, PROFILE).unwrap();
        let script = format!(
            "set -e; mount -t sysfs sysfs /sys; mkdir -p /var/lib/spinetail /etc/systemd/system; \
             mount -t tmpfs tmpfs /var/lib/spinetail; mount -t tmpfs tmpfs /etc/systemd/system; \
             ip link add va numrxqueues 4 numtxqueues 4 type veth peer name vb numrxqueues 4 numtxqueues 4; \
             ip link set va up; ip link set vb up; {setup} echo ready; exec sleep 600"
        );
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut word = [0; 5];
        if holder.stdout.as_mut().unwrap().read_exact(&mut word).is_err() || &word != b"ready" {
            let _ = holder.kill();
            let mut why = String::new();
            let _ = holder.stderr.take().unwrap().read_to_string(&mut why);
            let _ = holder.wait();
            eprintln!("SKIPPED: no namespaces with a veth pair here: {}", why.trim());
            return None;
        }
        Some(Namespace { holder, profile, _scratch: scratch })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--", program]);
        command
    }

    fn spinetail(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command(SPINETAIL);
        command.args(arguments);
        run(command, PATIENCE)
    }

    fn apply(&self) -> Ended {
        self.spinetail(&["host", "apply", "--profile", &self.profile])
    }

    /// Undoes, again as long as somebody else's program on this machine holds huge pages out of the pool that was
    /// raised here: these stay until it ends, and undo says so.
    fn undo(&self) -> Ended {
        let started = Instant::now();
        loop {
            let undone = self.spinetail(&["host", "undo"]);
            let failed = undone.stdout.lines().filter(|line| line.starts_with("failed"));
            let held = failed.clone().count() > 0 && failed.clone().all(|line| line.contains("hugepages"));
            if undone.status == Some(0) || !held || started.elapsed() > PATIENCE {
                return undone;
            }
            thread::sleep(Duration::from_millis(300));
        }
    }

    /// Paths that apply would touch, and their companions.
    fn touched(&self) -> Vec<String> {
        let shown = self.spinetail(&["host", "apply", "--dry-run", "--json", "--profile", &self.profile]);
        assert_eq!(shown.status, Some(0), "{shown:?}");
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
        let rows = shown["rows"].as_array().expect("rows").iter();
        let mut paths: Vec<String> = rows.map(|row| row["path"].as_str().expect("a path").to_owned()).collect();
        paths.push("proc/sys/vm/dirty_bytes".to_owned());
        paths.push("proc/sys/vm/dirty_background_ratio".to_owned());
        paths
    }

    /// What these paths hold; nothing for one that is not there or cannot be read.
    fn values(&self, paths: &[String]) -> BTreeMap<String, String> {
        let script =
            "for path in \"$@\"; do printf '%s\\001' \"$path\"; cat \"/$path\" 2>/dev/null; printf '\\002'; done";
        let mut command = self.command("sh");
        command.args(["-c", script, "sh"]).args(paths);
        let read = run(command, PATIENCE).stdout;
        let pairs = read.split('\u{2}').filter_map(|part| part.split_once('\u{1}'));
        pairs.map(|(path, value)| (path.to_owned(), value.to_owned())).collect()
    }

    /// What `host check` says of what only this test changes: its own card, and the profile's sysctls. Other lines (memory
    /// that others on this machine take and give) may turn meanwhile.
    fn verdicts(&self) -> BTreeMap<String, String> {
        let check = self.spinetail(&["host", "check", "--json", "--profile", &self.profile]);
        let check: serde_json::Value = serde_json::from_str(&check.stdout).unwrap_or_else(|_| panic!("{check:?}"));
        let word = |line: &serde_json::Value, key: &str| line[key].as_str().expect("a word").to_owned();
        let lines = check["lines"].as_array().expect("lines").iter();
        let lines = lines.map(|line| (word(line, "item"), word(line, "verdict")));
        let ours = |item: &str| ["va: ", "vm.", "net.", "kernel.timer"].iter().any(|start| item.starts_with(start));
        lines.filter(|(item, _)| ours(item)).collect()
    }

    /// Checks that an apply did all it was asked for, but for huge pages where memory is in pieces.
    fn assert_applied(&self, applied: &Ended) {
        let refused = applied.stdout.lines().filter(|line| line.starts_with("refused"));
        let other: Vec<&str> = refused.filter(|line| !line.contains("nr_hugepages")).collect();
        assert!(other.is_empty() && !applied.stdout.contains("\nfailed"), "{applied:?}");
        let pages = applied.stdout.lines().any(|line| line.starts_with("refused"));
        assert_eq!(applied.status, Some(if pages { 1 } else { 0 }), "{applied:?}");
    }

    /// Where the journal is, seen from outside of the namespace.
    fn journal(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/var/lib/spinetail/host/journal.jsonl", self.holder.id()))
    }

    /// Checks that all is as before, and makes it so if it is not.
    fn assert_restored(&self, before: &BTreeMap<String, String>) {
        let paths: Vec<String> = before.keys().cloned().collect();
        let after = self.values(&paths);
        let mut wrong = Vec::new();
        for (path, old) in before.iter().filter(|(path, old)| after.get(*path) != Some(old)) {
            wrong.push(format!("{path}: {old:?} became {:?}", after.get(path)));
            let mut command = self.command("sh");
            command.args(["-c", "printf %s \"$1\" > \"/$2\"", "sh", old, path]);
            run(command, PATIENCE);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if thread::panicking() {
            self.undo();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t0"))
}

fn outcomes(json: &str) -> BTreeMap<String, String> {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_else(|_| panic!("no JSON: {json}"));
    let rows = value["rows"].as_array().expect("rows").iter();
    let word = |row: &serde_json::Value, key: &str| row[key].as_str().expect("a word").to_owned();
    rows.map(|row| (word(row, "path"), word(row, "outcome"))).collect()
}

#[test]
fn this_machine_is_changed_scores_better_and_is_put_back_to_the_byte() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(space) = Namespace::new("whole", "") else { return };
    let touched = space.touched();
    assert!(touched.len() > 20, "{touched:?}");
    let before = space.values(&touched);
    let verdicts_before = space.verdicts();

    let applied = space.apply();
    space.assert_applied(&applied);
    assert!(applied.stdout.contains("'spinetail host undo'"), "{applied:?}");
    assert!(applied.stdout.contains("the kernel's command line lacks: nohz_full=1"), "{applied:?}");
    assert!(applied.stdout.lines().any(|line| line.starts_with("absent") && line.contains("no_such_parameter")));
    let during = space.values(&touched);
    assert_eq!(during["proc/sys/vm/swappiness"], "7\n");
    assert_eq!(during["sys/class/net/va/queues/rx-0/rps_cpus"].trim().trim_start_matches('0'), "1");
    assert_eq!(during["sys/class/net/va/gro_flush_timeout"], "200000\n");
    let verdicts_during = space.verdicts();
    for item in ["va: send queues (XPS)", "vm.swappiness", "net.core.somaxconn"] {
        assert_ne!(verdicts_before[item], "ok", "{item} was to be improved: {verdicts_before:?}");
    }
    for (item, verdict) in &verdicts_during {
        assert!(verdict == "ok", "{item} is {verdict} after apply: {verdicts_during:?}");
    }

    let again = space.spinetail(&["host", "apply", "--json", "--profile", &space.profile]);
    let again = outcomes(&again.stdout);
    let is_settled = |outcome: &str| ["already", "kept", "absent"].contains(&outcome);
    let pages = |path: &str| path.contains("nr_hugepages"); // what could not be had is asked for again
    assert!(again.iter().all(|(path, outcome)| is_settled(outcome) || pages(path)), "{again:?}");

    let undone = space.undo();
    assert_eq!(undone.status, Some(0), "{undone:?}");
    assert!(!undone.stdout.contains("failed") && !undone.stdout.contains("overridden"), "{undone:?}");
    space.assert_restored(&before);
    assert_eq!(space.verdicts(), verdicts_before);
    let nothing = space.spinetail(&["host", "undo"]);
    assert!(nothing.status == Some(0) && nothing.stdout.contains("nothing to do"), "{nothing:?}");
}

#[test]
fn this_machine_is_put_back_after_kills_at_random_moments() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(space) = Namespace::new("killed", "") else { return };
    let before = space.values(&space.touched());
    let started = Instant::now();
    space.assert_applied(&space.apply());
    let whole = started.elapsed();
    let lines = lines_of(&space.journal());
    assert_eq!(space.undo().status, Some(0));
    let (mut random, mut half_way) = (1, 0);
    for round in 0..12 {
        let mut command = space.command(SPINETAIL);
        command.args(["host", "apply", "--profile", &space.profile]);
        if round % 2 == 0 {
            kill_within(command, whole, &mut random);
        } else {
            kill_at_line(command, &space.journal(), lines, &mut random);
        }
        half_way += usize::from((2..lines).contains(&lines_of(&space.journal())));
        let mut command = space.command(SPINETAIL);
        command.args(["host", "undo"]);
        kill_within(command, whole, &mut random);
        let undone = space.undo();
        assert_eq!(undone.status, Some(0), "{undone:?}");
        space.assert_restored(&before);
    }
    println!("{half_way} of 12 kills landed inside of the work; an apply takes {whole:?}");
    assert!(half_way >= 2, "kills came too early or too late: {half_way}");
}

#[test]
fn mounts_without_writing_are_refused_setting_by_setting_and_the_rest_is_done() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(space) = Namespace::new("read-only", "mount -o remount,bind,ro /sys;") else { return };
    let before = space.values(&space.touched());
    let applied = space.apply();
    assert_eq!(applied.status, Some(1), "{applied:?}");
    assert!(applied.stderr.contains("refused") && applied.stderr.contains("without writing"), "{applied:?}");
    let refused: Vec<&str> = applied.stdout.lines().filter(|line| line.starts_with("refused")).collect();
    assert!(!refused.is_empty() && refused.iter().all(|line| line.contains(" /sys/")), "{refused:#?}");
    assert_eq!(space.values(&["proc/sys/vm/swappiness".to_owned()])["proc/sys/vm/swappiness"], "7\n");
    assert_eq!(space.undo().status, Some(0));
    space.assert_restored(&before);
}

// --- Machines made of files ----------------------------------------------------------------------

/// A machine of `cores` cores with everything that apply knows.
fn machine(name: &str, cores: usize) -> Scratch {
    let scratch = Scratch::new(&format!("machine-{name}"));
    let put = |path: String, text: &str| {
        let path = scratch.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let cpu = "sys/devices/system/cpu";
    let (all, mask) = (format!("0-{}\n", cores - 1), format!("{:x}\n", (1u64 << cores) - 1));
    put("proc/cpuinfo".into(), &(0..cores).map(|core| format!("processor : {core}\n")).collect::<String>());
    put("proc/meminfo".into(), "MemTotal: 16000000 kB\nMemAvailable: 15000000 kB\n");
    put("proc/sys/kernel/random/boot_id".into(), "0b1c\n");
    put(format!("{cpu}/online"), &all);
    put(format!("{cpu}/present"), &all);
    for core in 0..cores {
        put(format!("{cpu}/cpu{core}/topology/thread_siblings_list"), &format!("{core}\n"));
        for (state, us) in [(0, 0), (1, 1), (2, 100), (3, 800)] {
            let folder = format!("{cpu}/cpu{core}/cpuidle/state{state}");
            put(format!("{folder}/name"), &format!("C{state}\n"));
            put(format!("{folder}/latency"), &format!("{us}\n"));
            put(format!("{folder}/disable"), "0\n");
        }
        put(format!("{cpu}/cpufreq/policy{core}/affected_cpus"), &format!("{core}\n"));
        put(format!("{cpu}/cpufreq/policy{core}/scaling_governor"), "powersave\n");
        put(format!("{cpu}/cpufreq/policy{core}/scaling_available_governors"), "performance powersave\n");
    }
    put("sys/devices/system/node/node0/cpulist".into(), &all);
    put("sys/devices/system/node/node0/meminfo".into(), "Node 0 MemTotal: 16000000 kB\n");
    put("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages".into(), "0\n");
    put("sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages".into(), "0\n");
    put("sys/kernel/mm/transparent_hugepage/enabled".into(), "always madvise [never]\n");
    put("sys/kernel/mm/transparent_hugepage/defrag".into(), "always defer defer+madvise madvise [never]\n");
    put("proc/irq/default_smp_affinity".into(), &mask);
    put("sys/devices/virtual/workqueue/cpumask".into(), &mask);
    for irq in 20..90 {
        put(format!("proc/irq/{irq}/smp_affinity_list"), &all);
    }
    put("proc/sys/vm/swappiness".into(), "60\n");
    put("proc/sys/vm/dirty_ratio".into(), "20\n");
    put("proc/sys/vm/dirty_bytes".into(), "0\n");
    put("sys/fs/cgroup/cgroup.controllers".into(), "cpuset cpu\n");
    put("etc/systemd/system/spinetail.slice.d/50-host.conf".into(), "[Slice]\nAllowedCPUs=0\n");
    fs::create_dir_all(scratch.path().join("var/lib")).unwrap();
    let profile = "[machine]\nname = \"files\"\n[cores]\ndata = \"rest\"\nhousekeeping = \"1\"\nirq = \"0,2\"\n\
                   [memory]\ntotal = \"256MiB\"\npages = \"2MiB\"\n[power]\ngovernor = \"performance\"\nidle_us_max = 10\n\
                   [kernel]\npartition = true\n[sysctl]\n\"vm.swappiness\" = 1\n\"vm.dirty_ratio\" = 5\n";
    // One core is left to the system, or there is no partition.
    let data = format!("data = \"3-{}\"", cores - 2);
    put("profile.toml".into(), &profile.replace("data = \"rest\"", &data));
    scratch
}

fn on(machine: &Scratch, arguments: &[&str]) -> Command {
    let mut command = Command::new(SPINETAIL);
    command.arg("host").args(arguments).arg("--root").arg(machine.path());
    if arguments[0] == "apply" {
        command.arg("--profile").arg(machine.path().join("profile.toml"));
    }
    command
}

fn host(machine: &Scratch, arguments: &[&str]) -> Ended {
    run(on(machine, arguments), PATIENCE)
}

/// Everything below a machine, folders and modes included, but not the journal's own folder.
fn everything(machine: &Scratch) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    walk(machine.path(), &mut |path, metadata| {
        if !path.starts_with(machine.path().join("var/lib/spinetail")) {
            let content = if metadata.is_dir() { Vec::new() } else { fs::read(path).unwrap() };
            found.insert(path.to_owned(), (metadata.mode(), content));
        }
    });
    found
}

fn walk(folder: &Path, each: &mut dyn FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        each(&path, &metadata);
        if metadata.is_dir() {
            walk(&path, each);
        }
    }
}

/// Whole lines of a journal; none where there is no journal. Its header is one, each setting has another.
fn lines_of(journal: &Path) -> usize {
    fs::read(journal).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

/// Starts an apply and kills it (SIGKILL) once its journal has some number of its lines: whatever the machine does
/// besides, that is in the middle of the work, or a little later.
fn kill_at_line(mut command: Command, journal: &Path, lines: usize, random: &mut u64) {
    // Not the last ones: some more are written until the kill arrives.
    let wanted = 2 + (next(random) as usize) % (lines / 2);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
    while lines_of(journal) < wanted && child.try_wait().expect("a child's state").is_none() {}
    let _ = child.kill();
    let _ = child.wait();
}

fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

/// Starts a command and kills it (SIGKILL) at some moment of the time it may take.
fn kill_within(mut command: Command, whole: Duration, random: &mut u64) {
    let random = next(random);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
    thread::sleep(whole.mul_f64((random % 1000) as f64 / 1000.0));
    // SIGKILL; `nsenter` without `--pid` has been replaced by its program by then, so that this is it.
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn a_machine_of_files_is_put_back_after_kills_at_random_moments() {
    let machine = machine("killed", 16);
    let before = everything(&machine);
    let started = Instant::now();
    let applied = host(&machine, &["apply"]);
    let whole = started.elapsed();
    assert_eq!(applied.status, Some(0), "{applied:?}");
    assert!(applied.stdout.lines().filter(|line| line.starts_with("done")).count() > 100, "{applied:?}");
    assert_ne!(everything(&machine), before);
    let journal = machine.path().join("var/lib/spinetail/host/journal.jsonl");
    let lines = lines_of(&journal);
    assert_eq!(host(&machine, &["undo"]).status, Some(0));
    let (mut random, mut half_way) = (88_172_645_463_325_252, 0);
    for round in 0..60 {
        if round % 3 == 0 {
            kill_at_line(on(&machine, &["apply"]), &journal, lines, &mut random);
        } else {
            kill_within(on(&machine, &["apply"]), whole, &mut random);
        }
        half_way += usize::from((2..lines).contains(&lines_of(&journal)));
        if round % 2 == 0 {
            kill_within(on(&machine, &["undo"]), whole, &mut random);
        }
        let undone = host(&machine, &["undo"]);
        assert_eq!(undone.status, Some(0), "{undone:?}");
        assert!(everything(&machine) == before, "round {round}: {undone:?}");
    }
    println!("{half_way} of 60 kills landed inside of the work; an apply takes {whole:?}");
    assert!(half_way > 10, "kills came too early or too late: {half_way}");
}

#[test]
fn a_dry_run_writes_nothing_and_needs_no_rights() {
    let machine = machine("dry", 8);
    let listing = || {
        let mut found = Vec::new();
        walk(machine.path(), &mut |path, at| {
            found.push((
                path.to_owned(),
                at.mode(),
                at.len(),
                at.mtime(),
                at.mtime_nsec(),
                at.ctime(),
                at.ctime_nsec(),
            ));
        });
        found.sort();
        found
    };
    let before = listing();
    let shown = host(&machine, &["apply", "--dry-run"]);
    assert_eq!(shown.status, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("60 → 1") && shown.stdout.contains("nothing was written"), "{shown:?}");
    assert_eq!(host(&machine, &["undo", "--dry-run"]).status, Some(0));
    assert_eq!(host(&machine, &["undo"]).status, Some(0));
    assert_eq!(listing(), before);
    let Some(executable) = nobodys() else { return };
    let shown_to_nobody = as_nobody(&executable, &machine, &["apply", "--dry-run"]);
    assert_eq!((shown_to_nobody.status, shown_to_nobody.stdout), (Some(0), shown.stdout));
    assert_eq!(listing(), before);
}

#[test]
fn a_journal_that_this_user_may_not_read_is_told_and_not_taken_for_none() {
    let machine = machine("hidden", 8);
    let Some(executable) = nobodys() else { return };
    assert_eq!(host(&machine, &["apply"]).status, Some(0));
    as_nobody(&executable, &machine, &["undo", "--dry-run"]).assert_refused(77, &["journal.jsonl", "run as root"]);
    let shown = as_nobody(&executable, &machine, &["apply", "--dry-run"]);
    assert!(shown.status == Some(0) && shown.stdout.contains("note: the journal of an earlier apply"), "{shown:?}");
    assert!(!host(&machine, &["apply", "--dry-run"]).stdout.contains("note: the journal"));
    assert_eq!(host(&machine, &["undo"]).status, Some(0));
}

#[test]
fn nobody_is_told_to_be_root() {
    let machine = machine("nobody", 8);
    let before = everything(&machine);
    let Some(executable) = nobodys() else { return };
    as_nobody(&executable, &machine, &["apply"]).assert_refused(77, &["run as root"]);
    // Also where only the journal may be written; and one that everybody may write is nobody's.
    let state = machine.path().join("var/lib/spinetail/host");
    fs::create_dir_all(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    as_nobody(&executable, &machine, &["apply"]).assert_refused(77, &["belongs to user 0", "run as root"]);
    host(&machine, &["apply"]).assert_refused(1, &["may be written by others", "chmod go-w"]);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).unwrap();
    as_nobody(&executable, &machine, &["apply"]).assert_refused(77, &["none of", "run as root"]);
    assert_eq!(everything(&machine), before);
    assert!(!state.join("journal.jsonl").exists());
}

/// An executable that user nobody may run; `None`, and says so, where nobody can be stepped down to.
fn nobodys() -> Option<Scratch> {
    if !is_root() || !Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: only root can step down to nobody, and with setpriv");
        return None;
    }
    // Threads of one process: each test has its own.
    let name = thread::current().name().unwrap_or("apply").replace("::", "-");
    let scratch = Scratch::new(&format!("nobody-{name}"));
    for path in [scratch.path().to_owned(), scratch.path().join("spinetail")] {
        if path != scratch.path() {
            fs::copy(SPINETAIL, &path).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Some(scratch)
}

/// The command as user nobody.
fn as_nobody(executable: &Scratch, machine: &Scratch, arguments: &[&str]) -> Ended {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(executable.file("spinetail"));
    command.args(on(machine, arguments).get_args()).current_dir("/");
    run(command, PATIENCE)
}

#[test]
fn a_wrong_profile_is_refused_before_anything_is_touched() {
    let machine = machine("wrong", 8);
    let before = everything(&machine);
    let profile = machine.path().join("profile.toml");
    let text = fs::read_to_string(&profile).unwrap();
    for (from, to, words) in [
        ("data = \"3-6\"", "data = \"3-9\"", ["cores.data", "not online"]),
        ("[sysctl]", "[sysctls]", ["sysctls", "did you mean"]),
        ("irq = \"0,2\"", "irq = \"0,3\"", ["core", "3"]),
    ] {
        fs::write(&profile, text.replace(from, to)).unwrap();
        host(&machine, &["apply"]).assert_refused(78, &words);
        host(&machine, &["apply", "--dry-run"]).assert_refused(78, &words);
    }
    fs::write(&profile, text).unwrap();
    assert_eq!(everything(&machine), before);
    assert!(!machine.path().join("var/lib/spinetail").exists());
}

#[test]
fn a_profile_for_another_kind_of_machine_is_refused_unless_it_is_meant() {
    let machine = machine("another", 8);
    let before = everything(&machine);
    let profile = machine.path().join("profile.toml");
    let text = fs::read_to_string(&profile).unwrap();
    fs::write(&profile, format!("{text}[match]\nsockets = 2\n")).unwrap();
    let words = ["the number of sockets is 1, the profile is for 2", "[match]", "--other-machine"];
    host(&machine, &["apply"]).assert_refused(78, &words);
    let shown = host(&machine, &["apply", "--dry-run"]);
    assert!(shown.stdout.contains("60 → 1"), "the plan is shown all the same: {shown:?}");
    shown.assert_refused(78, &words);
    assert!(!machine.path().join("var/lib/spinetail").exists());
    let applied = host(&machine, &["apply", "--other-machine"]);
    assert_eq!(applied.status, Some(0), "{applied:?}");
    assert_eq!(host(&machine, &["undo"]).status, Some(0));
    fs::write(&profile, text).unwrap();
    assert_eq!(everything(&machine), before);
}

#[test]
fn two_applies_do_not_interleave() {
    let machine = machine("locked", 8);
    assert_eq!(host(&machine, &["apply"]).status, Some(0));
    let during = everything(&machine);
    let lock = fs::File::open(machine.path().join("var/lib/spinetail/host/lock")).unwrap();
    lock.lock().unwrap();
    host(&machine, &["apply"]).assert_refused(1, &["another 'host apply'"]);
    host(&machine, &["undo"]).assert_refused(1, &["another 'host apply'"]);
    assert_eq!(everything(&machine), during);
    drop(lock);
    assert_eq!(host(&machine, &["undo"]).status, Some(0));
}

#[test]
fn a_damaged_journal_is_refused_with_its_line_and_nothing_is_changed() {
    let machine = machine("damaged", 8);
    assert_eq!(host(&machine, &["apply"]).status, Some(0));
    let during = everything(&machine);
    let path = machine.path().join("var/lib/spinetail/host/journal.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replacen("\"sequence\":3,", "\"sequence\":4,", 1)).unwrap();
    for command in ["apply", "undo"] {
        host(&machine, &[command]).assert_refused(1, &["journal.jsonl:4: ", "Nothing was changed"]);
    }
    assert_eq!(everything(&machine), during);
    fs::write(&path, whole).unwrap();
    assert_eq!(host(&machine, &["undo"]).status, Some(0));
}

#[test]
fn a_replaced_file_gets_its_bytes_and_mode_back_and_new_ones_go() {
    let machine = machine("files", 8);
    let slice = machine.path().join("etc/systemd/system/spinetail.slice.d/50-host.conf");
    fs::set_permissions(&slice, fs::Permissions::from_mode(0o640)).unwrap();
    let before = everything(&machine);
    let applied = host(&machine, &["apply"]);
    assert!(applied.stdout.contains("systemctl daemon-reload"), "{applied:?}");
    let text = fs::read_to_string(&slice).unwrap();
    assert!(text.contains("AllowedCPUs=1,3-6") && text.contains("spinetail host undo"), "{text}");
    let service = machine.path().join("etc/systemd/system/spinetail.service.d/50-host.conf");
    assert!(fs::read_to_string(&service).unwrap().contains("CPUAffinity=1,3-6"));
    assert_eq!(host(&machine, &["undo"]).status, Some(0));
    assert_eq!(everything(&machine), before);
    assert!(!service.parent().unwrap().exists());
    assert!(machine.path().join("var/lib/spinetail/host/journal.undone").exists());
}

#[test]
fn the_units_are_ones_that_systemd_reads() {
    if !Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: there is no systemd-analyze here");
        return;
    }
    let machine = machine("units", 8);
    assert_eq!(host(&machine, &["apply"]).status, Some(0));
    let units = machine.path().join("etc/systemd/system");
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    for unit in ["deploy/systemd/spinetail.service", "tuning/systemd/spinetail-host.service"] {
        // The one thing wrong with them here is where the executable is.
        let text = fs::read_to_string(home.join(unit)).unwrap().replace("/usr/bin/spinetail", SPINETAIL);
        fs::write(units.join(Path::new(unit).file_name().unwrap()), text).unwrap();
    }
    let verify = |unit: &str| {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", unit]);
        command.env("SYSTEMD_UNIT_PATH", format!("{}:/usr/lib/systemd/system:/lib/systemd/system", units.display()));
        run(command, PATIENCE)
    };
    for unit in ["spinetail.service", "spinetail.slice", "spinetail-host.service"] {
        let verified = verify(units.join(unit).to_str().unwrap());
        let ours: Vec<&str> = verified.stderr.lines().filter(|line| line.contains("spinetail")).collect();
        let ours: Vec<&&str> = ours.iter().filter(|line| !line.contains("Failed to prepare filename")).collect();
        assert!(ours.is_empty(), "{unit}: {verified:?}");
    }
    // It is our drop-ins that are read: a word it does not know is complained of.
    let drop_in = units.join("spinetail.service.d/50-host.conf");
    fs::write(&drop_in, fs::read_to_string(&drop_in).unwrap() + "NoSuchWord=1\n").unwrap();
    let complaint = verify(units.join("spinetail.service").to_str().unwrap());
    assert!(complaint.stderr.contains("50-host.conf") && complaint.stderr.contains("NoSuchWord"), "{complaint:?}");
}
