//! Programs of others: promtool and prometheus from Debian, two packages of Python in an environment under target/.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::common::{Ended, run};

/// This repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a program is there; says SKIPPED and why if it is not.
pub fn there_is(program: &str, remedy: &str) -> bool {
    let probe = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if probe.is_err() {
        eprintln!("SKIPPED: there is no {program} here: {remedy}");
    }
    probe.is_ok()
}

pub fn there_is_prometheus() -> bool {
    let remedy = "apt-get install prometheus";
    there_is("promtool", remedy) && there_is("prometheus", remedy)
}

/// A Python with the packages that read what we write. Made once, under target/.
pub fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = PYTHON.get_or_init(|| {
        let place = root().join("target/metrics-python");
        let python = place.join("bin/python");
        let has_packages = |python: &Path| {
            let mut command = Command::new(python);
            command.args(["-c", "import hdrh.log, prometheus_client.openmetrics.parser"]);
            command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        if has_packages(&python) {
            return Some(python);
        }
        let mut make = Command::new("python3");
        make.args(["-m", "venv", "--clear"]).arg(&place);
        let made = make.stdout(Stdio::null()).status().is_ok_and(|status| status.success());
        if made {
            let mut install = Command::new(&python);
            install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
            let _ = install.status();
        }
        has_packages(&python).then_some(python)
    });
    if made.is_none() {
        eprintln!("SKIPPED: no Python with {PACKAGES:?}: apt-get install python3-venv, and reach PyPI once");
    }
    made.as_deref()
}

/// Runs a script of a few lines; what it printed, or a panic with what it complained of.
pub fn run_python(python: &Path, script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(python);
    command.args(["-c", script]).args(arguments);
    let ended = run(command, Duration::from_secs(60));
    assert_eq!(ended.status, Some(0), "{}{}", ended.stdout, ended.stderr);
    ended.stdout
}

/// Runs promtool, some directory of deploy/ its place.
pub fn promtool(place: &str, arguments: &[&str]) -> Ended {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(root().join(place));
    run(command, Duration::from_secs(180))
}

const PACKAGES: [&str; 2] = ["prometheus-client==0.26.0", "hdrhistogram==0.10.8"];
