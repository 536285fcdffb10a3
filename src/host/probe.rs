//! Asks the kernel for a ring set up like a shard's, and turns its refusal into advice.
//!
//! Trying is the only honest test: a version number says nothing about seccomp filters, and a
//! sysctl nothing about the flags a vendor's kernel knows.

use std::{fs, io};

use io_uring::IoUring;

/// Entries of the ring that is tried; the smallest does, flags are refused at any size.
const PROBE_ENTRIES: u32 = 8;

/// Builds and drops a ring with the flags a shard's ring has. `None` when that worked, otherwise
/// the likely cause and its remedy in one sentence or two.
pub fn io_uring_refusal() -> Option<String> {
    let ring: io::Result<IoUring> = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(PROBE_ENTRIES);
    let error = ring.err()?;
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    Some(explain(&error, disabled.as_deref().map(str::trim)))
}

/// Advice for `error`, given the text of sysctl kernel.io_uring_disabled where it exists.
fn explain(error: &io::Error, disabled: Option<&str>) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring, or the sandbox hides it: use Linux 6.1 or newer built \
             with CONFIG_IO_URING, or network.io = \"epoll\""
            .to_owned(),
        Some(libc::EPERM | libc::EACCES) => match disabled {
            Some(value @ ("1" | "2")) => format!(
                "io_uring is switched off by sysctl kernel.io_uring_disabled={value}: run \
                 'sysctl -w kernel.io_uring_disabled=0' as root{}",
                if value == "1" { ", or join the group named by kernel.io_uring_group" } else { "" }
            ),
            _ => "io_uring is forbidden, and sysctl kernel.io_uring_disabled is not the cause; most likely a \
                  container's seccomp profile: allow io_uring_setup, io_uring_enter and io_uring_register in it"
                .to_owned(),
        },
        Some(libc::EINVAL) => "this kernel's io_uring lacks DEFER_TASKRUN: use Linux 6.1 or newer, or \
             network.io = \"epoll\""
            .to_owned(),
        Some(libc::ENOMEM) => "no memory for a ring: raise the locked-memory limit ('ulimit -l', LimitMEMLOCK= in a \
             systemd unit) or the control group's memory.max"
            .to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => {
            "no file descriptor left for a ring: raise the limit of open files ('ulimit -n', LimitNOFILE= in a \
             systemd unit)"
                .to_owned()
        }
        _ => format!("io_uring_setup failed: {error}; use network.io = \"epoll\" and report the kernel's version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(errno: i32, disabled: Option<&str>) -> String {
        explain(&io::Error::from_raw_os_error(errno), disabled)
    }

    #[test]
    fn refusals_name_what_to_change() {
        assert!(advice(libc::ENOSYS, None).contains("6.1"));
        assert!(advice(libc::EPERM, Some("2")).contains("kernel.io_uring_disabled=0"));
        assert!(advice(libc::EPERM, Some("1")).contains("kernel.io_uring_group"));
        assert!(advice(libc::EPERM, Some("0")).contains("seccomp"));
        assert!(advice(libc::EPERM, None).contains("seccomp"));
        assert!(advice(libc::EINVAL, None).contains("6.1"));
        assert!(advice(libc::ENOMEM, None).contains("ulimit -l"));
        assert!(advice(libc::EMFILE, None).contains("ulimit -n"));
        assert!(advice(libc::EIO, None).contains("epoll"));
    }

    #[test]
    fn probe_answers_with_advice_or_nothing() {
        // Whether a ring is granted depends on where this runs; that a refusal is advice does not.
        if let Some(refusal) = io_uring_refusal() {
            assert!(refusal.contains(':') || refusal.contains(';'), "{refusal}");
        }
    }
}
