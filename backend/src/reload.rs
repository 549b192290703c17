//! An edit of the settings file, taken up while the program runs: as a whole, or refused as a whole.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::board::{Board, RefusedEdit};
use crate::clock;
use crate::settings::difference::{Edit, compare};
use crate::settings::{self, Resolved, Settings, SettingsError};

/// How often the file is read: with it what `${file:…}` names.
const LOOK: Duration = Duration::from_secs(5);

/// Where settings come from, and who asks for them to be read.
pub struct Watched {
    /// The file that was named; none: the default one, where it is there.
    pub file: Option<PathBuf>,
    /// Somebody asks for it at once (SIGHUP).
    pub asked: Arc<Notify>,
}

/// What became of one reading.
type Read = Result<Settings, Vec<String>>;

/// Reads until `stop`; what is good and needs no restart is sent on.
pub async fn run(watched: Watched, board: Arc<Board>, live: watch::Sender<Settings>, stop: CancellationToken) {
    // What is wrong is said once, and again where somebody asks.
    let mut refused: Option<Read> = None;
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            () = watched.asked.notified() => true,
            () = tokio::time::sleep(LOOK) => false,
        };
        let file = watched.file.clone();
        // A file on a disk that hangs must not hold up the tasks beside it.
        let read = tokio::task::spawn_blocking(move || settings::load(file.as_deref())).await;
        let read: Read = match read {
            Ok(Ok(Resolved { settings, .. })) => Ok(settings),
            Ok(Err(SettingsError(reasons))) => Err(reasons),
            Err(error) => Err(vec![error.to_string()]),
        };
        let edit = read.as_ref().map(|wanted| compare(&live.borrow(), wanted)).map_err(Vec::clone);
        let (reasons, restart) = match edit {
            Ok(Edit::None) => {
                if asked || refused.is_some() {
                    tracing::info!("the settings file says what is in force");
                }
                refused = None;
                board.refused(None);
                continue;
            }
            Ok(Edit::Live) => {
                refused = None;
                board.refused(None);
                tracing::info!("the settings are changed; the listener goes on with the new ones");
                if let Ok(settings) = read {
                    live.send_replace(settings);
                }
                continue;
            }
            Ok(Edit::Restart(keys)) => {
                (vec![format!("{} needs a restart; nothing of the edit is in force", keys.join(", "))], keys)
            }
            Err(reasons) => (reasons, Vec::new()),
        };
        if asked || refused.as_ref() != Some(&read) {
            for reason in &reasons {
                tracing::error!(reason, "the edited settings are refused; the ones before stay in force");
            }
        }
        board.refused(Some(RefusedEdit {
            at: clock::now(),
            reasons,
            restart: restart.into_iter().map(str::to_owned).collect(),
        }));
        refused = Some(read);
    }
}
