//! `spinetail host`: what this machine is (`detect`), how it fares against a profile (`check`), and what it takes for
//! things (`calibrate`).

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use spinetail::base::units::format_bytes;
use spinetail::host::placement::place;
use spinetail::host::process::Limits;
use spinetail::host::profile::{Poll, Profile};
use spinetail::host::topology::{Topology, TransparentMode, format_cpu_list};

use crate::cli::calibrate::{self, CalibrateArguments};
use crate::cli::check;
use crate::cli::tune::{self, ApplyArguments, UndoArguments};

/// Exit status of a failure that has none of its own.
pub const EXIT_FAILED: u8 = 1;

/// Exit status of a bad profile.
pub const EXIT_CONFIGURATION: u8 = 78;

/// Looks at this machine.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Print what this machine has, and write a profile for it
    #[command(after_help = "Example:\n  spinetail host detect --write my.toml")]
    Detect {
        /// Write the detected profile to FILE, replacing what is there
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Hold this machine against a profile: have, want, cost, remedy; exit 1 if a line is refused
    #[command(after_help = "Example:\n  spinetail host check --profile hw-profiles/generic-vm.toml")]
    Check {
        /// The profile, or 'auto' for the one that detect would write
        #[arg(long, value_name = "FILE|auto", default_value = "auto")]
        profile: String,
        /// Look at a recorded machine, a directory or a .tree file, instead of this one
        #[arg(long, value_name = "PATH", default_value = "/")]
        root: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    Calibrate(CalibrateArguments),
    Apply(ApplyArguments),
    Undo(UndoArguments),
}

/// Runs the command. The error is an exit status and the reason.
pub fn run(command: HostCommand) -> Result<(), (u8, String)> {
    match command {
        HostCommand::Calibrate(arguments) => calibrate::run(&arguments),
        HostCommand::Apply(arguments) => tune::run_apply(&arguments),
        HostCommand::Undo(arguments) => tune::run_undo(&arguments),
        HostCommand::Detect { write, json } => {
            let machine = Topology::detect(Path::new("/")).map_err(|reason| (EXIT_FAILED, reason))?;
            detect(&machine, &Limits::read(), write.as_deref(), json)
        }
        HostCommand::Check { root, profile, json } => check::run(&root, &profile, json),
    }
}

fn detect(machine: &Topology, limits: &Limits, write: Option<&Path>, json: bool) -> Result<(), (u8, String)> {
    let profile = Profile::auto(machine, &limits.allowed_cores);
    if let Some(path) = write {
        std::fs::write(path, profile.to_toml_text())
            .map_err(|error| (EXIT_FAILED, format!("{} cannot be written: {error}", path.display())))?;
    }
    let text = if json {
        format!("{:#}\n", json!({ "topology": machine, "limits": limits, "profile": profile }))
    } else {
        let mut text = describe(machine, limits, &profile);
        if let Some(path) = write {
            let _ = writeln!(text, "\nprofile written to {}", path.display());
        }
        text
    };
    print(&text)
}

/// Prints to stdout. A reader that has gone (`| head`) wanted no more, which is no failure.
pub fn print(text: &str) -> Result<(), (u8, String)> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err((EXIT_FAILED, format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

fn describe(machine: &Topology, limits: &Limits, profile: &Profile) -> String {
    let physical = machine.one_per_physical_core(&machine.core_ids()).len();
    let size = |bytes: Option<u64>| bytes.map_or("not shown".to_owned(), format_bytes);
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "not shown".to_owned());
    let list = |cores: &[usize]| if cores.is_empty() { "none".to_owned() } else { format_cpu_list(cores) };
    let group = &machine.control_group;
    let mut rows = vec![
        ("processor", or(&machine.cpu_model)),
        ("kernel", or(&machine.kernel)),
        ("virtual", if machine.virtualised { "yes" } else { "no" }.to_owned()),
        ("cores", format!("{} ({physical} physical)", format_cpu_list(&machine.core_ids()))),
        ("isolated", list(&machine.isolated)),
        ("nohz_full", list(&machine.nohz_full)),
        ("memory", format!("{}, {} available", size(machine.memory_total_bytes), size(machine.memory_available_bytes))),
        ("swap", if machine.swap_bytes == 0 { "off".to_owned() } else { format_bytes(machine.swap_bytes) }),
    ];
    for node in &machine.nodes {
        rows.push((
            "node",
            format!(
                "{}: cores {}, {}, 2 MiB pages {} of {} free",
                node.id,
                list(&node.cores),
                size(node.memory_bytes),
                node.huge_pages_free,
                node.huge_pages_total
            ),
        ));
    }
    let transparent = match machine.transparent {
        Some(TransparentMode::Always) => "always",
        Some(TransparentMode::Madvise) => "madvise",
        Some(TransparentMode::Never) => "never",
        None => "not in this kernel",
    };
    rows.extend([
        ("transparent pages", transparent.to_owned()),
        ("clock source", or(&machine.clocksource)),
        (
            "control group",
            format!(
                "core time {}, memory {}",
                group.cpu_cores.map_or("unlimited".to_owned(), |cores| format!("{cores:.2} cores")),
                group.memory_bytes.map_or("unlimited".to_owned(), format_bytes)
            ),
        ),
        ("allowed cores", list(&limits.allowed_cores)),
        ("locked memory", limits.memlock_bytes.map_or("unlimited".to_owned(), format_bytes)),
        ("open files", limits.nofile.to_string()),
        ("io_uring", limits.io_uring.as_ref().map_or_else(Clone::clone, |()| "available".to_owned())),
    ]);
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<18} {value}");
    }
    let Ok(placed) = place(machine, &limits.allowed_cores, profile) else { return text };
    let _ = writeln!(
        text,
        "\nprofile 'auto': shards on {}, housekeeping on {}, {} in {} pages, {}",
        list(&placed.data_cores()),
        list(&placed.housekeeping),
        format_bytes(placed.memory_bytes),
        profile.memory.pages.name(),
        match profile.network.poll {
            Poll::Spin => "spinning",
            Poll::Adaptive => "spinning while busy",
            Poll::Park => "parking when idle",
        }
    );
    text
}
