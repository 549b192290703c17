//! Looks every few seconds at both servers, for `/metrics` and `/readyz`: whether they answer, how long the lists are, how commands stand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::board::{Board, Patience, Server};
use crate::database::Database;
use crate::database::fault::Fault;
use crate::database::statements::commands;
use crate::domain::command::State;
use crate::redis::connect::RedisFault;
use crate::redis::lengths::Lengths;
use crate::{clock, metrics};

/// How often a server is asked whether it is there.
const LOOK: Duration = Duration::from_secs(2);
/// How often commands are counted: the database reads an index for it from end to end.
const COUNT: Duration = Duration::from_secs(15);

/// Looks until `stop`.
pub async fn run(
    lengths: Lengths,
    database: Database,
    board: Arc<Board>,
    exporter: Option<metrics::Exporter>,
    stop: CancellationToken,
) {
    let upkeep = async {
        loop {
            if let Some(exporter) = &exporter {
                exporter.upkeep();
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = at_redis(lengths, &board) => {}
        () = at_the_database(&database, &board) => {}
        () = upkeep => {}
    }
}

async fn at_redis(mut lengths: Lengths, board: &Board) {
    let mut patience = Patience::new(board, "reaching Redis");
    loop {
        let looked = lengths.look().await;
        // A refusal is an answer.
        board.reached(Server::Redis, matches!(looked, Ok(_) | Err(RedisFault::Refused { .. })));
        let delay = match looked {
            Ok(found) => {
                found.lists.iter().for_each(|(list, entries)| metrics::queue_length(list, *entries));
                found.processing.iter().for_each(|(list, entries)| metrics::processing(list, *entries));
                patience.good();
                LOOK
            }
            Err(fault) => patience.bad(&fault),
        };
        tokio::time::sleep(delay).await;
    }
}

async fn at_the_database(database: &Database, board: &Board) {
    let mut patience = Patience::new(board, "reaching the database");
    let mut counted = None;
    loop {
        // Before that there may be no tables to count in.
        let due = board.is_prepared() && counted.is_none_or(|at: Duration| clock::uptime() - at >= COUNT);
        let looked = database.within(look(database, due)).await;
        board.reached(Server::Database, looked.is_ok());
        let delay = match looked {
            Ok(states) => {
                if let Some(states) = states {
                    for state in State::ALL {
                        metrics::commands(state.word(), states.get(state.word()).copied().unwrap_or(0));
                    }
                    counted = Some(clock::uptime());
                }
                patience.good();
                LOOK
            }
            Err(fault) => patience.bad(&fault),
        };
        tokio::time::sleep(delay).await;
    }
}

/// Whether it answers; and how many commands are in which state, where that is asked for.
async fn look(database: &Database, count: bool) -> Result<Option<BTreeMap<String, u64>>, Fault> {
    if !count {
        return database.answer().await.map(|()| None);
    }
    let mut session = database.read().await?;
    let mut states = BTreeMap::new();
    for row in session.rows(&commands::by_state(database.tongue())).await? {
        states.insert(row.must_text(0)?, u64::try_from(row.must_int(1)?).unwrap_or_default());
    }
    session.commit().await?;
    Ok(Some(states))
}
