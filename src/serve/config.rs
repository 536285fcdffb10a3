//! The configuration file: the list of its keys with what each allows, the reader that refuses anything else, the
//! writer that prints what was settled, and the merging of flags over file.
//!
//!   flags ─┐
//!   file  ─┴→ Options ── settle (over the profile, over the machine) ──→ Settled
//!
//! Every flag of `serve` is a key. The reader walks the document itself rather than have serde do it: a refusal
//! names file, line and key and says what is allowed there, in the same words for every key, and what is refused
//! further on for a flag's sake (`--memory` is more than the machine has) is traced back to the line that set it.
//!
//! [`KEYS`] is the one list: what is read, printed, compared at a reload and documented in `docs/operations.md` (a
//! test compares) comes from there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::OpenOptions;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::base::limits;
use crate::base::units::{exact_bytes, format_bytes, parse_bytes};
use crate::engine::{Io, PollMode};
use crate::host::profile;
use crate::host::profile_file::closest;
use crate::host::topology::parse_cpu_list;
use crate::serve::l0::Tenant;
use crate::serve::settle::{AUTO_PROFILE, Failure, Ground, Options, Settled, settle};

/// Where a configuration comes from: flags, maybe a file, and the ground to settle on.
pub struct Source {
    flags: Options,
    file: Option<PathBuf>,
    ground: Ground,
}

impl Source {
    /// Of this machine.
    pub fn new(flags: Options, file: Option<PathBuf>) -> Result<Source, Failure> {
        Ok(Source { flags, file, ground: Ground::read()? })
    }

    /// Reads the file, puts the flags over it and settles.
    pub fn settle(&self) -> Result<Settled, Failure> {
        let Some(path) = &self.file else {
            return settle(&self.flags, &self.ground);
        };
        let found = read(path)?;
        let options = over(self.flags.clone(), found.options.clone());
        settle(&options, &self.ground).map_err(|failure| self.blame(failure, path, &found))
    }

    /// Says which line of the file set what `failure` complains of, if one did.
    fn blame(&self, failure: Failure, path: &Path, found: &Found) -> Failure {
        let words: Vec<&str> = failure.reason.split([' ', ':', ',']).collect();
        let guilty = KEYS.iter().filter(|key| !(key.given)(&self.flags) && words.contains(&key.flag)).find_map(|key| {
            let name = key.path();
            Some((*found.lines.get(&name)?, name))
        });
        match guilty {
            None => failure,
            Some((line, key)) => {
                Failure { reason: format!("{}:{line}: {key}: {}", path.display(), failure.reason), ..failure }
            }
        }
    }
}

/// Flags over a file: where a flag says nothing, the file does. Tenants are one thing: those of the flags, or those
/// of the file.
pub fn over(flags: Options, file: Options) -> Options {
    Options {
        profile: flags.profile.or(file.profile),
        listen: flags.listen.or(file.listen),
        resp: flags.resp.or(file.resp),
        memcached: flags.memcached.or(file.memcached),
        shm: flags.shm.or(file.shm),
        region_map: flags.region_map.or(file.region_map),
        cluster: flags.cluster.or(file.cluster),
        l0_socket: flags.l0_socket.or(file.l0_socket),
        l0_tenants: if flags.l0_tenants.is_empty() { file.l0_tenants } else { flags.l0_tenants },
        l0_memory: flags.l0_memory.or(file.l0_memory),
        shards: flags.shards.or(file.shards),
        cores: flags.cores.or(file.cores),
        memory: flags.memory.or(file.memory),
        poll: flags.poll.or(file.poll),
        io: flags.io.or(file.io),
        admin: flags.admin.or(file.admin),
        admin_token_file: flags.admin_token_file.or(file.admin_token_file),
        admin_show_keys: flags.admin_show_keys || file.admin_show_keys,
        log_format: flags.log_format.or(file.log_format),
        log_level: flags.log_level.or(file.log_level),
    }
}

/// What a file says, and the line of each key that it has.
#[derive(Debug, Default)]
struct Found {
    options: Options,
    lines: BTreeMap<String, usize>,
}

