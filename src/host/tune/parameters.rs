//! Kernel parameters of the profile's own table, and those that no undo can put back.
//!
//! A rehearsal writes the old value over itself, and finds what the kernel does not take back. It cannot find a switch
//! that turns only one way, nor a parameter that changes a hundred others besides: writing back what it held itself
//! leaves those as they are. Such parameters are known by name, and refused with what to do instead.

use crate::host::profile::{Profile, ProfileError};
use crate::host::system::parameter_path;
use crate::host::tune::change::Kind;
use crate::host::tune::plan::Draft;

/// Refuses texts that would not reach the kernel as they stand: its settings end at a line's end, and a command
/// line at the next word.
pub fn refuse_texts(profile: &Profile) -> Result<(), ProfileError> {
    let refuse = |key: &str, message: &str| Err(profile.blame(ProfileError::of_key(key, message.to_owned())));
    let has_control = |text: &str| text.chars().any(|character| character.is_control() && character != '\t');
    for (name, value) in &profile.sysctl {
        let key = format!("sysctl.{name}");
        if value.trim().is_empty() {
            return refuse(&key, "is empty: name a value, or take the line out");
        }
        if has_control(value) {
            return refuse(&key, "has a control character in it: a parameter's value is one line of text");
        }
    }
    if profile.kernel.cmdline.iter().any(|word| has_control(word)) {
        return refuse("kernel.cmdline", "has a control character in it: write words without line ends");
    }
    Ok(())
}

pub(super) fn draft(draft: &mut Draft<'_>) {
    for (name, value) in &draft.profile.sysctl {
        let path = parameter_path(name);
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            draft.leave_out(name, "is no name of a kernel parameter");
        } else {
            draft.change(Kind::Value, &path, value, reason(name));
        }
    }
}

/// Why the parameter at `path` cannot be put back, and what to do; `None` for all that can.
pub(super) fn one_way(path: &str) -> Option<(&'static str, &'static str)> {
    let name = path.strip_prefix("proc/sys/")?;
    let found = ONE_WAY.iter().find(|(pattern, ..)| {
        let same = |(part, wanted): (&str, &str)| {
            wanted.strip_suffix('*').map_or(part == wanted, |start| part.starts_with(start))
        };
        name.split('/').count() == pattern.split('/').count() && name.split('/').zip(pattern.split('/')).all(same)
    });
    found.map(|(_, why, remedy)| (*why, *remedy))
}

const UNTIL_BOOT: &str = "the kernel lets nobody turn this back before the next boot";
const AT_BOOT: &str = "set it at boot (sysctl.d), where it is meant to be set";
const RESETS: &str = "the kernel sets other network parameters along with it, which nothing would put back";
const DEALS: &str = "the kernel deals the pages anew to all nodes, and the number says nothing of how they lay before";
const PAGES: &str = "memory.pages = \"2MiB\" sets them by node";

/// Pattern of the name, why, and what to do. Sources: Documentation/admin-guide/sysctl/kernel.rst (the switches; of
/// `tainted`, that its bits are only ever added), Documentation/admin-guide/LSM/Yama.rst,
/// Documentation/networking/ip-sysctl.rst (`ip_forward`: "its change resets all configuration parameters to their default
/// state"; `conf/all/forwarding` of both families; `disable_ipv6`: addresses and routes are removed),
/// Documentation/admin-guide/mm/hugetlbpage.rst (`nr_hugepages`).
const ONE_WAY: [(&str, &str, &str); 11] = [
    ("kernel/modules_disabled", UNTIL_BOOT, AT_BOOT),
    ("kernel/kexec_load_disabled", UNTIL_BOOT, AT_BOOT),
    ("kernel/kexec_load_limit_panic", UNTIL_BOOT, AT_BOOT),
    ("kernel/kexec_load_limit_reboot", UNTIL_BOOT, AT_BOOT),
    ("kernel/unprivileged_bpf_disabled", UNTIL_BOOT, AT_BOOT),
    ("kernel/yama/ptrace_scope", UNTIL_BOOT, AT_BOOT),
    ("kernel/tainted", UNTIL_BOOT, "leave it out of the profile: it is the kernel's word on itself"),
    ("net/ipv4/ip_forward", RESETS, AT_BOOT),
    ("net/*/conf/*/forwarding", RESETS, AT_BOOT),
    (
        "net/ipv6/conf/*/disable_ipv6",
        "switching it on takes addresses and routes away, which switching it off does not bring back",
        AT_BOOT,
    ),
    ("vm/nr_hugepages*", DEALS, PAGES),
];

/// Why, for the parameters that our own profiles name.
fn reason(name: &str) -> &'static str {
    match name {
        "kernel.numa_balancing" => "pages are not unmapped to see who faults on them",
        "kernel.timer_migration" => "timers of idle cores stay off busy ones, which are the shards'",
        "kernel.nmi_watchdog" => "no periodic interrupt, and a hardware counter more",
        "kernel.watchdog" => "no watchdog thread on each core",
        "kernel.io_uring_disabled" => "rings in place of epoll",
        "vm.stat_interval" => "memory statistics are folded on data cores less often",
        "vm.swappiness" => "no entry waits on a disk while there is anything else to drop",
        "net.core.somaxconn" => "clients that all come back at once are queued, not refused",
        "net.ipv4.tcp_max_syn_backlog" => "handshakes of clients that all come back at once are not dropped",
        _ => "the profile's [sysctl] says so",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_put_back_is_known_by_name_and_nothing_else_is() {
        for name in [
            "kernel.tainted",
            "kernel.modules_disabled",
            "net.ipv4.ip_forward",
            "net.ipv4.conf.all.forwarding",
            "net/ipv6/conf/eth0.7/forwarding",
            "net.ipv6.conf.default.disable_ipv6",
            "vm.nr_hugepages",
            "vm.nr_hugepages_mempolicy",
        ] {
            let (why, remedy) = one_way(&parameter_path(name)).unwrap_or_else(|| panic!("{name}"));
            assert!(!why.is_empty() && !remedy.is_empty());
        }
        for name in ["vm.swappiness", "net.ipv4.conf.all.rp_filter", "net.ipv4.ip_forward_use_pmtu", "kernel.yama"] {
            assert_eq!(one_way(&parameter_path(name)), None, "{name}");
        }
        assert_eq!(one_way("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"), None);
    }

    #[test]
    fn texts_that_would_not_reach_the_kernel_whole_are_refused_with_their_key() {
        let profile = |rest: &str| {
            Profile::parse(&format!(
                "[machine]\nname = \"t\"\n[cores]\ndata = \"0\"\n[memory]\ntotal = \"64MiB\"\n{rest}"
            ))
            .unwrap()
        };
        for (rest, key, word) in [
            ("[sysctl]\n\"vm.swappiness\" = \" \"\n", "sysctl.vm.swappiness", "empty"),
            ("[sysctl]\n\"kernel.core_pattern\" = \"a\\nb\"\n", "sysctl.kernel.core_pattern", "control"),
            ("[kernel]\ncmdline = [\"quiet\\nreboot\"]\n", "kernel.cmdline", "control"),
        ] {
            let error = refuse_texts(&profile(rest)).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(word), "{error}");
        }
        assert!(refuse_texts(&profile("[sysctl]\n\"net.ipv4.tcp_rmem\" = \"4096\\t131072 6291456\"\n")).is_ok());
    }
}
