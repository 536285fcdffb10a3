//! Starts, prints the ready line, waits for a signal, stops.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

use crossbeam::channel::{Receiver, bounded, select};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::base::hash::HashSeed;
use crate::base::units::format_bytes;
use crate::engine::{self, Io, Plan};
use crate::host::process::raise_open_files;
use crate::net::socket;
use crate::serve::settle::{Failure, Settled};
use crate::serve::{l0, shm};

/// Serves until a signal says otherwise.
pub fn run(settled: &Settled) -> Result<(), Failure> {
    raise_open_files();
    // Before anything runs: a signal that comes early must not kill half a start.
    let signals = signals().map_err(|error| Failure::failed(format!("no signal handler: {error}")))?;
    let (listeners, address) = listen("--listen", settled.listen, settled.cores.len())?;
    let (resp_listeners, resp_address) = match settled.resp {
        None => (Vec::new(), "-".to_string()),
        Some(wanted) => listen("--resp", wanted, settled.cores.len())?,
    };
    let (memcached_listeners, memcached_address) = match settled.memcached {
        None => (Vec::new(), "-".to_string()),
        Some(wanted) => listen("--memcached", wanted, settled.cores.len())?,
    };
    let seed = random_seed();
    let (tables, l0_parts) = match &settled.l0 {
        None => (None, Vec::new()),
        Some(l0) => {
            let (tables, parts) = l0::Tables::create(l0, &settled.nodes, settled.pages, seed)?;
            (Some(tables), parts)
        }
    };
    let l0_shortfalls = tables.as_ref().map(|tables| tables.shortfalls.clone()).unwrap_or_default();
    let running = engine::start(Plan {
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
        seed,
    })
    .map_err(Failure::failed)?;

    let shm = settled.shm.as_deref().map(|path| shm::open(path, running.attacher())).transpose()?;

    let fallback = match &settled.shm {
        None => format!("native={address}"),
        Some(shm) => format!("native={address} shm={}", shm.display()),
    };
    let l0 = match (tables, &settled.l0) {
        (Some(tables), Some(l0)) => Some(tables.open_door(&l0.path, fallback, running.attacher())?),
        _ => None,
    };

    for remark in &settled.remarks {
        log(&format!("remark=\"{remark}\""));
    }
    for shortfall in running.shortfalls.iter().chain(&l0_shortfalls) {
        log(&format!("remark=\"{shortfall}\""));
    }
    log(&format!(
        "msg=serving profile={} shards={} cores={:?} io={} poll={} memory=\"{}\" arena=\"{}\" segment=\"{}\" pages={}",
        settled.profile,
        settled.cores.len(),
        settled.cores,
        if settled.io == Io::Ring { "io_uring" } else { "epoll" },
        settled.poll.name(),
        format_bytes(settled.memory_bytes),
        format_bytes(settled.budget.arena_bytes),
        format_bytes(settled.budget.segment_bytes as u64),
        running.pages.first().map_or("-", |pages| pages.name()),
    ));
    let mut stdout = io::stdout();
    // Whoever waits for this line has gone if it cannot be written; serving goes on.
    let shm_field = shm.as_ref().map(|shm| format!(" shm={}", shm.path().display())).unwrap_or_default();
    let l0_field = l0.as_ref().map_or("-".to_string(), |door| door.path().display().to_string());
    let ready = format!(
        "ready native={address} resp={resp_address} memcached={memcached_address} admin=- l0={l0_field}{shm_field}"
    );
    let _ = writeln!(stdout, "{ready}").and_then(|()| stdout.flush());

    loop {
        select! {
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => log("msg=\"SIGHUP: nothing to reload without --config\""),
                _ => break,
            },
            recv(running.ended) -> end => {
                let reason = match end {
                    Ok(Err(reason)) => reason,
                    _ => "a shard left without being asked to".to_string(),
                };
                return Err(Failure::failed(reason));
            }
        }
    }
    log("msg=stopping");
    running.stop();
    // A second signal does not wait for what is under way.
    std::thread::spawn(move || {
        let _ = signals.recv();
        std::process::exit(0);
    });
    running.join().map_err(Failure::failed)?;
    log("msg=stopped");
    Ok(())
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

/// One logfmt line on stderr.
fn log(line: &str) {
    let _ = writeln!(io::stderr(), "level=info {line}");
}
