//! Four regions, each an appliance in a process of its own, and clients at several places between them: what being near
//! is worth, what a lost region costs, and whom nobody can send elsewhere.

mod common;
#[path = "common/delay.rs"]
mod delay;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_malachitebft_signing_ed25519::PrivateKey;
use common::*;
use delay::{Link, Wan};
use spinetail::base::id::{NodeId, SiteId};
use spinetail::client::{Client, Geo, GeoError, RegionOptions, Regions};
use spinetail::cluster::route::{Authorities, RegionMap, SignedMap};
use spinetail::cluster::{Genesis, Member, Site, SiteKind, State, Timing};

const REGIONS: usize = 4;
const KEYS: u32 = 200;

/// Milliseconds one way from each place to each region: four places beside a region, two between.
const WAYS_MS: [[u64; REGIONS]; 6] =
    [[4, 45, 80, 100], [45, 3, 110, 60], [80, 110, 5, 150], [100, 60, 150, 6], [12, 38, 85, 95], [70, 25, 120, 45]];

/// A lost region is left within this time.
const REROUTED_WITHIN: Duration = Duration::from_secs(3);

// --- The world -------------------------------------------------------------------------------

struct World {
    scratch: Scratch,
    genesis: Genesis,
    servers: Vec<Option<Server>>,
    wan: Wan,
}

/// A place where clients are: its links to every region.
struct Place {
    native: Vec<Link>,
    resp: Vec<Link>,
}

fn key(site: usize) -> PrivateKey {
    PrivateKey::from([site as u8 + 1; 32])
}

fn genesis() -> Genesis {
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let member = |number: usize| Member {
        id: NodeId(number as u16),
        site: SiteId(number as u8),
        name: format!("node-{number}"),
        address: format!("region-{number}.test:7800"),
        clients: Some(native_name(number)),
        resp: Some(resp_name(number)),
        key: hexadecimal(key(number).public_key().as_bytes()),
        certificate: String::new(),
        voter: true,
    };
    let site = |number: usize| Site {
        id: SiteId(number as u8),
        name: format!("region-{number}"),
        kind: SiteKind::Region,
        validator: NodeId(number as u16),
    };
    Genesis {
        name: "geo".into(),
        nonce: "1".into(),
        operator: String::new(),
        authority: String::new(),
        timing: Timing::default(),
        sites: (0..REGIONS).map(site).collect(),
        members: (0..REGIONS).map(member).collect(),
    }
}

fn native_name(region: usize) -> String {
    format!("region-{region}.test:7700")
}

