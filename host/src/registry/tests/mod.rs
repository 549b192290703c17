//! The registry with real files, and a gateway that makes live whatever is proposed.

mod files;
mod kept;
mod signed;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluicegate_core::settings::{Grants, Limits, Plugin};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, desk};
use super::*;
use crate::sandbox::tests::sandbox;
use crate::telemetry::board::Board;
use sluicegate_guests::Guest;

/// Longer than the slowest machine takes to notice, compile and rehearse a small component.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than the registry waits between two looks.
const PAUSE: Duration = Duration::from_millis(300);

struct Stage {
    folder: Arc<tempfile::TempDir>,
    board: Arc<Board>,
    desk: Desk,
    proposals: mpsc::Receiver<Proposal>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// The plugin `guest` in its version `version`.
fn guest(version: u32) -> Vec<u8> {
    let manifest = format!("name = \"guest\"\nversion = \"{version}\"\ndescription = \"A guest.\"\n");
    Guest { manifest, ..Guest::echo() }.handler()
}

/// What the settings say of the plugin `guest`, and of whom they trust.
#[derive(Clone, Default)]
struct Said {
    digest: Option<sluicegate_core::digest::Digest>,
    trust: Trust,
}

impl Stage {
    /// A registry that watches `path` in a new folder, once `prepare` has filled that.
    fn start(path: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path());
        Self::start_in(Arc::new(folder), path, Said::default())
    }

    /// A registry of a folder that is there.
    #[expect(clippy::disallowed_methods, reason = "the set is the test's")]
    fn start_in(folder: Arc<tempfile::TempDir>, path: &str, said: Said) -> Self {
        let plugin = Plugin {
            path: folder.path().join(path),
            digest: said.digest,
            settings: IndexMap::new(),
            limits: Limits { call_timeout: Duration::from_secs(5), ..Limits::default() },
            rehearse: Default::default(),
            canary: None,
            probation: Default::default(),
            grants: Grants::default(),
        };
        let wanted = Wanted {
            name: "guest".to_owned(),
            plugin,
            trust: Some(Arc::new(said.trust)),
            world: Some(World::TopicHandler),
            before: None,
        };
        let board = Arc::new(Board::new("test", ["guest".to_owned()], Vec::new()));
        let (desk, orders) = desk(board.clone(), None);
        // One place, as in the gateway.
        let (sender, proposals) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let state = folder.path().join("state");
        let registry = Registry::new(sandbox(), vec![wanted], (&state, "test"), sender, orders, board.clone());
        tasks.spawn(registry.run(stop.clone()));
        Self { folder, board, desk, proposals, stop, tasks }
    }

    /// Ends it, and starts another one on the same folder.
    async fn again(self, said: Said) -> Self {
        let folder = self.folder.clone();
        self.end().await;
        Self::start_in(folder, "guest.wasm", said)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The next build that goes live is this version, and it is the so manieth: nothing was loaded in between.
    async fn live(&mut self, version: u32, number: u64) -> Source {
        let proposal = timeout(PATIENCE, self.proposals.recv()).await.expect("a build in time").expect("a registry");
        let (generation, source) = (proposal.generation.clone(), proposal.source);
        proposal.is_taken();
        assert_eq!((generation.version(), generation.number()), (version.to_string().as_str(), number));
        source
    }

    /// For a moment nothing goes live.
    async fn nothing(&mut self) {
        let proposal = timeout(PAUSE, self.proposals.recv()).await;
        assert!(proposal.is_err(), "a build went live: {:?}", proposal.map(|it| it.map(|it| it.generation.number())));
    }

    fn status(&self) -> serde_json::Value {
        serde_json::to_value(self.board.status()).expect("JSON")["plugins"][0].clone()
    }

    fn refusal(&self) -> Option<(String, String, String)> {
        let status = self.status();
        let refusal = status["last_refusal"].as_object()?;
        let part = |name: &str| refusal.get(name).map(|value| value.to_string()).unwrap_or_default();
        Some((part("step"), part("reason"), part("at")))
    }

    async fn refused(&mut self, step: &str) -> (String, String, String) {
        let wanted = format!("\"{step}\"");
        self.until(|stage| stage.refusal().filter(|refusal| refusal.0 == wanted)).await
    }

    /// Waits for something, while nothing goes live.
    async fn until<T>(&mut self, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let waited = timeout(PATIENCE, async {
            loop {
                match look(self) {
                    Some(found) => return found,
                    None => self.nothing().await,
                }
            }
        });
        waited.await.expect("it comes in time")
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
