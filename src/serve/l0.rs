//! Tables for readers in shared memory, and the door where programs of this host get them.
//!
//! Who may have which table is decided by the user that the kernel says is at the other end of the socket, not
//! by anything the program says of itself. A program gets descriptors of its tenant's tables and of nothing else;
//! it can map them for reading only (`host::shared`), and there is no name by which it could reach another's.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::base::hash::HashSeed;
use crate::base::limits;
use crate::base::units::{format_bytes, parse_bytes};
use crate::engine::Attacher;
use crate::engine::l0::{Parts, ReaderFile, TableParts};
use crate::host::memory::PageWish;
use crate::host::process::effective_user;
use crate::host::shared::{SharedMemory, Writers};
use crate::l0::greeting::{Answer, WISH_BYTES, Wish};
use crate::l0::{alive, layout, reports};
use crate::net::socket::{DESCRIPTORS_MAX, peer_user, send_with_descriptors, wait_any_readable};
use crate::serve::door::Door;
use crate::serve::settle::Failure;

/// Who may read what in shared memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its name, which programs ask for.
    pub name: String,
    /// What its keys begin with; everything, if empty.
    pub prefix: String,
    /// Users whose programs may read.
    pub users: Vec<u32>,
    /// Bytes of its table; none divides what the others leave.
    pub memory: Option<u64>,
}

/// What L0 takes, settled.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Where programs ask.
    pub path: PathBuf,
    /// The tenants, each with the bytes of its region in each shard.
    pub tenants: Vec<(Tenant, u64)>,
    /// Bytes that were given for everything.
    pub memory: u64,
    /// Bytes of everything: tables, readers' reports, the page of marks.
    pub bytes: u64,
}

/// The tables of a server.
pub struct Tables {
    alive: &'static SharedMemory,
    tenants: Vec<(Tenant, Vec<&'static SharedMemory>)>,
    shard_count: u16,
    /// What was wished for and not granted.
    pub shortfalls: Vec<String>,
}

impl Tenant {
    /// The one there is if none is named: every key, for programs of the server's own user.
    pub fn default_one() -> Tenant {
        Tenant { name: DEFAULT_TENANT.to_string(), prefix: String::new(), users: vec![effective_user()], memory: None }
    }

    /// Whether a tenant may be called that.
    pub fn is_name(name: &str) -> bool {
        !name.is_empty() && !name.contains(['=', ',']) && name.len() <= crate::l0::greeting::TENANT_BYTES_MAX
    }

