//! All parts together: started, watched, ended in order. Only this file starts tasks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::alerts::offline::{self, Waiting};
use crate::board::{Board, Patience};
use crate::commands::{self, Commander};
use crate::database::Database;
use crate::database::fault::Fault;
use crate::domain::job::Source;
use crate::listener::{self, Parts};
use crate::machines::Machines;
use crate::metrics::Exporter;
use crate::redis::auth::Auth;
use crate::redis::connect::{Connector, RedisFault};
use crate::redis::lengths::Lengths;
use crate::redis::lists::{Keeper, ListKeys};
use crate::reload::{self, Watched};
use crate::settings::Settings;
use crate::{alerts, api, watch as looking};

/// Which parts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Which {
    /// Jobs, results and alerts.
    pub listen: bool,
    /// The HTTP server.
    pub serve: bool,
}

/// Why it does not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The settings make no Redis client.
    #[error(transparent)]
    Redis(#[from] RedisFault),
    /// The settings make no database client.
    #[error(transparent)]
    Database(#[from] Fault),
    /// The address is taken, or not of this machine.
    #[error("cannot listen on {address} (api.listen): {source}")]
    Listen {
        /// The address of the settings.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A part ended by a fault of this program.
    #[error("a part of this program ended by itself: {0}")]
    Broken(String),
    /// What was under way is done by the next start, or by another instance.
    #[error("it did not end within {0:?} (listener.shutdown_timeout); nothing is lost")]
    Late(Duration),
}

/// The clients of both servers, as the settings say. Nothing is connected yet.
#[derive(Clone)]
pub struct Clients {
    /// Redis.
    pub redis: Connector,
    /// The database.
    pub database: Database,
    prefix: String,
}

impl Clients {
    /// From the settings.
    ///
    /// # Errors
    /// [`ServiceError`], where the settings make none.
    pub fn new(settings: &Settings) -> Result<Self, ServiceError> {
        Ok(Self {
            redis: Connector::new(&settings.redis)?,
            database: Database::new(&settings.database)?,
            prefix: settings.redis.key_prefix.clone(),
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Who gives commands.
    #[must_use]
    pub fn commander(&self, settings: &Settings) -> Commander {
        let list = self.key(&settings.queues.outgoing);
        Commander::new(self.database.clone(), self.redis.clone(), list, settings.commands.expiry)
    }

    /// Machines' keys in Redis.
    #[must_use]
    pub fn auth(&self, settings: &Settings) -> Auth {
        Auth::new(self.redis.clone(), self.key(&settings.machines.auth_key), settings.machines.auth_format)
    }

    /// Who issues tokens.
    #[must_use]
    pub fn machines(&self, settings: &Settings) -> Machines {
        Machines::new(self.database.clone(), self.auth(settings), settings.machines.reserved.clone())
    }

    /// What is watched in Redis.
    #[must_use]
    pub fn lengths(&self, settings: &Settings, which: Which) -> Lengths {
        let queues = &settings.queues;
        let mut lists = vec![&*queues.incoming, &*queues.outgoing, &*queues.dead_letters];
        lists.extend(queues.command_results.as_deref());
        let mut taken = Vec::new();
        if which.listen {
            taken.push(&*queues.incoming);
            taken.extend(queues.command_results.as_deref());
        }
        Lengths::new(self.redis.clone(), &self.prefix, &lists, &taken, &settings.listener.instance)
    }

    /// A listener on one of the lists.
    #[must_use]
    pub fn parts(&self, settings: &Settings, board: &Arc<Board>, list: &str, source: Source) -> Parts {
        Parts {
            redis: self.redis.clone(),
            database: self.database.clone(),
            board: board.clone(),
            instance: settings.listener.instance.clone(),
            list: list.to_owned(),
            keys: ListKeys::new(self.key(list)),
            source,
            rules: settings.listener.rules.clone(),
            batch: settings.listener.batch,
            lanes: settings.listener.workers,
            attempts: settings.listener.attempts,
            window: settings.alerts.window,
            dead_letters: (self.key(&settings.queues.dead_letters), settings.queues.dead_letters_max),
        }
    }
}

/// Runs until `stop`, then ends in order. `exporter` is what `/metrics` shows; none: whoever embeds this program has a recorder of its own.
/// `watched` is where edits of the settings come from; none: they stay.
///
/// # Errors
/// [`ServiceError`].
pub async fn run(
    settings: Settings,
    which: Which,
    exporter: Option<Exporter>,
    watched: Option<Watched>,
    stop: CancellationToken,
) -> Result<(), ServiceError> {
    let clients = Clients::new(&settings)?;
    let board = Arc::new(Board::default());
    let commander = clients.commander(&settings);
    let mut tasks = JoinSet::new();
    if which.serve {
        let address = settings.api.listen;
        let listen = |source| ServiceError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        tracing::info!(address = %listener.local_addr().map_err(listen)?, "the API listens");
        if settings.api.tokens.is_empty() {
            tracing::warn!(
                "nobody may ask the API: api.tokens is empty; `sluicegate-backend api-token NAME` makes a token"
            );
        }
        let desk = api::Desk {
            board: board.clone(),
            commander: commander.clone(),
            machines: clients.machines(&settings),
            exporter: exporter.clone(),
            tokens: settings.api.tokens.clone().into(),
        };
        tasks.spawn(api::run(listener, desk, stop.clone()));
        let lengths = clients.lengths(&settings, which);
        tasks.spawn(looking::run(lengths, clients.database.clone(), board.clone(), exporter, stop.clone()));
    }
    let (edited, live) = watch::channel(settings.clone());
    if let Some(watched) = watched {
        tasks.spawn(reload::run(watched, board.clone(), edited, stop.clone()));
    }
    tasks.spawn(working(clients, live, which, board, commander, stop.clone()));
    let timeout = settings.listener.shutdown_timeout;
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(timeout).await;
    };
    tokio::pin!(late);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => return Ok(()),
                Some(Ok(())) if stop.is_cancelled() => {}
                Some(Ok(())) => return Err(ServiceError::Broken("it had nothing to do any more".to_owned())),
                Some(Err(error)) => return Err(ServiceError::Broken(error.to_string())),
            },
            // What is dropped here is between two transactions, or in one that is not committed.
            () = &mut late => return Err(ServiceError::Late(timeout)),
        }
    }
}

/// What needs the database: it is awaited first.
async fn working(
    clients: Clients,
    live: watch::Receiver<Settings>,
    which: Which,
    board: Arc<Board>,
    commander: Commander,
    stop: CancellationToken,
) {
    let database = clients.database.clone();
    let (migrate, results) = {
        let settings = live.borrow();
        let list = settings.queues.command_results.as_deref();
        let results = list.map(|list| Keeper::new(clients.redis.clone(), ListKeys::new(clients.key(list))));
        (settings.database.migrate, results)
    };
    tokio::select! {
        () = stop.cancelled() => return,
        () = prepare(&database, migrate, &board) => {}
    }
    board.prepared();
    let mut tasks = JoinSet::new();
    tasks.spawn(commands::run(commander, results, board.clone(), stop.clone()));
    if which.listen {
        tasks.spawn(listening(clients, live, board, stop.clone()));
    }
    awaited(tasks).await;
    database.close().await;
}

/// Jobs, results and alerts by the settings in force. After an edit they end in order, with what is under way committed and what is not begun
/// back in the list, and begin anew by what it says.
async fn listening(clients: Clients, mut live: watch::Receiver<Settings>, board: Arc<Board>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let settings = live.borrow_and_update().clone();
        let until = stop.child_token();
        let working = awaited(begin(&clients, &settings, &board, &until));
        let edited = async {
            tokio::select! {
                () = until.cancelled() => {}
                Ok(()) = live.changed() => {}
            }
            until.cancel();
        };
        tokio::join!(working, edited);
    }
}

