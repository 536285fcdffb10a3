//! `spinetail serve`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use spinetail::base::units::parse_bytes;
use spinetail::engine::PollMode;
use spinetail::host::profile;
use spinetail::serve::l0::Tenant;
use spinetail::serve::log::{Format, Level};
use spinetail::serve::{self, Options, Source, config};

use crate::cli::Outcome;
use crate::cli::target::parse_cores;

/// Serve as an appliance until SIGTERM
#[derive(Args)]
#[command(
    after_help = "Prints one line when every listener accepts:\n  ready native=127.0.0.1:7700 resp=- memcached=- admin=- l0=-\n\nExamples:\n  spinetail serve --memory 4GiB --cores 2-5 --poll spin\n  spinetail serve --l0-socket /run/spinetail/l0.sock --l0-memory 64MiB\n  spinetail serve --config /etc/spinetail.toml --check"
)]
pub struct ServeArguments {
    /// A configuration file (TOML) with any of the flags below as keys; flags win over it. SIGHUP reads it again;
    /// docs/operations.md has its keys [default: none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not serve: say what is wrong with the configuration, or print it as it would be
    #[arg(long)]
    check: bool,
    /// A hardware profile, or 'auto' to detect one [default: auto]
    #[arg(long, value_name = "FILE|auto")]
    profile: Option<PathBuf>,
    /// Address of the native listener; port 0 takes any [default: 127.0.0.1:7700]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address of a RESP listener (the protocol of Redis), like 127.0.0.1:6379 [default: none]
    #[arg(long, value_name = "ADDR")]
    resp: Option<SocketAddr>,
    /// Address of a memcached listener (text protocol with meta commands), like 127.0.0.1:11211 [default: none]
    #[arg(long, value_name = "ADDR")]
    memcached: Option<SocketAddr>,
    /// Give programs of this host connections through shared memory at this socket [default: none]
    #[arg(long, value_name = "PATH")]
    shm: Option<PathBuf>,
    /// Give clients this map of the cluster's regions, signed by its validators; SIGHUP reads it again; docs/routing.md
    /// says how one is made [default: none]
    #[arg(long, value_name = "FILE")]
    region_map: Option<PathBuf>,
    /// Be a node of a cluster: its folder, made by 'cluster init' or 'cluster join' [default: none]
    #[arg(long, value_name = "DIR")]
    cluster: Option<PathBuf>,
    /// Let programs of this host read hot entries in shared memory; they get it at this socket [default: none]
    #[arg(long, value_name = "PATH")]
    l0_socket: Option<PathBuf>,
    /// A tenant of L0: name, what its keys begin with, whose programs may read, how much memory; may be repeated, like
    /// ads,prefix=ads:,uid=1001,memory=8MiB [default: every key, for programs of this user]
    #[arg(long, value_name = "TENANT", value_parser = Tenant::parse)]
    l0_tenant: Vec<Tenant>,
    /// Memory for L0 of the whole [default: an eighth]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    l0_memory: Option<u64>,
    /// Number of shards, one a core [default: the profile's data cores]
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// Cores to run shards on, like 0,2-5 [default: the profile's data cores]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    cores: Option<Cores>,
    /// Memory of the whole process, everything included, like 16MiB or 4GiB [default: the profile's]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// What an idle shard does: spin keeps its core busy; park sleeps, and the next request waits for it to wake;
    /// adaptive spins as long as pauses are short [default: the profile's]
    #[arg(long, value_enum)]
    poll: Option<Poll>,
    /// What drives the sockets; auto falls back to epoll where io_uring is refused
    #[arg(long, value_enum)]
    io: Option<Io>,
    /// Address of the admin listener, like 127.0.0.1:7790; elsewhere than on loopback it demands a token
    /// [default: none]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// A file with the secret that the admin listener demands: at least 16 characters, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Let the admin listener show hot keys as they are, not their hashes
    #[arg(long)]
    admin_show_keys: bool,
    /// How lines on stderr are written: logfmt or json [default: logfmt]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// The least that is logged: debug, info, warn or error [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<Level>,
}

type Cores = Vec<usize>;

#[derive(Clone, Copy, ValueEnum)]
enum Poll {
    Spin,
    Adaptive,
    Park,
}

#[derive(Clone, Copy, ValueEnum)]
enum Io {
    Auto,
    #[value(name = "io_uring")]
    Ring,
    Epoll,
}

/// Runs the command.
pub fn run(arguments: ServeArguments) -> Outcome {
    let options = Options {
        profile: arguments.profile,
        listen: arguments.listen,
        resp: arguments.resp,
        memcached: arguments.memcached,
        shm: arguments.shm,
        region_map: arguments.region_map,
        cluster: arguments.cluster,
        l0_socket: arguments.l0_socket,
        l0_tenants: arguments.l0_tenant,
        l0_memory: arguments.l0_memory,
        shards: arguments.shards,
        cores: arguments.cores,
        memory: arguments.memory,
        poll: arguments.poll.map(|poll| match poll {
            Poll::Spin => PollMode::Spin,
            Poll::Adaptive => PollMode::Adaptive,
            Poll::Park => PollMode::Park,
        }),
        io: arguments.io.map(|io| match io {
            Io::Auto => profile::Io::Auto,
            Io::Ring => profile::Io::IoUring,
            Io::Epoll => profile::Io::Epoll,
        }),
        admin: arguments.admin,
        admin_token_file: arguments.admin_token_file,
        admin_show_keys: arguments.admin_show_keys,
        log_format: arguments.log_format,
        log_level: arguments.log_level,
    };
    let told = |failure: serve::Failure| (failure.status, failure.reason);
    let source = Source::new(options, arguments.config).map_err(told)?;
    let settled = source.settle().map_err(told)?;
    if arguments.check {
        print!("{}", config::print(&settled));
        return Ok(());
    }
    serve::run(&settled, &source).map_err(told)
}
