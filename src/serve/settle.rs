//! Flags over file over profile over detection: one settled configuration, or a refusal that says what to do.
//!
//! The file and its merging with the flags are `config`'s; what arrives here as [`Options`] is what the two of
//! them ask for. The machine and the limits of the process are read once, at the start ([`Ground`]): a reload
//! settles on the same ground, or it would find that the main thread has left the data cores and call them
//! forbidden.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::base::limits;
use crate::base::units::format_bytes;
use crate::engine::budget::Budget;
use crate::engine::{Io, PollMode};
use crate::host::check;
use crate::host::files::Files;
use crate::host::memory::PageWish;
use crate::host::placement::{Placement, place};
use crate::host::probe::io_uring_refusal;
use crate::host::process::Limits;
use crate::host::profile::{self, Profile, ProfileError};
use crate::host::topology::Topology;
use crate::serve::l0::{self, Tenant};
use crate::serve::log;
use crate::serve::region_map;
use crate::serve::token::{Token, read_token};

/// What was asked for. `None` leaves it to the profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// A profile file; none, or `auto`, detects one.
    pub profile: Option<PathBuf>,
    /// Address of the native listener.
    pub listen: Option<SocketAddr>,
    /// Address of the RESP listener, if there shall be one.
    pub resp: Option<SocketAddr>,
    /// Address of the memcached listener, if there shall be one.
    pub memcached: Option<SocketAddr>,
    /// Path of the socket where programs of this host get shared-memory connections.
    pub shm: Option<PathBuf>,
    /// Folder of the cluster's node that this appliance is, if it is one.
    pub cluster: Option<PathBuf>,
    /// A file with the signed map of regions that clients are given.
    pub region_map: Option<PathBuf>,
    /// Path of the socket where programs of this host get tables to read in shared memory.
    pub l0_socket: Option<PathBuf>,
    /// Who may read which keys there; nobody named means this user, and every key.
    pub l0_tenants: Vec<Tenant>,
    /// Bytes that L0 may take in all.
    pub l0_memory: Option<u64>,
    /// Shards.
    pub shards: Option<u16>,
    /// Cores of the shards.
    pub cores: Option<Vec<usize>>,
    /// Bytes of the whole process.
    pub memory: Option<u64>,
    /// What an idle shard does.
    pub poll: Option<PollMode>,
    /// What drives the sockets.
    pub io: Option<profile::Io>,
    /// Address of the admin listener, if there shall be one.
    pub admin: Option<SocketAddr>,
    /// The file with the secret that it demands.
    pub admin_token_file: Option<PathBuf>,
    /// Whether it shows keys as they are, and not their hashes.
    pub admin_show_keys: bool,
    /// How lines of the log are written.
    pub log_format: Option<log::Format>,
    /// The least that is logged.
    pub log_level: Option<log::Level>,
}

/// What will be started.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Name of the profile.
    pub profile: String,
    /// Its file; none was detected.
    pub profile_file: Option<PathBuf>,
    /// Address of the native listener.
    pub listen: SocketAddr,
    /// Address of the RESP listener, if there shall be one.
    pub resp: Option<SocketAddr>,
    /// Address of the memcached listener, if there shall be one.
    pub memcached: Option<SocketAddr>,
    /// Path of the socket where programs of this host get shared-memory connections.
    pub shm: Option<PathBuf>,
    /// Folder of the cluster's node that this appliance is, if it is one.
    pub cluster: Option<PathBuf>,
    /// The file with the signed map of regions.
    pub region_map_file: Option<PathBuf>,
    /// That map, as the file had it when this was settled.
    pub region_map: Option<Vec<u8>>,
    /// What L0 takes, if there is any.
    pub l0: Option<l0::Settled>,
    /// One core for each shard.
    pub cores: Vec<usize>,
    /// Cores for all other threads; empty if the shards take every core there is.
    pub housekeeping: Vec<usize>,
    /// The NUMA node of each, where memory is to be bound.
    pub nodes: Vec<Option<usize>>,
    /// Bytes of the whole process.
    pub memory_bytes: u64,
    /// How they are divided.
    pub budget: Budget,
    /// What an idle shard does.
    pub poll: PollMode,
    /// What drives the sockets.
    pub io: Io,
    /// Address of the admin listener, if there shall be one.
    pub admin: Option<SocketAddr>,
    /// The file with the secret that it demands.
    pub admin_token_file: Option<PathBuf>,
    /// That secret, as the file had it when this was settled.
    pub admin_token: Option<Token>,
    /// Whether it shows keys as they are, and not their hashes.
    pub admin_show_keys: bool,
    /// How lines of the log are written.
    pub log_format: log::Format,
    /// The least that is logged.
    pub log_level: log::Level,
    /// Which pages to ask for.
    pub pages: PageWish,
    /// Whether to touch every page at start.
    pub populate: bool,
    /// Whether a shard starts although its memory was found on another node.
    pub remote: bool,
    /// For how many microseconds at most an idle shard polls the cards itself, if it shall.
    pub busy_poll_us: Option<u32>,
    /// What is not as one would wish, and what that costs.
    pub remarks: Vec<String>,
    /// What the environment denies this process, and what that costs.
    pub denied: Vec<check::Line>,
}

