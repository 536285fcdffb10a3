//! Disks: NVMe, and the block devices of virtual machines and SCSI.
//!
//! Loop devices, RAM disks and compressed swap have no device behind them and are left out.

use serde::Serialize;

use crate::host::files::Files;
use crate::host::nics::nearest_node;

/// One disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The kernel's name.
    pub name: String,
    /// What it calls itself, where it does.
    pub model: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// NUMA node it is attached to.
    pub node: Option<usize>,
    /// Hardware queues the kernel uses.
    pub queues: usize,
    /// The scheduler in front of them; `none` is what fast disks want.
    pub scheduler: Option<String>,
    /// It spins, or the virtual machine's monitor does not say that it does not.
    pub rotational: bool,
}

/// Where the kernel lists block devices.
const DIRECTORY: &str = "sys/block";

/// The kernel counts a disk's size in sectors of so many bytes, whatever its own are.
const SECTOR_BYTES: u64 = 512;

/// Reads every disk, ascending by name.
pub(crate) fn read(files: &Files) -> Result<Vec<Disk>, String> {
    let mut disks = Vec::new();
    for name in files.names(DIRECTORY) {
        let block = format!("{DIRECTORY}/{name}");
        let Some(home) = files.link_path(&block) else { continue };
        // A disk behind two controllers stands among the virtual devices, and names one of them.
        let home = if home.starts_with("sys/devices/virtual/") {
            let Some(controller) = name.strip_prefix("nvme").and_then(|rest| rest.split('n').next()) else { continue };
            match files.link_path(&format!("sys/class/nvme/nvme{controller}")) {
                Some(home) => home,
                None => continue,
            }
        } else {
            home
        };
        disks.push(Disk {
            model: files.text(&format!("{block}/device/model")),
            bytes: files.number(&format!("{block}/size"))?.unwrap_or(0).saturating_mul(SECTOR_BYTES),
            node: nearest_node(files, &home)?,
            queues: files.numbered(&format!("{block}/mq"), "").len(),
            scheduler: files.text(&format!("{block}/queue/scheduler")).map(|text| chosen(&text)),
            rotational: files.switch(&format!("{block}/queue/rotational"))?.unwrap_or(false),
            name,
        });
    }
    Ok(disks)
}

/// The bracketed word of `[none] mq-deadline`, or the only one.
fn chosen(text: &str) -> String {
    let bracketed = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    bracketed.map_or(text, |(word, _)| word).to_owned()
}
