use super::*;
use crate::serve::log;

fn ground() -> Ground {
    let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/host/vm-2core");
    let process = crate::host::process::Limits {
        memlock_bytes: Some(8 << 20),
        nofile: 1024,
        allowed_cores: vec![0, 1],
        io_uring: Ok(()),
    };
    let machine = crate::host::topology::Topology::detect(Path::new(tree)).unwrap();
    Ground { machine, process, ring_refusal: None }
}

fn refusal(text: &str) -> String {
    let wrong = parse(text).unwrap_err();
    format!("{}: {}", wrong.line.unwrap_or(0), wrong.reason)
}

const EVERYTHING: &str = r#"
profile = "auto"
listen = "127.0.0.1:1"
resp = "127.0.0.1:2"
memcached = "127.0.0.1:3"
shm = "/run/s.shm"
cluster = "/var/lib/spinetail/node-1"
shards = 2
cores = "0-1"
memory = "64MiB"
poll = "adaptive"
io = "epoll"
[l0]
socket = "/run/s.l0"
memory = "8MiB"
[[l0.tenant]]
name = "ads"
prefix = "ads:"
users = [1001, 0x3ea]
memory = "2MiB"
[[l0.tenant]]
name = "rest"
users = [0]
[admin]
listen = "127.0.0.1:4"
show_keys = true
[log]
format = "json"
level = "debug"
"#;

#[test]
fn every_key_is_read() {
    let options = parse(EVERYTHING).unwrap().options;
    let expected = Options {
        profile: Some("auto".into()),
        listen: Some("127.0.0.1:1".parse().unwrap()),
        resp: Some("127.0.0.1:2".parse().unwrap()),
        memcached: Some("127.0.0.1:3".parse().unwrap()),
        shm: Some("/run/s.shm".into()),
        cluster: Some("/var/lib/spinetail/node-1".into()),
        region_map: None,
        l0_socket: Some("/run/s.l0".into()),
        l0_tenants: vec![
            Tenant { name: "ads".into(), prefix: "ads:".into(), users: vec![1001, 1002], memory: Some(2 << 20) },
            Tenant { name: "rest".into(), prefix: String::new(), users: vec![0], memory: None },
        ],
        l0_memory: Some(8 << 20),
        shards: Some(2),
        cores: Some(vec![0, 1]),
        memory: Some(64 << 20),
        poll: Some(PollMode::Adaptive),
        io: Some(profile::Io::Epoll),
        admin: Some("127.0.0.1:4".parse().unwrap()),
        admin_token_file: None,
        admin_show_keys: true,
        log_format: Some(log::Format::Json),
        log_level: Some(log::Level::Debug),
    };
    assert_eq!(options, expected);
    assert_eq!(parse("").unwrap().options, Options::default());
    // All that a file gave, a flag may give: each key says so of these options. Two are left out, for they are read.
    for key in &KEYS {
        assert_eq!(
            (key.given)(&options),
            !["admin.token_file", "region_map"].contains(&key.path().as_str()),
            "{}",
            key.path()
        );
        assert!(!(key.given)(&Options::default()), "{}", key.path());
    }
}

#[test]
fn flags_win_over_the_file_one_by_one() {
    let file = parse(EVERYTHING).unwrap().options;
    assert_eq!(over(Options::default(), file.clone()), file);
    assert_eq!(over(file.clone(), Options::default()), file);
    let flags = Options {
        memory: Some(16 << 20),
        l0_tenants: vec![Tenant::default_one()],
        profile: Some("x.toml".into()),
        ..Options::default()
    };
    let merged = over(flags.clone(), file.clone());
    assert_eq!((merged.memory, &merged.profile, &merged.l0_tenants), (flags.memory, &flags.profile, &flags.l0_tenants));
    assert_eq!((merged.listen, merged.shards, merged.log_format), (file.listen, file.shards, file.log_format));
}

#[test]
fn what_is_printed_settles_the_same_again() {
    for text in ["", EVERYTHING, "[admin]\nlisten = \"[::1]:9\"\n", "shm = \"/a \\\"b\\\"\\n\\\\c\"\n"] {
        let first = settle(&parse(text).unwrap().options, &ground()).unwrap();
        let printed = print(&first);
        let again =
            settle(&parse(&printed).unwrap_or_else(|wrong| panic!("{wrong:?} in {printed}")).options, &ground());
        assert_eq!(print(&again.unwrap()), printed);
    }
    assert!(print(&settle(&parse(EVERYTHING).unwrap().options, &ground()).unwrap()).contains("users = [1001, 1002]"));
}

