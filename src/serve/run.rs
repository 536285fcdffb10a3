//! Starts, prints the ready line, waits for signals, stops.
//!
//! The main thread is the server's housekeeper: once it serves, it hears signals and does what is to be done once a
//! second. Nothing it does then waits for anybody: what could (stderr, the service manager) has threads of its own.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded, never, select, tick};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::base::hash::HashSeed;
use crate::base::limits;
use crate::base::units::format_bytes;
use crate::engine::{self, Io, Plan};
use crate::host::calibration::Figures;
use crate::host::process::{forget_code_of_the_start, keep_to_cores, raise_open_files};
use crate::net::socket;
use crate::serve::admin::{self, Admin, ClusterFigures, Facts, Live};
use crate::serve::cluster;
use crate::serve::config::{Source, core_list};
use crate::serve::log::{Line, Log, panics_to};
use crate::serve::notify::Notifier;
use crate::serve::reload::difference;
use crate::serve::settle::{Failure, Settled};
use crate::serve::watch::Watch;
use crate::serve::{l0, replication, shm, strong};

/// Serves until a signal says otherwise. `source` is where a reload finds the configuration.
pub fn run(settled: &Settled, source: &Source) -> Result<(), Failure> {
    raise_open_files();
    // Before any thread is made: they inherit it. Shards leave for their own cores.
    let kept = keep_to_cores(&settled.housekeeping);
    let log = Log::to_stderr(settled.log_level, settled.log_format)
        .map_err(|error| Failure::failed(format!("no thread for the log: {error}")))?;
    panics_to(&log);
    if settled.housekeeping.is_empty() {
        log.write(&remark(
            "no core left for housekeeping: its threads take their time slices from shards; leave one out with --cores",
        ));
    } else if let Err(error) = kept {
        let cores = core_list(&settled.housekeeping);
        log.write(&remark(&format!("threads cannot be kept to cores {cores}, they run on data cores too: {error}")));
    }
    let served = serve(settled, source, &log);
    // Whoever reads the log reads the end of it, unless nobody does.
    log.flush();
    served
}

