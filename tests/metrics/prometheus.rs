//! A real Prometheus beside a real server: what it has stored is what the load generator counted, to the unit; and
//! every expression of deploy/ finds something.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::common::{PATIENCE, Scratch, eventually, spinetail};
use crate::deploy::{DASHBOARD, expressions_of_the_dashboard};
use crate::page::Labels;
use crate::tools::{python, root, run_python, there_is_prometheus};
use crate::{UNKIND_TENANT, Whole, http};

const SCRAPE: Duration = Duration::from_secs(1);
/// Over all protocols: little enough for a machine that others use as well.
const RATE: &str = "4000";

struct Prometheus {
    child: Child,
    address: SocketAddr,
    _scratch: Scratch,
}

impl Prometheus {
    /// Scrapes one target every second, with the rules and alerts of deploy/.
    fn start(target: SocketAddr) -> Prometheus {
        let scratch = Scratch::new("prometheus");
        let rules = root().join("deploy/prometheus");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{0}/rules.yml', '{0}/alerts.yml']\n\
             scrape_configs: [{{job_name: spinetail, static_configs: [{{targets: ['{target}']}}]}}]\n",
            rules.display(),
        );
        fs::write(scratch.file("prometheus.yml"), config).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(scratch.file("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", scratch.file("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", scratch.file("data")))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=warn", "--query.lookback-delta=5s"])
            .current_dir(scratch.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Prometheus starts");
        let prometheus = Prometheus { child, address, _scratch: scratch };
        let is_ready = || http::ask(address, "GET", "/-/ready", &[]).is_ok_and(|response| response.status == 200);
        assert!(eventually(PATIENCE, is_ready), "Prometheus is not ready");
        assert!(eventually(PATIENCE, || prometheus.number("up") == Some(1.0)), "no scrape: {}", prometheus.why());
        prometheus
    }

    fn api(&self, path: &str) -> Value {
        let response = http::get(self.address, path, &[]);
        let value: Value = serde_json::from_slice(&response.body).expect("JSON");
        assert_eq!(value["status"], "success", "{path}: {value}");
        value["data"].clone()
    }

    fn query(&self, expression: &str) -> Vec<(Labels, f64)> {
        let data = self.api(&format!("/api/v1/query?query={}", http::escaped(expression)));
        let Some(rows) = data["result"].as_array().filter(|_| data["resultType"] == "vector") else {
            return Vec::new();
        };
        let row = |row: &Value| {
            let labels = row["metric"].as_object().unwrap().iter();
            let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_string())).collect();
            (labels, row["value"][1].as_str().unwrap().parse().unwrap())
        };
        rows.iter().map(row).collect()
    }

    /// The only value of an expression.
    fn number(&self, expression: &str) -> Option<f64> {
        let rows = self.query(expression);
        assert!(rows.len() < 2, "{expression}: {rows:?}");
        rows.first().map(|(_, value)| *value)
    }

    fn why(&self) -> String {
        self.api("/api/v1/targets")["activeTargets"][0]["lastError"].to_string()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is compared: how each side calls it.
const COUNTED: [(&str, &str); 5] = [
    ("hits", "sum(spinetail_hits_total)"),
    ("misses", "sum(spinetail_misses_total)"),
    ("get", "sum(spinetail_requests_total{operation=\"get\"})"),
    ("set", "sum(spinetail_requests_total{operation=\"set\"})"),
    ("stored", "sum(spinetail_changes_total{kind=\"stored\"})"),
];

#[test]
fn prometheus_stores_what_the_load_counted_and_every_expression_finds_something() {
    if !there_is_prometheus() {
        return;
    }
    let seconds: u64 = std::env::var("SPINETAIL_METRICS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(9);
    let whole = Whole::start("metrics-prometheus", &[]);
    let prometheus = Prometheus::start(whole.admin);
    let counts = || COUNTED.map(|(_, expression)| prometheus.number(expression).expect("a sum") as u64);
    let mut before = counts();
    assert_eq!(before, [0; 5], "a server that has just started");
    for protocol in ["native", "resp", "memcached"] {
        let duration = format!("{}s", seconds.div_ceil(3));
        // Keys of its own for each run: hits, misses and the SETs that follow them. Four connections, so that with two
        // shards half of what comes by RESP and memcached is forwarded, which must not count twice.
        let seed = protocol.len().to_string();
        let key_bytes = (16 + protocol.len()).to_string();
        let ended = spinetail(&[
            "load",
            "--target",
            &whole.target(protocol),
            "--rate",
            RATE,
            "--duration",
            &duration,
            "--connections",
            "4",
            "--pipeline",
            "4",
            "--keys",
            "20000",
            "--key-bytes",
            &key_bytes,
            "--gets",
            "0.9",
            "--on-miss",
            "set",
            "--seed",
            &seed,
            "--json",
            "-",
        ]);
        assert_eq!(ended.status, Some(0), "{ended:?}");
        let load: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        let loaded =
            |path: &str| load.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}: {load}"));
        let (get, set) = (loaded("/operations/get/count"), loaded("/operations/set/count"));
        let expected = [loaded("/hits"), loaded("/misses"), get, set, set];
        assert!(expected.iter().all(|&count| count > 0) && loaded("/errors") == 0, "{protocol}: {load}");
        // Two scrapes later everything has arrived, and nothing comes after.
        thread::sleep(2 * SCRAPE + SCRAPE / 2);
        let after = counts();
        let stored: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let named: Vec<_> = COUNTED.iter().map(|(name, _)| *name).zip(stored.iter().zip(expected)).collect();
        assert_eq!(stored, expected, "{protocol}: Prometheus, the load generator: {named:?}");
        eprintln!("{protocol}: {named:?}");
        before = after;
    }

    // A histogram counts what the counters count.
    let timed = prometheus.number("sum(spinetail_request_duration_seconds_count{operation=\"get\",stage=\"total\"})");
    assert_eq!(timed.map(|count| count as u64), Some(before[2]));

    // An unkind name has come through whole.
    let tenants = prometheus.query("spinetail_tenant_misses_total");
    let has = |name: &str| tenants.iter().any(|(labels, _)| labels.get("tenant").is_some_and(|tenant| tenant == name));
    assert!(has(UNKIND_TENANT) && has("everybody"), "{tenants:?}");

    every_expression_of_the_dashboard_finds_something(&prometheus);
    rules_are_evaluated_and_a_healthy_server_pages_nobody(&prometheus);
}

fn every_expression_of_the_dashboard_finds_something(prometheus: &Prometheus) {
    let mut empty = Vec::new();
    for expression in expressions_of_the_dashboard() {
        let filled = expression
            .replace("$__rate_interval", "1m")
            .replace("$__interval", "15s")
            .replace("$instance", ".*")
            .replace("$shard", ".*");
        // Not a page fires here, so the annotation that shows pages is rightly empty; nor has anything restarted.
        let may_be_empty = filled.starts_with("ALERTS{") || filled.starts_with("changes(process_start_time_seconds");
        if prometheus.query(&filled).is_empty() && !may_be_empty {
            empty.push(filled);
        }
    }
    assert!(empty.is_empty(), "{DASHBOARD}: nothing is found by\n{}", empty.join("\n"));
}

fn rules_are_evaluated_and_a_healthy_server_pages_nobody(prometheus: &Prometheus) {
    let groups = prometheus.api("/api/v1/rules")["groups"].clone();
    let rules: Vec<&Value> =
        groups.as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 30, "{groups}");
    for rule in rules {
        assert_ne!(rule["health"], "err", "{rule}");
    }
    let recorded = prometheus.query("{__name__=~\".*spinetail.*:.*\"}");
    assert!(recorded.len() > 10, "{recorded:?}");
    // How slow GETs are is this machine's affair: shards may share their cores with the load and with everybody.
    let firing = prometheus.query("ALERTS{alertstate=\"firing\",alertname!=\"SpinetailGetsSlow\"}");
    assert!(firing.is_empty(), "{firing:?}");
}