/// One key of the file.
pub struct Key {
    /// Its table; empty for the document itself.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// The flag that says the same.
    pub flag: &'static str,
    /// What may stand there, after the word "give".
    pub allowed: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// Whether SIGHUP changes it in a running server.
    pub reloadable: bool,
    /// Takes the value over. False: it is not one that is allowed.
    read: fn(&DeValue<'_>, &mut Options) -> bool,
    /// Whether flags say it.
    given: fn(&Options) -> bool,
    /// As the file would have it; `None` leaves the key out.
    show: fn(&Settled) -> Option<String>,
}

impl Key {
    /// As complaints name it: `admin.listen`.
    pub fn path(&self) -> String {
        if self.section.is_empty() { self.name.to_string() } else { format!("{}.{}", self.section, self.name) }
    }

    /// What was settled, as the file would have it; `None` leaves the key out.
    pub fn value(&self, settled: &Settled) -> Option<String> {
        (self.show)(settled)
    }
}

/// Every key of the file, tenants' own aside.
pub const KEYS: [Key; 20] = [
    Key {
        section: "",
        name: "profile",
        flag: "--profile",
        allowed: "\"auto\" or the path of a hardware profile",
        default: "\"auto\": one for the machine it runs on",
        reloadable: false,
        read: |value, options| path(value).map(|path| options.profile = Some(path)).is_some(),
        given: |options| options.profile.is_some(),
        show: |settled| Some(settled.profile_file.as_deref().map_or_else(|| quoted(AUTO_PROFILE), quoted_path)),
    },
    Key {
        section: "",
        name: "listen",
        flag: "--listen",
        allowed: "the address of the native listener, like \"127.0.0.1:7700\"; port 0 takes any",
        default: "\"127.0.0.1:7700\"",
        reloadable: false,
        read: |value, options| address(value).map(|address| options.listen = Some(address)).is_some(),
        given: |options| options.listen.is_some(),
        show: |settled| Some(quoted(&settled.listen.to_string())),
    },
    Key {
        section: "",
        name: "resp",
        flag: "--resp",
        allowed: "the address of a RESP listener, like \"127.0.0.1:6379\"",
        default: "none",
        reloadable: false,
        read: |value, options| address(value).map(|address| options.resp = Some(address)).is_some(),
        given: |options| options.resp.is_some(),
        show: |settled| settled.resp.map(|address| quoted(&address.to_string())),
    },
    Key {
        section: "",
        name: "memcached",
        flag: "--memcached",
        allowed: "the address of a memcached listener, like \"127.0.0.1:11211\"",
        default: "none",
        reloadable: false,
        read: |value, options| address(value).map(|address| options.memcached = Some(address)).is_some(),
        given: |options| options.memcached.is_some(),
        show: |settled| settled.memcached.map(|address| quoted(&address.to_string())),
    },
    Key {
        section: "",
        name: "shm",
        flag: "--shm",
        allowed: "the path of a socket that gives out connections through shared memory",
        default: "none",
        reloadable: false,
        read: |value, options| path(value).map(|path| options.shm = Some(path)).is_some(),
        given: |options| options.shm.is_some(),
        show: |settled| settled.shm.as_deref().map(quoted_path),
    },
    Key {
        section: "",
        name: "region_map",
        flag: "--region-map",
        allowed: "the path of a file with a signed map of regions",
        default: "none",
        reloadable: true,
        read: |value, options| path(value).map(|path| options.region_map = Some(path)).is_some(),
        given: |options| options.region_map.is_some(),
        show: |settled| settled.region_map_file.as_deref().map(quoted_path),
    },
    Key {
        section: "",
        name: "cluster",
        flag: "--cluster",
        allowed: "the folder of a cluster's node, made by 'spinetail cluster init' or 'join'",
        default: "none: it stands alone",
        reloadable: false,
        read: |value, options| path(value).map(|path| options.cluster = Some(path)).is_some(),
        given: |options| options.cluster.is_some(),
        show: |settled| settled.cluster.as_deref().map(quoted_path),
    },
    Key {
        section: "",
        name: "shards",
        flag: "--shards",
        allowed: "a number of shards from 1 to 256",
        default: "as many as the profile has data cores",
        reloadable: false,
        read: |value, options| {
            let shards = number(value).and_then(|number| u16::try_from(number).ok());
            shards.map(|shards| options.shards = Some(shards)).is_some()
        },
        given: |options| options.shards.is_some(),
        show: |settled| Some(settled.cores.len().to_string()),
    },
    Key {
        section: "",
        name: "cores",
        flag: "--cores",
        allowed: "cores to run shards on, like \"0,2-5\"",
        default: "the profile's data cores",
        reloadable: false,
        read: |value, options| {
            let cores = value.as_str().and_then(|text| parse_cpu_list(text).ok()).filter(|cores| !cores.is_empty());
            cores.map(|cores| options.cores = Some(cores)).is_some()
        },
        given: |options| options.cores.is_some(),
        show: |settled| Some(quoted(&core_list(&settled.cores))),
    },
    Key {
        section: "",
        name: "memory",
        flag: "--memory",
        allowed: "memory of the whole process, like \"16MiB\" or \"4GiB\"",
        default: "the profile's",
        reloadable: false,
        read: |value, options| size(value).map(|bytes| options.memory = Some(bytes)).is_some(),
        given: |options| options.memory.is_some(),
        show: |settled| Some(quoted(&exact_bytes(settled.memory_bytes))),
    },
    Key {
        section: "",
        name: "poll",
        flag: "--poll",
        allowed: "\"spin\", \"adaptive\" or \"park\"",
        default: "the profile's",
        reloadable: false,
        read: |value, options| {
            let modes = [PollMode::Spin, PollMode::Adaptive, PollMode::Park];
            let poll = modes.into_iter().find(|mode| value.as_str() == Some(mode.name()));
            poll.map(|poll| options.poll = Some(poll)).is_some()
        },
        given: |options| options.poll.is_some(),
        show: |settled| Some(quoted(settled.poll.name())),
    },
    Key {
        section: "",
        name: "io",
        flag: "--io",
        allowed: "\"auto\", \"io_uring\" or \"epoll\"",
        default: "the profile's",
        reloadable: false,
        read: |value, options| {
            options.io = match value.as_str() {
                Some("auto") => Some(profile::Io::Auto),
                Some("io_uring") => Some(profile::Io::IoUring),
                Some("epoll") => Some(profile::Io::Epoll),
                _ => return false,
            };
            true
        },
        given: |options| options.io.is_some(),
        show: |settled| Some(quoted(if settled.io == Io::Ring { "io_uring" } else { "epoll" })),
    },
    Key {
        section: "l0",
        name: "socket",
        flag: "--l0-socket",
        allowed: "the path of a socket that gives out tables to read in shared memory",
        default: "none: no L0",
        reloadable: false,
        read: |value, options| path(value).map(|path| options.l0_socket = Some(path)).is_some(),
        given: |options| options.l0_socket.is_some(),
        show: |settled| settled.l0.as_ref().map(|l0| quoted_path(&l0.path)),
    },
    Key {
        section: "l0",
        name: "memory",
        flag: "--l0-memory",
        allowed: "memory for L0 of the whole, like \"64MiB\"",
        default: "an eighth of `memory`, at most 1 GiB",
        reloadable: false,
        read: |value, options| size(value).map(|bytes| options.l0_memory = Some(bytes)).is_some(),
        given: |options| options.l0_memory.is_some(),
        show: |settled| settled.l0.as_ref().map(|l0| quoted(&exact_bytes(l0.memory))),
    },
    Key {
        section: "l0",
        name: TENANT,
        flag: "--l0-tenant",
        allowed: "tables [[l0.tenant]] with name, prefix, users and memory",
        default: "one, `default`: every key, for programs of this user",
        reloadable: false,
        // Its own refusals have lines of their own: see `read_tenants`.
        read: |_, _| false,
        given: |options| !options.l0_tenants.is_empty(),
        show: |settled| settled.l0.as_ref().map(|l0| tenant_list(l0.tenants.iter().map(|(tenant, _)| tenant))),
    },
    Key {
        section: "admin",
        name: "listen",
        flag: "--admin",
        allowed: "the address of the admin listener, like \"127.0.0.1:7790\"",
        default: "none",
        reloadable: false,
        read: |value, options| address(value).map(|address| options.admin = Some(address)).is_some(),
        given: |options| options.admin.is_some(),
        show: |settled| settled.admin.map(|address| quoted(&address.to_string())),
    },
    Key {
        section: "admin",
        name: "token_file",
        flag: "--admin-token-file",
        allowed: "the path of a file with a secret of at least 16 characters, readable by its owner alone",
        default: "none; required unless `admin.listen` is on loopback",
        reloadable: true,
        read: |value, options| path(value).map(|path| options.admin_token_file = Some(path)).is_some(),
        given: |options| options.admin_token_file.is_some(),
        show: |settled| settled.admin_token_file.as_deref().map(quoted_path),
    },
    Key {
        section: "admin",
        name: "show_keys",
        flag: "--admin-show-keys",
        allowed: "true or false",
        default: "false: hashes in place of keys",
        reloadable: true,
        read: |value, options| value.as_bool().map(|show| options.admin_show_keys = show).is_some(),
        given: |options| options.admin_show_keys,
        show: |settled| settled.admin.map(|_| settled.admin_show_keys.to_string()),
    },
    Key {
        section: "log",
        name: "format",
        flag: "--log-format",
        allowed: "\"logfmt\" or \"json\"",
        default: "\"logfmt\"",
        reloadable: true,
        read: |value, options| {
            let format = value.as_str().and_then(|text| text.parse().ok());
            format.map(|format| options.log_format = Some(format)).is_some()
        },
        given: |options| options.log_format.is_some(),
        show: |settled| Some(quoted(settled.log_format.name())),
    },
    Key {
        section: "log",
        name: "level",
        flag: "--log-level",
        allowed: "\"debug\", \"info\", \"warn\" or \"error\"",
        default: "\"info\"",
        reloadable: true,
        read: |value, options| {
            let level = value.as_str().and_then(|text| text.parse().ok());
            level.map(|level| options.log_level = Some(level)).is_some()
        },
        given: |options| options.log_level.is_some(),
        show: |settled| Some(quoted(settled.log_level.name())),
    },
];

/// One key of a tenant.
struct TenantKey {
    name: &'static str,
    allowed: &'static str,
    read: fn(&DeValue<'_>, &mut Tenant) -> bool,
}

const TENANT_KEYS: [TenantKey; 4] = [
    TenantKey {
        name: "name",
        allowed: "a name of 1 to 48 bytes without '=' and ','",
        read: |value, tenant| {
            let name = value.as_str().filter(|name| Tenant::is_name(name));
            name.map(|name| tenant.name = name.to_string()).is_some()
        },
    },
    TenantKey {
        name: "prefix",
        allowed: "what this tenant's keys begin with, like \"ads:\"",
        read: |value, tenant| value.as_str().map(|prefix| tenant.prefix = prefix.to_string()).is_some(),
    },
    TenantKey {
        name: "users",
        allowed: "numbers of the users whose programs may read, like [1001, 1002]",
        read: |value, tenant| {
            let DeValue::Array(users) = value else { return false };
            let user = |value: &DeValue<'_>| number(value).and_then(|number| u32::try_from(number).ok());
            let users: Option<Vec<u32>> = users.iter().map(|value| user(value.get_ref())).collect();
            users.filter(|users| !users.is_empty()).map(|users| tenant.users = users).is_some()
        },
    },
    TenantKey {
        name: "memory",
        allowed: "the size of this tenant's table, like \"8MiB\"",
        read: |value, tenant| size(value).map(|bytes| tenant.memory = Some(bytes)).is_some(),
    },
];

/// Reads a file.
fn read(path: &Path) -> Result<Found, Failure> {
    let unreadable = |reason: String| {
        Failure::configuration(format!(
            "--config {}: {reason}: name a TOML file that this user may read",
            path.display()
        ))
    };
    // Not blocking: a reload must not wait for whoever writes a named pipe.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| unreadable(format!("cannot be read ({error})")))?;
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Err(unreadable("is no regular file, which a reload could read again".to_string()));
    }
    let mut text = String::new();
    file.take(limits::CONFIG_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(format!("cannot be read ({error})")))?;
    if text.len() as u64 > limits::CONFIG_BYTES_MAX {
        return Err(unreadable(format!("is longer than {}", format_bytes(limits::CONFIG_BYTES_MAX))));
    }
    parse(&text).map_err(|wrong| {
        let line = wrong.line.map_or_else(String::new, |line| format!(":{line}"));
        Failure::configuration(format!("{}{line}: {}", path.display(), wrong.reason))
    })
}

/// What is wrong with the text of a file, and where.
#[derive(Debug)]
struct Wrong {
    line: Option<usize>,
    reason: String,
}

fn parse(text: &str) -> Result<Found, Wrong> {
    let document = DeTable::parse(text).map_err(|error| Wrong {
        line: error.span().map(|span| line_of(text, span.start)),
        reason: error.message().to_string(),
    })?;
    let mut found = Found::default();
    read_table(text, "", document.get_ref(), &mut found)?;
    Ok(found)
}

/// Reads the document, or one of its tables.
fn read_table(text: &str, section: &str, table: &DeTable<'_>, found: &mut Found) -> Result<(), Wrong> {
    for (name, value) in table.iter() {
        let line = line_of(text, name.span().start);
        let name: &str = name.get_ref();
        if section.is_empty() && SECTIONS.contains(&name) {
            let DeValue::Table(keys) = value.get_ref() else {
                return Err(Wrong {
                    line: Some(line),
                    reason: format!("{name}: is a table, not a key: write [{name}]"),
                });
            };
            read_table(text, name, keys, found)?;
            continue;
        }
        let Some(key) = KEYS.iter().find(|key| key.section == section && key.name == name) else {
            return Err(Wrong { line: Some(line), reason: unknown(section, name) });
        };
        if key.name == TENANT {
            read_tenants(text, line, value.get_ref(), found)?;
        } else if !(key.read)(value.get_ref(), &mut found.options) {
            return Err(refused(line, &key.path(), value.get_ref(), key.allowed));
        }
        found.lines.insert(key.path(), line);
    }
    Ok(())
}

fn read_tenants(text: &str, line: usize, value: &DeValue<'_>, found: &mut Found) -> Result<(), Wrong> {
    let path = "l0.tenant";
    let allowed = KEYS.iter().find(|key| key.name == TENANT).map_or("", |key| key.allowed);
    let DeValue::Array(tables) = value else { return Err(refused(line, path, value, allowed)) };
    for table in tables.iter() {
        let line = line_of(text, table.span().start);
        let DeValue::Table(keys) = table.get_ref() else { return Err(refused(line, path, table.get_ref(), allowed)) };
        let mut tenant = Tenant { name: String::new(), prefix: String::new(), users: Vec::new(), memory: None };
        for (name, value) in keys.iter() {
            let line = line_of(text, name.span().start);
            let name: &str = name.get_ref();
            let Some(key) = TENANT_KEYS.iter().find(|key| key.name == name) else {
                let names: Vec<&str> = TENANT_KEYS.iter().map(|key| key.name).collect();
                let near = closest(name, names.iter().copied()).map(|near| format!("did you mean {path}.{near}?"));
                let hint = near.unwrap_or_else(|| format!("[[{path}]] has {}", names.join(", ")));
                return Err(Wrong { line: Some(line), reason: format!("{path}.{name}: no such key; {hint}") });
            };
            if !(key.read)(value.get_ref(), &mut tenant) {
                return Err(refused(line, &format!("{path}.{name}"), value.get_ref(), key.allowed));
            }
        }
        for (missing, name) in [(tenant.name.is_empty(), "name"), (tenant.users.is_empty(), "users")] {
            if missing {
                let allowed = TENANT_KEYS.iter().find(|key| key.name == name).map_or("", |key| key.allowed);
                let reason = format!("{path}.{name}: is missing: give {allowed}");
                return Err(Wrong { line: Some(line), reason });
            }
        }
        found.options.l0_tenants.push(tenant);
    }
    Ok(())
}

fn refused(line: usize, key: &str, value: &DeValue<'_>, allowed: &str) -> Wrong {
    let shown = match value {
        DeValue::String(text) => {
            let short: String = text.chars().take(SHOWN_CHARS).collect();
            format!("{short:?}")
        }
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(_) => "a date".to_string(),
        DeValue::Array(_) => "a list".to_string(),
        DeValue::Table(_) => "a table".to_string(),
    };
    Wrong { line: Some(line), reason: format!("{key}: {shown} is not allowed: give {allowed}") }
}

/// What to say of a key that is none.
fn unknown(section: &str, name: &str) -> String {
    let full = if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
    let place = |key: &Key| match key.section {
        "" => format!("{}, above all tables", key.name),
        section => format!("{}, under [{section}]", key.path()),
    };
    let here = || KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    // Written as the flag is: admin_token_file, l0-memory.
    let as_flag = format!("--{}", full.replace(['_', '.'], "-"));
    if let Some(key) =
        KEYS.iter().find(|key| key.flag == as_flag || key.flag == format!("--{}", name.replace('_', "-")))
    {
        return format!("{full}: no such key; did you mean {}?", place(key));
    }
    let siblings = if section.is_empty() { here().chain(SECTIONS).collect::<Vec<_>>() } else { here().collect() };
    if let Some(near) = closest(name, siblings.iter().copied()) {
        let near = if section.is_empty() { near.to_string() } else { format!("{section}.{near}") };
        return format!("{full}: no such key; did you mean {near}?");
    }
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return format!("{full}: no such key; did you mean {}?", place(key));
    }
    match section {
        "" => format!("{full}: no such key; there are {}", siblings.join(", ")),
        section => format!("{full}: no such key; [{section}] has {}", siblings.join(", ")),
    }
}

