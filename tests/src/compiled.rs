//! The stock plugins, compiled once for all tests: an unoptimised gateway takes a second of the processor for each of them at each start.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::gateway::{STOCK, binary, root};

/// Puts them into a gateway's state, where it finds them as those of an earlier start.
pub(crate) fn put(state: &Path) {
    static ONCE: OnceLock<PathBuf> = OnceLock::new();
    let from = ONCE.get_or_init(compile);
    let into = state.join("compiled");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&into).expect("a folder");
    for entry in fs::read_dir(from).expect("what was compiled") {
        let path = entry.expect("an entry").path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            fs::copy(&path, into.join(name)).expect("copied");
        }
    }
}

/// As an operator would, ahead of a start; what an earlier run of the tests compiled is used again.
fn compile() -> PathBuf {
    let folder = binary().with_file_name("compiled-for-tests");
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("this user's folder");
    let settings = folder.join("sluicegate.toml");
    fs::write(&settings, "").expect("settings written");
    for name in STOCK {
        let component = root().join("config/plugins").join(format!("{name}.wasm"));
        let mut compile = Command::new(binary());
        compile.args(["plugin", "compile"]).arg(component).arg("--config").arg(&settings);
        let status = compile.stdout(Stdio::null()).status().expect("the gateway's program");
        assert!(status.success(), "{name} is not compiled");
    }
    folder.join("state").join("compiled")
}
