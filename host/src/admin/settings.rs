//! `/api/settings`: which are in force; the file is read again.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::local::from_here;
use super::refused::{Nothing, Refused};
use super::routes::{Method, Route};
use crate::settings::desk::{Answer, Desk, InForce};

pub(super) fn table() -> Vec<Route<Desk>> {
    vec![
        Route::new(Method::Get, "/api/settings", show),
        from_here(Route::new(Method::Post, "/api/settings/reload", reload)),
    ]
}

async fn show(State(desk): State<Desk>) -> Json<Value> {
    let in_force = desk.in_force();
    let InForce { number, since, by, file, keys } = &*in_force;
    let keys = keys.iter().map(|key| {
        json!({ "key": key.key, "value": key.value, "source": key.source, "applies": InForce::applies(&key.key) })
    });
    Json(json!({ "number": number, "since": since, "by": by, "file": file, "keys": keys.collect::<Vec<_>>() }))
}

async fn reload(State(desk): State<Desk>, body: Result<Json<Nothing>, JsonRejection>) -> Result<Response, Refused> {
    let Json(Nothing {}) = body?;
    Ok(match desk.reload().await {
        Some(Answer::Refused(refused)) => {
            let error = refused.reasons.join("\n");
            let body = json!({ "error": error, "reasons": refused.reasons, "restart": refused.restart });
            (StatusCode::CONFLICT, Json(body)).into_response()
        }
        Some(done) => Json(done).into_response(),
        None => return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is shutting down")),
    })
}
