//! The server as nobody, under the locked-memory limits that containers and plain users have.
//!
//! Needs root to step down from, and `setpriv` to do it with; says so and passes where they lack.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::*;

#[test]
fn nobody_serves_on_io_uring_within_the_usual_limit() {
    let Some(lowered) = Lowered::prepare("usual") else { return };
    if !drivers().contains(&"io_uring") {
        return; // drivers() has said why
    }
    let mut server = lowered.serve(8192, &[]).expect("8 MiB of locked memory are enough");
    assert_eq!(owner_of(&server), 65_534);
    assert!(server.stderr().contains("io=io_uring"), "{}", server.stderr());
    server.assert_serves();
}

#[test]
fn nobody_serves_on_epoll_where_locked_memory_is_short_and_is_told() {
    let Some(lowered) = Lowered::prepare("short") else { return };
    let mut server = lowered.serve(64, &[]).expect("epoll needs no locked memory");
    assert_eq!(owner_of(&server), 65_534);
    let stderr = server.stderr();
    assert!(stderr.contains("io=epoll"), "{stderr}");
    let remark = stderr.lines().find(|line| line.contains("epoll in place of io_uring")).expect(&stderr);
    assert!(remark.contains("64.0 KiB") && remark.contains("ulimit -l"), "{remark}");
    server.assert_serves();
}

#[test]
fn io_uring_demanded_without_locked_memory_is_refused_with_77() {
    let Some(lowered) = Lowered::prepare("demanded") else { return };
    if !drivers().contains(&"io_uring") {
        return; // drivers() has said why
    }
    let refused = lowered.serve(64, &["--io", "io_uring"]).err().expect("this must not start");
    refused.assert_refused(77, &["locked memory", "ulimit -l"]);
}

/// An executable that user nobody may run, and the means to run it as nobody.
struct Lowered {
    scratch: Scratch,
}

impl Lowered {
    fn prepare(name: &str) -> Option<Lowered> {
        let root = fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t0"));
        if !root {
            eprintln!("skipped: only root can run a server as somebody else");
            return None;
        }
        if !Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: there is no setpriv here");
            return None;
        }
        let scratch = Scratch::new(&format!("unprivileged-{name}"));
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = scratch.path().join("spinetail");
        fs::copy(SPINETAIL, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        Some(Lowered { scratch })
    }

    /// A server of user 65534 that may lock so many KiB.
    fn serve(&self, memlock_kib: u32, arguments: &[&str]) -> Result<Server, Ended> {
        let step_down =
            "ulimit -l \"$1\" && shift && exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", step_down, "sh", &memlock_kib.to_string(), &self.scratch.file("spinetail")]);
        command.args(["serve", "--listen", "127.0.0.1:0", "--poll", "park", "--memory", "64MiB", "--shards", "1"]);
        command.args(arguments).current_dir("/");
        Server::try_spawn(command)
    }
}

fn owner_of(server: &Server) -> u32 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    line.split('\t').next().unwrap().parse().unwrap()
}
