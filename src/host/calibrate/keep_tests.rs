//! Facts about where calibrations are kept and how profiles take their figures.

use super::*;
use crate::host::calibration::example;
use std::os::unix::fs::PermissionsExt;

/// A folder for one test, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = env::temp_dir().join(format!("spinetail-keep-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn profile(&self, text: &str) -> PathBuf {
        let path = self.0.join("profile.toml");
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PROFILE: &str = "# mine [calibration]\n[machine]\nname = \"a\" # [calibration]\ndescription = '''\n[calibration]\n'''\n\n\
                       [cores]\ndata = \"1\"\n";

fn written(profile: &str) -> Result<String, String> {
    with_figures(profile, &example().figures())
}

#[test]
fn the_place_is_the_variables_then_the_systems_then_the_persons() {
    let with = |pairs: &'static [(&str, &str)]| {
        let variable =
            |name: &str| pairs.iter().find(|(other, _)| *other == name).map(|(_, value)| PathBuf::from(value));
        candidates(&variable).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(with(&[("SPINETAIL_CALIBRATION", "/x/y.json"), ("HOME", "/h")]), ["/x/y.json"]);
    let system = "/var/lib/spinetail/calibration.json";
    assert_eq!(with(&[("HOME", "/h")]), [system, "/h/.local/state/spinetail/calibration.json"]);
    assert_eq!(with(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]), [system, "/s/spinetail/calibration.json"]);
    // Relative and empty ones do not count.
    let odd = with(&[("XDG_STATE_HOME", "s"), ("HOME", "/h"), ("SPINETAIL_CALIBRATION", "")]);
    assert_eq!(odd, [system, "/h/.local/state/spinetail/calibration.json"]);
    assert_eq!(with(&[]), [system]);
}

#[test]
fn what_is_stored_is_found_again_on_this_machine_and_not_on_another() {
    let folder = Folder::new("store");
    let (path, taken) = (folder.0.join("deep/er/calibration.json"), example());
    taken.store_at(&path).unwrap();
    assert_eq!(Calibration::load_from(&path, &taken.machine), Some(taken.clone()));
    for machine in [
        Machine { cores: 4, ..taken.machine.clone() },
        Machine { kernel: "6.2".to_owned(), ..taken.machine.clone() },
        Machine { cpu_model: "Another".to_owned(), ..taken.machine.clone() },
    ] {
        assert_eq!(Calibration::load_from(&path, &machine), None);
    }
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    fs::write(&path, "{\"version\":1").unwrap();
    assert_eq!(Calibration::load_from(&path, &taken.machine), None);
    Calibration { version: 99, ..taken.clone() }.store_at(&path).unwrap();
    assert_eq!(Calibration::load_from(&path, &taken.machine), None);
    assert_eq!(Calibration::load_from(&folder.0, &taken.machine), None);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let complaint = example().store_at(Path::new("/proc/spinetail/calibration.json")).unwrap_err();
    assert!(complaint.contains("/proc/spinetail/calibration.json cannot be written"), "{complaint}");
}

#[test]
fn a_profile_without_figures_gets_them_at_its_end() {
    let after = written(PROFILE).unwrap();
    let rest = after.strip_prefix(PROFILE).expect("every byte before is as it was");
    assert!(rest.starts_with("\n[calibration]\n# ") && rest.ends_with('\n'), "{rest}");
    assert!(rest.contains("\nclock_ns = 22.74\n") && !rest.contains("ring_ns"), "{rest}");
    // A file whose last line has no end, and an empty one.
    let open = PROFILE.trim_end();
    assert!(written(open).unwrap().strip_prefix(open).unwrap().starts_with("\n\n[calibration]"));
    assert!(written("").unwrap().starts_with("[calibration]"));
}

#[test]
fn figures_that_are_there_are_replaced_where_they_stand() {
    let first = written(PROFILE).unwrap();
    assert_eq!(written(&first).unwrap(), first);
    let tail = "\n# about the network\n[network]\npoll = \"spin\"\n";
    let old = "[calibration]  # old\n# about it\nclock_ns = 1.0\nl9 = \"x\" # odd\n";
    let after = written(&format!("{PROFILE}{old}{tail}")).unwrap();
    assert!(after.starts_with(PROFILE) && after.ends_with(tail), "{after}");
    assert!(!after.contains("clock_ns = 1.0") && !after.contains("l9") && !after.contains("about it"), "{after}");
    // Without keys it is a header only; quoted and spaced it is the same header.
    for header in ["[calibration]\n", "[ \"calibration\" ]\n", "  [calibration]\n"] {
        let after = written(&format!("{header}{tail}")).unwrap();
        assert!(after.ends_with(tail) && after.matches("calibration]").count() == 1, "{after}");
    }
}

#[test]
fn carriage_returns_and_bytes_beyond_ascii_stay() {
    let profile = "[machine]\r\nname = \"größer\"\r\n[calibration]\r\nclock_ns = 1.0\r\n\r\n[cores]\r\n";
    let after = written(profile).unwrap();
    assert!(after.starts_with("[machine]\r\nname = \"größer\"\r\n[calibration]\n"), "{after}");
    assert!(after.ends_with("\r\n[cores]\r\n"), "{after}");
}

#[test]
fn other_forms_of_the_section_are_refused_and_not_guessed_at() {
    for profile in ["calibration = { clock_ns = 1.0 }\n", "calibration.clock_ns = 1.0\n", "calibration = 7\n"] {
        let complaint = written(profile).unwrap_err();
        assert!(complaint.contains("remove it"), "{profile}: {complaint}");
    }
    for profile in
        ["[calibration.more]\nx = 1\n", "[calibration]\nx = 1\n[calibration.more]\ny = 1\n", "[[calibration]]\nx = 1\n"]
    {
        let complaint = written(profile).unwrap_err();
        assert!(complaint.contains("remove"), "{profile}: {complaint}");
    }
    assert!(written("[machine\n").unwrap_err().contains("no TOML"));
}

#[test]
fn a_profile_keeps_its_permissions_and_a_link_stays_one() {
    let folder = Folder::new("link");
    let path = folder.profile(PROFILE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let link = folder.0.join("link.toml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    example().write_into_profile(&link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_to_string(&path).unwrap(), written(PROFILE).unwrap());
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2);
}

#[test]
fn a_profile_that_is_refused_is_left_as_it_was() {
    let folder = Folder::new("refused");
    let path = folder.profile("[machine\n");
    let complaint = example().write_into_profile(&path).unwrap_err();
    assert!(complaint.contains("profile.toml") && complaint.contains("no TOML"), "{complaint}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "[machine\n");
    let complaint = example().write_into_profile(&folder.0.join("none.toml")).unwrap_err();
    assert!(complaint.contains("host detect --write"), "{complaint}");
}
