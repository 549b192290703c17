//! Reads the settings' file again when it changes, when somebody asks, and every 30 seconds (a file that `${file:…}` names may hold
//! something else by then), and proposes to the gateway what it says. One after another: each is answered before the next is read, unless the file
//! says something else meanwhile.

use std::path::{Path, PathBuf};

use sluicegate_core::settings::{Place, Resolved, SettingsErrors};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::desk::{Answer, Asked, By};
use super::{DEFAULT_FILE, file, load, mistake};
use crate::watch::{Watch, Watched};

/// What the file says.
pub struct Proposal {
    /// Who asked.
    pub by: By,
    /// The settings, or every mistake in them.
    pub resolved: Box<Result<Resolved, SettingsErrors>>,
    /// The file that they are from.
    pub file: Option<PathBuf>,
    /// Where the gateway tells what became of it.
    pub answer: oneshot::Sender<Answer>,
}

/// Proposes what the settings' file says.
pub struct Proposer {
    /// None: there is none yet.
    file: Option<PathBuf>,
    asked: mpsc::Receiver<Asked>,
    proposals: mpsc::Sender<Proposal>,
}

impl Proposer {
    /// `file` is what the settings in force are from.
    #[must_use]
    pub fn new(file: Option<PathBuf>, asked: mpsc::Receiver<Asked>, proposals: mpsc::Sender<Proposal>) -> Self {
        Self { file, asked, proposals }
    }

    /// Proposes until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.propose() => {}
        }
    }

    async fn propose(&mut self) {
        let watched = self.file.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let mut watch = Watch::new(vec![Watched { path: watched, at_once: false }]).await;
        // What a shell puts into a pipe does not change.
        let changes = self.file.as_deref().is_none_or(|file| can_be_read_again(file).is_ok());
        // It may have changed since it was read for the start.
        let mut next = if changes { Some(Asked { by: By::File, answer: None }) } else { self.asked.recv().await };
        while let Some(asked) = next {
            let (answer, mut answered) = oneshot::channel();
            let resolved = self.read().await;
            let proposed = Box::new(resolved.clone());
            let proposal = Proposal { by: asked.by, resolved: proposed, file: self.file.clone(), answer };
            if self.proposals.send(proposal).await.is_err() {
                return;
            }
            let answer = loop {
                tokio::select! {
                    answer = &mut answered => match answer {
                        Ok(answer) => break Some(answer),
                        Err(_) => return,
                    },
                    // What the file says by now is wanted, not what is still being loaded.
                    _ = watch.changed(), if changes => {
                        if !same(&self.read().await, &resolved) {
                            break None;
                        }
                    }
                }
            };
            next = match answer {
                Some(answer) => {
                    // Who asked may be gone.
                    drop(asked.answer.map(|asked| asked.send(answer)));
                    tokio::select! {
                        asked = self.asked.recv() => asked,
                        _ = watch.changed(), if changes => Some(Asked { by: By::File, answer: None }),
                    }
                }
                // Who asked is told what becomes of that.
                None => Some(asked),
            };
        }
    }

    #[expect(clippy::disallowed_methods, reason = "it is awaited here")]
    async fn read(&mut self) -> Result<Resolved, SettingsErrors> {
        // One that is there stays the settings' file: where it is gone later, the built-in settings do not take its place.
        self.file = self.file.take().or_else(|| file(None));
        let file = self.file.clone();
        // Off the threads that poll: a file may lie on a slow disk.
        let read = tokio::task::spawn_blocking(move || {
            if let Some(file) = &file {
                can_be_read_again(file)?;
            }
            load(file.as_deref())
        });
        read.await.unwrap_or_else(|_| Err(mistake(None, "reading the settings panicked; see the log".to_owned())))
    }
}

/// Whether the file says the same.
fn same(one: &Result<Resolved, SettingsErrors>, other: &Result<Resolved, SettingsErrors>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => one.settings == other.settings,
        (Err(one), Err(other)) => one == other,
        _ => false,
    }
}

/// What a shell puts into a pipe can be read once: a second time it would look empty, and empty means the built-in settings.
fn can_be_read_again(file: &Path) -> Result<(), SettingsErrors> {
    if file.exists() && !file.is_file() {
        let place = Place { file: file.display().to_string(), line: 1, column: 1 };
        return Err(mistake(Some(place), "is no regular file, so it cannot be read again".to_owned()));
    }
    Ok(())
}