/// Why nothing was started: an exit status and a reason with a remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Exit status, as sysexits.h has them.
    pub status: u8,
    /// For people.
    pub reason: String,
}

impl Settled {
    /// Tenants, by name and what their keys begin with.
    pub fn tenants(&self) -> Vec<(String, Vec<u8>)> {
        let named = self.l0.iter().flat_map(|l0| &l0.tenants);
        let named: Vec<_> =
            named.map(|(tenant, _)| (tenant.name.clone(), tenant.prefix.clone().into_bytes())).collect();
        if named.is_empty() { vec![(l0::DEFAULT_TENANT.to_string(), Vec::new())] } else { named }
    }
}

/// What there is to settle on: the machine, and what this process may take of it.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The machine.
    pub machine: Topology,
    /// Limits of the process.
    pub process: Limits,
    /// Why there is no io_uring, if there is none.
    pub ring_refusal: Option<String>,
}

impl Ground {
    /// Reads it. Only at the start: later the main thread is kept to some cores of those it may use.
    pub fn read() -> Result<Ground, Failure> {
        let machine = Topology::detect(Path::new("/")).map_err(Failure::failed)?;
        Ok(Ground { machine, process: Limits::read(), ring_refusal: io_uring_refusal() })
    }
}

/// Settles what to start.
pub fn settle(options: &Options, ground: &Ground) -> Result<Settled, Failure> {
    let Ground { machine, process, ring_refusal } = ground;
    let profile_file = options.profile.as_ref().filter(|path| path.as_os_str() != AUTO_PROFILE);
    let refused = |error: ProfileError| Failure::configuration(error.to_string());
    let profile = match profile_file {
        None => Profile::auto(machine, &process.allowed_cores),
        Some(path) => Profile::read(path).map_err(refused)?,
    };
    let placed = place(machine, &process.allowed_cores, &profile).map_err(refused)?;
    let mut remarks: Vec<String> = profile.matches.differences(machine);
    let cores = choose_cores(options, &placed, process, &mut remarks)?;
    let memory_bytes = options.memory.unwrap_or(placed.memory_bytes);
    if let Some(total) = machine.memory_total_bytes
        && memory_bytes > total
    {
        return Err(Failure::configuration(format!(
            "--memory {} is more than this machine has ({}): give less",
            format_bytes(memory_bytes),
            format_bytes(total),
        )));
    }
    let shards = cores.len() as u16;
    if options.l0_socket.is_none() && (!options.l0_tenants.is_empty() || options.l0_memory.is_some()) {
        return Err(Failure::configuration("--l0-tenant and --l0-memory need --l0-socket PATH".to_string()));
    }
    let l0_memory = options
        .l0_memory
        .unwrap_or_else(|| (memory_bytes / limits::L0_MEMORY_SHARE).min(limits::L0_MEMORY_BYTES_DEFAULT_MAX));
    let l0 = options.l0_socket.as_deref().map(|path| l0::settle(path, &options.l0_tenants, l0_memory, shards));
    let l0 = l0.transpose().map_err(Failure::configuration)?;
    let l0_bytes = l0.as_ref().map_or(0, |l0| l0.bytes);
    let admin_bytes = match options.admin {
        Some(_) => limits::ADMIN_BYTES + u64::from(shards) * limits::ADMIN_SHARD_BYTES,
        None => 0,
    };
    // What other nodes have not taken yet, versions and counters: see docs/replication.md.
    let replication_bytes = options.cluster.as_ref().map_or(0, |_| memory_bytes / limits::REPLICATION_SET_ASIDE);
    let set_aside_bytes = l0_bytes + admin_bytes + replication_bytes;
    let budget =
        Budget::new(memory_bytes, shards, options.shm.is_some(), set_aside_bytes).map_err(Failure::configuration)?;
    let io = choose_io(options.io.unwrap_or(profile.network.io), process, ring_refusal.clone(), &mut remarks)?;
    let poll = options.poll.unwrap_or(match profile.network.poll {
        profile::Poll::Spin => PollMode::Spin,
        profile::Poll::Adaptive => PollMode::Adaptive,
        profile::Poll::Park => PollMode::Park,
    });
    if options.region_map.is_some() && options.cluster.is_some() {
        return Err(Failure::configuration(
            "--region-map and --cluster exclude each other: a node of a cluster makes its own map".to_string(),
        ));
    }
    let admin_token = settle_admin(options)?;
    let files = Files::open(Path::new("/")).map_err(Failure::failed)?;
    // None of these lines has a cost that calibration measures.
    let denied =
        check::denied(&check::Subject { machine, files: &files, limits: process, profile: &profile, figures: None });
    let housekeeping = choose_housekeeping(&placed, &cores, process);
    let bind = profile.memory.bind && machine.nodes.len() > 1;
    let nodes = cores.iter().map(|&core| machine.core(core).map(|core| core.node).filter(|_| bind)).collect();
    Ok(Settled {
        profile: profile.machine.name.clone(),
        profile_file: profile_file.cloned(),
        listen: options.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT))),
        resp: options.resp,
        memcached: options.memcached,
        shm: options.shm.clone(),
        cluster: options.cluster.clone(),
        region_map_file: options.region_map.clone(),
        region_map: options.region_map.as_deref().map(region_map::read).transpose()?,
        l0,
        cores,
        housekeeping,
        nodes,
        memory_bytes,
        budget,
        poll,
        io,
        admin: options.admin,
        admin_token_file: options.admin_token_file.clone(),
        admin_token,
        admin_show_keys: options.admin_show_keys,
        log_format: options.log_format.unwrap_or_default(),
        log_level: options.log_level.unwrap_or_default(),
        pages: profile.memory.pages,
        populate: profile.memory.populate,
        remote: profile.memory.remote,
        // Whoever sleeps is woken by the card's interrupt.
        busy_poll_us: profile.nic.busy_poll_us.filter(|&us| us > 0 && poll == PollMode::Spin),
        remarks,
        denied,
    })
}

