//! Network interfaces: where they sit, their queues, and which core each queue interrupts.
//!
//!   card ── queue ── interrupt ── core          wanted: the core of the shard that serves the connection
//!     └ node: memory and cores near it
//!
//! An interrupt belongs to a card by its number (`msi_irqs` of its device) and to a queue by its name, which
//! every driver writes its own way:
//!
//! ```text
//! virtio_net   virtio2-input.0  virtio2-output.0      (msi_irqs of the PCI device above)
//! mlx5_core    mlx5_comp3@pci:0000:41:00.0
//! ena          eth0-Tx-Rx-3
//! i40e, ice    i40e-eth0-TxRx-3, ice-eth0-TxRx-3      ixgbe, igb, bnxt_en: eth0-TxRx-3
//! gve          gve-ntfy-blk3@pci:0000:00:04.0         (the queues that send come first)
//! ```

use serde::Serialize;

use crate::host::cpu_list::parse_cpu_mask;
use crate::host::ethtool::{self, Channels, Coalesce, Offloads, Rings};
use crate::host::files::Files;

/// One network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// The kernel's name.
    pub name: String,
    /// The driver, where a device stands behind it.
    pub driver: Option<String>,
    /// NUMA node its device is attached to.
    pub node: Option<usize>,
    /// Speed of the link in megabits a second, where told.
    pub speed_mbps: Option<u64>,
    /// It is switched on and has a link.
    pub up: bool,
    /// A device stands behind it: loopback, bridges, tunnels have none.
    pub physical: bool,
    /// Largest packet in bytes.
    pub mtu: u64,
    /// Queues that receive.
    pub rx_queues: Vec<RxQueue>,
    /// Queues that send.
    pub tx_queues: Vec<TxQueue>,
    /// Its interrupts, ascending.
    pub irqs: Vec<Irq>,
    /// How long received packets may wait to be joined, in nanoseconds.
    pub gro_flush_timeout_ns: Option<u64>,
    /// How many empty polls pass before interrupts are switched on again.
    pub napi_defer_hard_irqs: Option<u64>,
    /// Entries of its rings.
    pub rings: Option<Rings>,
    /// Queues in use and the most there may be.
    pub channels: Option<Channels>,
    /// How long it holds interrupts back.
    pub coalesce: Option<Coalesce>,
    /// What it does for many packets at once.
    pub offloads: Option<Offloads>,
}

/// A queue that receives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RxQueue {
    /// Its number.
    pub index: usize,
    /// Cores that its packets are handed on to (RPS); none when they stay where the interrupt was.
    pub rps_cpus: Vec<usize>,
    /// Flows whose readers' cores are remembered (RFS).
    pub rps_flow_cnt: u64,
}

/// A queue that sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TxQueue {
    /// Its number.
    pub index: usize,
    /// Cores that send through it (XPS); none when a hash chooses.
    pub xps_cpus: Vec<usize>,
}

/// An interrupt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Irq {
    /// The kernel's number.
    pub number: usize,
    /// The name its driver gave it.
    pub name: String,
    /// Cores it may interrupt.
    pub affinity: Vec<usize>,
    /// Cores it does interrupt.
    pub effective: Vec<usize>,
    /// The queue it stands for; `None` for what is none's: configuration, errors.
    pub queue: Option<usize>,
}

/// Where the kernel lists interfaces.
const DIRECTORY: &str = "sys/class/net";

/// Bit of an interface's flags: somebody switched it on.
const FLAG_UP: u64 = 1;

/// Reads every interface, ascending by name.
pub(crate) fn read(files: &Files) -> Result<Vec<Nic>, String> {
    let interrupts = files.text("proc/interrupts").unwrap_or_default();
    let actions = parse_interrupts(&interrupts);
    let mut nics = Vec::new();
    for name in files.names(DIRECTORY) {
        // `bonding_masters` and the like are files; an interface has a link to its device.
        let Some(home) = files.link_path(&format!("{DIRECTORY}/{name}")) else { continue };
        nics.push(read_nic(files, name, &home, &actions)?);
    }
    Ok(nics)
}

