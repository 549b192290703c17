//! `/api/dead-letters`: looked at, dropped, replayed.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use sluicegate_core::dead_letter::{Filter, LetterId};

use super::local::from_here;
use super::refused::Refused;
use super::routes::{Method, Route};
use crate::dead_letters::desk::{By, Desk, DeskError};
use crate::dead_letters::replay::Order;

/// Letters that are listed, unless the request says otherwise.
const LISTED: usize = 100;
/// Letters replayed in a second at the most, unless the request says otherwise.
const RATE: NonZeroU32 = NonZeroU32::new(100).unwrap();

type Shown = State<Arc<OnceLock<Desk>>>;

pub(super) fn table() -> Vec<Route<Arc<OnceLock<Desk>>>> {
    vec![
        Route::new(Method::Get, "/api/dead-letters", list),
        Route::new(Method::Get, "/api/dead-letters/{id}", show),
        Route::new(Method::Get, "/api/dead-letters/replay", progress),
        from_here(Route::new(Method::Post, "/api/dead-letters/replay", replay)),
        from_here(Route::new(Method::Post, "/api/dead-letters/drop", discard)),
    ]
}

impl From<DeskError> for Refused {
    fn from(error: DeskError) -> Self {
        let status = match error {
            DeskError::Unknown(_) => StatusCode::NOT_FOUND,
            DeskError::Busy => StatusCode::CONFLICT,
            DeskError::Redis(_) | DeskError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error)
    }
}

fn desk(desk: &OnceLock<Desk>) -> Result<&Desk, Refused> {
    let starting = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway handles nothing yet; see /readyz");
    desk.get().ok_or_else(starting)
}

/// The filter, as a query says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    /// Separated by commas.
    id: Option<String>,
    route: Option<String>,
    machine: Option<String>,
    reason: Option<String>,
    since: Option<Timestamp>,
    limit: Option<usize>,
    #[serde(default)]
    payload: bool,
    by: Option<By>,
}

impl Listing {
    fn filter(&self) -> Result<Filter, Refused> {
        let ids = self.id.iter().flat_map(|ids| ids.split(',')).map(id).collect::<Result<_, _>>()?;
        let (route, machine, reason) = (self.route.clone(), self.machine.clone(), self.reason.clone());
        Ok(Filter { ids, route, machine, reason, since: self.since })
    }
}

fn id(text: &str) -> Result<LetterId, Refused> {
    let wrong = || Refused::request(format!("`{}` is no dead letter's id: 16 hexadecimal digits", text.escape_debug()));
    LetterId::parse(text).ok_or_else(wrong)
}

async fn list(State(shown): Shown, query: Result<Query<Listing>, QueryRejection>) -> Result<Response, Refused> {
    let Query(listing) = query?;
    let (desk, filter) = (desk(&shown)?, listing.filter()?);
    if let Some(by) = listing.by {
        let counts = desk.count(&filter, by).await?;
        let counts = counts.into_iter().map(|(value, letters)| json!({ "value": value, "letters": letters }));
        return Ok(Json(json!({ "counts": counts.collect::<Vec<_>>() })).into_response());
    }
    let limit = listing.limit.unwrap_or(LISTED);
    Ok(Json(desk.list(&filter, limit, listing.payload).await?).into_response())
}

async fn show(State(shown): Shown, Path(text): Path<String>) -> Result<Response, Refused> {
    let entry = desk(&shown)?.show(id(&text)?).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], entry).into_response())
}

/// What a change is for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    #[serde(default)]
    filter: Filter,
    /// An empty filter is meant.
    #[serde(default)]
    all: bool,
    /// Of a replay: so many a second at the most.
    rate: Option<NonZeroU32>,
}

impl Change {
    /// So that nobody drops everything by leaving something out.
    fn filter(self) -> Result<Filter, Refused> {
        if self.filter.is_empty() != self.all {
            let text =
                "say which letters: a `filter` with `ids`, `route`, `machine`, `reason` or `since`, or `all`: true";
            return Err(Refused::request(text));
        }
        Ok(self.filter)
    }
}

async fn replay(State(shown): Shown, change: Result<Json<Change>, JsonRejection>) -> Result<Response, Refused> {
    let Json(change) = change?;
    let rate = change.rate.unwrap_or(RATE);
    let desk = desk(&shown)?;
    desk.replay(Order { filter: change.filter()?, rate })?;
    Ok((StatusCode::ACCEPTED, Json(desk.progress())).into_response())
}

async fn progress(State(shown): Shown) -> Result<Response, Refused> {
    Ok(Json(desk(&shown)?.progress()).into_response())
}

async fn discard(State(shown): Shown, change: Result<Json<Change>, JsonRejection>) -> Result<Response, Refused> {
    let Json(change) = change?;
    let desk = desk(&shown)?;
    let dropped = desk.discard(&change.filter()?).await?;
    Ok(Json(json!({ "dropped": dropped })).into_response())
}
