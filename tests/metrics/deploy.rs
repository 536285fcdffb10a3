//! What stands in deploy/: rules that promtool takes and tests, names that a live server has, a dashboard in order, a unit
//! that systemd understands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::common::{SPINETAIL, Scratch, run, spinetail};
use crate::page::{Labels, samples};
use crate::tools::{promtool, root, there_is, there_is_prometheus};
use crate::{Whole, http};

pub const DASHBOARD: &str = "deploy/grafana/spinetail.json";
const RULES: [&str; 2] = ["deploy/prometheus/rules.yml", "deploy/prometheus/alerts.yml"];

/// What Prometheus adds to every sample, and what its rules make.
const LABELS_OF_PROMETHEUS: [&str; 4] = ["job", "instance", "le", "alertstate"];

/// Exposed, and on no panel on purpose.
const NOT_SHOWN: [&str; 0] = [];

fn file(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&file(DASHBOARD)).expect("JSON")
}

/// Every expression that the dashboard asks Prometheus, its annotations too.
pub fn expressions_of_the_dashboard() -> Vec<String> {
    fn gather(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, inner)| match inner {
                Value::String(text) if name == "expr" => into.push(text.clone()),
                inner => gather(inner, into),
            }),
            Value::Array(elements) => elements.iter().for_each(|inner| gather(inner, into)),
            _ => {}
        }
    }
    let mut expressions = Vec::new();
    gather(&dashboard(), &mut expressions);
    assert!(expressions.len() > 50, "{expressions:?}");
    expressions
}

/// Names of metrics that a text speaks of, each with the selectors that stand behind it.
fn metrics_in(text: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let end = rest[start..].find(|letter| !is_part(letter)).map_or(rest.len(), |length| start + length);
        let word = rest[start..end].trim_end_matches(':'); // as prose has it
        rest = &rest[end..];
        if !(word.starts_with("spinetail_") || word.starts_with("process_")) {
            continue;
        }
        let selectors = found.entry(word.to_string()).or_default();
        if let Some(inside) = rest.strip_prefix('{') {
            let inside = inside.split('}').next().unwrap_or_default();
            selectors.extend(inside.split("\",").filter_map(|part| {
                let (label, value) = part.split_once('=')?;
                // a="b", a=~"b|c", a!~"b|c": all of them must be values that exist.
                let value = value.trim_start_matches('~').trim_matches('"');
                Some((label.trim().trim_end_matches('!').to_string(), value.to_string()))
            }));
        }
    }
    found
}

/// The text of a YAML file without its comments.
fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

