//! What a core does to save power, which is what a tail pays for: its clock and its idle states.
//!
//! A core that clocks down serves slower until it is back, and one that went deep asleep answers its
//! first request late by the exit latency of the state it was in. Both are policies of the kernel that
//! sysfs shows without any rights.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::host::cpu_list::parse_core;
use crate::host::files::Files;

/// A core's clock as its driver governs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Frequency {
    /// The kernel's driver: `intel_pstate`, `amd-pstate-epp`, `cppc_cpufreq`.
    pub driver: Option<String>,
    /// The policy that chooses: `performance`, `schedutil`.
    pub governor: Option<String>,
    /// Lowest frequency the policy may choose.
    pub min_khz: Option<u64>,
    /// Highest frequency the policy may choose.
    pub max_khz: Option<u64>,
    /// Highest frequency the core has.
    pub hardware_max_khz: Option<u64>,
    /// What the processor is told to prefer (`energy_performance_preference`), where it has a choice.
    pub epp: Option<String>,
}

/// A state in which a core waits for work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IdleState {
    /// The kernel's number; deeper states have higher ones.
    pub index: usize,
    /// Its name: `POLL`, `C1E`, `C6`.
    pub name: String,
    /// Time it takes to work again, in microseconds.
    pub exit_latency_us: u64,
    /// The kernel was told not to use it.
    pub disabled: bool,
}

/// Frequencies by core. A policy governs one core or several, and lists them with spaces between.
pub(crate) fn read_frequencies(files: &Files) -> Result<BTreeMap<usize, Frequency>, String> {
    let directory = "sys/devices/system/cpu/cpufreq";
    let mut frequencies = BTreeMap::new();
    for number in files.numbered(directory, "policy") {
        let policy = format!("{directory}/policy{number}");
        let frequency = Frequency {
            driver: files.text(&format!("{policy}/scaling_driver")),
            governor: files.text(&format!("{policy}/scaling_governor")),
            min_khz: files.number(&format!("{policy}/scaling_min_freq"))?,
            max_khz: files.number(&format!("{policy}/scaling_max_freq"))?,
            hardware_max_khz: files.number(&format!("{policy}/cpuinfo_max_freq"))?,
            epp: files.text(&format!("{policy}/energy_performance_preference")),
        };
        let cores = files.text(&format!("{policy}/affected_cpus")).unwrap_or_default();
        for core in cores.split_whitespace().filter_map(parse_core) {
            frequencies.insert(core, frequency.clone());
        }
    }
    Ok(frequencies)
}

/// Idle states of the core in `directory`.
pub(crate) fn read_idle_states(files: &Files, directory: &str) -> Result<Vec<IdleState>, String> {
    let mut states = Vec::new();
    for index in files.numbered(&format!("{directory}/cpuidle"), "state") {
        let state = format!("{directory}/cpuidle/state{index}");
        let Some(name) = files.text(&format!("{state}/name")) else { continue };
        states.push(IdleState {
            index,
            name,
            exit_latency_us: files.number(&format!("{state}/latency"))?.unwrap_or(0),
            // Some kernels show who disabled it, the user by one bit and the driver by another.
            disabled: files.number(&format!("{state}/disable"))?.is_some_and(|by| by != 0),
        });
    }
    Ok(states)
}
