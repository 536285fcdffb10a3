//! What SIGHUP changes in a running server, and what it does not.
//!
//! The file is read and settled as at the start, on the same ground; if that is refused, nothing changes. Then old
//! and new are compared key by key ([`difference`], which knows no I/O): what can change is applied, what cannot
//! is named. Changing the rest would mean to close listeners or to move memory under clients, which is what a
//! restart is for.

use crate::serve::config::KEYS;
use crate::serve::log::{Line, Log};
use crate::serve::settle::Settled;

/// What a reload comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// Keys whose new value is taken over, by their flags.
    pub apply: Vec<&'static str>,
    /// Whether the admin listener's secret is taken over: its file may have the same name and another content.
    pub token: bool,
    /// What stays as it is until a restart.
    pub needs_restart: Vec<Change>,
}

/// A key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name, as in the file.
    pub key: String,
    /// What runs; empty, if the key is absent.
    pub running: String,
    /// What the file wants.
    pub wanted: String,
}

/// Compares what runs with what is wanted.
pub fn difference(running: &Settled, wanted: &Settled) -> Reload {
    let mut reload = Reload::default();
    // A file without a secret is fine if it puts the listener on loopback. The listener stays where it is until a
    // restart; so does its secret, or it would be open to everybody who reaches it.
    let exposed = running.admin.is_some_and(|address| !address.ip().to_canonical().is_loopback());
    let keeps_token = exposed && wanted.admin_token.is_none();
    for key in &KEYS {
        let (old, new) = (key.value(running), key.value(wanted));
        let holds_token = key.path() == TOKEN_FILE;
        let token = holds_token && running.admin_token != wanted.admin_token;
        let map = key.flag == REGION_MAP && running.region_map != wanted.region_map;
        if old == new && !token && !map {
            continue;
        }
        if key.reloadable && !(holds_token && keeps_token) {
            reload.apply.push(key.flag);
            reload.token |= token;
        } else {
            reload.needs_restart.push(Change::new(key.path(), old, new));
        }
    }
    // What only a profile says.
    let nodes = |settled: &Settled| Some(format!("{:?}", settled.nodes));
    for (key, old, new) in [
        ("profile memory.pages", Some(running.pages.name().to_string()), Some(wanted.pages.name().to_string())),
        ("profile memory.populate", Some(running.populate.to_string()), Some(wanted.populate.to_string())),
        ("profile memory.bind", nodes(running), nodes(wanted)),
        (
            "profile nic.busy_poll_us",
            Some(format!("{:?}", running.busy_poll_us)),
            Some(format!("{:?}", wanted.busy_poll_us)),
        ),
        ("profile memory.remote", Some(running.remote.to_string()), Some(wanted.remote.to_string())),
        ("profile cores.housekeeping", list(&running.housekeeping), list(&wanted.housekeeping)),
    ] {
        // Other cores alone change nodes and housekeeping too; they are named above.
        if old != new && running.cores == wanted.cores {
            reload.needs_restart.push(Change::new(key.to_string(), old, new));
        }
    }
    reload
}

impl Reload {
    /// Takes over what can be, into what runs and the log, and says what was done and what was not. Who else looks at
    /// what runs is for the caller to tell.
    pub fn carry_out(&self, running: &mut Settled, wanted: &Settled, log: &Log) {
        for key in KEYS.iter().filter(|key| self.apply.contains(&key.flag)) {
            match key.flag {
                "--log-level" => running.log_level = wanted.log_level,
                "--log-format" => running.log_format = wanted.log_format,
                "--admin-show-keys" => running.admin_show_keys = wanted.admin_show_keys,
                "--admin-token-file" => {
                    running.admin_token_file.clone_from(&wanted.admin_token_file);
                    running.admin_token.clone_from(&wanted.admin_token);
                }
                REGION_MAP => {
                    running.region_map_file.clone_from(&wanted.region_map_file);
                    running.region_map.clone_from(&wanted.region_map);
                }
                flag => unreachable!("{flag} is reloadable, and nobody knows how"),
            }
        }
        log.change(running.log_level, running.log_format);
        for change in &self.needs_restart {
            let line = Line::warn("needs a restart").with("key", change.key.as_str());
            log.write(&line.with("running", change.running.as_str()).with("wanted", change.wanted.as_str()));
        }
        let applied: Vec<String> =
            KEYS.iter().filter(|key| self.apply.contains(&key.flag)).map(|key| key.path()).collect();
        let line = Line::info("reloaded").with("applied", applied.join(","));
        log.write(&line.with("needs_restart", self.needs_restart.len()));
    }
}

impl Change {
    fn new(key: String, running: Option<String>, wanted: Option<String>) -> Change {
        Change { key, running: running.unwrap_or_default(), wanted: wanted.unwrap_or_default() }
    }
}

fn list(cores: &[usize]) -> Option<String> {
    Some(crate::serve::config::core_list(cores))
}

