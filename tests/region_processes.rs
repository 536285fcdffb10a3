//! A region of three processes with links over TLS: leaders die of `kill -9` and are started anew, and what clients at
//! the control sockets were told is linearizable.
//!
//! `SPINETAIL_FAILOVERS=200` runs as many as the figures in `docs/regions.md` are from; else 10.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use spinetail::base::limits;
use spinetail::base::prng::Prng;
use spinetail::cluster::host::control::{Answer, Ask, Control};
use spinetail::cluster::host::folder::Plan;
use spinetail::cluster::host::region::report::StrongAsk;
use spinetail::replica::strong::home_of;
use spinetail::sim::linear::{self, Action, Call, Model, Outcome};

struct Region {
    folder: PathBuf,
    nodes: BTreeMap<u16, (PathBuf, Option<Child>)>,
}

impl Region {
    fn found() -> Region {
        let folder = std::env::temp_dir().join(format!("spinetail-region-{}", std::process::id()));
        // Below the ports that the kernel gives to connections.
        let port = 20_000 + (std::process::id() % 1_000) as u16 * 10;
        let plan = Plan::on_one_host("127.0.0.1", 1, 3, port, false).unwrap();
        let genesis = plan.found(&folder, Duration::from_secs(86_400)).unwrap();
        let nodes = genesis.members.iter().map(|member| (member.id.0, (folder.join(&member.name), None))).collect();
        Region { folder, nodes }
    }

    fn start(&mut self, node: u16) {
        let (folder, child) = self.nodes.get_mut(&node).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut started = Command::new(env!("CARGO_BIN_EXE_spinetail"))
            .args(["cluster", "run"])
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(started.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("ready"), "node {node}: {ready:?}");
        *child = Some(started);
    }