/// What was settled, as a configuration file that settles the same again on this machine.
pub fn print(settled: &Settled) -> String {
    let mut text = format!(
        "# Settled by spinetail {}: profile {}; arena {} a shard, segment {}.\n",
        env!("CARGO_PKG_VERSION"),
        settled.profile,
        format_bytes(settled.budget.arena_bytes),
        format_bytes(settled.budget.segment_bytes as u64),
    );
    for remark in &settled.remarks {
        // One line each: nothing of a remark may become a key.
        let _ = writeln!(text, "# {}", remark.replace(char::is_control, " "));
    }
    let mut section = "";
    for key in &KEYS {
        let Some(value) = key.value(settled) else { continue };
        if key.section != section {
            section = key.section;
            let _ = writeln!(text, "\n[{section}]");
        }
        let _ = writeln!(text, "{} = {value}", key.name);
    }
    text
}

fn tenant_list<'t>(tenants: impl Iterator<Item = &'t Tenant>) -> String {
    let one = |tenant: &Tenant| {
        let memory =
            tenant.memory.map_or_else(String::new, |bytes| format!(", memory = {}", quoted(&exact_bytes(bytes))));
        format!(
            "{{ name = {}, prefix = {}, users = {:?}{memory} }}",
            quoted(&tenant.name),
            quoted(&tenant.prefix),
            tenant.users
        )
    };
    format!("[{}]", tenants.map(one).collect::<Vec<_>>().join(", "))
}

/// Cores in the order of their shards.
pub fn core_list(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn path(value: &DeValue<'_>) -> Option<PathBuf> {
    value.as_str().filter(|path| !path.is_empty() && !path.contains('\0')).map(PathBuf::from)
}

fn address(value: &DeValue<'_>) -> Option<SocketAddr> {
    value.as_str()?.parse().ok()
}

fn size(value: &DeValue<'_>) -> Option<u64> {
    parse_bytes(value.as_str()?).ok()
}

fn number(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(number) = value else { return None };
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// Tables of the document.
const SECTIONS: [&str; 3] = ["l0", "admin", "log"];
/// The key that is a list of tables.
const TENANT: &str = "tenant";
/// Characters of a refused value that are shown.
const SHOWN_CHARS: usize = 60;

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