/// The key of the secret's file.
const TOKEN_FILE: &str = "admin.token_file";
/// The flag of the map of regions.
const REGION_MAP: &str = "--region-map";

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    use crate::host::process::Limits;
    use crate::host::topology::Topology;
    use crate::serve::log::{Format, Level};
    use crate::serve::settle::{Ground, Options, settle};

    fn settled(options: Options) -> Settled {
        let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/host/vm-2core");
        let process = Limits { memlock_bytes: None, nofile: 1024, allowed_cores: vec![0, 1], io_uring: Ok(()) };
        let machine = Topology::detect(Path::new(tree)).unwrap();
        settle(&options, &Ground { machine, process, ring_refusal: None }).unwrap()
    }

    fn names(reload: &Reload) -> Vec<&str> {
        reload.needs_restart.iter().map(|change| change.key.as_str()).collect()
    }

    #[test]
    fn nothing_differs_from_itself() {
        let same = settled(Options::default());
        assert_eq!(difference(&same, &same.clone()), Reload::default());
    }

    #[test]
    fn every_key_either_applies_or_needs_a_restart() {
        let loopback = |port: u16| Some(format!("127.0.0.1:{port}").parse().unwrap());
        let before = settled(Options::default());
        let after = settled(Options {
            listen: loopback(1),
            resp: loopback(2),
            memcached: loopback(3),
            shm: Some("/x".into()),
            cluster: Some("/z".into()),
            l0_socket: Some("/y".into()),
            shards: Some(2),
            memory: Some(64 << 20),
            poll: Some(crate::engine::PollMode::Adaptive),
            io: Some(crate::host::profile::Io::Epoll),
            admin: loopback(4),
            admin_show_keys: true,
            log_format: Some(Format::Json),
            log_level: Some(Level::Debug),
            ..Options::default()
        });
        let reload = difference(&before, &after);
        assert_eq!(reload.apply, ["--admin-show-keys", "--log-format", "--log-level"]);
        let restart = [
            "listen",
            "resp",
            "memcached",
            "shm",
            "cluster",
            "shards",
            "cores",
            "memory",
            "poll",
            "io",
            "l0.socket",
            "l0.memory",
            "l0.tenant",
            "admin.listen",
        ];
        assert_eq!(names(&reload), restart);
        let memory = reload.needs_restart.iter().find(|change| change.key == "memory").unwrap();
        assert_eq!(memory.wanted, "\"64MiB\"");
    }

    #[test]
    fn what_only_the_profile_says_needs_a_restart_too() {
        let before = settled(Options::default());
        let after = Settled { populate: !before.populate, ..before.clone() };
        assert_eq!(names(&difference(&before, &after)), ["profile memory.populate"]);
    }

    #[test]
    fn another_secret_in_the_same_file_is_taken_over() {
        let folder = std::env::temp_dir().join(format!("spinetail-reload-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("token");
        let with = |secret: &str, admin: &str| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::write(&file, secret).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            let admin = Some(admin.parse().unwrap());
            settled(Options { admin, admin_token_file: Some(file.clone()), ..Options::default() })
        };
        let (first, second) = (with("first-0123456789", "0.0.0.0:1"), with("second-0123456789", "0.0.0.0:1"));
        let reload = difference(&first, &second);
        assert!(
            reload.token && reload.apply == ["--admin-token-file"] && reload.needs_restart.is_empty(),
            "{reload:?}"
        );

        // A listener that others reach does not lose its secret, though the file would put it on loopback.
        let tame = settled(Options { admin: Some("127.0.0.1:1".parse().unwrap()), ..Options::default() });
        let reload = difference(&first, &tame);
        assert!(!reload.token && reload.apply.is_empty(), "{reload:?}");
        assert_eq!(names(&reload), ["admin.listen", "admin.token_file"]);
        // On loopback it may.
        assert!(difference(&with("first-0123456789", "127.0.0.1:1"), &tame).token);

        // And the whole way, into what runs.
        let mut running = first.clone();
        let log = Log::start(Level::Error, Format::Logfmt, std::io::sink()).unwrap();
        difference(&first, &tame).carry_out(&mut running, &tame, &log);
        assert_eq!(running.admin_token.as_ref().unwrap().secret(), "first-0123456789");
        difference(&running, &second).carry_out(&mut running, &second, &log);
        assert_eq!(running.admin_token.as_ref().unwrap().secret(), "second-0123456789");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn another_map_in_the_same_file_is_taken_over() {
        use crate::cluster::NetworkId;
        use crate::cluster::route::{RegionMap, SignedMap};
        let file = std::env::temp_dir().join(format!("spinetail-reload-map-{}", std::process::id()));
        let with = |height: u64| {
            let map = RegionMap { network: NetworkId([0; 32]), height, expires_ms: 1, regions: Vec::new() };
            std::fs::write(&file, SignedMap::new(&map, &[]).unwrap().encode().unwrap()).unwrap();
            settled(Options { region_map: Some(file.clone()), ..Options::default() })
        };
        let (first, second) = (with(1), with(2));
        let reload = difference(&first, &second);
        assert!(reload.apply == ["--region-map"] && reload.needs_restart.is_empty(), "{reload:?}");
        let mut running = first.clone();
        let log = Log::start(Level::Error, Format::Logfmt, std::io::sink()).unwrap();
        reload.carry_out(&mut running, &second, &log);
        assert_eq!(running.region_map, second.region_map);
        assert_eq!(difference(&running, &second), Reload::default());
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn what_applies_is_applied_and_nothing_else() {
        let before = settled(Options::default());
        let options = Options { log_level: Some(Level::Debug), memory: Some(64 << 20), ..Options::default() };
        let after = settled(options);
        let mut running = before.clone();
        let log = Log::start(Level::Error, Format::Logfmt, std::io::sink()).unwrap();
        difference(&before, &after).carry_out(&mut running, &after, &log);
        assert_eq!((log.level(), running.memory_bytes), (Level::Debug, before.memory_bytes));
        assert!(difference(&running, &after).apply.is_empty(), "once");
        assert_eq!(names(&difference(&running, &after)), ["memory"], "still");
    }

    /// One that is called reloadable and is not known here would be a panic in a server that runs.
    #[test]
    fn every_reloadable_key_is_known() {
        let before = settled(Options::default());
        let flags = KEYS.iter().filter(|key| key.reloadable).map(|key| key.flag).collect();
        let log = Log::start(Level::Error, Format::Logfmt, std::io::sink()).unwrap();
        let reload = Reload { apply: flags, ..Reload::default() };
        reload.carry_out(&mut before.clone(), &before, &log);
    }
}
