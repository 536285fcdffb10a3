//! What a node keeps, and what it must not forget.
//!
//!   data/lock         held by the process that runs
//!   data/incarnation  the number of its latest life, for replication (`folder`)
//!   data/wal.0, .1    what was signed at the open height (`log_file`)
//!   data/store.redb   decided blocks, snapshots of the state, own command numbers, instance and boots, what is
//!                     remembered of other nodes
//!
//! Everything is on the disk before it counts: a vote before it is sent, a block before the next height begins, a
//! number before a command carries it, a boot before the first greeting. So kill -9 at any moment costs nothing that
//! anybody was told. A write or a flush that fails ends the node with the reason: after a failed `fsync` the kernel
//! may have dropped what it could not write and call the next one a success, so nothing is tried again.
//!
//! A folder belongs to one node of one network and to one process at a time; another is refused by name.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::base::id::NodeId;
use crate::base::limits;
use crate::cluster::genesis::NetworkId;
use crate::cluster::host::greeting::{Instance, Known};
use crate::cluster::host::keys;
use crate::cluster::host::log_file::LogFile;
use crate::cluster::ordering::Block;

const FACTS: TableDefinition<&str, &[u8]> = TableDefinition::new("facts");
const BLOCKS: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");
const SNAPSHOTS: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshots");
const PEERS: TableDefinition<u16, &[u8]> = TableDefinition::new("peers");

/// A node's data folder, open.
pub struct Disk {
    log: LogFile,
    store: Store,
    _lock: File,
}

/// The part of it that more than one thread writes to.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
    path: PathBuf,
}

/// What was in it.
pub struct Recovered {
    /// Which folder this is, and how often it has been opened, this time included.
    pub instance: Instance,
    /// The last snapshot: its height and bytes.
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// The blocks behind it, in order.
    pub blocks: Vec<Block>,
    /// The log of the open height.
    pub records: Vec<Vec<u8>>,
    /// What is remembered of other nodes.
    pub known: Vec<(NodeId, Known)>,
}

/// Why a folder is not opened, or not written to.
#[derive(Debug)]
pub enum DiskError {
    /// The system refuses.
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What it says.
        error: io::Error,
    },
    /// The store refuses.
    Store {
        /// Which file.
        path: PathBuf,
        /// What it says.
        reason: String,
    },
    /// Another process has it.
    Locked(PathBuf),
    /// It is another network's.
    OtherNetwork {
        /// Which folder.
        path: PathBuf,
        /// Whose.
        found: String,
        /// And should be.
        wanted: String,
    },
    /// It is another node's.
    OtherNode {
        /// Which folder.
        path: PathBuf,
        /// Whose.
        found: NodeId,
        /// And should be.
        wanted: NodeId,
    },
    /// The log's middle does not hold.
    CorruptLog {
        /// Which file.
        path: PathBuf,
        /// What does not hold, and where.
        reason: String,
    },
    /// The log is about a height that the store does not know of yet.
    OlderThanLog {
        /// Which log.
        path: PathBuf,
        /// The height it is about.
        log: u64,
        /// The last height stored.
        stored: u64,
    },
    /// The log of one height has outgrown its bound.
    LogFull {
        /// Which file.
        path: PathBuf,
        /// The height that is never decided.
        height: u64,
    },
}

impl Disk {
    /// Opens the folder of a node, or makes it.
    pub fn open(folder: &Path, network: NetworkId, node: NodeId) -> Result<(Disk, Recovered), DiskError> {
        let io_error = |what| {
            let path = folder.to_path_buf();
            move |error| DiskError::Io { path, what, error }
        };
        fs::create_dir_all(folder).map_err(io_error("create"))?;
        let lock = File::create(folder.join("lock")).map_err(io_error("create the lock in"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DiskError::Locked(folder.to_path_buf())),
            Err(TryLockError::Error(error)) => return Err(io_error("lock")(error)),
        }
        let path = folder.join("store.redb");
        let store_error = |error: &dyn fmt::Display| DiskError::Store { path: path.clone(), reason: error.to_string() };
        let database = Database::create(&path).map_err(|error| store_error(&error))?;
        let store = Store { database: Arc::new(database), path: path.clone() };
        let instance = store.identify(folder, network, node)?;
        let (snapshot, blocks, known) = store.read()?;
        let stored =
            blocks.last().map_or(0, |block| block.height).max(snapshot.as_ref().map_or(0, |(height, _)| *height));
        let (log, records) = LogFile::open(folder, network, stored + 1)?;
        let recovered = Recovered { instance, snapshot, blocks, records, known };
        Ok((Disk { log, store, _lock: lock }, recovered))
    }

    /// Appends a record to the log of the open height.
    pub fn append(&mut self, record: &[u8]) {
        self.log.append(record);
    }