#[test]
fn both_formats_are_read_by_those_who_defined_them() {
    let whole = Whole::start("metrics-formats", &[]);
    let load =
        ["load", "--target", &whole.target("resp"), "--rate", "1000", "--duration", "1s", "--fill", "--keys", "100"];
    assert_eq!(spinetail(&load).status, Some(0));
    let text = http::get(whole.admin, "/metrics", &[]);
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    if there_is_prometheus() {
        let scratch = Scratch::new("metrics-page");
        fs::write(scratch.file("page"), &text.body).unwrap();
        let mut command = Command::new("promtool");
        command.args(["check", "metrics"]).stdin(fs::File::open(scratch.file("page")).unwrap());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.trim().is_empty(), "promtool check metrics: {said}");
    }
    let open = http::get(whole.admin, "/metrics", &[("Accept", "application/openmetrics-text; version=1.0.0")]);
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let Some(python) = python() else { return };
    let scratch = Scratch::new("metrics-open");
    fs::write(scratch.file("page"), &open.body).unwrap();
    let script = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
                  for family in read(open(sys.argv[1], newline='').read()):\n\
                  \x20for sample in family.samples: print(sample.name)\n";
    let names = run_python(python, script, &[&scratch.file("page")]);
    let mut names: Vec<&str> = names.lines().collect();
    names.dedup();
    let samples = crate::page::samples(&text.text());
    let mut others: Vec<&str> = samples.iter().map(|sample| sample.name.as_str()).collect();
    others.dedup();
    assert_eq!(names, others, "the two formats tell the same");
}
