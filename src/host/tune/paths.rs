//! Where a path below a root really is, and whether root may write there.
//!
//! Root follows whatever link somebody else put in its way, unless it looks:
//!
//!   --root DIR      a change stays below DIR: its folder, links resolved, must begin with DIR, resolved
//!   own files       a name is taken away and made anew (O_EXCL), or opened without following (O_NOFOLLOW)
//!   state folder    a real folder of this user, which nobody else may write; else its journal is anybody's
//!
//! A tree that somebody changes while it is being changed is not held together by this: who may write below DIR may
//! write all of it. The links that are meant are those that stand there already.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::host::process::effective_user;

/// `path` below `root`, unless links lead out of it. A machine's own root has no outside.
pub(super) fn below(root: &Path, path: &str) -> io::Result<PathBuf> {
    let full = root.join(path);
    if root == Path::new("/") {
        return Ok(full);
    }
    let inside = fs::canonicalize(root)?;
    // What is not there yet is as far inside as the folder it will be made in.
    let there = full.ancestors().find_map(|part| fs::canonicalize(part).ok());
    if there.is_some_and(|there| there.starts_with(&inside)) {
        return Ok(full);
    }
    let why = format!("a symbolic link on the way leads out of {}", root.display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// A link that leads nowhere, in the place of a folder that is missing above `path`: nothing can be made there.
pub(super) fn dead_link(root: &Path, path: &str) -> Option<String> {
    missing_directories(root, path).into_iter().find(|folder| fs::symlink_metadata(root.join(folder)).is_ok())
}

/// What is missing of the folders above `path`, outermost first, below `root`.
pub(super) fn missing_directories(root: &Path, path: &str) -> Vec<String> {
    let parents = Path::new(path).ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    let missing = parents.take_while(|folder| !root.join(folder).is_dir());
    let mut missing: Vec<String> = missing.map(|folder| folder.to_string_lossy().into_owned()).collect();
    missing.reverse();
    missing
}

/// Makes folders, outermost first, each of them on disk before the next.
pub(super) fn make_directories(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    let missing = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
    let mut missing: Vec<&Path> = missing.collect();
    missing.reverse();
    for folder in missing {
        let made = fs::DirBuilder::new().mode(0o755).create(folder);
        made.and_then(|()| sync_parent(folder)).map_err(|error| (folder.to_owned(), error))?;
    }
    Ok(())
}

/// A new name in a folder is on disk once the folder is.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_directory)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A file of this name that nobody else has open, for this user only: what had the name before is taken away, and
/// where it leads is left alone.
pub(super) fn create_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().append(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// What lets others write where a journal is kept, if anything does: in it, or by putting another folder in its place.
pub(super) fn open_to_others(folder: &Path) -> io::Result<Option<String>> {
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() {
        return Ok(Some("is no folder of its own (a link)".to_owned()));
    }
    if let Some(why) = not_ours(&found) {
        return Ok(Some(why));
    }
    let Some(parent) = folder.parent() else { return Ok(None) };
    let above = fs::symlink_metadata(parent)?;
    // In a folder like /tmp (sticky) nobody renames what is somebody else's.
    let sticky = above.mode() & 0o1000 != 0;
    if above.is_dir() && (above.uid() == 0 || above.uid() == effective_user()) && (sticky || above.mode() & 0o022 == 0)
    {
        return Ok(None);
    }
    Ok(Some(format!(
        "stands in a folder that others may change (user {}, mode {:o})",
        above.uid(),
        above.mode() & 0o7777
    )))
}

/// Why what was found is not this user's alone to write.
pub(super) fn not_ours(found: &fs::Metadata) -> Option<String> {
    let user = effective_user();
    if found.uid() != user {
        return Some(format!("belongs to user {}, and this is user {user}", found.uid()));
    }
    (found.mode() & 0o022 != 0).then(|| format!("may be written by others (mode {:o})", found.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let root = std::env::temp_dir().join(format!("spinetail-paths-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(root.join("inside/etc")).unwrap();
            fs::create_dir_all(root.join("outside")).unwrap();
            Scratch(root)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_link_that_stays_below_the_root_is_followed_and_one_that_leaves_is_not() {
        let scratch = Scratch::new("links");
        let root = scratch.0.join("inside");
        fs::write(scratch.0.join("outside/file"), "x").unwrap();
        symlink("../outside", root.join("out")).unwrap();
        symlink("etc", root.join("in")).unwrap();
        symlink("../outside/file", root.join("file")).unwrap();
        for path in ["etc/x", "in/x", "new/folder/x"] {
            assert_eq!(below(&root, path).unwrap(), root.join(path));
        }
        for path in ["out/file", "out/new/x", "file", "in/../../outside/x"] {
            assert!(below(&root, path).unwrap_err().to_string().contains("leads out"), "{path}");
        }
        // The root itself may be reached by a link.
        symlink("inside", scratch.0.join("alias")).unwrap();
        assert!(below(&scratch.0.join("alias"), "etc/x").is_ok());
    }

    #[test]
    fn a_link_to_nowhere_in_a_folders_place_is_seen() {
        let scratch = Scratch::new("dead");
        symlink("nowhere", scratch.0.join("inside/etc/x.d")).unwrap();
        assert_eq!(dead_link(&scratch.0.join("inside"), "etc/x.d/y.conf").as_deref(), Some("etc/x.d"));
        assert_eq!(dead_link(&scratch.0.join("inside"), "etc/z.d/y.conf"), None);
    }

    #[test]
    fn what_is_made_anew_leaves_the_target_of_a_link_alone() {
        let scratch = Scratch::new("anew");
        let (target, link) = (scratch.0.join("outside/target"), scratch.0.join("inside/link"));
        fs::write(&target, "precious").unwrap();
        symlink(&target, &link).unwrap();
        drop(create_anew(&link).unwrap());
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!(fs::metadata(&link).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folder_that_others_may_write_or_replace_is_told() {
        let scratch = Scratch::new("folder");
        let folder = scratch.0.join("inside/etc");
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let why = || open_to_others(&folder).unwrap();
        mode(&folder, 0o755);
        mode(&scratch.0.join("inside"), 0o755);
        assert_eq!(why(), None);
        mode(&folder, 0o775);
        assert!(why().unwrap().contains("mode 775"));
        mode(&folder, 0o755);
        mode(&scratch.0.join("inside"), 0o777);
        assert!(why().unwrap().contains("mode 777"));
        mode(&scratch.0.join("inside"), 0o1777);
        assert_eq!(why(), None);
        symlink("etc", scratch.0.join("inside/alias")).unwrap();
        assert!(open_to_others(&scratch.0.join("inside/alias")).unwrap().unwrap().contains("a link"));
    }
}