    /// Reads `ads,prefix=ads:,uid=1001,uid=1002,memory=8MiB`.
    pub fn parse(text: &str) -> Result<Tenant, String> {
        let mut words = text.split(',');
        let name = words.next().unwrap_or_default().to_string();
        let example = "write it like ads,prefix=ads:,uid=1001,memory=8MiB";
        if !Tenant::is_name(&name) {
            return Err(format!("'{text}' does not begin with a tenant's name: {example}"));
        }
        let mut tenant = Tenant { name, prefix: String::new(), users: Vec::new(), memory: None };
        for word in words {
            match word.split_once('=') {
                Some(("prefix", prefix)) => tenant.prefix = prefix.to_string(),
                Some(("uid", user)) => {
                    tenant.users.push(user.parse().map_err(|_| format!("'{user}' is no user id: {example}"))?);
                }
                Some(("memory", bytes)) => tenant.memory = Some(parse_bytes(bytes)?),
                _ => return Err(format!("'{word}' is none of prefix=, uid=, memory=: {example}")),
            }
        }
        if tenant.users.is_empty() {
            return Err(format!("tenant '{}' has no uid=: nobody could read its table: {example}", tenant.name));
        }
        Ok(tenant)
    }
}

/// Divides memory among tenants and shards.
pub fn settle(path: &Path, tenants: &[Tenant], memory: u64, shards: u16) -> Result<Settled, String> {
    let default = [Tenant::default_one()];
    let tenants = if tenants.is_empty() { &default } else { tenants };
    if tenants.len() > limits::L0_TENANTS_MAX {
        return Err(format!("--l0-tenant: at most {} of them", limits::L0_TENANTS_MAX));
    }
    for (position, tenant) in tenants.iter().enumerate() {
        let others = &tenants[..position];
        if others.iter().any(|other| other.name == tenant.name || other.prefix == tenant.prefix) {
            return Err(format!("--l0-tenant {}: another tenant has the same name or prefix", tenant.name));
        }
    }
    let fixed = alive::bytes(shards).next_multiple_of(layout::PAGE_BYTES)
        + limits::L0_READERS_MAX * reports::bytes(shards).next_multiple_of(layout::PAGE_BYTES);
    let named: u64 = tenants.iter().filter_map(|tenant| tenant.memory).sum();
    let unnamed = tenants.iter().filter(|tenant| tenant.memory.is_none()).count() as u64;
    let shared = memory.saturating_sub(fixed as u64 + named) / unnamed.max(1);
    let mut bytes = fixed as u64;
    let mut settled = Vec::new();
    for tenant in tenants {
        let own = tenant.memory.unwrap_or(shared);
        let region = own.saturating_sub(layout::PAGE_BYTES as u64) / u64::from(shards);
        if region < limits::L0_REGION_BYTES_MIN {
            let least = limits::L0_REGION_BYTES_MIN * u64::from(shards) + layout::PAGE_BYTES as u64;
            return Err(format!(
                "tenant '{}' would have {} for its L0 table, {} shard(s) need {}: raise --l0-memory or the tenant's memory=",
                tenant.name,
                format_bytes(own),
                shards,
                format_bytes(least),
            ));
        }
        bytes += own;
        settled.push((tenant.clone(), region / layout::PAGE_BYTES as u64 * layout::PAGE_BYTES as u64));
    }
    Ok(Settled { path: path.to_path_buf(), tenants: settled, memory, bytes })
}

impl Tables {
    /// Makes the tables: a file for each tenant and each NUMA node, on that node. Answers what each shard
    /// publishes in.
    pub fn create(
        settled: &Settled,
        nodes: &[Option<usize>],
        pages: PageWish,
        seed: HashSeed,
    ) -> Result<(Tables, Vec<Parts>), Failure> {
        let failed =
            |error: io::Error| Failure::failed(format!("the L0 tables could not be made: {error}: lower --l0-memory"));
        let shard_count = nodes.len() as u16;
        // As long as the process: shards write there until they end, readers' descriptors come and go.
        let keep = |memory: SharedMemory| -> &'static SharedMemory { Box::leak(Box::new(memory)) };
        let make = |bytes, pages, node| SharedMemory::create("spinetail-l0", bytes, pages, node, Writers::Maker);
        let alive = keep(make(alive::bytes(shard_count), PageWish::Small, None).map_err(failed)?);
        let mut parts: Vec<Parts> = nodes.iter().map(|_| Parts { alive, tables: Vec::new() }).collect();
        let mut tables = Tables { alive, tenants: Vec::new(), shard_count, shortfalls: Vec::new() };
        for (tenant, region_bytes) in &settled.tenants {
            let mut files = Vec::new();
            let mut homes: Vec<Option<usize>> = nodes.to_vec();
            homes.sort_unstable();
            homes.dedup();
            for node in homes {
                let shards: Vec<u16> = (0..shard_count).filter(|&shard| nodes[shard as usize] == node).collect();
                for shards in shards.chunks(layout::REGIONS_MAX) {
                    let (entries, bytes) = layout::plan(shards, *region_bytes);
                    let memory = keep(make(bytes, pages, node).map_err(failed)?);
                    layout::write_header(memory.words(), seed, shard_count, &entries);
                    tables.shortfalls.extend(memory.shortfall().map(str::to_string));
                    for (shard, entry) in shards.iter().zip(entries) {
                        let prefix = tenant.prefix.clone().into_bytes();
                        parts[*shard as usize].tables.push(TableParts { prefix, memory, entry });
                    }
                    files.push(memory);
                }
            }
            if files.len() + 2 > DESCRIPTORS_MAX {
                return Err(Failure::failed(format!("L0 on {} NUMA nodes is not supported", files.len())));
            }
            tables.tenants.push((tenant.clone(), files));
        }
        tables.shortfalls.dedup();
        Ok((tables, parts))
    }

    /// Opens the door at `path`. `fallback` says where the appliance itself is asked.
    pub fn open_door(self, path: &Path, fallback: String, attacher: Attacher) -> Result<Door, Failure> {
        let own_only = self.tenants.iter().all(|(tenant, _)| tenant.users == [effective_user()]);
        let (door, listener) = Door::open("--l0-socket", path, own_only)?;
        let failed = |error: io::Error| Failure::failed(format!("no thread for --l0-socket: {error}"));
        let mut readers: Vec<(UnixStream, Arc<ReaderFile>)> = Vec::new();
        let greeter = std::thread::Builder::new().name("l0-door".into());
        let greet_all = move || {
            loop {
                let sockets: Vec<BorrowedFd<'_>> =
                    std::iter::once(listener.as_fd()).chain(readers.iter().map(|(socket, _)| socket.as_fd())).collect();
                let Ok(ready) = wait_any_readable(&sockets) else {
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                };
                for &at in ready.iter().rev().filter(|&&at| at > 0) {
                    // Readers say nothing after their greeting: this is the end of one, or of its manners.
                    let (_, reader) = readers.swap_remove(at - 1);
                    reader.gone.store(true, Ordering::Release);
                }
                if ready.first() == Some(&0)
                    && let Ok((socket, _)) = listener.accept()
                    // A program that breaks off its greeting is nobody's loss but its own.
                    && let Ok(Some(reader)) = self.greet(socket, readers.len(), &fallback)
                {
                    attacher.listen_to(&reader.1);
                    readers.push(reader);
                }
            }
        };
        greeter.spawn(greet_all).map_err(failed)?;
        Ok(door)
    }