/// The rules of the admin listener, and its secret. Whoever can reach it sees which keys are hot and what the host is:
/// on an address that others reach it is never open.
fn settle_admin(options: &Options) -> Result<Option<Token>, Failure> {
    let Some(admin) = options.admin else {
        if options.admin_token_file.is_some() || options.admin_show_keys {
            return Err(Failure::configuration(
                "--admin-token-file and --admin-show-keys need --admin ADDR".to_string(),
            ));
        }
        return Ok(None);
    };
    if options.admin_token_file.is_none() && !admin.ip().to_canonical().is_loopback() {
        return Err(Failure::configuration(format!(
            "--admin {admin} can be reached from elsewhere: give --admin-token-file FILE (a secret of at least {} \
             characters), or bind loopback",
            limits::ADMIN_TOKEN_BYTES_MIN
        )));
    }
    options.admin_token_file.as_deref().map(read_token).transpose()
}

/// Cores for all that is not a shard: those the profile names, or else all that are left over.
fn choose_housekeeping(placed: &Placement, data: &[usize], process: &Limits) -> Vec<usize> {
    let left = |core: &&usize| !data.contains(core);
    let free: Vec<usize> = process.allowed_cores.iter().filter(left).copied().collect();
    let named: Vec<usize> = placed.housekeeping.iter().filter(|core| free.contains(core)).copied().collect();
    if named.is_empty() { free } else { named }
}

