//! What is answered.

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::handler::Handler;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Desk, auth};
use crate::commands::SendError;
use crate::machines::TokenError;

/// Describes the others; a test compares it with what they answer.
const OPENAPI: &str = include_str!("openapi.json");
/// The largest request.
const MAX_BODY: usize = 512 << 10;

/// A path, a method, and who answers; the router is made of these, and a test compares them with the description.
struct Route {
    path: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "the router has it in `answers`; the test reads it"))]
    method: &'static str,
    answers: MethodRouter<Desk>,
}

fn route<H: Handler<T, Desk>, T: 'static>(method: &'static str, path: &'static str, handler: H) -> Route {
    let filter = match method {
        "get" => MethodFilter::GET,
        "put" => MethodFilter::PUT,
        "delete" => MethodFilter::DELETE,
        _ => MethodFilter::POST,
    };
    Route { path, method, answers: on(filter, handler) }
}

/// What everybody may ask.
fn open() -> Vec<Route> {
    vec![
        route("get", "/healthz", health),
        route("get", "/readyz", ready),
        route("get", "/metrics", metrics),
        route("get", "/api/openapi.json", openapi),
    ]
}

/// What needs a token.
fn closed() -> Vec<Route> {
    vec![
        route("get", "/api/status", status),
        route("post", "/api/machines/{serial_no}/commands", send_command),
        route("get", "/api/commands/{message_id}", find_command),
        route("post", "/api/machines/{serial_no}/token", issue),
        route("put", "/api/machines/{serial_no}/token", rotate),
        route("delete", "/api/machines/{serial_no}/token", revoke),
    ]
}

