//! Caches as sysfs describes them: `devices/system/cpu/cpuN/cache/indexI/{level,type,size,shared_cpu_list}`, and the die
//! that a core lies on.
//!
//! What a virtual machine is told is what its host chose to say: often the size of the whole last-level cache, of which it
//! has a part, and a cache shared by cores that in truth share none. Sizes here choose working sets, nothing else, and
//! every result names the size it was chosen by.

use std::fs;
use std::path::Path;

use crate::host::topology::parse_cpu_list;

/// One data or unified cache of a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1 is nearest to the core.
    pub level: u8,
    /// Its size.
    pub bytes: u64,
    /// Cores that share it, itself among them.
    pub shared_by: Vec<usize>,
}

/// The caches of `core` below `root` that hold data, nearest first. What is not told is left out.
pub fn caches_of(root: &Path, core: usize) -> Vec<Cache> {
    let folder = root.join(format!("sys/devices/system/cpu/cpu{core}/cache"));
    let mut caches: Vec<Cache> =
        (0..INDEXES_MAX).filter_map(|index| cache(&folder.join(format!("index{index}")))).collect();
    caches.sort_by_key(|cache| cache.level);
    caches
}

/// The die of `core`, where the machine numbers them.
pub fn die_of(root: &Path, core: usize) -> Option<usize> {
    let path = root.join(format!("sys/devices/system/cpu/cpu{core}/topology/die_id"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn cache(folder: &Path) -> Option<Cache> {
    let text = |name: &str| fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned());
    if text("type")? == "Instruction" {
        return None;
    }
    Some(Cache {
        level: text("level")?.parse().ok()?,
        bytes: size(&text("size")?)?,
        shared_by: text("shared_cpu_list").and_then(|list| parse_cpu_list(&list).ok()).unwrap_or_default(),
    })
}

/// `48K`, as the kernel writes it.
fn size(text: &str) -> Option<u64> {
    let (number, scale) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(scale).filter(|&bytes| bytes > 0)
}

/// Caches of a core that are looked for: no machine has more than five.
const INDEXES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_read_nearest_first_and_those_of_instructions_left_out() {
        let root = std::env::temp_dir().join(format!("spinetail-caches-{}", std::process::id()));
        let rows = [
            ("index0", "1", "Data", "48K", "0"),
            ("index1", "1", "Instruction", "32K", "0"),
            ("index2", "3", "Unified", "266240K", "0-1"),
            ("index3", "2", "Unified", "2M", "0"),
            ("index4", "4", "Unified", "lots", "0-1"),
        ];
        for (index, level, kind, size, shared) in rows {
            let folder = root.join("sys/devices/system/cpu/cpu0/cache").join(index);
            fs::create_dir_all(&folder).unwrap();
            for (name, text) in [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)] {
                fs::write(folder.join(name), format!("{text}\n")).unwrap();
            }
        }
        let found = caches_of(&root, 0);
        let told: Vec<(u8, u64)> = found.iter().map(|cache| (cache.level, cache.bytes)).collect();
        assert_eq!(told, [(1, 48 << 10), (2, 2 << 20), (3, 260 << 20)]);
        assert_eq!(found[2].shared_by, [0, 1]);
        assert_eq!((caches_of(&root, 1), die_of(&root, 0)), (Vec::new(), None));
        fs::remove_dir_all(root).unwrap();
    }
}