fn choose_cores(
    options: &Options,
    placed: &Placement,
    process: &Limits,
    remarks: &mut Vec<String>,
) -> Result<Vec<usize>, Failure> {
    let allowed = &process.allowed_cores;
    let mut cores = match &options.cores {
        Some(cores) => cores.clone(),
        None => placed.data_cores(),
    };
    for (position, core) in cores.iter().enumerate() {
        if !allowed.contains(core) {
            return Err(Failure::configuration(format!(
                "core {core} is not among those this process may use ({allowed:?}): name others with --cores"
            )));
        }
        if cores[..position].contains(core) {
            return Err(Failure::configuration(format!("core {core} is named twice: one shard a core")));
        }
    }
    let wanted = options.shards.map_or(cores.len(), usize::from);
    if wanted == 0 || wanted > limits::SHARD_COUNT_MAX {
        return Err(Failure::configuration(format!("--shards {wanted}: give 1 to {}", limits::SHARD_COUNT_MAX)));
    }
    if wanted > cores.len() && options.cores.is_none() {
        // More shards than the profile set aside: take what else this process may use.
        let further: Vec<usize> = allowed.iter().copied().filter(|core| !cores.contains(core)).collect();
        let taken = (wanted - cores.len()).min(further.len());
        cores.extend(&further[..taken]);
        if taken > 0 {
            remarks.push(format!(
                "cores {:?} are outside the profile's data cores: others run there too",
                &further[..taken]
            ));
        }
    }
    if wanted > cores.len() {
        return Err(Failure::configuration(format!(
            "{wanted} shards need as many cores, {} can be used: give fewer --shards or more --cores",
            cores.len()
        )));
    }
    cores.truncate(wanted);
    Ok(cores)
}

fn choose_io(
    wish: profile::Io,
    process: &Limits,
    ring_refusal: Option<String>,
    remarks: &mut Vec<String>,
) -> Result<Io, Failure> {
    let memlock = process.memlock_bytes.unwrap_or(u64::MAX);
    let short_of_memlock = memlock < EXECUTOR_MEMLOCK_BYTES;
    match wish {
        profile::Io::Epoll => Ok(Io::Epoll),
        profile::Io::IoUring => match ring_refusal {
            Some(reason) => Err(Failure { status: 69, reason: format!("io_uring was demanded: {reason}") }),
            None if short_of_memlock => Err(Failure {
                status: 77,
                reason: format!(
                    "the executor needs {} of locked memory, the limit is {}: raise it with 'ulimit -l', or LimitMEMLOCK in the unit",
                    format_bytes(EXECUTOR_MEMLOCK_BYTES),
                    format_bytes(memlock),
                ),
            }),
            None => Ok(Io::Ring),
        },
        profile::Io::Auto => {
            let reason = ring_refusal.or_else(|| {
                short_of_memlock
                    .then(|| format!("the locked-memory limit is {}: 'ulimit -l 512' is enough", format_bytes(memlock)))
            });
            Ok(match reason {
                None => Io::Ring,
                Some(reason) => {
                    remarks.push(format!("epoll in place of io_uring, up to 10 % more core time a request: {reason}"));
                    Io::Epoll
                }
            })
        }
    }
}

impl Failure {
    /// Status 1.
    pub fn failed(reason: String) -> Failure {
        Failure { status: 1, reason }
    }

