//! What the server answers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{dead_letters, plugins, settings};
use crate::telemetry::board::Board;
use crate::telemetry::metrics::Exporter;

/// Describes the others; a test compares it with what they answer.
const OPENAPI: &str = include_str!("openapi.json");

#[derive(Clone)]
struct Shown {
    board: Arc<Board>,
    exporter: Exporter,
}

/// A path, a method, and who answers; the router is made of these, and a test compares them with the description.
pub(super) struct Route<S> {
    path: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "the router has it in `answers`; the test reads it"))]
    method: Method,
    answers: MethodRouter<S>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
}

impl<S: Clone + Send + Sync + 'static> Route<S> {
    pub(super) fn new<H: Handler<T, S>, T: 'static>(method: Method, path: &'static str, handler: H) -> Self {
        let filter = match method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
        };
        Self { path, method, answers: on(filter, handler) }
    }

    /// With what the router is wrapped in.
    pub(super) fn map(self, change: impl FnOnce(MethodRouter<S>) -> MethodRouter<S>) -> Self {
        Self { answers: change(self.answers), ..self }
    }
}

fn router<S: Clone + Send + Sync + 'static>(table: Vec<Route<S>>) -> Router<S> {
    table.into_iter().fold(Router::new(), |router, route| router.route(route.path, route.answers))
}

fn table() -> Vec<Route<Shown>> {
    let openapi = async || ([(header::CONTENT_TYPE, "application/json")], OPENAPI);
    vec![
        Route::new(Method::Get, "/healthz", async || Json(json!({ "status": "ok" }))),
        Route::new(Method::Get, "/readyz", ready),
        Route::new(Method::Get, "/metrics", metrics),
        Route::new(Method::Get, "/api/status", status),
        Route::new(Method::Get, "/api/openapi.json", openapi),
    ]
}

pub(super) fn routes(board: Arc<Board>, exporter: Exporter, desks: super::Shown, loopback: bool) -> Router {
    router(table())
        .with_state(Shown { board, exporter })
        .merge(router(dead_letters::table()).with_state(desks.letters))
        .merge(router(plugins::table()).with_state(desks.plugins))
        .merge(router(settings::table()).with_state(desks.settings))
        .fallback(async || answer(StatusCode::NOT_FOUND, "there is nothing here; see /api/openapi.json"))
        .method_not_allowed_fallback(async || {
            answer(StatusCode::METHOD_NOT_ALLOWED, "that method is not allowed here; see /api/openapi.json")
        })
        .layer(from_fn_with_state(loopback, known_host))
}

pub(super) fn answer(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

async fn ready(State(shown): State<Shown>) -> Response {
    let reasons = shown.board.not_ready();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let ready = json!({ "ready": reasons.is_empty(), "reasons": reasons, "notices": shown.board.notices() });
    (status, Json(ready)).into_response()
}

async fn metrics(State(shown): State<Shown>) -> Response {
    shown.board.tally().publish();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shown.exporter.render()).into_response()
}

async fn status(State(shown): State<Shown>) -> Json<Value> {
    // Invariant: it is made of texts and numbers.
    Json(serde_json::to_value(shown.board.status()).unwrap_or_default())
}

/// A web page that a person of this machine looks at could reach a loopback address by a name of its own (DNS rebinding):
/// such a request carries that name.
async fn known_host(State(loopback): State<bool>, request: Request, next: Next) -> Response {
    if loopback && !names_this_machine(request.headers()) {
        return answer(
            StatusCode::FORBIDDEN,
            "this server listens on the loopback address; ask for it by that or as localhost",
        );
    }
    next.run(request).await
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_pass() {
        let host = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, name.parse().expect("a header"));
            names_this_machine(&headers)
        };
        assert!(host("localhost:9090") && host("127.0.0.1:9090") && host("[::1]:9090") && host("LOCALHOST"));
        assert!(!host("evil.example:9090") && !host("localhost.evil.example"));
        assert!(names_this_machine(&HeaderMap::new()));
    }

    #[test]
    fn the_description_names_every_route_and_no_other() {
        fn named<S>(table: &[Route<S>]) -> impl Iterator<Item = (String, &'static str)> {
            table.iter().map(|route| {
                let method = match route.method {
                    Method::Get => "get",
                    Method::Post => "post",
                };
                (route.path.to_owned(), method)
            })
        }
        let (own, letters) = (table(), dead_letters::table());
        let (plugins, settings) = (plugins::table(), settings::table());
        let mut served: Vec<_> =
            named(&own).chain(named(&letters)).chain(named(&plugins)).chain(named(&settings)).collect();
        served.sort();
        let openapi: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let mut described = Vec::new();
        for (path, operations) in openapi["paths"].as_object().expect("paths") {
            for (method, operation) in operations.as_object().expect("operations") {
                let method = ["get", "post"].into_iter().find(|known| known == method).expect("a method");
                // Whoever asks by another name than this machine's.
                assert_eq!(operation["responses"]["403"]["$ref"], "#/components/responses/Forbidden", "{path}");
                described.push((path.clone(), method));
            }
        }
        described.sort();
        assert_eq!(served, described);
    }

    /// Every key of a real status is described, and none is described that is not there.
    #[test]
    fn the_description_is_of_the_real_status() {
        let board = Board::new("gateway-1", ["heartbeat".to_owned()], Vec::new());
        let status = serde_json::to_value(board.status()).expect("JSON");
        let openapi: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let described = openapi["components"]["schemas"]["Status"]["properties"].as_object().expect("properties");
        let mut described: Vec<&String> = described.keys().collect();
        let mut real: Vec<&String> = status.as_object().expect("an object").keys().collect();
        described.sort();
        real.sort();
        assert_eq!(described, real);
    }
}