pub(super) fn routes(desk: Desk) -> Router {
    let router = |routes: Vec<Route>| {
        routes.into_iter().fold(Router::new(), |router: Router<Desk>, route| router.route(route.path, route.answers))
    };
    router(closed())
        .route_layer(from_fn_with_state(desk.clone(), auth::check))
        .merge(router(open()))
        .fallback(async || {
            refused(StatusCode::NOT_FOUND, "there is no such path; /api/openapi.json has those that are")
        })
        .method_not_allowed_fallback(async || {
            refused(StatusCode::METHOD_NOT_ALLOWED, "this path has other methods; /api/openapi.json has them")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(desk)
}

/// Why something is not done.
pub(super) struct Refused(StatusCode, String);

pub(super) fn refused(status: StatusCode, reason: impl ToString) -> Refused {
    Refused(status, reason.to_string())
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<SendError> for Refused {
    fn from(error: SendError) -> Self {
        let status = match error {
            SendError::Wrong(_) => StatusCode::UNPROCESSABLE_ENTITY,
            SendError::NoMachine(_) => StatusCode::NOT_FOUND,
            SendError::Random(_) | SendError::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        refused(status, error)
    }
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        let status = match error {
            TokenError::SerialNo(_) | TokenError::Reserved(_) | TokenError::Other { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            TokenError::HasOne(_) => StatusCode::CONFLICT,
            TokenError::HasNone(_) => StatusCode::NOT_FOUND,
            TokenError::NotKept => StatusCode::NOT_IMPLEMENTED,
            TokenError::Random(_) | TokenError::Database(_) | TokenError::HalfDone(_) | TokenError::Redis(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        refused(status, error)
    }
}

async fn health() -> &'static str {
    "ok\n"
}

async fn ready(State(desk): State<Desk>) -> Response {
    let reasons = desk.board.not_ready();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn metrics(State(desk): State<Desk>) -> Result<Response, Refused> {
    match &desk.exporter {
        Some(exporter) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            Ok((kind, exporter.render()).into_response())
        }
        None => Err(refused(StatusCode::NOT_FOUND, "this process shows its metrics elsewhere")),
    }
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn status(State(desk): State<Desk>) -> Json<Value> {
    let said = desk.board.said();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "committed": said.committed,
        "dead": said.dead,
        "troubles": said.troubles,
        "refused_settings": desk.board.refused_edit(),
    }))
}

/// What is asked of a machine.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    command: String,
    /// As it goes out, byte for byte; `{}` where there is none.
    #[serde(default = "no_payload")]
    payload: Box<RawValue>,
    /// Seconds.
    #[serde(default)]
    expires_in: Option<f64>,
}

/// What a path names.
fn named(path: Result<Path<String>, PathRejection>) -> Result<String, Refused> {
    path.map(|Path(name)| name).map_err(|rejection| refused(rejection.status(), rejection.body_text()))
}

fn no_payload() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("invariant: it is JSON")
}

async fn send_command(
    State(desk): State<Desk>,
    serial_no: Result<Path<String>, PathRejection>,
    body: Result<Json<Box<RawValue>>, JsonRejection>,
) -> Result<Response, Refused> {
    let serial_no = named(serial_no)?;
    let Json(body) = body.map_err(|rejection| refused(rejection.status(), rejection.body_text()))?;
    let wrong = |what: String| refused(StatusCode::UNPROCESSABLE_ENTITY, what);
    // A derived struct would take an array for its fields in order.
    if !body.get().starts_with('{') {
        return Err(wrong("the body must be an object with `command`".to_owned()));
    }
    let wanted: Wanted = serde_json::from_str(body.get()).map_err(|error| wrong(error.to_string()))?;
    let expires_in = wanted.expires_in.map(Duration::try_from_secs_f64).transpose();
    let expires_in = expires_in.map_err(|_| wrong("`expires_in` must be a number of seconds".to_owned()))?;
    desk.commander.expect_machine(&serial_no).await?;
    let payload = wanted.payload.get();
    let id = desk.commander.send_command(&serial_no, &wanted.command, payload, expires_in).await?;
    let location = [(header::LOCATION, format!("/api/commands/{id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(json!({ "message_id": id, "state": "queued" }))).into_response())
}

async fn find_command(
    State(desk): State<Desk>,
    message_id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refused> {
    match desk.commander.find(&named(message_id)?).await {
        Ok(Some(command)) => Ok(Json(command).into_response()),
        Ok(None) => Err(refused(StatusCode::NOT_FOUND, "there is no command of this id")),
        Err(fault) => Err(refused(StatusCode::SERVICE_UNAVAILABLE, fault)),
    }
}

async fn issue(State(desk): State<Desk>, serial_no: Result<Path<String>, PathRejection>) -> Result<Response, Refused> {
    let serial_no = named(serial_no)?;
    let token = desk.machines.issue(&serial_no).await?;
    Ok((StatusCode::CREATED, once(), Json(shown(&serial_no, token.reveal()))).into_response())
}

async fn rotate(State(desk): State<Desk>, serial_no: Result<Path<String>, PathRejection>) -> Result<Response, Refused> {
    let serial_no = named(serial_no)?;
    let token = desk.machines.rotate(&serial_no).await?;
    Ok((once(), Json(shown(&serial_no, token.reveal()))).into_response())
}

async fn revoke(
    State(desk): State<Desk>,
    serial_no: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Refused> {
    desk.machines.revoke(&named(serial_no)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(serial_no: &str, token: &str) -> Value {
    json!({ "serial_no": serial_no, "api_token": token })
}

/// Nobody on the way keeps a secret.
fn once() -> [(header::HeaderName, &'static str); 1] {
    [(header::CACHE_CONTROL, "no-store")]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_description_has_what_is_answered_and_nothing_else() {
        let description: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let mut described = BTreeSet::new();
        for (path, methods) in description["paths"].as_object().expect("paths") {
            for method in methods.as_object().expect("methods").keys() {
                described.insert(format!("{method} {path}"));
            }
        }
        let names = |routes: Vec<Route>| -> BTreeSet<String> {
            routes.iter().map(|route| format!("{} {}", route.method, route.path)).collect()
        };
        let (open, closed) = (names(open()), names(closed()));
        assert_eq!(described, open.union(&closed).cloned().collect());
        for name in open {
            let (method, path) = name.split_once(' ').expect("two words");
            let security = &description["paths"][path][method]["security"];
            assert_eq!(security, &json!([]), "{name} needs no token");
        }
    }
}
