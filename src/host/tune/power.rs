//! Frequency and sleep of data cores. Other cores keep what they have: a machine that idles on them stays cool, and
//! leaves the others their turbo.

use crate::host::tune::change::Kind;
use crate::host::tune::plan::Draft;

const POLICIES: &str = "sys/devices/system/cpu/cpufreq";

pub(super) fn draft(draft: &mut Draft<'_>) {
    governor(draft);
    idle_states(draft);
}

fn governor(draft: &mut Draft<'_>) {
    let Some(governor) = draft.profile.power.governor.clone() else { return };
    let policies: Vec<String> = draft.names(POLICIES).into_iter().filter(|name| name.starts_with("policy")).collect();
    if policies.is_empty() {
        draft.leave_out(
            format!("power.governor = \"{governor}\""),
            "this machine does not show its frequency: on a virtual machine the host below decides",
        );
    }
    for policy in policies {
        let folder = format!("{POLICIES}/{policy}");
        let text = |name: &str| draft.untouched.text(&format!("{folder}/{name}"));
        let cores = text("affected_cpus").unwrap_or_default();
        let is_data = |core: &str| core.parse().is_ok_and(|core: usize| draft.data.contains(&core));
        if !cores.split_whitespace().any(is_data) {
            continue;
        }
        let offered = text("scaling_available_governors");
        if offered.as_deref().is_some_and(|offered| !offered.split_whitespace().any(|word| word == governor)) {
            let why = format!("the driver offers {}", offered.unwrap_or_default());
            draft.leave_out(format!("power.governor = \"{governor}\" for cores {cores}"), why);
            continue;
        }
        let preferences = text("energy_performance_available_preferences").unwrap_or_default();
        // Before the governor: under 'performance' some drivers take no preference any more, and undo goes backwards,
        // so that it meets the old governor.
        if governor == "performance" && preferences.split_whitespace().any(|word| word == "performance") {
            let reason = format!("cores {cores}: the processor itself does not save either");
            draft.change(Kind::Value, &format!("{folder}/energy_performance_preference"), "performance", reason);
        }
        let reason = format!("cores {cores}: no request meets a slow core after a pause");
        draft.change(Kind::Value, &format!("{folder}/scaling_governor"), governor.clone(), reason);
    }
}

fn idle_states(draft: &mut Draft<'_>) {
    let Some(us_max) = draft.profile.power.idle_us_max else { return };
    let data = draft.data.clone();
    let mut shown = false;
    for id in data {
        let states = draft.machine.core(id).map(|core| core.idle_states.clone()).unwrap_or_default();
        shown |= !states.is_empty();
        for state in states.iter().filter(|state| state.exit_latency_us > u64::from(us_max)) {
            let path = format!("sys/devices/system/cpu/cpu{id}/cpuidle/state{}/disable", state.index);
            let reason = format!("{} needs {} µs to wake, by the kernel's table", state.name, state.exit_latency_us);
            draft.change(Kind::Value, &path, "1", reason);
        }
    }
    if !shown {
        draft.leave_out(
            format!("power.idle_us_max = {us_max}"),
            "this machine does not show idle states: on a virtual machine the host below decides",
        );
    }
}