#[test]
fn names_and_label_values_in_rules_alerts_and_dashboard_are_a_live_servers() {
    let whole = Whole::start("metrics-names", &[]);
    // Commands are counted once they have been called.
    let ended = spinetail(&["load", "--target", &whole.target("resp"), "--rate", "1000", "--duration", "1s"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let live = samples(&http::get(whole.admin, "/metrics", &[]).text());
    let mut values: BTreeMap<&str, Vec<&Labels>> = BTreeMap::new();
    live.iter().for_each(|sample| values.entry(&sample.name).or_default().push(&sample.labels));

    let mut wrong = Vec::new();
    let mut shown = BTreeSet::new();
    let texts = RULES.map(|path| (path, without_comments(&file(path))));
    let variables = dashboard()["templating"].to_string().replace("\\\"", "\"");
    let expressions = expressions_of_the_dashboard().join("\n") + &variables;
    for (path, text) in texts.into_iter().chain([(DASHBOARD, expressions)]) {
        let metrics = metrics_in(&text);
        assert!(metrics.len() > 8, "{path}: {metrics:?}");
        for (name, selectors) in metrics {
            let Some(labels) = values.get(name.as_str()) else {
                wrong.push(format!("{path}: no metric {name}"));
                continue;
            };
            for (label, wanted) in selectors {
                if LABELS_OF_PROMETHEUS.contains(&label.as_str()) || wanted.starts_with('$') {
                    continue;
                }
                for wanted in wanted.split('|') {
                    if !labels.iter().any(|labels| labels.get(&label).is_some_and(|value| value == wanted)) {
                        wrong.push(format!("{path}: no {name}{{{label}=\"{wanted}\"}}"));
                    }
                }
            }
            shown.insert(name);
        }
    }
    // And the other way round: what is told and nobody can see helps nobody.
    let family = |name: &str| {
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
        base.filter(|base| values.contains_key(format!("{base}_bucket").as_str())).unwrap_or(name).to_string()
    };
    let shown: BTreeSet<String> = shown.iter().map(|name| family(name)).collect();
    for name in values.keys().map(|name| family(name)).collect::<BTreeSet<_>>() {
        if !shown.contains(&name) && !NOT_SHOWN.contains(&name.as_str()) {
            wrong.push(format!("{name} is on no panel and in no rule"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn promtool_takes_the_rules_and_their_test_passes() {
    if !there_is_prometheus() {
        return;
    }
    let checked = promtool("deploy/prometheus", &["check", "rules", "rules.yml", "alerts.yml"]);
    assert_eq!(checked.status, Some(0), "{checked:?}");
    let syntax = promtool("deploy/prometheus", &["check", "config", "--syntax-only", "prometheus.yml"]);
    assert_eq!(syntax.status, Some(0), "{syntax:?}");
    let tested = promtool("deploy/prometheus", &["test", "rules", "alerts_test.yml"]);
    assert_eq!(tested.status, Some(0), "{tested:?}");
}

#[test]
fn every_alert_has_a_runbook_and_a_test_in_which_it_fires() {
    let alerts = file(RULES[1]);
    let test = file("deploy/prometheus/alerts_test.yml");
    let parts: Vec<&str> = alerts.split("- alert: ").skip(1).collect();
    assert!(parts.len() > 20);
    for part in parts {
        let name = part.lines().next().unwrap().trim();
        assert!(part.contains("Means: ") && part.contains("First: "), "{name} has no runbook");
        assert!(part.contains("severity: page") || part.contains("severity: warn"), "{name} has no severity");
        assert!(test.contains(&format!("alertname=\"{name}\"")), "{name} never fires in alerts_test.yml");
    }
}

#[test]
fn the_dashboard_is_in_order() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "spinetail");
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeMap::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title} leaves the grid");
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            let other = taken.insert((x, y), title);
            assert!(other.is_none(), "{title} lies on {other:?}");
        }
        if panel["type"] == "row" {
            continue;
        }
        let unit =
            ["/fieldConfig/defaults/unit", "/options/yAxis/unit"].iter().find_map(|path| panel.pointer(path)?.as_str());
        assert!(unit.is_some(), "{title} has no unit");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap());
    assert_eq!(variables.collect::<Vec<_>>(), ["datasource", "instance", "shard"]);
}

#[test]
fn the_example_configuration_is_taken_as_it_is_and_with_all_that_it_only_suggests() {
    let scratch = Scratch::new("metrics-config");
    let token = scratch.file("token");
    fs::write(&token, "a-token-of-more-than-16-characters").unwrap();
    fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    // What a small machine has.
    let example =
        file("deploy/spinetail.toml").replace("\"4GiB\"", "\"256MiB\"").replace("\"256MiB\"\n#[[", "\"64MiB\"\n#[[");
    let lines = example.lines().map(|line| suggested_in(line).unwrap_or(line));
    let suggested = lines.collect::<Vec<_>>().join("\n").replace("/etc/spinetail/admin.token", &token);
    for text in [&example, &suggested] {
        let config = scratch.file("spinetail.toml");
        fs::write(&config, text).unwrap();
        let checked = spinetail(&["serve", "--config", &config, "--check"]);
        assert_eq!(checked.status, Some(0), "{checked:?}\n{text}");
        assert!(checked.stdout.contains("127.0.0.1:7790"), "{checked:?}");
    }
    assert!(suggested.lines().count() == example.lines().count() && suggested.contains("\nusers = "), "{suggested}");
}

/// What a line of the example suggests behind its '#': a key or a table; prose begins with a space.
fn suggested_in(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|it: char| it.is_ascii_lowercase() || it == '['))
}

#[test]
fn systemd_understands_the_unit_and_finds_little_exposed() {
    if !there_is("systemd-analyze", "apt-get install systemd") {
        return;
    }
    let scratch = Scratch::new("metrics-unit");
    let unit = scratch.file("spinetail.service");
    // The product is not installed here: its own path in place of where it goes.
    let text = file("deploy/systemd/spinetail.service");
    assert!(text.contains("ExecStart=/usr/bin/spinetail serve "));
    fs::write(&unit, text.replace("/usr/bin/spinetail", SPINETAIL)).unwrap();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(&unit);
        run(command, Duration::from_secs(60))
    };
    let verified = analyze(&["verify", "--man=no"]);
    assert!(verified.status == Some(0) && verified.stderr.trim().is_empty(), "{verified:?}");
    // Tenths: 1.4 when this was written; what is left is the network, the host's /proc, and users' numbers at the L0 socket.
    let security = analyze(&["security", "--offline=true", "--no-pager", "--threshold=15"]);
    assert_eq!(security.status, Some(0), "{}{}", security.stdout, security.stderr);
}
