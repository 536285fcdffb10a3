//! What a voter must not forget: Raft's vote and log, what was applied, and the tokens it has promised to listen to.
//!
//!   openraft  -- append, vote, purge -->  memory, whole and at once readable
//!                                          | changes, in order, through a bounded queue
//!                                          v
//!                                        a thread of its own: one transaction for all that wait, one fsync, then
//!                                        everybody is told
//!
//! The disk is read once, at the start. A log of some hundred small commands is kept in memory beside it, so that
//! nothing waits for a read; and the fsync, milliseconds long, happens on a thread that nothing else runs on. A batch
//! in which somebody waits for the disk is committed with fsync; one that only notes how far the log was applied is
//! not, because that can be found out again from the log. Order is kept in any case, so a log is never purged on disk
//! before the snapshot that replaces it is there.
//!
//! After an error nothing is written any more: openraft stops this node's part, and the operator sees why.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::io::{self, Cursor};
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{
    AnyError, EmptyNode, Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, LogState, OptionalSend, RaftLogReader,
    RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StorageIOError, StoredMembership, Vote,
};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, oneshot, watch};

use crate::base::limits;
use crate::cluster::region::{Homes, RegionCommand};

openraft::declare_raft_types!(
    /// openraft with our commands.
    pub TypeConfig:
        D = RegionCommand,
        R = (),
        NodeId = u64,
        Node = EmptyNode,
        Entry = Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        Responder = openraft::impls::OneshotResponder<TypeConfig>,
        AsyncRuntime = openraft::TokioRuntime,
);

/// What a voter must not forget. Clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    jobs: mpsc::Sender<Job>,
    homes: watch::Sender<Arc<Homes>>,
}

#[derive(Default)]
struct Inner {
    vote: Option<Vote<u64>>,
    log: BTreeMap<u64, Entry<TypeConfig>>,
    purged: Option<LogId<u64>>,
    committed: Option<LogId<u64>>,
    machine: Machine,
    snapshot: Option<(SnapshotMeta<u64, EmptyNode>, Vec<u8>)>,
    snapshots_made: u64,
    tokens: Vec<u64>,
}

/// What was applied.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Machine {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, EmptyNode>,
    homes: Homes,
}

/// Why a store cannot be opened.
#[derive(Debug)]
pub struct OpenError {
    what: String,
}

/// Something to be written, and who waits for it.
struct Job {
    changes: Vec<Change>,
    done: Done,
}

enum Change {
    Log(u64, Vec<u8>),
    DropLog(u64, u64),
    Note(&'static str, Vec<u8>),
    Token(u8, u64),
}

enum Done {
    Nobody,
    Raft(LogFlushed<TypeConfig>),
    Caller(oneshot::Sender<Result<(), String>>),
    /// The file is to be closed.
    Close(oneshot::Sender<()>),
}

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const NOTES: TableDefinition<&str, &[u8]> = TableDefinition::new("notes");
const TOKENS: TableDefinition<u8, u64> = TableDefinition::new("tokens");
const VOTE: &str = "vote";
const PURGED: &str = "purged";
const COMMITTED: &str = "committed";
const MACHINE: &str = "machine";
const SNAPSHOT: &str = "snapshot";

type Failed = StorageError<u64>;

impl Store {
    /// Opens the store in a folder, which is made if it is not there.
    pub fn open(folder: &Path) -> Result<Store, OpenError> {
        let wrong = |what: String| OpenError {
            what: format!(
                "the region's store in {}: {what}. If it cannot be repaired, remove this node from the cluster and let \
                 it join again under another number: one that has forgotten its votes must not vote",
                folder.display()
            ),
        };
        std::fs::create_dir_all(folder).map_err(|error| wrong(error.to_string()))?;
        let database = Database::create(folder.join("region.redb")).map_err(|error| wrong(error.to_string()))?;
        let inner = Inner::read(&database).map_err(&wrong)?;
        let (jobs, queue) = mpsc::channel(limits::REGION_DISK_QUEUE);
        std::thread::Builder::new()
            .name("region-disk".into())
            .spawn(move || write(database, queue))
            .map_err(|error| wrong(error.to_string()))?;
        let (homes, _) = watch::channel(Arc::new(inner.machine.homes.clone()));
        Ok(Store { shared: Arc::new(Shared { inner: Mutex::new(inner), jobs, homes }) })
    }

