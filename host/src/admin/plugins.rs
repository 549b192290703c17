//! `/api/plugins` and `/api/history`: which builds there are, what changed, on with a canary, back to the build before.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_core::tried::Written;

use super::local::from_here;
use super::refused::{Nothing, Refused};
use super::routes::{Method, Route};
use crate::registry::desk::{Desk, DeskError, Promoted, RolledBack};
use crate::telemetry::board::NamedPlugin;

pub(super) fn table() -> Vec<Route<Desk>> {
    vec![
        Route::new(Method::Get, "/api/plugins", list),
        Route::new(Method::Get, "/api/plugins/{name}", show),
        Route::new(Method::Get, "/api/plugins/{name}/rehearsal", rehearsal),
        Route::new(Method::Get, "/api/plugins/{name}/messages", messages),
        from_here(Route::new(Method::Post, "/api/plugins/{name}/promote", promote)),
        from_here(Route::new(Method::Post, "/api/plugins/{name}/rollback", roll_back)),
        Route::new(Method::Get, "/api/history", history),
    ]
}

impl From<DeskError> for Refused {
    fn from(error: DeskError) -> Self {
        let status = match error {
            DeskError::Unknown { .. } => StatusCode::NOT_FOUND,
            DeskError::NoFallback(_) | DeskError::NoCanary(_) | DeskError::Overtaken(_) | DeskError::Refused { .. } => {
                StatusCode::CONFLICT
            }
            DeskError::Busy | DeskError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error)
    }
}

async fn list(State(desk): State<Desk>) -> Json<Value> {
    Json(json!({ "plugins": desk.plugins() }))
}

async fn show(State(desk): State<Desk>, Path(name): Path<String>) -> Result<Json<NamedPlugin>, Refused> {
    Ok(Json(desk.plugin(&name)?))
}

/// What the last build that was tried on real messages made of them; null: none was.
async fn rehearsal(State(desk): State<Desk>, Path(name): Path<String>) -> Result<Json<Value>, Refused> {
    desk.plugin(&name)?;
    Ok(Json(desk.rehearsed(&name).map_or(Value::Null, |shown| Value::clone(&shown))))
}

/// The last real messages or commands that it was given, whole.
async fn messages(State(desk): State<Desk>, Path(name): Path<String>) -> Result<Json<Value>, Refused> {
    let messages: Vec<Written> = desk.messages(&name).await?.iter().map(Written::from).collect();
    Ok(Json(json!({ "messages": messages })))
}

async fn promote(
    State(desk): State<Desk>,
    Path(name): Path<String>,
    body: Result<Json<Nothing>, JsonRejection>,
) -> Result<Json<Promoted>, Refused> {
    let Json(Nothing {}) = body?;
    Ok(Json(desk.promote(&name, None).await?))
}

async fn roll_back(
    State(desk): State<Desk>,
    Path(name): Path<String>,
    body: Result<Json<Nothing>, JsonRejection>,
) -> Result<Json<RolledBack>, Refused> {
    let Json(Nothing {}) = body?;
    Ok(Json(desk.roll_back(&name, None).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    plugin: Option<String>,
}

async fn history(
    State(desk): State<Desk>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(Wanted { plugin }) = query?;
    Ok(Json(json!({ "changes": desk.history().of(plugin.as_deref()) })))
}