    /// Everything appended is on the disk when this returns; whether there was anything.
    pub fn flush(&mut self) -> Result<bool, DiskError> {
        self.log.flush()
    }

    /// Stores a decided height for good, and begins the log of the next.
    pub fn store_block(&mut self, block: &Block) -> Result<(), DiskError> {
        self.store.write(|transaction| {
            transaction.open_table(BLOCKS)?.insert(block.height, &block.bytes[..])?;
            Ok(())
        })?;
        self.log.begin(block.height + 1)
    }

    /// Overwrites what the log of a decided height has left behind.
    pub fn tidy(&mut self) -> Result<(), DiskError> {
        self.log.tidy()
    }

    /// Stores a snapshot of the state, and lets go of the blocks it stands for: whoever misses those gets it instead.
    pub fn store_snapshot(&mut self, height: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.store.write(|transaction| {
            let mut snapshots = transaction.open_table(SNAPSHOTS)?;
            snapshots.insert(height, bytes)?;
            snapshots.retain(|kept, _| kept >= height)?;
            transaction.open_table(BLOCKS)?.retain_in(..=height, |_, _| false)?;
            Ok(())
        })
    }

    /// The part that other threads write to.
    pub fn store(&self) -> Store {
        self.store.clone()
    }
}

impl Store {
    /// Remembers a node.
    pub fn remember(&self, node: NodeId, known: &Known) -> Result<(), DiskError> {
        let bytes = postcard::to_allocvec(known).expect("plain data always encodes");
        self.write(|transaction| {
            transaction.open_table(PEERS)?.insert(node.0, &bytes[..])?;
            Ok(())
        })
    }

    /// Reserves own command numbers above `used`: the first, and how many follow it. They are not given again.
    pub fn reserve_numbers(&self, used: u64) -> Result<u64, DiskError> {
        let mut first = 0;
        self.write(|transaction| {
            let mut facts = transaction.open_table(FACTS)?;
            let reserved = facts.get("numbers")?.map_or(0, |value| number(value.value()));
            first = reserved.max(used) + 1;
            let last = first + limits::CLUSTER_NUMBERS_RESERVED - 1;
            facts.insert("numbers", &last.to_le_bytes()[..])?;
            Ok(())
        })?;
        Ok(first)
    }

    /// Whose folder it is; counts the boot.
    fn identify(&self, folder: &Path, network: NetworkId, node: NodeId) -> Result<Instance, DiskError> {
        let random = || {
            let failed = |error| DiskError::Io { path: "/dev/urandom".into(), what: "read", error };
            keys::random::<16>().map_err(failed)
        };
        let (drawn, session) = (random()?, random()?);
        let mut instance = Instance { folder: drawn, boot: 1, session };
        let mut wrong = None;
        self.write(|transaction| {
            transaction.open_table(BLOCKS)?;
            transaction.open_table(SNAPSHOTS)?;
            transaction.open_table(PEERS)?;
            let mut facts = transaction.open_table(FACTS)?;
            let fact = |name: &str| facts.get(name).map(|value| value.map(|value| value.value().to_vec()));
            if let Some(found) = fact("network")?.filter(|found| found[..] != network.0) {
                let found = keys::hex(&found[..found.len().min(8)]);
                wrong = Some(DiskError::OtherNetwork { path: folder.into(), found, wanted: network.to_string() });
            } else if let Some(found) =
                fact("node")?.map(|found| NodeId(number(&found) as u16)).filter(|id| *id != node)
            {
                wrong = Some(DiskError::OtherNode { path: folder.into(), found, wanted: node });
            }
            if wrong.is_some() {
                return Ok(());
            }
            if let Some(found) = fact("folder")?.and_then(|found| found.try_into().ok()) {
                instance.folder = found;
            }
            instance.boot = fact("boot")?.map_or(0, |found| number(&found)) + 1;
            facts.insert("network", &network.0[..])?;
            facts.insert("node", &u64::from(node.0).to_le_bytes()[..])?;
            facts.insert("folder", &instance.folder[..])?;
            facts.insert("boot", &instance.boot.to_le_bytes()[..])?;
            Ok(())
        })?;
        wrong.map_or(Ok(instance), Err)
    }

