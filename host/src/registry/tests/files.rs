//! Each way of putting a new file in place ends in one reload, or in one refusal.

use std::io::Write as _;
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn an_atomic_rename_is_one_reload() {
    run(async {
        let mut stage = Stage::start("guest.wasm", |folder| put(&folder.join("guest.wasm"), &guest(1)));
        stage.live(1, 1).await;
        for version in 2..5 {
            put(&stage.path("guest.wasm"), &guest(version));
            stage.live(version, u64::from(version)).await;
        }
        stage.nothing().await;
        assert_eq!(stage.refusal(), None);
        stage.end().await;
    });
}

#[test]
fn a_slow_copy_that_stalls_is_one_reload() {
    run(async {
        let mut stage = Stage::start("guest.wasm", |folder| put(&folder.join("guest.wasm"), &guest(1)));
        stage.live(1, 1).await;
        let bytes = guest(2);
        let mut file = fs::File::create(stage.path("guest.wasm")).expect("a file");
        stage.nothing().await;
        for part in bytes.chunks(bytes.len() / 4 + 1) {
            file.write_all(part).expect("written");
            stage.nothing().await;
        }
        drop(file);
        stage.live(2, 2).await;
        put(&stage.path("guest.wasm"), &guest(3));
        stage.live(3, 3).await;
        assert_eq!(stage.refusal(), None);
        stage.end().await;
    });
}

#[test]
fn a_switched_symlink_is_one_reload() {
    run(async {
        // As Kubernetes mounts a ConfigMap: guest.wasm → ..data/guest.wasm, ..data → ..1, switched by a rename.
        let fill = |folder: &Path, version: u32| {
            let inner = folder.join(format!("..{version}"));
            fs::create_dir(&inner).expect("a folder");
            fs::write(inner.join("guest.wasm"), guest(version)).expect("a file");
            symlink(format!("..{version}"), folder.join("..data_tmp")).expect("a link");
            fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("switched");
        };
        let mut stage = Stage::start("guest.wasm", |folder| {
            fill(folder, 1);
            symlink("..data/guest.wasm", folder.join("guest.wasm")).expect("a link");
        });
        stage.live(1, 1).await;
        for version in 2..5 {
            fill(stage.folder.path(), version);
            fs::remove_dir_all(stage.path(&format!("..{}", version - 1))).expect("removed");
            stage.live(version, u64::from(version)).await;
        }
        stage.nothing().await;
        assert_eq!(stage.refusal(), None);
        stage.end().await;
    });
}

#[test]
fn a_folder_may_be_switched_or_replaced() {
    run(async {
        let release = |folder: &Path, version: u32| {
            let inner = folder.join(format!("release-{version}"));
            fs::create_dir(&inner).expect("a folder");
            fs::write(inner.join("guest.wasm"), guest(version)).expect("a file");
        };
        let mut stage = Stage::start("live/guest.wasm", |folder| {
            release(folder, 1);
            symlink("release-1", folder.join("live")).expect("a link");
        });
        stage.live(1, 1).await;
        release(stage.folder.path(), 2);
        symlink("release-2", stage.path("next")).expect("a link");
        fs::rename(stage.path("next"), stage.path("live")).expect("switched");
        stage.live(2, 2).await;
        // In the folder that is watched only since the switch.
        put(&stage.path("live/guest.wasm"), &guest(3));
        stage.live(3, 3).await;
        assert_eq!(stage.refusal(), None);
        stage.end().await;
    });
}

#[test]
fn a_bad_build_is_refused_once_and_the_old_one_goes_on() {
    run(async {
        let mut stage = Stage::start("guest.wasm", |folder| put(&folder.join("guest.wasm"), &guest(1)));
        stage.live(1, 1).await;
        put(&stage.path("guest.wasm"), b"garbage");
        let first = stage.refused("verified").await;
        assert!(first.1.contains("not a WebAssembly component"), "{first:?}");
        // The same bytes once more: not tried again.
        put(&stage.path("guest.wasm"), b"garbage");
        stage.nothing().await;
        stage.nothing().await;
        assert_eq!(stage.refusal(), Some(first));
        put(&stage.path("guest.wasm"), &Guest::echo_validator());
        assert!(stage.refused("checked").await.1.contains("command-validator"));
        put(&stage.path("guest.wasm"), &guest(2));
        stage.live(2, 2).await;
        stage.end().await;
    });
}

#[test]
fn a_vanished_file_changes_nothing() {
    run(async {
        let mut stage = Stage::start("guest.wasm", |folder| put(&folder.join("guest.wasm"), &guest(1)));
        stage.live(1, 1).await;
        fs::remove_file(stage.path("guest.wasm")).expect("removed");
        stage.nothing().await;
        put(&stage.path("guest.wasm"), &guest(1));
        stage.nothing().await;
        assert_eq!(stage.refusal(), None);
        put(&stage.path("guest.wasm"), &guest(2));
        stage.live(2, 2).await;
        stage.end().await;
    });
}

#[test]
fn a_missing_plugin_is_told_and_taken_when_it_comes() {
    run(async {
        let mut stage = Stage::start("later/guest.wasm", |_| {});
        assert!(stage.refused("found").await.1.contains("no such file"));
        // Its folder is not there either, so no event can tell: the look every 30 seconds would.
        stage.end().await;
        let mut stage = Stage::start("guest.wasm", |_| {});
        stage.refused("found").await;
        put(&stage.path("guest.wasm"), &guest(1));
        stage.live(1, 1).await;
        stage.end().await;
    });
}
