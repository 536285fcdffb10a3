//! Asks the kernel for a ring set up like a shard's, and turns its refusal into advice.
//!
//! Trying is the only honest test: a version number says nothing about seccomp filters, and a
//! sysctl nothing about the flags a vendor's kernel knows.

use std::collections::BTreeMap;
use std::{fs, io};

use io_uring::types::Napi;
use io_uring::{Builder, IoUring, Probe, opcode};
use serde::Serialize;

/// Entries of the ring that is tried; the smallest does, flags are refused at any size.
const PROBE_ENTRIES: u32 = 8;

/// What the kernel's io_uring has of what this program uses or could use, each tried for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IoUringFeatures {
    /// Sysctl kernel.io_uring_disabled: 0 everybody may, 1 a group may, 2 nobody may; `None` where the kernel
    /// has no such switch.
    pub disabled: Option<u32>,
    /// Flags of the ring: granted or not.
    pub setup: BTreeMap<&'static str, bool>,
    /// What the kernel says of a ring it made.
    pub features: BTreeMap<&'static str, bool>,
    /// Operations that connections are served with.
    pub operations: BTreeMap<&'static str, bool>,
    /// The kernel picks receive buffers from a ring of them.
    pub buffer_rings: bool,
    /// A ring may poll its connections' cards by itself (Linux 6.9).
    pub napi: bool,
}

impl IoUringFeatures {
    /// Tries them. On a kernel that gives no ring at all every answer is no.
    pub fn read() -> IoUringFeatures {
        let mut setup = BTreeMap::new();
        let mut with = |name, flags: fn(&mut Builder) -> &mut Builder| {
            setup.insert(name, flags(&mut IoUring::builder()).build(PROBE_ENTRIES).is_ok());
        };
        with("none", |ring| ring);
        with("submit_all", |ring| ring.setup_submit_all());
        with("coop_taskrun", |ring| ring.setup_coop_taskrun());
        with("taskrun_flag", |ring| ring.setup_coop_taskrun().setup_taskrun_flag());
        with("single_issuer", |ring| ring.setup_single_issuer());
        with("defer_taskrun", |ring| ring.setup_single_issuer().setup_defer_taskrun());
        with("no_sqarray", |ring| ring.setup_no_sqarray());
        let ring = IoUring::new(PROBE_ENTRIES).ok();
        let has = |feature: fn(&io_uring::Parameters) -> bool| ring.as_ref().is_some_and(|ring| feature(ring.params()));
        let features = BTreeMap::from([
            ("nodrop", has(|has| has.is_feature_nodrop())),
            ("fast_poll", has(|has| has.is_feature_fast_poll())),
            ("ext_arg", has(|has| has.is_feature_ext_arg())),
            ("recvsend_bundle", has(|has| has.is_feature_recvsend_bundle())),
            ("min_timeout", has(|has| has.is_feature_min_timeout())),
        ]);
        let mut probe = Probe::new();
        if let Some(ring) = &ring {
            let _ = ring.submitter().register_probe(&mut probe); // refused, it says no to every operation
        }
        let operations = BTreeMap::from([
            ("accept", probe.is_supported(opcode::AcceptMulti::CODE)),
            ("receive", probe.is_supported(opcode::RecvMulti::CODE)),
            ("send", probe.is_supported(opcode::Send::CODE)),
            ("cancel", probe.is_supported(opcode::AsyncCancel::CODE)),
        ]);
        // Taking away a ring of buffers that was never registered: who knows such rings finds none, who does not
        // finds the question senseless. It needs no memory to be lent to the kernel.
        let unregistered = ring.as_ref().map(|ring| ring.submitter().unregister_buf_ring(0));
        let missing = |error: io::Error| error.raw_os_error() == Some(libc::ENOENT);
        IoUringFeatures {
            disabled: io_uring_disabled().and_then(|text| text.parse().ok()),
            setup,
            features,
            operations,
            buffer_rings: unregistered.is_some_and(|outcome| outcome.map_or_else(missing, |()| true)),
            napi: ring.is_some_and(|ring| ring.submitter().register_napi(&mut Napi::new()).is_ok()),
        }
    }
}

fn io_uring_disabled() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok().map(|text| text.trim().to_owned())
}

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
    Some(explain(&error, io_uring_disabled().as_deref()))
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
    fn features_agree_with_the_ring_that_is_tried() {
        let features = IoUringFeatures::read();
        if io_uring_refusal().is_none() {
            assert!(features.setup.values().filter(|granted| **granted).count() >= 6, "{features:?}");
            assert!(features.operations.values().all(|known| *known), "{features:?}");
            assert!(features.buffer_rings, "{features:?}"); // older than DEFER_TASKRUN
        } else if !features.setup["none"] {
            assert!(!features.napi && features.operations.values().all(|known| !*known), "{features:?}");
        }
    }

    #[test]
    fn probe_answers_with_advice_or_nothing() {
        // Whether a ring is granted depends on where this runs; that a refusal is advice does not.
        if let Some(refusal) = io_uring_refusal() {
            assert!(refusal.contains(':') || refusal.contains(';'), "{refusal}");
        }
    }
}