fn resp_name(region: usize) -> String {
    format!("region-{region}.test:6379")
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// The map at a height, signed by these sites.
fn signed_map(genesis: &Genesis, height: u64, sites: &[usize]) -> Vec<u8> {
    let mut state = State::new(genesis);
    state.height = height;
    let map = RegionMap::of(&state, unix_ms() + 3_600_000);
    let keys: Vec<_> = sites.iter().map(|site| (SiteId(*site as u8), key(*site))).collect();
    SignedMap::new(&map, &keys).unwrap().encode().unwrap()
}

/// What every region has under a key; an answer that belongs to another key is seen.
fn value_of(key: &str) -> Vec<u8> {
    let sum =
        key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{key} {sum:016x} {}", "x".repeat((sum % 200) as usize)).into_bytes()
}

fn key_of(number: u32) -> String {
    format!("key:{}", number % KEYS)
}

impl World {
    fn new(name: &str) -> World {
        let scratch = Scratch::new(name);
        let genesis = genesis();
        fs::write(scratch.file("cluster.toml"), toml::to_string(&genesis).unwrap()).unwrap();
        fs::write(scratch.file("regions.map"), signed_map(&genesis, 7, &[1, 2])).unwrap();
        let mut world = World { scratch, genesis, servers: Vec::new(), wan: Wan::new() };
        for _ in 0..REGIONS {
            let server = world.start_region();
            world.servers.push(Some(server));
        }
        world
    }

    /// An appliance with all the keys.
    fn start_region(&self) -> Server {
        let server = Server::start(&["--resp", "127.0.0.1:0", "--region-map", &self.scratch.file("regions.map")]);
        let mut client = Client::connect(server.address).unwrap();
        for number in 0..KEYS {
            let key = key_of(number);
            client.set(key.as_bytes(), &value_of(&key), None).unwrap();
        }
        server
    }

    fn place(&self, ways_ms: &[u64; REGIONS]) -> Place {
        let servers: Vec<&Server> = self.servers.iter().flatten().collect();
        let one_way = |region: usize| Duration::from_millis(ways_ms[region]);
        let native = (0..REGIONS).map(|region| self.wan.link(servers[region].address, one_way(region)));
        let resp = (0..REGIONS).map(|region| self.wan.link(resp_address(servers[region]), one_way(region)));
        Place { native: native.collect(), resp: resp.collect() }
    }

    fn authorities(&self) -> Authorities {
        Authorities::of(&self.genesis).unwrap()
    }

    fn watch(&self, place: &Place) -> Arc<Regions> {
        let seeds: Vec<String> = (0..REGIONS).map(native_name).collect();
        Arc::new(Regions::watch(&seeds, self.authorities(), options(place)).expect("a region"))
    }

    fn kill(&mut self, region: usize) {
        self.servers[region] = None; // SIGKILL
    }

    /// A killed region comes back, at another address behind the same links.
    fn restart(&mut self, region: usize, places: &[Place]) {
        let server = self.start_region();
        for place in places {
            place.native[region].set_target(server.address);
            place.resp[region].set_target(resp_address(&server));
        }
        self.servers[region] = Some(server);
    }
}

fn options(place: &Place) -> RegionOptions {
    let native = place.native.iter().enumerate().map(|(region, link)| (native_name(region), link.address));
    let resp = place.resp.iter().enumerate().map(|(region, link)| (resp_name(region), link.address));
    RegionOptions { resolve: native.chain(resp).collect::<BTreeMap<_, _>>(), ..RegionOptions::default() }
}

fn resp_address(server: &Server) -> SocketAddr {
    server.ready.split_whitespace().find_map(|word| word.strip_prefix("resp=")).unwrap().parse().unwrap()
}

fn nearest(ways_ms: &[u64; REGIONS]) -> usize {
    (0..REGIONS).min_by_key(|region| ways_ms[*region]).unwrap()
}

fn median(values: &mut [Duration]) -> Duration {
    values.sort_unstable();
    values[values.len() / 2]
}

// --- Being near ------------------------------------------------------------------------------

#[test]
fn the_nearest_region_answers_and_the_median_is_far_below_that_of_the_best_single_region() {
    let world = World::new("geo-near");
    let places: Vec<Place> = WAYS_MS.iter().map(|ways_ms| world.place(ways_ms)).collect();
    // Everything is measured at the same time in all places, in interleaved rounds.
    let measured: Vec<(Vec<Duration>, Vec<Vec<Duration>>)> = thread::scope(|scope| {
        let running: Vec<_> = places
            .iter()
            .zip(&WAYS_MS)
            .map(|(place, ways_ms)| {
                let world = &world;
                scope.spawn(move || {
                    let mut geo = Geo::new(world.watch(place));
                    assert_eq!(geo.current(), Some(SiteId(nearest(ways_ms) as u8)));
                    let central = |region: usize| Client::connect(place.native[region].address).unwrap();
                    let mut centrals: Vec<Client> = (0..REGIONS).map(central).collect();
                    let (mut by_geo, mut by_central) = (Vec::new(), vec![Vec::new(); REGIONS]);
                    for number in 0..60 {
                        let key = key_of(number);
                        let asked = Instant::now();
                        let got = geo.get(key.as_bytes()).unwrap();
                        by_geo.push(asked.elapsed());
                        assert_eq!(got, Some(value_of(&key)));
                        for (client, by_central) in centrals.iter_mut().zip(&mut by_central) {
                            let asked = Instant::now();
                            let got = client.get(key.as_bytes()).unwrap();
                            by_central.push(asked.elapsed());
                            assert_eq!(got.unwrap().bytes, value_of(&key));
                        }
                    }
                    assert_eq!(geo.stats().switches, 1, "{}", geo.stats());
                    (by_geo, by_central)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut by_geo: Vec<Duration> = measured.iter().flat_map(|(by_geo, _)| by_geo.clone()).collect();
    let geo = median(&mut by_geo);
    let central = |region: usize| {
        let mut all: Vec<Duration> = measured.iter().flat_map(|(_, central)| central[region].clone()).collect();
        median(&mut all)
    };
    // The fairest comparison: with the region that serves all of them best.
    let (best, region) = (0..REGIONS).map(|region| (central(region), region)).min().unwrap();
    let saved = 1.0 - geo.as_secs_f64() / best.as_secs_f64();
    println!("median {geo:?} by the nearest region, {best:?} by region {region} alone: {:.0} % lower", saved * 100.0);
    for ((by_geo, by_central), ways_ms) in measured.into_iter().zip(&WAYS_MS) {
        let (mut by_geo, mut by_central) = (by_geo, by_central[region].clone());
        println!("  ways {ways_ms:?} ms: {:?} and {:?}", median(&mut by_geo), median(&mut by_central));
    }
    assert!(saved >= 0.4, "{geo:?} is only {:.0} % below {best:?}", saved * 100.0);
}

// --- Losing a region -------------------------------------------------------------------------

/// What a client saw while regions came and went.
struct Seen {
    /// When each answer came, and of which kind it was.
    answers: Vec<(Instant, bool)>,
    wrong: Vec<String>,
    missed: u64,
    unknown: u64,
    longest: Duration,
    current: Vec<(Instant, Option<SiteId>)>,
}

/// Reads, and writes the same values again now and then, until told to stop.
fn use_region(mut geo: Geo, stop: &AtomicBool) -> (Seen, Geo) {
    let mut seen = Seen {
        answers: Vec::new(),
        wrong: Vec::new(),
        missed: 0,
        unknown: 0,
        longest: Duration::ZERO,
        current: Vec::new(),
    };
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = key_of(number);
        let asked = Instant::now();
        let outcome = match number % 8 {
            7 => geo.set(key.as_bytes(), &value_of(&key), None).map(|()| Some(value_of(&key))),
            _ => geo.get(key.as_bytes()),
        };
        match outcome {
            Ok(Some(value)) if value == value_of(&key) => seen.answers.push((Instant::now(), true)),
            Ok(None) => seen.missed += 1,
            Err(GeoError::Unknown { .. }) if number % 8 == 7 => seen.unknown += 1,
            other => seen.wrong.push(format!("{key}: {other:?}")),
        }
        seen.longest = seen.longest.max(asked.elapsed());
        let current = geo.current();
        if seen.current.last().is_none_or(|(_, last)| *last != current) {
            seen.current.push((Instant::now(), current));
        }
        thread::sleep(Duration::from_millis(5));
    }
    (seen, geo)
}

fn wait_until(at_most: Duration, told: &str, holds: impl FnMut() -> bool) {
    assert!(eventually(at_most, holds), "{told}: not within {at_most:?}");
}

/// A region is lost while clients in every place use theirs, and comes back. `lose` and `find` say how.
fn lose_and_find(
    name: &str,
    lost: usize,
    lose: impl FnOnce(&mut World, &[Place]),
    find: impl FnOnce(&mut World, &[Place]),
) {
    let mut world = World::new(name);
    let places: Vec<Place> = WAYS_MS.iter().map(|ways_ms| world.place(ways_ms)).collect();
    let regions: Vec<Arc<Regions>> = places.iter().map(|place| world.watch(place)).collect();
    let stop = AtomicBool::new(false);
    let is_at = |place: usize, region: usize| regions[place].view().order.first() == Some(&SiteId(region as u8));
    let affected: Vec<usize> = (0..WAYS_MS.len()).filter(|place| nearest(&WAYS_MS[*place]) == lost).collect();
    assert!(affected.len() >= 2, "the region has clients");
    let (lost_at, found_at, seen) = thread::scope(|scope| {
        let using: Vec<_> = regions
            .iter()
            .map(|regions| {
                let (geo, stop) = (Geo::new(regions.clone()), &stop);
                scope.spawn(move || use_region(geo, stop))
            })
            .collect();
        thread::sleep(Duration::from_secs(2));
        (0..WAYS_MS.len()).for_each(|place| assert!(is_at(place, nearest(&WAYS_MS[place])), "place {place}"));
        let lost_at = Instant::now();
        lose(&mut world, &places);
        thread::sleep(Duration::from_secs(5));
        affected.iter().for_each(|&place| assert!(!is_at(place, lost), "place {place} still asks the lost region"));
        find(&mut world, &places);
        let found_at = Instant::now();
        wait_until(Duration::from_secs(30), "they return", || affected.iter().all(|&place| is_at(place, lost)));
        println!("{name}: all have returned {:?} after the region did", found_at.elapsed());
        // Whoever flapped would do it now.
        thread::sleep(Duration::from_secs(8));
        stop.store(true, Ordering::Relaxed);
        (lost_at, found_at, using.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
    });
    for (place, (seen, geo)) in seen.iter().enumerate() {
        let stats = geo.stats();
        assert!(seen.wrong.is_empty(), "place {place}: {:?}", seen.wrong);
        assert_eq!(seen.missed, 0, "place {place}: a key was not there");
        let is_affected = affected.contains(&place);
        assert_eq!(stats.switches, if is_affected { 3 } else { 1 }, "place {place}: {:?}\n{stats}", seen.current);
        if is_affected {
            // The first answer that was asked for after the loss: of another region.
            let rerouted = seen.answers.iter().find(|(at, _)| *at > lost_at + Duration::from_millis(250));
            let moved = seen.current.iter().find(|(at, site)| *at > lost_at && *site != Some(SiteId(lost as u8)));
            let moved = moved.map(|(at, _)| *at).unwrap();
            let gap = longest_gap(seen, lost_at, found_at);
            println!(
                "{name}: place {place} rerouted after {:?}, longest time without an answer {gap:?}, {} writes unknown, {} reads repeated",
                moved - lost_at,
                seen.unknown,
                stats.repeated
            );
            assert!(rerouted.is_some() && moved - lost_at <= REROUTED_WITHIN && gap <= REROUTED_WITHIN);
            assert!(seen.unknown <= 1 && stats.repeated <= 1, "one thread has one request under way");
        } else {
            assert!(seen.unknown == 0 && stats.repeated == 0 && stats.broken == 0, "place {place}\n{stats}");
        }
    }
}

/// The longest time without an answer.
fn longest_gap(seen: &Seen, from: Instant, to: Instant) -> Duration {
    let within = seen.answers.iter().map(|(at, _)| *at).filter(|at| (from..=to).contains(at));
    let mut before = from;
    let mut longest = Duration::ZERO;
    for at in within.chain([to]) {
        longest = longest.max(at - before);
        before = at;
    }
    longest
}

#[test]
fn a_killed_region_is_left_within_three_seconds_and_returned_to_once() {
    let kill = |world: &mut World, _: &[Place]| world.kill(0);
    let restart = |world: &mut World, places: &[Place]| world.restart(0, places);
    lose_and_find("geo-kill", 0, kill, restart);
}

#[test]
fn a_region_behind_a_cut_link_is_left_within_three_seconds_and_returned_to_once() {
    let set_cut = |places: &[Place], is_cut| places.iter().for_each(|place| place.native[1].set_cut(is_cut));
    let cut = |_: &mut World, places: &[Place]| set_cut(places, true);
    let heal = |_: &mut World, places: &[Place]| set_cut(places, false);
    lose_and_find("geo-cut", 1, cut, heal);
}

#[test]
fn a_request_to_a_server_that_has_gone_is_never_repeated_if_it_writes() {
    let mut world = World::new("geo-write");
    let place = world.place(&[1, 20, 25, 30]);
    let mut geo = Geo::new(world.watch(&place));
    assert_eq!(geo.increment(b"count", 1, Some(1)).unwrap(), Some(1));
    // What is on its way when the link is cut may have arrived: a read is made elsewhere, a write is not.
    place.native[0].set_cut(true);
    let asked = Instant::now();
    assert_eq!(geo.increment(b"count", 1, Some(1)), Err(GeoError::Unknown { site: SiteId(0) }));
    assert!(asked.elapsed() <= REROUTED_WITHIN, "{:?}", asked.elapsed());
    assert_eq!(geo.increment(b"count", 1, Some(1)).unwrap(), Some(1), "the next region has its own count");
    place.native[0].set_cut(false);
    let arrived = eventually(PATIENCE, || {
        let mut wire = world.servers[0].as_ref().unwrap().connect();
        wire.ask(GET, b"count", b"").value == b"2"
    });
    assert!(arrived, "it had been sent, once");
    // A connection that is known to have ended takes nothing: the write goes elsewhere and is no riddle.
    let mut geo = Geo::new(world.watch(&place));
    wait_until(PATIENCE, "region 0 is the nearest", || {
        geo.get(b"count").unwrap();
        geo.current() == Some(SiteId(0))
    });
    world.kill(0);
    thread::sleep(Duration::from_millis(100));
    geo.set(b"k", b"v", None).unwrap();
    assert_eq!((geo.stats().unknown, geo.current() == Some(SiteId(0))), (0, false));
    // Nobody left: said, within the time a request has.
    (1..REGIONS).for_each(|region| world.kill(region));
    geo.set_request_timeout(Duration::from_secs(4));
    let refused = geo.get(b"k");
    assert!(matches!(refused, Err(GeoError::NoRegion | GeoError::Unanswered { .. })), "{refused:?}");
}

// --- Whom to believe -------------------------------------------------------------------------

#[test]
fn the_map_is_passed_on_as_it_is_and_replaced_by_a_signal() {
    let world = World::new("geo-map");
    let file = world.scratch.file("regions.map");
    let server = world.servers[0].as_ref().unwrap();
    let mut wire = server.connect();
    let hello = wire.ask(HELLO, b"", b"");
    assert_eq!(hello.value[12..16], [1, 0, 0, 0], "the feature is announced");
    const MAP: u8 = 0x06;
    assert_eq!(wire.ask(MAP, b"", b"").value, fs::read(&file).unwrap());
    // A client goes on with what it has seen, whatever older map it is shown; and takes the newer one.
    let place = world.place(&[1, 2, 3, 4]);
    let options = RegionOptions { refresh: Duration::from_millis(200), ..options(&place) };
    let regions = Regions::watch(&[native_name(0)], world.authorities(), options).unwrap();
    let show = |bytes: Vec<u8>| {
        fs::write(&file, &bytes).unwrap();
        world.servers.iter().flatten().for_each(|server| signal(server.pid(), "HUP"));
        for server in world.servers.iter().flatten() {
            wait_until(PATIENCE, "the map is passed on", || server.connect().ask(MAP, b"", b"").value == bytes);
        }
    };
    show(signed_map(&world.genesis, 6, &[0, 1]));
    wait_until(PATIENCE, "it is refused", || regions.map_failure().is_some_and(|text| text.contains("older than one")));
    assert_eq!(regions.view().map.height, 7);
    show(signed_map(&world.genesis, 9, &[3]));
    wait_until(PATIENCE, "it is refused", || regions.map_failure().is_some_and(|text| text.contains("2 are needed")));
    show(signed_map(&world.genesis, 8, &[0, 3]));
    wait_until(PATIENCE, "it is taken", || regions.view().map.height == 8);
    assert_eq!(regions.switches(), 1, "and changes nothing else");
    // What is no map is refused, and everything stays.
    fs::write(&file, b"no map").unwrap();
    signal(server.pid(), "HUP");
    wait_until(PATIENCE, "said", || {
        server.stderr().contains("--region-map") && server.stderr().contains("not reloaded")
    });
    assert!(server.connect().ask(MAP, b"", b"").value.starts_with(b"SPRM"));
    let refused = Server::try_start(&["--region-map", &file]).err().expect("a refusal");
    refused.assert_refused(78, &["--region-map", "is no region map"]);
}

#[test]
fn one_lying_appliance_sends_nobody_elsewhere() {
    let world = World::new("geo-lie");
    // The liar signs a map of its own, in which every region is itself; and shows it to whoever asks.
    let mut lie = world.genesis.clone();
    lie.members.iter_mut().for_each(|member| member.clients = Some("evil.test:7700".into()));
    let mut state = State::new(&lie);
    (state.network, state.height) = (world.genesis.network(), 99);
    let map = RegionMap::of(&state, unix_ms() + 3_600_000).encode().unwrap();
    let signatures = (0..4).map(|site| (SiteId(site), SignedMap::sign(&map, &key(3)))).collect();
    let file = world.scratch.file("lie.map");
    fs::write(&file, SignedMap { map, signatures }.encode().unwrap()).unwrap();
    let liar = Server::start(&["--region-map", &file]);
    let place = world.place(&[1, 2, 3, 4]);
    let seeds = [liar.address.to_string(), native_name(2)];
    let alone = Regions::watch(&seeds[..1], world.authorities(), options(&place)).err().expect("a refusal");
    assert!(alone.to_string().contains("1 of the known validators have signed"), "{alone}");
    let regions = Regions::watch(&seeds, world.authorities(), options(&place)).unwrap();
    assert_eq!((regions.view().map.height, regions.view().order.first()), (7, Some(&SiteId(0))));
    // A server without a map says so, and what to do.
    let plain = Server::start(&[]);
    let refused = Regions::watch(&[plain.address.to_string()], world.authorities(), options(&place)).err();
    assert!(refused.is_some_and(|error| error.to_string().contains("--region-map")));
    // The same by the command line.
    let authorities = world.scratch.file("cluster.toml");
    let seed = world.servers[1].as_ref().unwrap().address.to_string();
    let mut arguments = vec!["cluster", "map", "--json", "--seeds", &seed, "--authorities", &authorities];
    let resolve: Vec<String> = place
        .native
        .iter()
        .enumerate()
        .map(|(region, link)| format!("{}={}", native_name(region), link.address))
        .collect();
    resolve.iter().for_each(|resolve| arguments.extend(["--resolve", resolve]));
    let shown = spinetail(&arguments);
    assert_eq!(shown.status, Some(0), "{shown:?}");
    let json: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&json["height"], &json["links"][0]["is_current"]), (&7.into(), &true.into()), "{json}");
    arguments[4] = &seeds[0];
    spinetail(&arguments).assert_refused(1, &["2 are needed"]);
}

// --- Programs that know nothing of regions ---------------------------------------------------

/// `spinetail cluster gateway`; killed when dropped.
struct GatewayProcess {
    child: Child,
    resp: SocketAddr,
    native: SocketAddr,
}

impl GatewayProcess {
    fn start(world: &World, place: &Place) -> GatewayProcess {
        let mut command = Command::new(SPINETAIL);
        let seeds: Vec<String> = (0..REGIONS).map(native_name).collect();
        command.args(["cluster", "gateway", "--resp", "127.0.0.1:0", "--native", "127.0.0.1:0", "--rehome-idle", "1s"]);
        command.args(["--authorities", &world.scratch.file("cluster.toml"), "--seeds", &seeds.join(",")]);
        for (name, address) in options(place).resolve {
            command.arg("--resolve").arg(format!("{name}={address}"));
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut ready).unwrap();
        let at = |name: &str| {
            let word = ready.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {name} in '{ready}'"))
        };
        GatewayProcess { resp: at("resp="), native: at("native="), child }
    }
}

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks for ten keys in one go and reads ten answers, which must be theirs, in order.
fn ask_for_ten(stream: &mut TcpStream, from: u32) -> std::io::Result<()> {
    let keys: Vec<String> = (from..from + 10).map(key_of).collect();
    let request: String = keys.iter().map(|key| format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len())).collect();
    stream.write_all(request.as_bytes())?;
    for key in &keys {
        let value = value_of(key);
        let expected = [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
        let mut got = vec![0; expected.len()];
        stream.read_exact(&mut got)?;
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&expected), "an answer to another question");
    }
    Ok(())
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// For how long a RESP client has no answer, at worst, while it connects again whenever its connection ends.
fn use_gateway(to: SocketAddr, stop: &AtomicBool) -> (Duration, u32, u32) {
    let (mut stream, mut answered_at, mut longest) = (None, Instant::now(), Duration::ZERO);
    let (mut answered, mut ended) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let outcome = match &mut stream {
            None => connect(to).map(|connected| stream = Some(connected)),
            Some(stream) => ask_for_ten(stream, answered).map(|()| {
                longest = longest.max(answered_at.elapsed());
                (answered_at, answered) = (Instant::now(), answered + 10);
            }),
        };
        if outcome.is_err() {
            (stream, ended) = (None, ended + 1);
            thread::sleep(Duration::from_millis(20));
        }
    }
    (longest.max(answered_at.elapsed()), answered, ended)
}

#[test]
fn programs_behind_a_gateway_are_moved_and_never_get_an_answer_to_another_question() {
    let mut world = World::new("geo-gateway");
    let places = [world.place(&[4, 15, 40, 50])];
    let gateway = GatewayProcess::start(&world, &places[0]);
    let opened = |world: &World, region: usize| world.servers[region].as_ref().unwrap().counter("connections_opened");
    // A native client goes through it as well, to every shard.
    let mut client = Client::connect(gateway.native).unwrap();
    assert_eq!(client.get(b"key:1").unwrap().unwrap().bytes, value_of("key:1"));
    let (at_first, at_next) = (opened(&world, 0), opened(&world, 1));
    let stop = AtomicBool::new(false);
    let outcomes = thread::scope(|scope| {
        let using: Vec<_> = (0..4).map(|_| scope.spawn(|| use_gateway(gateway.resp, &stop))).collect();
        thread::sleep(Duration::from_secs(2));
        assert!(opened(&world, 0) >= at_first + 4, "they are at the nearest region");
        world.kill(0);
        thread::sleep(Duration::from_secs(4));
        assert!(opened(&world, 1) >= at_next + 4, "they are at the next");
        world.restart(0, &places);
        thread::sleep(Duration::from_secs(1));
        // A cut link ends nothing by itself: the gateway has to.
        places[0].native[1].set_cut(true);
        places[0].resp[1].set_cut(true);
        thread::sleep(Duration::from_secs(4));
        stop.store(true, Ordering::Relaxed);
        using.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for (longest, answered, ended) in outcomes {
        println!("gateway: {answered} answers, {ended} times cut off, longest time without an answer {longest:?}");
        assert!(longest <= REROUTED_WITHIN + Duration::from_millis(200) && answered > 1_000 && ended >= 2);
    }
}

#[test]
fn a_connection_that_is_idle_far_away_is_closed_so_that_its_program_comes_home() {
    let mut world = World::new("geo-rehome");
    let places = [world.place(&[2, 10, 40, 50])];
    world.kill(0);
    let gateway = GatewayProcess::start(&world, &places[0]);
    let mut far = connect(gateway.resp).unwrap();
    ask_for_ten(&mut far, 0).unwrap();
    world.restart(0, &places);
    // It falls silent, region 0 becomes the nearest, and the connection is ended between two requests.
    let mut byte = [0; 1];
    assert_eq!(far.read(&mut byte).unwrap_or(0), 0, "nothing but its end is heard");
    let region = world.servers[0].as_ref().unwrap();
    let before = region.counter("get_hits");
    let mut near = connect(gateway.resp).unwrap();
    ask_for_ten(&mut near, 0).unwrap();
    assert_eq!(region.counter("get_hits"), before + 10, "the new one is at home");
    thread::sleep(Duration::from_millis(1_500));
    ask_for_ten(&mut near, 10).expect("one at home may be idle for as long as it likes");
}