fn read_nic(files: &Files, name: String, home: &str, actions: &[(usize, String)]) -> Result<Nic, String> {
    let class = format!("{DIRECTORY}/{name}");
    let physical = files.link(&format!("{class}/device")).is_some();
    let device = home.strip_suffix(&format!("/net/{name}")).filter(|_| physical);
    let rx_queues = read_rx_queues(files, &class)?;
    let tx_queues = read_tx_queues(files, &class)?;
    let irqs = match device {
        Some(device) => read_irqs(files, device, &name, actions)?,
        None => Vec::new(),
    };
    let answers = format!("spinetail/ethtool/{name}");
    let asked = match files.text_or_asked(&answers, || ethtool::ask(&name)) {
        Some(text) => {
            ethtool::parse(&text).map_err(|line| files.senseless(&answers, &line, "key=value with a number"))?
        }
        None => ethtool::Answers::default(),
    };
    // Read by people as much as by programs: "0x1003".
    let flags = files.text(&format!("{class}/flags")).unwrap_or_default();
    let flags = u64::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
    Ok(Nic {
        driver: device.and_then(|device| files.link_name(&format!("{device}/driver"))),
        node: match device {
            Some(device) => nearest_node(files, device)?,
            None => None,
        },
        // Drivers that do not know write all ones or nothing at all.
        speed_mbps: files.number(&format!("{class}/speed"))?.filter(|&speed| speed > 0 && speed < u64::from(u32::MAX)),
        up: flags & FLAG_UP != 0 && files.switch(&format!("{class}/carrier"))? == Some(true),
        physical,
        mtu: files.number(&format!("{class}/mtu"))?.unwrap_or(0),
        rx_queues,
        tx_queues,
        irqs,
        gro_flush_timeout_ns: files.number(&format!("{class}/gro_flush_timeout"))?,
        napi_defer_hard_irqs: files.number(&format!("{class}/napi_defer_hard_irqs"))?,
        rings: asked.rings,
        channels: asked.channels,
        coalesce: asked.coalesce,
        offloads: asked.offloads,
        name,
    })
}

fn read_rx_queues(files: &Files, class: &str) -> Result<Vec<RxQueue>, String> {
    let mut queues = Vec::new();
    for index in files.numbered(&format!("{class}/queues"), "rx-") {
        let queue = format!("{class}/queues/rx-{index}");
        queues.push(RxQueue {
            index,
            rps_cpus: mask(files, &format!("{queue}/rps_cpus"))?,
            rps_flow_cnt: files.number(&format!("{queue}/rps_flow_cnt"))?.unwrap_or(0),
        });
    }
    Ok(queues)
}

fn read_tx_queues(files: &Files, class: &str) -> Result<Vec<TxQueue>, String> {
    let mut queues = Vec::new();
    for index in files.numbered(&format!("{class}/queues"), "tx-") {
        queues.push(TxQueue { index, xps_cpus: mask(files, &format!("{class}/queues/tx-{index}/xps_cpus"))? });
    }
    Ok(queues)
}

fn mask(files: &Files, file: &str) -> Result<Vec<usize>, String> {
    match files.text(file) {
        Some(text) => parse_cpu_mask(&text).ok_or_else(|| files.senseless(file, &text, "a mask of cores")),
        None => Ok(Vec::new()),
    }
}

/// The node of a device: its own word or that of the nearest device it hangs on. A virtio interface says
/// nothing, the PCI device that carries it does.
pub(crate) fn nearest_node(files: &Files, device: &str) -> Result<Option<usize>, String> {
    let mut path = device;
    while path.starts_with("sys/devices/") {
        let file = format!("{path}/numa_node");
        if files.text(&file).is_some() {
            return files.index(&file);
        }
        path = path.rsplit_once('/').map_or("", |(above, _)| above);
    }
    Ok(None)
}

fn read_irqs(files: &Files, device: &str, nic: &str, actions: &[(usize, String)]) -> Result<Vec<Irq>, String> {
    let (above, own) = device.rsplit_once('/').unwrap_or(("", device));
    let mut numbers = files.numbered(&format!("{device}/msi_irqs"), "");
    if numbers.is_empty() && own.starts_with("virtio") {
        numbers = files.numbered(&format!("{above}/msi_irqs"), "");
    }
    if numbers.is_empty() {
        // No message-signalled interrupts: found by the name of the device or the interface.
        let is_own = |name: &str| {
            [own, nic].iter().any(|word| name.strip_prefix(word).is_some_and(|rest| !starts_with_letter(rest)))
        };
        numbers = actions.iter().filter(|(_, name)| is_own(name)).map(|(number, _)| *number).collect();
    }
    let mut irqs = Vec::new();
    for number in numbers {
        // A number without a name is set aside and not in use.
        let Some((_, name)) = actions.iter().find(|(other, _)| *other == number) else { continue };
        let directory = format!("proc/irq/{number}");
        irqs.push(Irq {
            number,
            name: name.clone(),
            affinity: files.list(&format!("{directory}/smp_affinity_list"))?.unwrap_or_default(),
            effective: files.list(&format!("{directory}/effective_affinity_list"))?.unwrap_or_default(),
            queue: queue_of(name),
        });
    }
    // gve numbers its blocks through: the first half sends, the second receives.
    let is_block = |irq: &Irq| irq.name.contains("-ntfy-bl");
    let blocks = irqs.iter().filter(|irq| is_block(irq)).count();
    for irq in irqs.iter_mut().filter(|irq| is_block(irq)) {
        irq.queue = irq.queue.map(|block| block % (blocks / 2).max(1));
    }
    Ok(irqs)
}

