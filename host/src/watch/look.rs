//! What tells one content of a file from another without reading it, and where the file really lies.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Two looks that are alike: nobody wrote in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing is there.
    Gone,
    /// Something is there.
    There { device: u64, inode: u64, size: u64, modified: (i64, i64) },
}

/// A file as it was seen through its path.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    pub(super) look: Look,
    /// Where it lies, all symlinks followed; none where nothing is there.
    pub(super) target: Option<PathBuf>,
    /// The folders in which a change may put another file in its place: its own, and that of each symlink on the way to it.
    pub(super) folders: Vec<PathBuf>,
}

/// Symlinks that are followed; the system itself gives up at 40.
const MAX_LINKS: usize = 40;

/// Looks at all of them, off the threads that poll: a file may lie on a slow disk.
#[expect(clippy::disallowed_methods, reason = "it is awaited here")]
pub(super) async fn all(paths: Vec<PathBuf>) -> Vec<Sight> {
    let gone = vec![Sight { look: Look::Gone, target: None, folders: Vec::new() }; paths.len()];
    let looks = tokio::task::spawn_blocking(move || paths.iter().map(|path| one(path)).collect()).await;
    looks.unwrap_or(gone)
}

pub(super) fn one(path: &Path) -> Sight {
    let look = match fs::metadata(path) {
        Ok(data) => Look::There {
            device: data.dev(),
            inode: data.ino(),
            size: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
        },
        Err(_) => Look::Gone,
    };
    Sight { look, target: fs::canonicalize(path).ok(), folders: folders(path) }
}

/// Walks a path as the system does, and notes the folder of each symlink and of the end.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = match std::path::absolute(path) {
        Ok(path) => parts(&path),
        Err(_) => return found,
    };
    left.reverse();
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        match fs::read_link(&next) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                found.push(at.clone());
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                left.extend(parts(&target).into_iter().rev());
            }
            _ if left.is_empty() => found.push(at.clone()),
            _ => at = next,
        }
    }
    found.retain(|folder| folder.is_dir());
    found
}

fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn finds_every_folder_in_which_a_switch_may_happen() {
        let root = tempfile::tempdir().expect("a folder");
        let root = fs::canonicalize(root.path()).expect("its path");
        fs::create_dir_all(root.join("mount/..one")).expect("folders");
        fs::write(root.join("mount/..one/a.wasm"), b"x").expect("a file");
        symlink("..one", root.join("mount/..data")).expect("a link");
        symlink("..data/a.wasm", root.join("mount/a.wasm")).expect("a link");
        symlink(root.join("mount"), root.join("plugins")).expect("a link");
        let sight = one(&root.join("plugins/a.wasm"));
        assert_eq!(sight.target, Some(root.join("mount/..one/a.wasm")));
        let mount = root.join("mount");
        assert_eq!(sight.folders, [root.clone(), mount.clone(), mount.clone(), mount.join("..one")]);
        assert_eq!(one(&root.join("nothing")).look, Look::Gone);
        symlink("loop", root.join("loop")).expect("a link");
        assert_eq!(one(&root.join("loop")).look, Look::Gone);
    }
}
