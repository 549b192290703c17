//! The build before is kept: over a restart, for a rollback, and where it can be.

use std::os::unix::fs::PermissionsExt as _;

use sluicegate_core::lifecycle::Step;

use super::*;
use crate::registry::desk::DeskError;
use crate::registry::history::{Outcome, What, Who};
use crate::sandbox::inspect::digest;

async fn with_two_builds() -> Stage {
    let mut stage = Stage::start("guest.wasm", |folder| put(&folder.join("guest.wasm"), &guest(1)));
    assert_eq!(stage.live(1, 1).await, Source::File);
    put(&stage.path("guest.wasm"), &guest(2));
    assert_eq!(stage.live(2, 2).await, Source::File);
    stage.kept(&[1, 2]).await;
    stage
}

impl Stage {
    /// The files of these versions are kept, and no others.
    async fn kept(&mut self, versions: &[u32]) {
        let name =
            |version: &u32| format!("{}.wasm", digest(&guest(*version)).to_string().trim_start_matches("sha256:"));
        let mut wanted: Vec<String> = versions.iter().map(name).collect();
        wanted.sort();
        self.until(|stage| (stage.builds() == wanted).then_some(())).await;
    }

    fn builds(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("state/plugins-test/builds")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Rolls back, and makes live what is proposed.
    async fn roll_back(&mut self, version: u32, number: u64) -> Result<desk::RolledBack, DeskError> {
        let desk = self.desk.clone();
        let (source, rolled) = tokio::join!(self.live(version, number), desk.roll_back("guest", None));
        assert_eq!(source, Source::Fallback);
        rolled
    }

    fn notices(&self) -> String {
        self.board.notices().join("\n")
    }
}

#[test]
fn a_start_with_a_bad_file_serves_with_what_was_live() {
    run(async {
        let stage = with_two_builds().await;
        let another = Guest {
            manifest: "name = \"another\"\nversion = \"9\"\ndescription = \"x\"\n".to_owned(),
            ..Guest::echo()
        };
        // Garbage, another plugin's build, nothing at all.
        put(&stage.path("guest.wasm"), b"garbage");
        let mut stage = stage.again(Said::default()).await;
        assert_eq!(stage.live(2, 1).await, Source::Fallback);
        let notice = stage.until(|stage| Some(stage.notices()).filter(|text| !text.is_empty())).await;
        assert!(notice.starts_with("plugin guest serves with the kept build 2 (sha256:"), "{notice}");
        assert!(notice.contains("not a WebAssembly component"), "{notice}");
        put(&stage.path("guest.wasm"), &another.handler());
        assert!(stage.refused("checked").await.1.contains("another"));
        let mut stage = stage.again(Said::default()).await;
        assert_eq!(stage.live(2, 1).await, Source::Fallback);
        fs::remove_file(stage.path("guest.wasm")).expect("removed");
        let mut stage = stage.again(Said::default()).await;
        assert_eq!(stage.live(2, 1).await, Source::Fallback);
        assert!(stage.refused("found").await.1.contains("no such file"));
        stage.kept(&[1, 2]).await;
        // A good file ends it.
        put(&stage.path("guest.wasm"), &guest(3));
        assert_eq!(stage.live(3, 2).await, Source::File);
        stage.until(|stage| stage.notices().is_empty().then_some(())).await;
        stage.kept(&[2, 3]).await;
        stage.end().await;
    });
}

#[test]
fn a_pinned_build_is_meant_whatever_it_calls_itself() {
    run(async {
        let stage = with_two_builds().await;
        let another = Guest {
            manifest: "name = \"another\"\nversion = \"9\"\ndescription = \"x\"\n".to_owned(),
            ..Guest::echo()
        };
        let another = another.handler();
        put(&stage.path("guest.wasm"), &another);
        let mut stage = stage.again(Said { digest: Some(digest(&another)), ..Said::default() }).await;
        assert_eq!(stage.live(9, 1).await, Source::File);
        stage.end().await;
    });
}

#[test]
fn what_is_kept_goes_through_every_step() {
    run(async {
        let stage = with_two_builds().await;
        put(&stage.path("guest.wasm"), b"garbage");
        // What was live is revoked since: the one before it serves.
        let revoked = |versions: &[u32]| Said {
            trust: Trust {
                revoked: versions.iter().map(|version| digest(&guest(*version))).collect(),
                ..Trust::default()
            },
            ..Said::default()
        };
        let mut stage = stage.again(revoked(&[2])).await;
        assert_eq!(stage.live(1, 1).await, Source::Fallback);
        stage.kept(&[1]).await;
        let mut stage = stage.again(revoked(&[1, 2])).await;
        assert!(stage.refused("verified").await.1.contains("not a WebAssembly component"));
        stage.nothing().await;
        let change = stage.desk.history().of(None)[0].clone();
        assert_eq!((change.to, change.step), (Some(digest(&guest(1))), Step::Verified));
        assert!(change.reason.is_some_and(|reason| reason.contains("trust.revoked")));
        let mut stage = stage.again(Said { digest: Some(digest(&guest(7))), ..Said::default() }).await;
        stage.refused("verified").await;
        stage.nothing().await;
        stage.end().await;
    });
}

#[test]
fn a_rollback_goes_one_build_back_and_its_file_is_not_tried_again() {
    run(async {
        let mut stage = with_two_builds().await;
        let rolled = stage.roll_back(1, 3).await.expect("rolled back");
        assert_eq!((rolled.from, rolled.to), (digest(&guest(2)), digest(&guest(1))));
        assert_eq!((rolled.version.as_str(), rolled.generation), ("1", 3));
        let status = stage.status();
        assert_eq!(
            (&status["fallback"], &status["rejected"][0]),
            (&serde_json::Value::Null, &digest(&guest(2)).to_string().into())
        );
        let again = stage.desk.roll_back("guest", None).await;
        assert_eq!(again, Err(DeskError::NoFallback("guest".to_owned())));
        // The same file in another inode.
        put(&stage.path("guest.wasm"), &guest(2));
        stage.nothing().await;
        stage.nothing().await;
        // Nor after a restart.
        let mut stage = stage.again(Said::default()).await;
        assert_eq!(stage.live(1, 1).await, Source::Fallback);
        stage.nothing().await;
        assert!(stage.notices().contains("was rolled back"), "{}", stage.notices());
        put(&stage.path("guest.wasm"), &guest(3));
        assert_eq!(stage.live(3, 2).await, Source::File);
        put(&stage.path("guest.wasm"), &guest(2));
        assert_eq!(stage.live(2, 3).await, Source::File);
        let history = stage.desk.history().of(Some("guest"));
        let rolled = history.iter().find(|change| change.what == What::Rollback).expect("the rollback");
        assert_eq!((rolled.who, rolled.outcome, rolled.step), (Who::Api, Outcome::Live, Step::Fallback));
        assert_eq!((rolled.from, rolled.to), (Some(digest(&guest(2))), Some(digest(&guest(1)))));
        stage.end().await;
    });
}

#[test]
fn a_rollback_that_is_refused_changes_nothing() {
    run(async {
        let stage = with_two_builds().await;
        let trust = Trust { revoked: vec![digest(&guest(1))], ..Trust::default() };
        let mut stage = stage.again(Said { trust, ..Said::default() }).await;
        assert_eq!(stage.live(2, 1).await, Source::File);
        let refused = stage.desk.roll_back("guest", None).await.expect_err("refused");
        assert!(refused.to_string().contains("the live one goes on: not verified: its digest sha256:"), "{refused}");
        assert!(matches!(stage.desk.roll_back("nobody", None).await, Err(DeskError::Unknown { .. })));
        put(&stage.path("guest.wasm"), &guest(3));
        stage.live(3, 2).await;
        stage.end().await;
    });
}

#[test]
fn what_cannot_be_written_is_a_notice_and_stops_no_swap() {
    run(async {
        let mut stage = Stage::start("guest.wasm", |folder| {
            put(&folder.join("guest.wasm"), &guest(1));
            fs::write(folder.join("state"), b"no folder").expect("a file");
        });
        stage.live(1, 1).await;
        put(&stage.path("guest.wasm"), &guest(2));
        stage.live(2, 2).await;
        let notice = stage.until(|stage| Some(stage.notices()).filter(|text| !text.is_empty())).await;
        assert!(notice.starts_with("cannot use ") && notice.contains("(gateway.state, its permissions"), "{notice}");
        // From memory.
        stage.roll_back(1, 3).await.expect("rolled back");
        assert!(stage.notices().contains("was rolled back"));
        // There is a place for it again: the next change writes down everything.
        fs::remove_file(stage.path("state")).expect("removed");
        put(&stage.path("guest.wasm"), &guest(3));
        stage.live(3, 4).await;
        stage.until(|stage| stage.notices().is_empty().then_some(())).await;
        stage.kept(&[1, 3]).await;
        stage.end().await;
    });
}

#[test]
fn of_two_gateways_on_one_folder_one_keeps_its_builds() {
    run(async {
        let mut stage = with_two_builds().await;
        let mut other = Stage::start_in(stage.folder.clone(), "guest.wasm", Said::default());
        other.live(2, 1).await;
        let notice = other.until(|other| Some(other.notices()).filter(|text| !text.is_empty())).await;
        assert!(notice.starts_with("another gateway keeps its builds in "), "{notice}");
        put(&stage.path("guest.wasm"), &guest(3));
        stage.live(3, 3).await;
        other.live(3, 2).await;
        other.end().await;
        stage.kept(&[2, 3]).await;
        stage.end().await;
    });
}

#[test]
fn the_folder_is_for_its_owner_alone_and_what_is_damaged_is_put_aside() {
    run(async {
        let stage = with_two_builds().await;
        for folder in ["state", "state/plugins-test", "state/plugins-test/builds"] {
            let mode = fs::metadata(stage.path(folder)).expect("a folder").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{folder}");
        }
        // Another build where the kept one was.
        let build = stage.path("state/plugins-test/builds").join(stage.builds()[0].clone());
        fs::write(&build, guest(9)).expect("written");
        let build = stage.path("state/plugins-test/builds").join(stage.builds()[1].clone());
        fs::write(&build, guest(9)).expect("written");
        put(&stage.path("guest.wasm"), b"garbage");
        let mut stage = stage.again(Said::default()).await;
        stage.refused("verified").await;
        stage.nothing().await;
        let reason = stage.desk.history().of(None)[0].reason.clone().unwrap_or_default();
        assert!(reason.contains("it is damaged"), "{reason}");
        fs::write(stage.path("state/plugins-test/index.json"), b"{\"version\":1,").expect("written");
        let mut stage = stage.again(Said::default()).await;
        stage.refused("verified").await;
        put(&stage.path("guest.wasm"), &guest(4));
        stage.live(4, 1).await;
        stage.kept(&[4]).await;
        assert!(stage.path("state/plugins-test/index.json.damaged").exists());
        // A newer program's is left alone.
        let newer = "{\"version\":2,\"plugins\":{}}";
        fs::write(stage.path("state/plugins-test/index.json"), newer).expect("written");
        let mut stage = stage.again(Said::default()).await;
        stage.live(4, 1).await;
        put(&stage.path("guest.wasm"), &guest(5));
        stage.live(5, 2).await;
        stage.nothing().await;
        assert_eq!(fs::read_to_string(stage.path("state/plugins-test/index.json")).expect("read"), newer);
        assert!(stage.notices().contains("is of version 2"), "{}", stage.notices());
        stage.roll_back(4, 3).await.expect("rolled back, from memory");
        stage.end().await;
    });
}

#[test]
fn a_folder_that_others_may_write_to_is_not_used_until_it_is_mended() {
    run(async {
        let stage = with_two_builds().await;
        put(&stage.path("guest.wasm"), b"garbage");
        let kept = stage.path("state/plugins-test");
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o770)).expect("changed");
        let mut stage = stage.again(Said::default()).await;
        // What anybody may have written there does not go live.
        stage.refused("verified").await;
        stage.nothing().await;
        let notice = stage.notices();
        assert!(notice.contains("is not this user's alone (owner ") && notice.contains("mode 770"), "{notice}");
        assert!(notice.contains("`chmod 700` it, or remove it"), "{notice}");
        put(&stage.path("guest.wasm"), &guest(3));
        stage.live(3, 1).await;
        stage.until(|stage| stage.notices().contains("mode 770").then_some(())).await;
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o755)).expect("changed");
        put(&stage.path("guest.wasm"), &guest(4));
        stage.live(4, 2).await;
        stage.kept(&[3, 4]).await;
        assert!(stage.notices().is_empty(), "{}", stage.notices());
        assert_eq!(fs::metadata(&kept).expect("a folder").permissions().mode() & 0o777, 0o700);
        stage.end().await;
    });
}

