//! NUMA nodes: which cores have which memory near, and how far the rest is.
//!
//! A kernel without NUMA shows no node directory; the machine is then one node that holds everything.

use serde::Serialize;

use crate::host::files::Files;

/// One NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The kernel's number.
    pub id: usize,
    /// Cores online on this node, ascending; empty for memory without cores.
    pub cores: Vec<usize>,
    /// Memory in bytes, where known.
    pub memory_bytes: Option<u64>,
    /// Memory that holds nothing at all, in bytes, where known. Page cache could be dropped for more.
    pub memory_free_bytes: Option<u64>,
    /// 2 MiB huge pages set aside on this node.
    pub huge_pages_total: u64,
    /// Those of them nobody holds yet.
    pub huge_pages_free: u64,
    /// 1 GiB huge pages set aside on this node.
    pub giant_pages_total: u64,
    /// Those of them nobody holds yet.
    pub giant_pages_free: u64,
    /// Nodes and how far their memory is by the firmware's table (SLIT): 10 is local, 20 twice as far.
    /// Itself included; empty where the machine has no table.
    pub distances: Vec<(usize, u32)>,
}

/// Reads the nodes. Never empty.
pub(crate) fn read(files: &Files, online: &[usize], meminfo: &str) -> Result<Vec<Node>, String> {
    let directory = "sys/devices/system/node";
    let ids = files.numbered(directory, "node");
    if ids.is_empty() {
        let mut node = Node {
            cores: online.to_vec(),
            memory_bytes: meminfo_bytes(meminfo, "MemTotal"),
            memory_free_bytes: meminfo_bytes(meminfo, "MemFree"),
            ..Node::default()
        };
        read_pages(files, "sys/kernel/mm/hugepages", &mut node)?;
        return Ok(vec![node]);
    }
    let mut nodes = Vec::new();
    for &id in &ids {
        let directory = format!("{directory}/node{id}");
        let mut cores = files.list(&format!("{directory}/cpulist"))?.unwrap_or_default();
        cores.retain(|core| online.contains(core));
        let meminfo = files.text(&format!("{directory}/meminfo")).unwrap_or_default();
        let mut node = Node {
            id,
            cores,
            memory_bytes: meminfo_bytes(&meminfo, "MemTotal"),
            memory_free_bytes: meminfo_bytes(&meminfo, "MemFree"),
            distances: read_distances(files, &format!("{directory}/distance"), &ids)?,
            ..Node::default()
        };
        read_pages(files, &format!("{directory}/hugepages"), &mut node)?;
        nodes.push(node);
    }
    Ok(nodes)
}

fn read_pages(files: &Files, directory: &str, node: &mut Node) -> Result<(), String> {
    let count = |file: &str| Ok::<u64, String>(files.number(&format!("{directory}/{file}"))?.unwrap_or(0));
    node.huge_pages_total = count("hugepages-2048kB/nr_hugepages")?;
    node.huge_pages_free = count("hugepages-2048kB/free_hugepages")?;
    node.giant_pages_total = count("hugepages-1048576kB/nr_hugepages")?;
    node.giant_pages_free = count("hugepages-1048576kB/free_hugepages")?;
    Ok(())
}

/// `10 21`: one distance for each node online, in ascending order.
fn read_distances(files: &Files, file: &str, ids: &[usize]) -> Result<Vec<(usize, u32)>, String> {
    let Some(text) = files.text(file) else { return Ok(Vec::new()) };
    let distances: Option<Vec<u32>> = text.split_whitespace().map(|distance| distance.parse().ok()).collect();
    match distances {
        Some(distances) if distances.len() == ids.len() => Ok(ids.iter().copied().zip(distances).collect()),
        _ => Err(files.senseless(file, &text, &format!("{} distances, one to each node", ids.len()))),
    }
}

/// The value of `MemTotal:  16 kB` in bytes, also behind `Node 0`.
pub(crate) fn meminfo_bytes(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.split_whitespace().next_back()? != key {
            return None;
        }
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    })
}