fn serve(settled: &Settled, source: &Source, log: &Log) -> Result<(), Failure> {
    // Before anything runs: a signal that comes early must not kill half a start.
    let signals = signals().map_err(|error| Failure::failed(format!("no signal handler: {error}")))?;
    let notifier = Notifier::from_environment(log)
        .map_err(|error| Failure::failed(format!("no thread for the service manager: {error}")))?;
    // What the admin listener looks at with every request, and a reload changes.
    let live = Arc::new(Live::new(settled));
    let (listeners, address) = listen("--listen", settled.listen, settled.cores.len())?;
    let (resp_listeners, resp_address) = match settled.resp {
        None => (Vec::new(), "-".to_string()),
        Some(wanted) => listen("--resp", wanted, settled.cores.len())?,
    };
    let (memcached_listeners, memcached_address) = match settled.memcached {
        None => (Vec::new(), "-".to_string()),
        Some(wanted) => listen("--memcached", wanted, settled.cores.len())?,
    };
    let admin_listener = match settled.admin {
        None => None,
        Some(wanted) => Some(admin::bind(wanted).map_err(|error| occupied("--admin", wanted, &error))?),
    };
    let admin_address = match &admin_listener {
        None => "-".to_string(),
        Some(listener) => listener.local_addr().map_err(|error| Failure::failed(error.to_string()))?.to_string(),
    };
    // Before memory is touched, which takes its time: whoever asks meanwhile is told that it starts.
    let admin = admin_listener.map(|listener| Admin::open(listener, live.clone())).transpose()?;
    // Before memory is touched, so that the most that was ever resident is what stays.
    forget_code_of_the_start();
    let replicates = match settled.cluster.as_deref() {
        None => None,
        Some(folder) => replication::config(folder, settled.budget.arena_bytes)?,
    };
    let seed = replicates.as_ref().map_or_else(random_seed, |config| config.seed);
    let (tables, l0_parts) = match &settled.l0 {
        None => (None, Vec::new()),
        Some(l0) => {
            let (tables, parts) = l0::Tables::create(l0, &settled.nodes, settled.pages, seed)?;
            (Some(tables), parts)
        }
    };
    let l0_shortfalls = tables.as_ref().map(|tables| tables.shortfalls.clone()).unwrap_or_default();
    let mut running = engine::start(Plan {
        io: settled.io,
        poll: settled.poll,
        cores: settled.cores.clone(),
        nodes: settled.nodes.clone(),
        listeners,
        resp_listeners,
        memcached_listeners,
        memory_bytes: settled.memory_bytes,
        tenants: settled.tenants(),
        l0: l0_parts,
        budget: settled.budget,
        pages: settled.pages,
        populate: settled.populate,
        remote: settled.remote,
        busy_poll_us: settled.busy_poll_us,
        seed,
        replication: replicates.clone(),
    })
    .map_err(Failure::failed)?;

    // After the listeners, so that the cluster never sends clients to an appliance that does not start.
    let cluster = settled.cluster.as_deref().map(|folder| cluster::start(folder, log)).transpose()?;
    running.shared.region_map.set(settled.region_map.as_deref());
    if let Some(cluster) = &cluster {
        cluster.give_maps(running.shared.clone());
        if let Some(ports) = running.strong.take() {
            strong::start(&cluster.node, cluster.parts.region.clone(), ports);
        }
    }
    if let (Some(cluster), Some(ports), Some(config)) = (&cluster, running.replication.take(), &replicates) {
        replication::start(&cluster.node, ports, config);
    }
    if let Some(admin) = &admin {
        let figures = cluster.as_ref().map(|cluster| ClusterFigures(cluster.node.status.clone()));
        admin.serving(running.shared.clone(), Facts { cluster: figures, ..facts(settled) })?;
    }
    let cluster_ended = cluster.as_ref().map_or_else(never, |cluster| cluster.node.ended.clone());
    let shm = settled.shm.as_deref().map(|path| shm::open(path, running.attacher())).transpose()?;

    let fallback = match &settled.shm {
        None => format!("native={address}"),
        Some(shm) => format!("native={address} shm={}", shm.display()),
    };
    let l0 = match (tables, &settled.l0) {
        (Some(tables), Some(l0)) => Some(tables.open_door(&l0.path, fallback, running.attacher())?),
        _ => None,
    };

    for text in settled.remarks.iter().chain(&running.shortfalls).chain(&l0_shortfalls) {
        log.write(&remark(text));
    }
    for line in &settled.denied {
        log.write(
            &Line::info("costs")
                .with("item", line.item.as_str())
                .with("have", line.have.as_str())
                .with("want", line.want.as_str())
                .with("cost", line.cost_text())
                .with("remedy", line.remedy.as_str()),
        );
    }
    log.write(
        &Line::info("serving")
            .with("profile", settled.profile.as_str())
            .with("shards", settled.cores.len())
            .with("cores", core_list(&settled.cores))
            .with("io", if settled.io == Io::Ring { "io_uring" } else { "epoll" })
            .with("poll", settled.poll.name())
            .with("memory", format_bytes(settled.memory_bytes))
            .with("arena", format_bytes(settled.budget.arena_bytes))
            .with("segment", format_bytes(settled.budget.segment_bytes as u64))
            .with("pages", running.pages.first().map_or("-", |pages| pages.name()))
            .with("housekeeping", core_list(&settled.housekeeping)),
    );
    // So that whoever reads latencies in this log knows what the machine takes for things.
    if let Some(figures) = Figures::load() {
        log.write(&Line::info("calibration").with("taken", figures.taken.clone()).with("figures", figures.line()));
    }
    log.flush();
    let mut stdout = io::stdout();
    // Whoever waits for this line has gone if it cannot be written; serving goes on.
    let shm_field = shm.as_ref().map(|shm| format!(" shm={}", shm.path().display())).unwrap_or_default();
    let l0_field = l0.as_ref().map_or("-".to_string(), |door| door.path().display().to_string());
    let ready = format!(
        "ready native={address} resp={resp_address} memcached={memcached_address} admin={admin_address} l0={l0_field}{shm_field}"
    );
    let _ = writeln!(stdout, "{ready}").and_then(|()| stdout.flush());

    let serving = format!("serving on {address}");
    notifier.ready(serving.clone());

    let shared = running.shared.clone();
    let is_alive = || admin::all_take_turns(&shared);
    let mut in_force = settled.clone();
    let mut watch = Watch::default();
    let mut seconds = 0;
    let second = tick(Duration::from_secs(1));
    let beat = notifier.watchdog().map_or_else(never, tick);
    loop {
        select! {
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => {
                    notifier.reloading();
                    reload(source, &mut in_force, log);
                    live.set(&in_force);
                    if cluster.is_none() {
                        shared.region_map.set(in_force.region_map.as_deref());
                    }
                    notifier.ready(serving.clone());
                }
                _ => break,
            },
            recv(running.ended) -> end => {
                let reason = match end {
                    Ok(Err(reason)) => reason,
                    _ => "a shard left without being asked to".to_string(),
                };
                return Err(Failure::failed(reason));
            }
            recv(cluster_ended) -> reason => {
                let reason = reason.unwrap_or_else(|_| "the ordering has ended".to_string());
                return Err(Failure::failed(format!("the cluster's node has stopped: {reason}")));
            }
            recv(second) -> _ => {
                let counters = running.shared.counters.iter().map(|counters| counters.values());
                watch.second(counters.collect()).iter().for_each(|line| log.write(line));
                log.tick();
                log.write(&Line::debug("second").with("requests", watch.requests).with("entries", watch.entries));
                seconds += 1;
                if seconds % limits::STATUS_SECONDS == 0 {
                    notifier.status(format!("{serving}: {} requests/s, {} entries", watch.requests, watch.entries));
                }
            }
            recv(beat) -> _ => match is_alive() {
                Ok(()) => notifier.beat(),
                Err(reason) => log.write(&Line::error("no beat for the watchdog").with("reason", reason)),
            },
        }
    }
    log.write(&Line::info("stopping"));
    notifier.stopping();
    if let Some(admin) = &admin {
        admin.stopping();
    }
    if let Some(cluster) = cluster {
        cluster.node.stop();
    }
    running.stop();
    // Aside, so that this thread hears a second signal, which does not wait for what is under way.
    let (left, all_left) = bounded(1);
    let join = move || drop(left.send(running.join()));
    let joiner = std::thread::Builder::new().name("stop".into()).spawn(join);
    joiner.map_err(|error| Failure::failed(format!("no thread to stop in: {error}")))?;
    loop {
        select! {
            recv(all_left) -> outcome => {
                outcome.unwrap_or_else(|_| Err("the shards' end was missed".to_string())).map_err(Failure::failed)?;
                break;
            }
            recv(signals) -> signal => if signal != Ok(SIGHUP) {
                std::process::exit(0);
            },
            // Shards that have left take no turns; how long they may take is bounded elsewhere.
            recv(beat) -> _ => notifier.beat(),
        }
    }
    log.write(&Line::info("stopped"));
    notifier.flush();
    Ok(())
}