    /// What was applied, and every change of it.
    pub fn homes(&self) -> watch::Receiver<Arc<Homes>> {
        self.shared.homes.subscribe()
    }

    /// The highest token that this node has promised to listen to, by home.
    pub fn tokens(&self) -> Vec<u64> {
        self.lock().tokens.clone()
    }

    /// Writes down that a home's older tokens are not listened to. True once it is on disk.
    pub async fn promise(&self, home: u8, token: u64) -> bool {
        {
            let mut inner = self.lock();
            let Some(place) = inner.tokens.get_mut(usize::from(home)) else { return false };
            *place = (*place).max(token);
        }
        self.written(vec![Change::Token(home, token)], ErrorSubject::Store).await.is_ok()
    }

    /// Closes the file, after everything that was to be written.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.shared.jobs.send(Job { changes: Vec::new(), done: Done::Close(done) }).await.is_ok() {
            let _ = closed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn job(&self, changes: Vec<Change>, done: Done, subject: ErrorSubject<u64>) -> Result<(), Failed> {
        let sent = self.shared.jobs.send(Job { changes, done }).await;
        sent.map_err(|_| failed(subject, "the store is closed"))
    }

    /// Writes changes and waits until they are on the disk.
    async fn written(&self, changes: Vec<Change>, subject: ErrorSubject<u64>) -> Result<(), Failed> {
        let (done, told) = oneshot::channel();
        self.job(changes, Done::Caller(done), subject.clone()).await?;
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(what)) => Err(failed(subject, &what)),
            Err(_) => Err(failed(subject, "the store is closed")),
        }
    }
}

impl Inner {
    fn read(database: &Database) -> Result<Inner, String> {
        let text = |error: redb::Error| error.to_string();
        // Tables must be there to be read.
        let begin = database.begin_write().map_err(|error| text(error.into()))?;
        begin.open_table(LOG).map_err(|error| text(error.into()))?;
        begin.open_table(NOTES).map_err(|error| text(error.into()))?;
        begin.open_table(TOKENS).map_err(|error| text(error.into()))?;
        begin.commit().map_err(|error| text(error.into()))?;

        let read = database.begin_read().map_err(|error| text(error.into()))?;
        let notes = read.open_table(NOTES).map_err(|error| text(error.into()))?;
        fn note<T: DeserializeOwned>(
            notes: &impl ReadableTable<&'static str, &'static [u8]>,
            name: &'static str,
        ) -> Result<Option<T>, String> {
            match notes.get(name).map_err(|error| error.to_string())? {
                None => Ok(None),
                Some(bytes) => postcard::from_bytes(bytes.value())
                    .map(Some)
                    .map_err(|error| format!("its note \"{name}\" cannot be read: {error}")),
            }
        }
        let mut inner = Inner {
            vote: note(&notes, VOTE)?,
            purged: note::<Option<LogId<u64>>>(&notes, PURGED)?.flatten(),
            committed: note::<Option<LogId<u64>>>(&notes, COMMITTED)?.flatten(),
            machine: note(&notes, MACHINE)?.unwrap_or_default(),
            snapshot: note(&notes, SNAPSHOT)?,
            tokens: vec![0; limits::REGION_HOMES],
            ..Inner::default()
        };
        let log = read.open_table(LOG).map_err(|error| text(error.into()))?;
        for row in log.iter().map_err(|error| error.to_string())? {
            let (index, bytes) = row.map_err(|error| error.to_string())?;
            let entry = postcard::from_bytes(bytes.value())
                .map_err(|error| format!("entry {} of its log cannot be read: {error}", index.value()))?;
            inner.log.insert(index.value(), entry);
        }
        let tokens = read.open_table(TOKENS).map_err(|error| text(error.into()))?;
        for row in tokens.iter().map_err(|error| error.to_string())? {
            let (home, token) = row.map_err(|error| error.to_string())?;
            if let Some(place) = inner.tokens.get_mut(usize::from(home.value())) {
                *place = token.value();
            }
        }
        Ok(inner)
    }
}

