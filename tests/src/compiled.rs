//! The stock plugins, and their other builds that most tests swap them for, compiled once for all tests: an unoptimised gateway takes a second of the
//! processor for each of them.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::gateway::{STOCK, another_build, binary, replace, root};

/// Those of [`another_build`] that many tests have.
const OTHERS: [(&str, u8); 3] = [("heartbeat", 1), ("heartbeat", 2), ("error", 1)];

/// A folder such as config/: the shipped settings, the plugins, and the state of a gateway that compiled them.
///
/// # Panics
/// Where the plugins are not built.
#[must_use]
pub fn config() -> &'static Path {
    static ONCE: OnceLock<PathBuf> = OnceLock::new();
    ONCE.get_or_init(compile)
}

/// Puts them into a gateway's state, where it finds them as those of an earlier start.
///
/// # Panics
/// Where the plugins are not built.
pub fn put(state: &Path) {
    let into = state.join("compiled");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&into).expect("a folder");
    for entry in fs::read_dir(config().join("state/compiled")).expect("what was compiled") {
        let path = entry.expect("an entry").path();
        let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
        match fs::copy(&path, into.join(name)) {
            // Another program of tests was writing it, and has put it in its place.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => drop(copied.expect("copied")),
        }
    }
}

/// As an operator would, ahead of a start; what an earlier run of the tests compiled is used again. Other programs of tests do the same meanwhile.
fn compile() -> PathBuf {
    let folder = binary().with_file_name("compiled-for-tests");
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("this user's folder");
    let settings = folder.join("sluicegate.toml");
    replace(&settings, &fs::read(root().join("config/sluicegate.toml")).expect("settings"));
    match symlink(root().join("config/plugins"), folder.join("plugins")) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => panic!("{error}"),
        _ => {}
    }
    let mut files: Vec<PathBuf> = STOCK.iter().map(|name| folder.join(format!("plugins/{name}.wasm"))).collect();
    for (name, mark) in OTHERS {
        let file = folder.join(format!("{name}-{mark}.wasm"));
        replace(&file, &another_build(name, mark));
        files.push(file);
    }
    for file in files {
        let mut compile = Command::new(binary());
        let compile = compile.args(["plugin", "compile"]).arg(&file).arg("--config").arg(&settings);
        let status = compile.stdout(Stdio::null()).status().expect("the gateway's program");
        assert!(status.success(), "{} is not compiled", file.display());
    }
    folder
}
