//! One request: an alert as JSON, signed.
//!
//! `X-Sluicegate-Signature: t=SECONDS,v1=HEX`, where HEX is the HMAC-SHA-256 of `SECONDS.BODY` under the secret. Whoever takes it compares in
//! constant time, and refuses one whose time is far from now, so that nobody can send an old one again.

use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request};
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use sha2::Sha256;

use crate::clock;
use crate::machines::token::to_hex;
use crate::settings;

/// The header that holds the signature.
pub const SIGNATURE: &str = "x-sluicegate-signature";

/// Where alerts are sent.
pub struct Webhook {
    client: Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, String>,
    url: String,
    secret: Vec<u8>,
    timeout: Duration,
}

impl Webhook {
    /// From the settings.
    #[must_use]
    pub fn new(settings: &settings::Webhook) -> Self {
        // Where the system has no certificates each attempt says so: alerts over plain HTTP need none.
        let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())
            .and_then(|builder| builder.with_native_roots().map_err(|error| error.to_string()));
        let client = tls.map(|tls| {
            let tls = tls.with_no_client_auth();
            let connector =
                hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
            Client::builder(TokioExecutor::new()).build(connector)
        });
        Self {
            client,
            url: settings.url.clone(),
            secret: settings.secret.0.clone().into_bytes(),
            timeout: settings.timeout,
        }
    }

    /// Sends one.
    ///
    /// # Errors
    /// Why it was not taken: any answer but a success (2xx), or none.
    pub async fn send(&self, body: &str) -> Result<(), String> {
        let client = self.client.as_ref().map_err(|reason| format!("no TLS: {reason}"))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(SIGNATURE, signature(&self.secret, clock::now(), body))
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|error| error.to_string())?;
        match tokio::time::timeout(self.timeout, client.request(request)).await {
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(format!("it answers {}", answer.status())),
            Ok(Err(error)) => Err(std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }
}

/// The header's value.
#[must_use]
pub fn signature(secret: &[u8], at: Timestamp, body: &str) -> String {
    let seconds = at.as_second();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("invariant: a key of any length fits");
    mac.update(format!("{seconds}.{body}").as_bytes());
    format!("t={seconds},v1={}", to_hex(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_every_tool_makes() {
        // printf '1776128400.{"id":1}' | openssl dgst -sha256 -hmac secret
        let at = Timestamp::from_second(1_776_128_400).expect("a time");
        assert_eq!(
            signature(b"secret", at, r#"{"id":1}"#),
            "t=1776128400,v1=f5442ca5a904c2afe25596df8fa2c5807815453fa6b7d31bbf07ae9d4b9b3247"
        );
    }
}