/// The disk's thread.
fn write(database: Database, mut queue: mpsc::Receiver<Job>) {
    let mut broken: Option<String> = None;
    while let Some(first) = queue.blocking_recv() {
        let mut jobs = vec![first];
        while let Ok(job) = queue.try_recv() {
            jobs.push(job);
        }
        if broken.is_none() {
            broken = commit(&database, &jobs).err().map(|error| error.to_string());
        }
        let outcome = || broken.clone().map_or(Ok(()), Err);
        for job in jobs {
            match job.done {
                Done::Nobody => {}
                Done::Raft(flushed) => flushed.log_io_completed(outcome().map_err(io::Error::other)),
                Done::Caller(caller) => _ = caller.send(outcome()),
                Done::Close(closed) => {
                    drop(database);
                    let _ = closed.send(());
                    return;
                }
            }
        }
    }
}

fn commit(database: &Database, jobs: &[Job]) -> Result<(), redb::Error> {
    if jobs.iter().all(|job| job.changes.is_empty()) {
        return Ok(());
    }
    let mut transaction = database.begin_write()?;
    if jobs.iter().all(|job| matches!(job.done, Done::Nobody)) {
        transaction.set_durability(Durability::None)?;
    }
    {
        let mut log = transaction.open_table(LOG)?;
        let mut notes = transaction.open_table(NOTES)?;
        let mut tokens = transaction.open_table(TOKENS)?;
        for change in jobs.iter().flat_map(|job| &job.changes) {
            match change {
                Change::Log(index, bytes) => _ = log.insert(index, bytes.as_slice())?,
                Change::DropLog(from, upto) => log.retain_in(*from..=*upto, |_, _| false)?,
                Change::Note(name, bytes) => _ = notes.insert(*name, bytes.as_slice())?,
                Change::Token(home, token) => {
                    let held = tokens.get(home)?.map_or(0, |held| held.value());
                    tokens.insert(home, held.max(*token))?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn failed(subject: ErrorSubject<u64>, what: &str) -> Failed {
    StorageIOError::new(subject, ErrorVerb::Write, AnyError::error(what)).into()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data always encodes")
}

impl RaftLogReader<TypeConfig> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, Failed> {
        Ok(self.lock().log.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, Failed> {
        let inner = self.lock();
        let last_log_id = inner.log.last_key_value().map(|(_, entry)| entry.log_id).or(inner.purged);
        Ok(LogState { last_purged_log_id: inner.purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Failed> {
        self.lock().vote = Some(*vote);
        self.written(vec![Change::Note(VOTE, encode(vote))], ErrorSubject::Vote).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Failed> {
        Ok(self.lock().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<(), Failed> {
        self.lock().committed = committed;
        self.job(vec![Change::Note(COMMITTED, encode(&committed))], Done::Nobody, ErrorSubject::Store).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, Failed> {
        Ok(self.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), Failed>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut changes = Vec::new();
        {
            let mut inner = self.lock();
            for entry in entries {
                changes.push(Change::Log(entry.log_id.index, encode(&entry)));
                inner.log.insert(entry.log_id.index, entry);
            }
        }
        self.job(changes, Done::Raft(callback), ErrorSubject::Logs).await
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), Failed> {
        self.lock().log.split_off(&log_id.index);
        self.written(vec![Change::DropLog(log_id.index, u64::MAX)], ErrorSubject::Logs).await
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), Failed> {
        {
            let mut inner = self.lock();
            inner.purged = Some(log_id);
            inner.log = inner.log.split_off(&(log_id.index + 1));
        }
        let changes = vec![Change::Note(PURGED, encode(&Some(log_id))), Change::DropLog(0, log_id.index)];
        self.written(changes, ErrorSubject::Logs).await
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Store {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, Failed> {
        let (meta, bytes) = {
            let mut inner = self.lock();
            inner.snapshots_made += 1;
            let applied = inner.machine.applied.map_or(0, |id| id.index);
            let meta = SnapshotMeta {
                last_log_id: inner.machine.applied,
                last_membership: inner.machine.membership.clone(),
                snapshot_id: format!("{applied}-{}", inner.snapshots_made),
            };
            let bytes = encode(&inner.machine);
            inner.snapshot = Some((meta.clone(), bytes.clone()));
            (meta, bytes)
        };
        self.written(vec![Change::Note(SNAPSHOT, encode(&(&meta, &bytes)))], ErrorSubject::Snapshot(None)).await?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

impl RaftStateMachine<TypeConfig> for Store {
    type SnapshotBuilder = Store;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, StoredMembership<u64, EmptyNode>), Failed> {
        let inner = self.lock();
        Ok((inner.machine.applied, inner.machine.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, Failed>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (bytes, homes, count) = {
            let mut inner = self.lock();
            let mut count = 0;
            for entry in entries {
                count += 1;
                inner.machine.applied = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(command) => inner.machine.homes.apply(&command),
                    EntryPayload::Membership(membership) => {
                        inner.machine.membership = StoredMembership::new(Some(entry.log_id), membership);
                    }
                }
            }
            (encode(&inner.machine), Arc::new(inner.machine.homes.clone()), count)
        };
        self.job(vec![Change::Note(MACHINE, bytes)], Done::Nobody, ErrorSubject::StateMachine).await?;
        self.shared.homes.send_replace(homes);
        Ok(vec![(); count])
    }

    async fn get_snapshot_builder(&mut self) -> Store {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failed> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, EmptyNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failed> {
        let bytes = snapshot.into_inner();
        let subject = ErrorSubject::Snapshot(Some(meta.signature()));
        let machine: Machine = postcard::from_bytes(&bytes).map_err(|error| {
            StorageIOError::new(subject.clone(), ErrorVerb::Read, AnyError::error(error.to_string()))
        })?;
        let changes = vec![Change::Note(SNAPSHOT, encode(&(meta, &bytes))), Change::Note(MACHINE, encode(&machine))];
        let homes = Arc::new(machine.homes.clone());
        {
            let mut inner = self.lock();
            inner.machine = machine;
            inner.snapshot = Some((meta.clone(), bytes));
        }
        self.written(changes, subject).await?;
        self.shared.homes.send_replace(homes);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, Failed> {
        let snapshot = self.lock().snapshot.clone();
        Ok(snapshot.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for OpenError {}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering};

    use openraft::testing::{StoreBuilder, Suite};

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let name = format!("spinetail-region-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            Folder(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    struct Builder;

    impl StoreBuilder<TypeConfig, Store, Store, Folder> for Builder {
        async fn build(&self) -> Result<(Folder, Store, Store), Failed> {
            let folder = Folder::new();
            let store = Store::open(&folder.0).unwrap();
            Ok((folder, store.clone(), store))
        }
    }

    #[test]
    fn it_passes_the_suite_of_openraft() {
        Suite::test_all(Builder).unwrap();
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = Folder::new();
            let vote = Vote::new(3, 2);
            let mut store = Store::open(&folder.0).unwrap();
            assert!(Store::open(&folder.0).is_err(), "two processes must not share it");
            store.save_vote(&vote).await.unwrap();
            assert!(store.promise(5, 9).await && store.promise(5, 7).await);
            assert!(!store.promise(200, 1).await);
            store.close().await;
            assert!(!store.promise(5, 10).await, "closed is closed");
            let mut store = Store::open(&folder.0).unwrap();
            assert_eq!(store.read_vote().await.unwrap(), Some(vote));
            assert_eq!((store.tokens()[5], store.tokens()[6]), (9, 0));
            store.close().await;
            let bytes = b"not a database, but something else that happens to be at its place".repeat(100);
            std::fs::write(folder.0.join("region.redb"), bytes).unwrap();
            let error = Store::open(&folder.0).err().unwrap().to_string();
            assert!(error.contains("join again"), "{error}");
        });
    }
}