    #[expect(clippy::type_complexity, reason = "it is taken apart by its one caller")]
    fn read(&self) -> Result<(Option<(u64, Vec<u8>)>, Vec<Block>, Vec<(NodeId, Known)>), DiskError> {
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            let snapshots = transaction.open_table(SNAPSHOTS)?;
            let snapshot = snapshots.last()?.map(|(height, bytes)| (height.value(), bytes.value().to_vec()));
            let mut blocks = Vec::new();
            for entry in transaction.open_table(BLOCKS)?.iter()? {
                let (height, bytes) = entry?;
                blocks.push(Block { height: height.value(), bytes: bytes.value().to_vec() });
            }
            let mut known = Vec::new();
            for entry in transaction.open_table(PEERS)?.iter()? {
                let (node, bytes) = entry?;
                // What an older release has written differently is forgotten, as of a node never met.
                if let Ok(entry) = postcard::from_bytes(bytes.value()) {
                    known.push((NodeId(node.value()), entry));
                }
            }
            Ok((snapshot, blocks, known))
        };
        let (snapshot, blocks, known) = read().map_err(|error| self.failed(&error))?;
        Ok((snapshot, blocks, known))
    }

    fn write(&self, changes: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>) -> Result<(), DiskError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            changes(&transaction)?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &redb::Error) -> DiskError {
        DiskError::Store { path: self.path.clone(), reason: error.to_string() }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskError::Io { path, what, error } => write!(f, "cannot {what} {}: {error}", path.display()),
            DiskError::Store { path, reason } => write!(f, "{}: {reason}", path.display()),
            DiskError::Locked(path) => {
                write!(
                    f,
                    "{} is in use by another process: stop it, or run this node from a folder of its own",
                    path.display()
                )
            }
            DiskError::OtherNetwork { path, found, wanted } => write!(
                f,
                "wrong network: {} belongs to network {found}, and cluster.toml describes {wanted}: give this node the \
                 cluster.toml it was made with, or an empty folder",
                path.display()
            ),
            DiskError::OtherNode { path, found, wanted } => write!(
                f,
                "wrong node: {} belongs to node {found}, and node.toml says node {wanted}: run each node in its own folder",
                path.display()
            ),
            DiskError::CorruptLog { path, reason } => write!(
                f,
                "corrupt log: {}: {reason}: what this node has signed is not known, so it must not vote again with its \
                 key: give it a new one with 'spinetail cluster join --renew' and an empty data folder",
                path.display()
            ),
            DiskError::OlderThanLog { path, log, stored } => write!(
                f,
                "stale log: {} is about height {log}, and the last stored height is {stored}: the store is an older copy: \
                 restore both or give the node a new key with 'spinetail cluster join --renew'",
                path.display()
            ),
            DiskError::LogFull { path, height } => write!(
                f,
                "{} has outgrown {} bytes because height {height} is never decided: bring back a quorum of sites",
                path.display(),
                limits::CLUSTER_WAL_BYTES_MAX
            ),
        }
    }
}

impl std::error::Error for DiskError {}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([3; 32]);
    const NODE: NodeId = NodeId(4);

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("spinetail-disk-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Folder(path)
        }

        fn open(&self) -> (Disk, Recovered) {
            Disk::open(&self.0, NETWORK, NODE).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn block(height: u64) -> Block {
        Block { height, bytes: vec![height as u8; 40] }
    }

    #[test]
    fn a_folder_keeps_what_it_was_given_and_counts_its_boots() {
        let folder = Folder::new("keeps");
        let (mut disk, recovered) = folder.open();
        assert_eq!((recovered.instance.boot, recovered.blocks.len()), (1, 0));
        disk.append(b"signed at 1");
        disk.flush().unwrap();
        (1..=5).for_each(|height| disk.store_block(&block(height)).unwrap());
        disk.store_snapshot(4, b"state").unwrap();
        disk.append(b"signed at 6");
        disk.flush().unwrap();
        let known = Known { certificate: "c".into(), instance: recovered.instance };
        disk.store().remember(NodeId(2), &known).unwrap();
        assert_eq!(disk.store().reserve_numbers(10).unwrap(), 11);
        drop(disk);
        let (disk, again) = folder.open();
        assert_eq!((again.instance.boot, again.instance.folder), (2, recovered.instance.folder));
        assert_ne!(again.instance.session, recovered.instance.session);
        assert_eq!(again.snapshot, Some((4, b"state".to_vec())));
        assert_eq!(again.blocks, [block(5)]);
        assert_eq!(again.records, [b"signed at 6"]);
        assert_eq!(again.known, [(NodeId(2), known)]);
        assert_eq!(disk.store().reserve_numbers(0).unwrap(), 11 + limits::CLUSTER_NUMBERS_RESERVED);
    }

    #[test]
    fn a_folder_in_use_or_of_somebody_else_is_refused_by_name() {
        let folder = Folder::new("refused");
        let (disk, _) = folder.open();
        let refused = |network, node| Disk::open(&folder.0, network, node).err().unwrap().to_string();
        assert!(refused(NETWORK, NODE).contains("in use by another process"));
        drop(disk);
        assert!(refused(NetworkId([4; 32]), NODE).contains("wrong network"));
        assert!(refused(NETWORK, NodeId(5)).contains("wrong node"));
        // Being asked by somebody else was no boot.
        assert_eq!(folder.open().1.instance.boot, 2);
    }
}