fn begin(clients: &Clients, settings: &Settings, board: &Arc<Board>, stop: &CancellationToken) -> JoinSet<()> {
    let (mut tasks, database) = (JoinSet::new(), &clients.database);
    let jobs = Source::Jobs(settings.types.clone());
    let parts = clients.parts(settings, board, &settings.queues.incoming, jobs.clone());
    tracing::info!(
        instance = parts.instance,
        list = parts.keys.list,
        batch = parts.batch,
        workers = parts.lanes,
        "the listener takes jobs"
    );
    let waiting = Waiting { redis: clients.redis.clone(), keys: parts.keys.clone(), source: jobs };
    tasks.spawn(offline::run(database.clone(), board.clone(), waiting, settings.alerts.clone(), stop.clone()));
    tasks.spawn(alerts::run(database.clone(), board.clone(), settings.alerts.clone(), stop.clone()));
    tasks.spawn(listener::run::run(parts, stop.clone()));
    if let Some(list) = &settings.queues.command_results {
        let mut parts = clients.parts(settings, board, list, Source::Results);
        parts.lanes = 1;
        tasks.spawn(listener::run::run(parts, stop.clone()));
    }
    tasks
}

/// Waits until all have ended; a panic of one is this one's.
async fn awaited(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Makes the tables and looks at them, however long the database is away.
pub async fn prepare(database: &Database, migrate: bool, board: &Board) {
    let mut patience = Patience::new(board, "preparing the database");
    loop {
        let preparing = async {
            if migrate {
                database.migrate().await?;
            }
            database.look().await
        };
        match preparing.await {
            Ok(()) => return patience.good(),
            Err(fault) => {
                let delay = patience.bad(&fault);
                tokio::time::sleep(delay).await;
            }
        }
    }
}
