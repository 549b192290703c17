//! Each way of putting a new file in place ends in one reload, or in one refusal.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluicegate_core::settings::{Grants, Limits, Plugin};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::sandbox::tests::sandbox;
use sluicegate_guests::Guest;

/// Longer than the slowest machine takes to notice, compile and rehearse a small component.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than the registry waits between two looks.
const PAUSE: Duration = Duration::from_millis(300);

struct Stage {
    folder: tempfile::TempDir,
    board: Arc<Board>,
    proposals: mpsc::Receiver<Proposal>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// The plugin `guest` in its version `version`.
fn guest(version: u32) -> Vec<u8> {
    let manifest = format!("name = \"guest\"\nversion = \"{version}\"\ndescription = \"A guest.\"\n");
    Guest { manifest, ..Guest::echo() }.handler()
}

impl Stage {
    /// A registry that watches `path` in a new folder, once `prepare` has filled that.
    #[expect(clippy::disallowed_methods, reason = "the set is the test's")]
    fn start(path: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path());
        let plugin = Plugin {
            path: folder.path().join(path),
            settings: IndexMap::new(),
            limits: Limits { call_timeout: Duration::from_secs(5), ..Limits::default() },
            grants: Grants::default(),
        };
        let wanted = Wanted { name: "guest".to_owned(), plugin, world: Some(World::TopicHandler), before: None };
        let board = Arc::new(Board::new("test", ["guest".to_owned()], Vec::new()));
        // One place, as in the gateway.
        let (sender, proposals) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let registry = Registry::new(sandbox().clone(), vec![wanted], sender, board.clone());
        tasks.spawn(registry.run(stop.clone()));
        Self { folder, board, proposals, stop, tasks }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The next build that goes live is this version, and it is the so manieth: nothing was loaded in between.
    async fn live(&mut self, version: u32, number: u64) {
        let proposal = timeout(PATIENCE, self.proposals.recv()).await.expect("a build in time").expect("a registry");
        let generation = proposal.generation;
        assert_eq!((generation.version(), generation.number()), (version.to_string().as_str(), number));
    }

    /// For a moment nothing goes live.
    async fn nothing(&mut self) {
        let proposal = timeout(PAUSE, self.proposals.recv()).await;
        assert!(proposal.is_err(), "a build went live: {:?}", proposal.map(|it| it.map(|it| it.generation.number())));
    }

    fn refusal(&self) -> Option<(String, String, String)> {
        let status = serde_json::to_value(self.board.status()).expect("JSON");
        let refusal = status["plugins"][0]["last_refusal"].as_object()?;
        let part = |name: &str| refusal.get(name).map(|value| value.to_string()).unwrap_or_default();
        Some((part("step"), part("reason"), part("at")))
    }

    async fn refused(&mut self, step: &str) -> (String, String, String) {
        let wanted = format!("\"{step}\"");
        let waited = timeout(PATIENCE, async {
            loop {
                match self.refusal() {
                    Some(refusal) if refusal.0 == wanted => return refusal,
                    _ => self.nothing().await,
                }
            }
        });
        waited.await.expect("a refusal in time")
    }

    async fn end(mut self) {
        self.stop.cancel();
        timeout(PATIENCE, self.tasks.join_next()).await.expect("an end in time");
    }
}

#[track_caller]
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

fn put(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).expect("a file");
    fs::rename(&beside, path).expect("renamed");
}

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