/// What the admin listener tells that does not change.
fn facts(settled: &Settled) -> Facts {
    let shards = settled.cores.len() as u64;
    Facts {
        host: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string(),
        poll: settled.poll.name(),
        io: if settled.io == Io::Ring { "io_uring" } else { "epoll" },
        profile: settled.profile.clone(),
        cores: settled.cores.clone(),
        memory_limit_bytes: settled.memory_bytes,
        l0_bytes: settled.l0.as_ref().map_or(0, |l0| l0.bytes),
        cluster: None,
        tenant_l0_bytes: settled.l0.iter().flat_map(|l0| &l0.tenants).map(|(_, region)| region * shards).collect(),
    }
}

/// Reads the configuration again. If it is refused, everything stays as it was.
fn reload(source: &Source, in_force: &mut Settled, log: &Log) {
    match source.settle() {
        Ok(wanted) => difference(in_force, &wanted).carry_out(in_force, &wanted, log),
        Err(failure) => {
            log.write(&Line::error("not reloaded, everything stays as it was").with("reason", failure.reason));
        }
    }
}

/// What is not as one would wish.
fn remark(text: &str) -> Line {
    Line::info("remark").with("remark", text)
}

fn signals() -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, receiver) = bounded(8);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            // Eight signals nobody has looked at: one more says nothing new.
            let _ = sender.try_send(signal);
        }
    })?;
    Ok(receiver)
}

/// One listener for each shard, and the address they got.
fn listen(flag: &str, wanted: SocketAddr, shards: usize) -> Result<(Vec<TcpListener>, String), Failure> {
    let listeners = socket::listen(wanted, shards).map_err(|error| occupied(flag, wanted, &error))?;
    let address = listeners[0].local_addr().map_err(|error| Failure::failed(error.to_string()))?;
    Ok((listeners, address.to_string()))
}

fn occupied(flag: &str, address: SocketAddr, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens there (see 'ss -ltnp sport = :{}'); stop it or give another {flag}",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need CAP_NET_BIND_SERVICE; give another {flag}")
        }
        io::ErrorKind::AddrNotAvailable => format!("no interface has that address; give another {flag}"),
        _ => format!("give another {flag}"),
    };
    let status = if error.kind() == io::ErrorKind::PermissionDenied { 77 } else { 1 };
    Failure { status, reason: format!("cannot listen on {address}: {error}: {remedy}") }
}

/// A seed that others cannot guess: std's own hash keys come from the system's generator.
fn random_seed() -> HashSeed {
    HashSeed(RandomState::new().build_hasher().finish())
}