#[test]
fn a_value_that_is_not_allowed_is_refused_with_line_and_key() {
    for (text, says) in [
        ("\nlisten = \"nowhere\"", "2: listen: \"nowhere\" is not allowed: give the address"),
        ("listen = 7700", "1: listen: 7700 is not allowed"),
        ("shards = -1", "1: shards: -1 is not allowed: give a number"),
        ("shards = 65536", "shards: 65536"),
        ("shards = 1.5", "shards: 1.5"),
        ("cores = \"3-1\"", "cores: \"3-1\" is not allowed: give cores"),
        ("cores = \"\"", "cores: \"\""),
        ("cores = [0]", "cores: a list"),
        ("memory = \"64MB\"", "memory: \"64MB\" is not allowed: give memory"),
        ("memory = 1979-05-27", "memory: a date"),
        ("poll = \"never\"", "\"spin\", \"adaptive\" or \"park\""),
        ("io = \"uring\"", "\"io_uring\""),
        ("shm = \"\"", "shm: \"\""),
        ("[admin]\n\nshow_keys = \"yes\"", "3: admin.show_keys: \"yes\" is not allowed: give true or false"),
        ("[log]\nlevel = \"loud\"", "2: log.level: \"loud\""),
        ("[log]\nformat = \"xml\"", "\"logfmt\" or \"json\""),
        ("log = \"json\"", "1: log: is a table, not a key: write [log]"),
        ("[listen]", "1: listen: a table is not allowed"),
        ("[l0]\ntenant = \"ads\"", "2: l0.tenant: \"ads\" is not allowed: give tables"),
        ("[l0]\ntenant = [1]", "l0.tenant: 1 is not allowed"),
        ("[[l0.tenant]]\nname = \"a=b\"", "2: l0.tenant.name: \"a=b\""),
        ("[[l0.tenant]]\nname = \"a\"\nusers = []", "3: l0.tenant.users: a list"),
        ("[[l0.tenant]]\nname = \"a\"\nusers = [\"root\"]", "l0.tenant.users"),
        ("[[l0.tenant]]\nname = \"a\"", "1: l0.tenant.users: is missing"),
        ("[[l0.tenant]]\nusers = [1]", "1: l0.tenant.name: is missing"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(says), "{text}: {refusal}");
    }
    let long = refusal(&format!("listen = \"{}\"", "x".repeat(10_000)));
    assert!(long.len() < 300, "{long}");
}

#[test]
fn an_unknown_key_is_told_its_neighbour_its_home_or_the_list() {
    for (text, says) in [
        ("\n\nlisen = \"x\"", "3: lisen: no such key; did you mean listen?"),
        ("[admn]", "1: admn: no such key; did you mean admin?"),
        ("[admin]\nlissen = 1", "2: admin.lissen: no such key; did you mean admin.listen?"),
        ("admin_token_file = \"x\"", "did you mean admin.token_file, under [admin]?"),
        ("l0_memory = \"x\"", "did you mean l0.memory, under [l0]?"),
        ("l0-memory = \"x\"", "did you mean l0.memory, under [l0]?"),
        ("[log]\nresp = 1", "did you mean resp, above all tables?"),
        ("token_file = 1", "did you mean admin.token_file"),
        ("zebra = 1", "there are profile, listen"),
        ("[log]\nzebra = 1", "2: log.zebra: no such key; [log] has format, level"),
        ("[[l0.tenant]]\nusrs = [1]", "2: l0.tenant.usrs: no such key; did you mean l0.tenant.users?"),
        ("[[l0.tenant]]\nzebra = [1]", "[[l0.tenant]] has name, prefix, users, memory"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(says), "{text}: {refusal}");
    }
}

#[test]
fn broken_syntax_has_its_line() {
    assert!(refusal("listen = \"a\"\nlisten = \"b\"\n").starts_with("2: "));
    assert!(refusal("[admin\n").starts_with("1: "));
}

#[test]
fn what_settling_refuses_is_traced_to_the_line_that_set_it() {
    let source = |flags: Options| Source { flags, file: None, ground: ground() };
    let path = Path::new("c.toml");
    let blamed = |text: &str, flags: Options| {
        let found = parse(text).unwrap();
        let failure = settle(&over(flags.clone(), found.options.clone()), &ground()).unwrap_err();
        source(flags).blame(failure, path, &found).reason
    };
    let none = Options::default;
    assert!(blamed("\nmemory = \"1MiB\"", none()).starts_with("c.toml:2: memory: "));
    assert!(blamed("[admin]\nlisten = \"0.0.0.0:1\"", none()).starts_with("c.toml:2: admin.listen: --admin 0.0.0.0:1"));
    assert!(blamed("cores = \"7\"", none()).starts_with("c.toml:1: cores: core 7"));
    assert!(blamed("shards = 7", none()).starts_with("c.toml:1: shards: "));
    assert!(blamed("[l0]\nmemory = \"1MiB\"", none()).starts_with("c.toml:2: l0.memory: "));
    // What a flag set is not the file's fault.
    let flags = Options { memory: Some(1 << 20), ..none() };
    assert!(blamed("memory = \"64MiB\"", flags).starts_with("--memory "));
}

#[test]
fn the_page_about_operations_has_every_key() {
    let page = include_str!("../../docs/operations.md");
    for key in &KEYS {
        let row = format!("| `{}` | `{}` |", key.path(), key.flag);
        let line = page.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("no row {row}"));
        let reload = if key.reloadable { "| yes |" } else { "| no |" };
        assert!(line.ends_with(reload), "{line}");
    }
    for key in &TENANT_KEYS {
        assert!(page.contains(&format!("| `l0.tenant.{}` |", key.name)), "l0.tenant.{}", key.name);
    }
}