    /// Status 78: bad configuration.
    pub fn configuration(reason: String) -> Failure {
        Failure { status: 78, reason }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// What `--profile` takes in place of a file.
pub const AUTO_PROFILE: &str = "auto";
/// The native protocol's port.
pub const DEFAULT_PORT: u16 = 7700;
/// What glommio checks before it builds an executor.
const EXECUTOR_MEMLOCK_BYTES: u64 = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Topology {
        let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/host/vm-2core");
        Topology::detect(Path::new(tree)).unwrap()
    }

    fn process() -> Limits {
        Limits { memlock_bytes: Some(8 << 20), nofile: 1024, allowed_cores: vec![0, 1], io_uring: Ok(()) }
    }

    fn ground(process: Limits, ring_refusal: Option<String>) -> Ground {
        Ground { machine: machine(), process, ring_refusal }
    }

    fn settled(options: Options) -> Result<Settled, Failure> {
        settle(&options, &ground(process(), None))
    }

    #[test]
    fn without_options_the_machine_decides() {
        let settled = settled(Options::default()).unwrap();
        assert_eq!((settled.io, settled.listen.port(), settled.cores.len()), (Io::Ring, DEFAULT_PORT, 1));
    }

    #[test]
    fn options_win_over_the_profile() {
        let options = Options {
            shards: Some(2),
            memory: Some(64 << 20),
            poll: Some(PollMode::Spin),
            io: Some(profile::Io::Epoll),
            ..Options::default()
        };
        let settled = settled(options).unwrap();
        assert_eq!((settled.cores.as_slice(), settled.memory_bytes), ([0, 1].as_slice(), 64 << 20));
        assert_eq!((settled.poll, settled.io), (PollMode::Spin, Io::Epoll));
    }

    #[test]
    fn an_admin_listener_on_loopback_needs_no_secret() {
        for address in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let admin = Some(address.parse().unwrap());
            assert!(settled(Options { admin, ..Options::default() }).is_ok(), "{address}");
        }
        for address in ["10.0.0.1:0", "[::]:0", "[::ffff:10.0.0.1]:0"] {
            let admin = Some(address.parse().unwrap());
            assert!(settled(Options { admin, ..Options::default() }).is_err(), "{address}");
        }
    }

    #[test]
    fn housekeeping_has_what_the_shards_leave() {
        let housekeeping = |cores: &[usize]| {
            settled(Options { cores: Some(cores.to_vec()), ..Options::default() }).unwrap().housekeeping
        };
        assert_eq!((housekeeping(&[0]), housekeeping(&[1]), housekeeping(&[0, 1])), (vec![1], vec![0], vec![]));
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_its_status_and_a_remedy() {
        let refusal = |options: Options| settled(options).unwrap_err();
        let cores = |cores: &[usize]| Options { cores: Some(cores.to_vec()), ..Options::default() };
        for (failure, says) in [
            (refusal(cores(&[7])), "name others with --cores"),
            (refusal(cores(&[1, 1])), "one shard a core"),
            (refusal(Options { shards: Some(3), ..Options::default() }), "fewer --shards"),
            (refusal(Options { shards: Some(0), ..Options::default() }), "--shards 0"),
            (refusal(Options { memory: Some(1 << 20), ..Options::default() }), "give at least"),
            (refusal(Options { memory: Some(1 << 60), ..Options::default() }), "give less"),
            (refusal(Options { admin_show_keys: true, ..Options::default() }), "need --admin"),
            (refusal(Options { admin: Some("0.0.0.0:0".parse().unwrap()), ..Options::default() }), "bind loopback"),
            (refusal(Options { profile: Some("/no/such.toml".into()), ..Options::default() }), "no/such.toml"),
        ] {
            assert_eq!(failure.status, 78, "{failure}");
            assert!(failure.reason.contains(says), "{failure}");
        }
    }

    #[test]
    fn a_refused_ring_falls_back_unless_it_was_demanded() {
        let refused = || Some("kernel.io_uring_disabled is 2".to_string());
        let auto = settle(&Options::default(), &ground(process(), refused())).unwrap();
        assert_eq!(auto.io, Io::Epoll);
        assert!(auto.remarks.iter().any(|remark| remark.contains("io_uring_disabled")), "{:?}", auto.remarks);
        let demanded = Options { io: Some(profile::Io::IoUring), ..Options::default() };
        assert_eq!(settle(&demanded, &ground(process(), refused())).unwrap_err().status, 69);
        let poor = Limits { memlock_bytes: Some(64 << 10), ..process() };
        let poor = ground(poor, None);
        assert_eq!(settle(&demanded, &poor).unwrap_err().status, 77);
        assert_eq!(settle(&Options::default(), &poor).unwrap().io, Io::Epoll);
    }
}