fn starts_with_letter(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_alphanumeric())
}

/// The queue in an interrupt's name, for the drivers above.
fn queue_of(name: &str) -> Option<usize> {
    let name = name.split('@').next()?;
    let words = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let number = name[words.len()..].parse().ok()?;
    let words = words.to_ascii_lowercase();
    QUEUE_WORDS.iter().any(|word| words.ends_with(word)).then_some(number)
}

/// What stands before the queue's number.
const QUEUE_WORDS: [&str; 11] =
    ["txrx-", "tx-rx-", "-rx-", "-tx-", "-input.", "-output.", "_comp", "-ntfy-blk", "-ntfy-block.", "_q", "-fp-"];

/// Numbers and names of the interrupts in use: behind the counts stand the chip, its own number, the name.
pub(crate) fn parse_interrupts(text: &str) -> Vec<(usize, String)> {
    let mut lines = text.lines();
    let columns = lines.next().unwrap_or_default().split_whitespace().count();
    let parse = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let number = number.trim().parse().ok()?;
        let name = rest.split_whitespace().skip(columns + 2).last()?;
        Some((number, name.to_owned()))
    };
    lines.filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::host::files::Recording;

    fn nics(tree: &str) -> Vec<Nic> {
        read(&Files::recorded(Path::new("some.tree"), Recording::parse(tree).unwrap())).unwrap()
    }

    #[test]
    fn queue_is_found_in_the_name_each_driver_writes() {
        let names = [
            ("virtio2-input.11", Some(11)),
            ("virtio2-output.0", Some(0)),
            ("virtio2-config", None),
            ("mlx5_comp3@pci:0000:17:00.0", Some(3)),
            ("mlx5_async0@pci:0000:17:00.0", None),
            ("eth0-Tx-Rx-3", Some(3)),
            ("ena-mgmnt@pci:0000:00:05.0", None),
            ("i40e-eth0-TxRx-3", Some(3)),
            ("ice-ens2f0-TxRx-62", Some(62)),
            ("ice-0000:ca:00.0:misc", None),
            ("eth0-TxRx-3", Some(3)),
            ("eth0-rx-1", Some(1)),
            ("eth0-tx-1", Some(1)),
            ("eth0", None),
            ("gve-ntfy-blk3@pci:0000:00:04.0", Some(3)),
            ("gve-mgmnt@pci:0000:00:04.0", None),
            ("mana_q3@pci:7870:00:00.0", Some(3)),
        ];
        for (name, queue) in names {
            assert_eq!(queue_of(name), queue, "{name}");
        }
    }

    #[test]
    fn second_half_of_the_blocks_of_gve_receives() {
        let names = (0..4).map(|block| format!("{}: 0 0 PCI-MSIX 0-edge gve-ntfy-blk{block}@pci:0\n", 30 + block));
        let tree = format!(
            "== sys/class/net/ens4 -> ../../devices/pci0/0000:00:04.0/net/ens4\n\
             == sys/class/net/ens4/device -> ../../../0000:00:04.0\n\
             == sys/devices/pci0/0000:00:04.0/msi_irqs/{{30-35}}\nmsix\n\
             == proc/interrupts\nCPU0 CPU1\n{}34: 0 0 PCI-MSIX 4-edge gve-mgmnt@pci:0\n",
            names.collect::<String>()
        );
        let queues: Vec<_> = nics(&tree)[0].irqs.iter().map(|irq| (irq.number, irq.queue)).collect();
        // 35 is set aside and has no name.
        assert_eq!(queues, [(30, Some(0)), (31, Some(1)), (32, Some(0)), (33, Some(1)), (34, None)]);
    }

    #[test]
    fn card_without_message_signalled_interrupts_is_found_by_its_device() {
        let tree = "== sys/class/net/eth0 -> ../../devices/platform/virtio2/net/eth0\n\
             == sys/class/net/eth0/device -> ../../../virtio2\n\
             == proc/interrupts\nCPU0\n5: 9 IO-APIC 5-edge virtio2\n6: 9 IO-APIC 6-edge virtio20\n";
        let irqs = &nics(tree)[0].irqs;
        assert_eq!(irqs.iter().map(|irq| irq.number).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn interface_without_a_device_has_no_interrupts() {
        let tree = "== sys/class/net/br0 -> ../../devices/virtual/net/br0\n== sys/class/net/bonding_masters\nbond0\n\
             == sys/class/net/br0/flags\n0x1003\n== sys/class/net/br0/carrier\n1\n\
             == proc/interrupts\nCPU0\n5: 9 IO-APIC 5-edge br0\n";
        let nics = nics(tree);
        assert_eq!(nics.len(), 1);
        assert_eq!((nics[0].physical, nics[0].up, &nics[0].irqs[..]), (false, true, &[][..]));
    }
}
