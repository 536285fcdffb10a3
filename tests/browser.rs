//! The dashboard in a real browser, before a real server under a real load: `tests/browser/dashboard.mjs` looks and
//! judges; here is what it needs. Without node, npm or Chromium it says so and passes, as `scripts/verify` installs them.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::*;

#[test]
fn the_dashboard_shows_what_the_server_counts() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser");
    let chromium = match tools(&directory) {
        Ok(chromium) => chromium,
        Err(missing) => {
            eprintln!("SKIPPED: the dashboard was not looked at: {missing}");
            return;
        }
    };
    let mut server = Server::start(&[
        "--admin",
        "127.0.0.1:0",
        "--admin-show-keys",
        "--shards",
        "1",
        "--poll",
        "adaptive",
        "--memory",
        "128MiB",
    ]);
    let admin = server.ready.split_whitespace().find_map(|word| word.strip_prefix("admin=")).expect("an admin address");
    let mut look = Command::new("node");
    look.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/dashboard.mjs"))
        .env("SPINETAIL", SPINETAIL)
        .env("SPINETAIL_TARGET", server.target())
        .env("SPINETAIL_ADMIN", format!("http://{admin}/"))
        .env("SPINETAIL_PID", server.pid().to_string())
        .env("SPINETAIL_BROWSER", &directory)
        .env("SPINETAIL_CHROMIUM", chromium);
    let seen = run(look, Duration::from_secs(240));
    assert_eq!(seen.status, Some(0), "{}\n{}", seen.stdout, seen.stderr);
    println!("{}", seen.stdout);
    // The script ended the server, to see what the page makes of it.
    assert!(server.wait(PATIENCE).success());
    let picture = directory.join("dashboard.png");
    assert!(fs::metadata(&picture).is_ok_and(|file| file.len() > 50_000), "no picture at {}", picture.display());
    if std::env::var_os("SPINETAIL_UPDATE_SCREENSHOT").is_some_and(|value| value == "1") {
        fs::copy(&picture, Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dashboard.png")).expect("a copy");
    }
}

/// The browser, with node and what drives the browser in place; or what is missing.
fn tools(directory: &Path) -> Result<PathBuf, String> {
    let named = std::env::var_os("SPINETAIL_CHROMIUM").map(PathBuf::from);
    let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(PathBuf::from);
    let chromium = named.into_iter().chain(usual).find(|path| path.exists());
    let chromium = chromium.ok_or("no Chromium (apt-get install chromium, or name one in SPINETAIL_CHROMIUM)")?;
    for tool in ["node", "npm"] {
        let asked = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !asked.is_ok_and(|status| status.success()) {
            return Err(format!("no {tool} (apt-get install nodejs npm)"));
        }
    }
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let installed = fs::read_to_string(directory.join("node_modules/playwright-core/package.json"));
    if !installed.is_ok_and(|text| text.contains(&format!("\"version\": \"{PLAYWRIGHT}\""))) {
        let mut install = Command::new("npm");
        install.args(["install", "--silent", "--no-fund", "--no-audit", "--no-save", "--prefix"]).arg(directory);
        install.arg(format!("playwright-core@{PLAYWRIGHT}"));
        let ended = run(install, Duration::from_secs(180));
        if ended.status != Some(0) {
            return Err(format!("npm cannot install playwright-core here: {}", ended.stderr.trim()));
        }
    }
    Ok(chromium)
}

/// What drives the browser; exact, so that the same test runs everywhere.
const PLAYWRIGHT: &str = "1.65.1";
