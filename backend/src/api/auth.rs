//! Who may ask: whoever shows a token whose SHA-256 stands in the settings.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Desk;
use super::routes::refused;
use crate::machines::token::{same, sha256};
use crate::settings::ApiToken;

/// The name of a token, where it is one of these. Every one of them is compared, each in the same time.
fn named<'t>(tokens: &'t [ApiToken], shown: &str) -> Option<&'t str> {
    let shown = sha256(shown);
    tokens.iter().fold(None, |found, token| if same(&token.sha256, &shown) { Some(token.name.as_str()) } else { found })
}

/// Lets through who may ask.
pub(super) async fn check(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match shown.and_then(|shown| named(&desk.tokens, shown)) {
        Some(name) => {
            tracing::debug!(name, method = %request.method(), path = request.uri().path(), "asked");
            next.run(request).await
        }
        None => {
            let reason = "this needs `Authorization: Bearer TOKEN` with a token of api.tokens";
            let mut answer = refused(StatusCode::UNAUTHORIZED, reason).into_response();
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_its_name_and_another_has_none() {
        let tokens =
            ["a", "b"].map(|name| ApiToken { name: name.to_owned(), sha256: sha256(&format!("secret {name}")) });
        assert_eq!(named(&tokens, "secret a"), Some("a"));
        assert_eq!(named(&tokens, "secret b"), Some("b"));
        assert_eq!(named(&tokens, "secret"), None);
        assert_eq!(named(&tokens, ""), None);
        assert_eq!(named(&[], "secret a"), None);
    }
}