#[test]
fn in_the_folder_no_link_is_followed_and_no_strangers_file_removed() {
    run(async {
        let mut stage = with_two_builds().await;
        let builds = stage.path("state/plugins-test/builds");
        let file = |version| {
            builds.join(format!("{}.wasm", digest(&guest(version)).to_string().trim_start_matches("sha256:")))
        };
        let unfinished = format!(".{}.wasm.0123456789abcdef.new", "0".repeat(64));
        for name in ["notes.txt", "0123.wasm", &unfinished] {
            fs::write(builds.join(name), b"x").expect("written");
        }
        // Of the same length, and another; a link to another.
        let elsewhere = stage.path("elsewhere.wasm");
        fs::write(&elsewhere, guest(9)).expect("written");
        std::os::unix::fs::symlink(&elsewhere, file(3)).expect("a link");
        fs::write(file(4), vec![0; guest(4).len()]).expect("written");
        for (version, number) in [(3, 3), (4, 4)] {
            put(&stage.path("guest.wasm"), &guest(version));
            stage.live(version, number).await;
        }
        let whole = |version: &u32| fs::read(file(*version)).is_ok_and(|there| there == guest(*version));
        stage.until(|_| [3, 4].iter().all(whole).then_some(())).await;
        assert!(fs::symlink_metadata(file(3)).expect("a file").is_file());
        assert_eq!(fs::read(&elsewhere).expect("a file"), guest(9));
        stage.until(|stage| (stage.builds().len() == 4).then_some(())).await;
        let names = stage.builds();
        assert!(names.contains(&"notes.txt".to_owned()) && names.contains(&"0123.wasm".to_owned()), "{names:?}");
        // A kept build behind a link is none.
        fs::remove_file(file(3)).expect("removed");
        fs::write(&elsewhere, guest(3)).expect("written");
        std::os::unix::fs::symlink(&elsewhere, file(3)).expect("a link");
        let refused = stage.desk.roll_back("guest", None).await.expect_err("refused");
        assert!(refused.to_string().contains("not a regular file"), "{refused}");
        stage.end().await;
    });
}

/// Whoever cannot sign can still write another comment into a signature, or take it out.
#[test]
fn what_was_rolled_back_does_not_return_with_another_signature() {
    run(async {
        let signed = |comment: &str| sluicegate_core::trust::embed(&guest(2), comment).expect("signed");
        let mut stage = Stage::start("guest.wasm", |folder| put(&folder.join("guest.wasm"), &guest(1)));
        stage.live(1, 1).await;
        put(&stage.path("guest.wasm"), &guest(2));
        stage.live(2, 2).await;
        stage.roll_back(1, 3).await.expect("rolled back");
        // It is not even looked at whether that is a signature.
        put(&stage.path("guest.wasm"), &signed("another"));
        stage.nothing().await;
        stage.nothing().await;
        assert_eq!(stage.refusal(), None);
        put(&stage.path("guest.wasm"), &guest(3));
        stage.live(3, 4).await;
        stage.end().await;
    });
}