    /// `kill -9`.
    fn kill(&mut self, node: u16) {
        let mut child = self.nodes.get_mut(&node).unwrap().1.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn status(&self, node: u16) -> Option<Value> {
        Control::connect(&self.nodes[&node].0).ok()?.status().ok()
    }

    /// The leader and the homes it serves, once every home is served and whole.
    fn until_whole(&self) -> (u16, Vec<u8>) {
        let begun = Instant::now();
        loop {
            let statuses: BTreeMap<u16, Value> =
                self.nodes.keys().filter_map(|node| Some((*node, self.status(*node)?))).collect();
            let part = |status: &Value, name: &str| status["parts"]["region"][name].clone();
            let whole: u64 = statuses.values().filter_map(|status| part(status, "homes_whole").as_u64()).sum();
            let lost: u64 = statuses.values().filter_map(|status| part(status, "homes_without_memory").as_u64()).sum();
            let served = |status: &Value| part(status, "homes_served").as_array().map_or(0, Vec::len);
            let leaders: Vec<Option<u64>> = statuses.values().map(|status| status["leader"].as_u64()).collect();
            let is_even = statuses.values().all(|status| served(status) >= limits::REGION_HOMES / 3);
            if let Some(leader) = leaders[0]
                && leaders.len() == 3
                && leaders.iter().all(|other| *other == Some(leader))
                && (whole, lost, is_even) == (limits::REGION_HOMES as u64, 0, true)
            {
                let leader = leader as u16;
                let homes = part(&statuses[&leader], "homes_served");
                return (leader, serde_json::from_value(homes).unwrap());
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "not whole after a minute: {statuses:#?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        for (_, child) in self.nodes.values_mut() {
            if let Some(child) = child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A program at a node's control socket, that writes down what it was told.
struct Client {
    process: u32,
    folder: PathBuf,
    control: Option<Control>,
    start: Instant,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Client {
    fn ask(&mut self, key: &str, action: Action) -> Outcome {
        let op = match action {
            Action::Read => StrongAsk::Read,
            Action::Write(value) => StrongAsk::Set(value.to_string()),
            _ => unreachable!("nothing else is asked here"),
        };
        if self.control.is_none() {
            self.control = Control::connect(&self.folder).ok();
        }
        // Nobody there: nothing was asked.
        let Some(control) = &mut self.control else {
            thread::sleep(Duration::from_millis(5));
            return Outcome::Refused;
        };
        let invoked_at = self.start.elapsed().as_nanos() as u64;
        let answer = control.ask(&Ask::Strong { key: key.into(), op });
        let returned_at = self.start.elapsed().as_nanos() as u64;
        let outcome = match answer {
            Ok(Answer::Strong(answer)) if answer.get("done").is_some() => Outcome::Done,
            Ok(Answer::Strong(answer)) if answer.get("value").is_some() => {
                Outcome::Held(answer["value"].as_str().map(|value| value.parse().unwrap()))
            }
            Ok(Answer::Strong(answer)) if answer.get("unknown").is_some() => Outcome::Unknown,
            Ok(_) => Outcome::Refused,
            Err(_) => {
                self.control = None;
                Outcome::Unknown
            }
        };
        let (process, key) = (self.process, key.as_bytes().to_vec());
        self.calls.lock().unwrap().push(Call { process, key, action, outcome, invoked_at, returned_at });
        outcome
    }
}

fn percentile(of: &mut [Duration], share: f64) -> Duration {
    of.sort_unstable();
    of[((of.len() - 1) as f64 * share).round() as usize]
}

fn key_of(homes: &[u8], random: &mut Prng) -> String {
    loop {
        let key = format!("key-{}", random.below(100_000));
        if homes.contains(&home_of(key.as_bytes())) {
            return key;
        }
    }
}

#[test]
fn three_processes_bear_that_their_leader_is_killed_again_and_again() {
    let failovers = std::env::var("SPINETAIL_FAILOVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let mut region = Region::found();
    (1..=3).for_each(|node| region.start(node));
    let (start, next) = (Instant::now(), Arc::new(AtomicU64::new(1)));
    let mut random = Prng::new(3);
    let (mut times, mut answers) = (Vec::new(), 0);
    for number in 0..failovers {
        let (leader, homes) = region.until_whole();
        let key = key_of(&homes, &mut random);
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let client = |process: u32, folder: &Path| Client {
            process,
            folder: folder.to_path_buf(),
            control: None,
            start,
            calls: calls.clone(),
        };
        let mut clients = Vec::new();
        for (node, (folder, _)) in &region.nodes {
            let (mut client, stop, next) = (client(u32::from(*node), folder), stop.clone(), next.clone());
            let mut random = Prng::new(random.next_u64());
            // One key that the leader holds, two that anybody may.
            let keys = [key.clone(), format!("{number}-a"), format!("{number}-b")];
            clients.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let action = match random.below(2) {
                        0 => Action::Read,
                        _ => Action::Write(next.fetch_add(1, Ordering::Relaxed)),
                    };
                    client.ask(&keys[random.below(3) as usize], action);
                    thread::sleep(Duration::from_millis(2));
                }
            }));
        }
        let survivor = region.nodes.iter().find(|(node, _)| **node != leader).map(|(_, (folder, _))| folder.clone());
        let mut writer = client(99, &survivor.unwrap());
        // What the key held in rounds before this one.
        assert_eq!(writer.ask(&key, Action::Write(next.fetch_add(1, Ordering::Relaxed))), Outcome::Done);
        thread::sleep(Duration::from_millis(30 + random.below(40)));
        let seen = region.nodes.keys().filter_map(|node| region.status(*node));
        let before: Vec<_> =
            seen.map(|status| (status["term"].clone(), status["parts"]["region"]["elections"].clone())).collect();
        let lost = Instant::now();
        region.kill(leader);
        let mut told = Vec::new();
        loop {
            let outcome = writer.ask(&key, Action::Write(next.fetch_add(1, Ordering::Relaxed)));
            told.push((lost.elapsed(), outcome));
            if outcome == Outcome::Done {
                break;
            }
        }
        times.push(lost.elapsed());
        if times.last() > Some(&Duration::from_millis(350)) {
            // What took so long: elections that failed, a write that was lost, a machine that was busy.
            let seen = region.nodes.keys().filter_map(|node| region.status(*node));
            let elections = |status: &Value| status["parts"]["region"]["elections"].clone();
            let seen: Vec<_> = seen.map(|status| (status["term"].clone(), elections(&status))).collect();
            println!("failover {number}: {told:?}; terms and elections {seen:?}, before {before:?}");
        }
        thread::sleep(Duration::from_millis(50));
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        let mut history = std::mem::take(&mut *calls.lock().unwrap());
        answers += history.len();
        // The key may be one of an earlier round: reads before the first write of this one are explained by that.
        let first = history.iter().filter(|call| call.process == 99).map(|call| call.returned_at).min().unwrap();
        history.retain(|call| call.key != key.as_bytes() || call.invoked_at > first || call.action != Action::Read);
        if let Err(wrong) = linear::check(&history, Model::Register) {
            panic!("failover {number}: {wrong:?}");
        }
        region.start(leader);
    }
    let worst = *times.iter().max().unwrap();
    let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    println!(
        "{failovers} kills of the leading process of three: writes again after p50 {p50:?}, p99 {p99:?}, most {worst:?}"
    );
    println!("{answers} answers, linearizable");
    if failovers >= 100 {
        assert!(p99 <= Duration::from_millis(400), "{p99:?}");
    }
}
