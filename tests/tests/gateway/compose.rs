//! The settings of compose.yaml's gateway and back end, with the secrets that its script makes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use sluicegate_tests::compiled;
use sluicegate_tests::gateway::{binary, program, root};
use tempfile::TempDir;

fn make_secrets(folder: &Path) {
    let made = Command::new("sh").arg(root().join("config/make-secrets.sh")).arg(folder).status().expect("sh");
    assert!(made.success());
}

/// A settings file that reads its secrets, plugins and state from here.
fn adapted(folder: &Path, name: &str) -> String {
    let text = fs::read_to_string(root().join("config").join(name)).expect("the shipped file");
    let here = folder.display().to_string();
    let plugins = root().join("config/plugins").display().to_string();
    text.replace("/run/secrets", &here)
        .replace("/var/lib/sluicegate", &here)
        .replace("/usr/share/sluicegate/plugins", &plugins)
}

#[test]
fn the_settings_are_good_with_the_secrets_that_the_script_makes() {
    let folder = TempDir::new().expect("a folder");
    make_secrets(folder.path());
    compiled::put(&folder.path().join("state"));
    for (program, name) in [(binary(), "compose.toml"), (program("sluicegate-backend"), "backend-compose.toml")] {
        let path = folder.path().join(name);
        fs::write(&path, adapted(folder.path(), name)).expect("written");
        let checked = Command::new(program).args(["check", "--config"]).arg(&path).output().expect("it runs");
        let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{name}: {said}");
    }
}

#[test]
fn secrets_are_made_once_and_lie_in_a_folder_that_nobody_else_opens() {
    let folder = TempDir::new().expect("a folder");
    let secrets = folder.path().join("secrets");
    make_secrets(&secrets);
    let read = |name: &str| fs::read_to_string(secrets.join(name)).expect("a secret");
    let before = read("gateway_password");
    assert_eq!(before.len(), 48, "{before}");
    assert_ne!(before, read("redis_password"));
    assert_eq!(read("gateway_user.csv"), format!("user_id,password,is_superuser\nsluicegate,{before},false\n"));
    assert_eq!(read("api_token_sha256").trim().len(), 64);
    make_secrets(&secrets);
    assert_eq!(read("gateway_password"), before);
    assert_eq!(fs::metadata(&secrets).expect("a folder").permissions().mode() & 0o777, 0o700);
}
