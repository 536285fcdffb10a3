//! What the admin listener tells, read by the programs that will read it: a real Prometheus, promtool, Python's strict
//! OpenMetrics parser and HdrHistogram's own log reader; and what deploy/ makes of it, so that no name there drifts.
//!
//! Prometheus and Python are looked for, not demanded: a test that needs what is not there prints SKIPPED and why.
//! `SPINETAIL_METRICS_SECONDS=60` runs the comparison with Prometheus as long as the claim has it; by default 9.

#[path = "../common/mod.rs"]
mod common;

mod deploy;
mod events;
mod hdr;
mod hostile;
mod http;
mod page;
mod prometheus;
mod tools;

use common::resp::listener;
use common::{Scratch, Server, two_shards_fit};
use std::net::SocketAddr;

/// A tenant's name as unkind as the flag allows; its label must come back as it is.
const UNKIND_TENANT: &str = "quo\"te\\back\nline";

/// A server with everything there is: all protocols, L0, tenants, the admin listener.
struct Whole {
    server: Server,
    admin: SocketAddr,
    _scratch: Scratch,
}

impl Whole {
    fn start(name: &str, further: &[&str]) -> Whole {
        let scratch = Scratch::new(name);
        let socket = scratch.file("l0");
        let user = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).unwrap_or(0);
        let unkind = format!("{UNKIND_TENANT},prefix=unkind:,uid={user}");
        let rest = format!("everybody,uid={user}");
        let shards = if two_shards_fit() { "2" } else { "1" };
        let mut arguments = vec!["--admin", "127.0.0.1:0", "--resp", "127.0.0.1:0", "--memcached", "127.0.0.1:0"];
        arguments.extend(["--l0-socket", &socket, "--l0-tenant", &unkind, "--l0-tenant", &rest, "--shards", shards]);
        arguments.extend(["--memory", "96MiB"]);
        arguments.extend(further);
        let server = Server::start(&arguments);
        let admin = admin_of(&server);
        Whole { server, admin, _scratch: scratch }
    }

    fn target(&self, protocol: &str) -> String {
        let address = if protocol == "native" { Some(self.server.address) } else { listener(&self.server, protocol) };
        format!("{protocol}://{}", address.expect("a listener"))
    }
}

/// Where a server's admin listener is.
fn admin_of(server: &Server) -> SocketAddr {
    listener(server, "admin").unwrap_or_else(|| panic!("no admin listener in '{}'", server.ready))
}