    fn greet(
        &self,
        mut socket: UnixStream,
        reader_count: usize,
        fallback: &str,
    ) -> io::Result<Option<(UnixStream, Arc<ReaderFile>)>> {
        socket.set_read_timeout(Some(GREETING_TIMEOUT))?;
        socket.set_write_timeout(Some(GREETING_TIMEOUT))?;
        let mut bytes = [0; WISH_BYTES];
        socket.read_exact(&mut bytes)?;
        let refuse = |mut socket: UnixStream, reason: String| {
            socket.write_all(&Answer { tables: None, text: reason }.encode()).map(|()| None)
        };
        let Some(wish) = Wish::decode(&bytes) else {
            return refuse(socket, "this socket gives out L0 tables; that was no request for one".to_string());
        };
        if wish.layout != layout::LAYOUT_VERSION {
            let (theirs, ours) = (wish.layout, layout::LAYOUT_VERSION);
            return refuse(socket, format!("the program reads layout {theirs}, this server's tables have {ours}"));
        }
        let user = peer_user(&socket)?;
        let found = self.tenants.iter().position(|(tenant, _)| match wish.tenant.as_str() {
            "" => tenant.users.contains(&user),
            name => tenant.name == name && tenant.users.contains(&user),
        });
        // One answer for "not yours" and "not there": names are nobody's business.
        let Some(number) = found else {
            return refuse(socket, format!("user {user} has no tenant '{}' here", wish.tenant));
        };
        if reader_count >= limits::L0_READERS_MAX {
            return refuse(socket, format!("there are {} readers already: share one", limits::L0_READERS_MAX));
        }
        let (_, files) = &self.tenants[number];
        let bytes = reports::bytes(self.shard_count);
        let memory = SharedMemory::create("spinetail-l0-reports", bytes, PageWish::Small, None, Writers::All)?;
        let answer = Answer { tables: Some(files.len() as u16), text: fallback.to_string() };
        let descriptors: Vec<BorrowedFd<'_>> =
            [self.alive.file(), memory.file()].into_iter().chain(files.iter().map(|file| file.file())).collect();
        send_with_descriptors(&socket, &answer.encode(), &descriptors)?;
        Ok(Some((socket, Arc::new(ReaderFile { memory, tenant: number, gone: AtomicBool::new(false) }))))
    }
}

/// The tenant of a server to which none was named.
pub const DEFAULT_TENANT: &str = "default";
/// How long a program may take for its greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_read_and_refused_with_an_example() {
        let tenant = Tenant::parse("ads,prefix=ads:,uid=7,uid=8,memory=8MiB").unwrap();
        let expected = Tenant { name: "ads".into(), prefix: "ads:".into(), users: vec![7, 8], memory: Some(8 << 20) };
        assert_eq!(tenant, expected);
        for wrong in ["", "prefix=a,uid=1", "ads", "ads,uid=x", "ads,uid=1,colour=red", "ads,uid=1,memory=lots"] {
            assert!(Tenant::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Tenant::parse("ads,prefix=a").unwrap_err().contains("write it like"));
    }

    #[test]
    fn memory_is_divided_and_never_exceeded() {
        let tenants: Vec<Tenant> = ["a,prefix=a,uid=1,memory=4MiB", "b,prefix=b,uid=1", "c,uid=2"]
            .map(|text| Tenant::parse(text).unwrap())
            .into();
        let settled = settle(Path::new("/x"), &tenants, 16 << 20, 2).unwrap();
        assert!(settled.bytes <= 16 << 20, "{}", settled.bytes);
        assert!(settled.tenants[0].1 * 2 <= 4 << 20 && settled.tenants[1].1 == settled.tenants[2].1);
        assert!(settle(Path::new("/x"), &tenants, 1 << 20, 2).unwrap_err().contains("raise --l0-memory"));
        let twice = vec![tenants[0].clone(), Tenant { name: "z".into(), ..tenants[0].clone() }];
        assert!(settle(Path::new("/x"), &twice, 16 << 20, 2).unwrap_err().contains("same name or prefix"));
    }
}
