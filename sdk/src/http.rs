//! Calling the servers that the operator named in `grants.http`.
//!
//! ```
//! use sluicegate_sdk::{Failure, Message, Output, http, job};
//!
//! fn handle(message: Message) -> Result<Vec<Output>, Failure> {
//!     let answer = http::post("https://api.example.com/check", message.payload)
//!         .header("Content-Type", "application/json")
//!         .header("Idempotency-Key", &message.id)
//!         .send()?;
//!     match answer.status {
//!         200 => job(answer.body).unkeyed(),
//!         status => Err(Failure::Retry(format!("the server answers {status}"))),
//!     }
//! }
//! # let _ = handle;
//! ```
//!
//! A message may be tried more than once, and so may its requests. While a build is only tried (samples, rehearsal), nobody is called, and
//! [`Request::send`] says so. Natively, under `cargo test`, [`testing::with_server`](crate::testing::with_server) answers.

use std::fmt;

use crate::Failure;

/// A request, before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// `https://HOST[:PORT]/PATH?QUERY`.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// None: it has no body.
    pub body: Option<Vec<u8>>,
}

/// What a server answered, whichever status it has: redirects are not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 and so on.
    pub status: u16,
    /// Names in small letters, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// As it came.
    pub body: Vec<u8>,
}

/// Why there is no answer. As a [`Failure`] it asks for another attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer(pub String);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoAnswer {}

impl From<NoAnswer> for Failure {
    fn from(NoAnswer(reason): NoAnswer) -> Self {
        Self::Retry(reason)
    }
}

/// `GET`, to be sent by [`Request::send`].
#[must_use]
pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

/// `POST` with a body, to be sent by [`Request::send`].
#[must_use]
pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Request {
    Request { body: Some(body.into()), ..Request::new("POST", url) }
}

impl Request {
    /// Any method, in capitals.
    #[must_use]
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self { method: method.into(), url: url.into(), headers: Vec::new(), body: None }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends it and waits for the whole answer; the time that this takes is the call's.
    ///
    /// # Errors
    /// [`NoAnswer`], where the server was not granted, cannot be reached, or does not come to an end.
    pub fn send(self) -> Result<Answer, NoAnswer> {
        #[cfg(target_arch = "wasm32")]
        return wasi::send(self);
        #[cfg(not(target_arch = "wasm32"))]
        return crate::testing::ask(&self);
    }
}

#[cfg(target_arch = "wasm32")]
mod wasi {
    use wasip2::http::outgoing_handler::{self, OutgoingRequest};
    use wasip2::http::types::{Fields, IncomingBody, Method, OutgoingBody, Scheme};
    use wasip2::io::streams::StreamError;

    use super::{Answer, NoAnswer, Request};

    /// Bytes that a stream takes at once, as WASI promises.
    const WRITE: usize = 4_096;
    /// Bytes that are read at once.
    const READ: u64 = 64 << 10;

    pub(super) fn send(request: Request) -> Result<Answer, NoAnswer> {
        let Request { method, url, headers, body } = request;
        let why = |what: &str| NoAnswer(format!("{url}: {what}"));
        let fields = Fields::new();
        for (name, value) in &headers {
            fields.append(name, value.as_bytes()).map_err(|error| why(&format!("header `{name}`: {error:?}")))?;
        }
        let (scheme, rest) = match url.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            _ => return Err(why("a URL begins with https:// or http://")),
        };
        let path = rest.find(['/', '?']).unwrap_or(rest.len());
        let outgoing = OutgoingRequest::new(fields);
        let method = match &*method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "PATCH" => Method::Patch,
            "OPTIONS" => Method::Options,
            other => Method::Other(other.to_owned()),
        };
        let set = outgoing
            .set_method(&method)
            .and_then(|()| outgoing.set_scheme(Some(&scheme)))
            .and_then(|()| outgoing.set_authority(Some(&rest[..path])))
            .and_then(|()| outgoing.set_path_with_query(Some(&rest[path..])));
        set.map_err(|()| why("it is no URL, or its method is none"))?;
        let out = match &body {
            Some(_) => Some(outgoing.body().map_err(|()| why("it takes no body"))?),
            None => None,
        };
        let answer = outgoing_handler::handle(outgoing, None).map_err(|code| why(&format!("{code:?}")))?;
        if let (Some(out), Some(bytes)) = (out, body) {
            // Where the server does not want all of it, its answer says why.
            if write(&out, &bytes).is_some() {
                let _ = OutgoingBody::finish(out, None);
            }
        }
        answer.subscribe().block();
        let answer = match answer.get() {
            Some(Ok(answer)) => answer.map_err(|code| why(&format!("{code:?}")))?,
            _ => return Err(why("there is no answer")),
        };
        let headers = answer.headers().entries();
        let (status, body) = (answer.status(), answer.consume().map_err(|()| why("its body is gone"))?);
        Ok(Answer {
            status,
            headers,
            body: read(&body).ok_or_else(|| why("its body broke off, or is larger than limits.http_response"))?,
        })
    }

    fn write(body: &OutgoingBody, bytes: &[u8]) -> Option<()> {
        let stream = body.write().ok()?;
        bytes.chunks(WRITE).try_for_each(|part| stream.blocking_write_and_flush(part).ok())
    }

    fn read(body: &IncomingBody) -> Option<Vec<u8>> {
        let stream = body.stream().ok()?;
        let mut all = Vec::new();
        loop {
            match stream.blocking_read(READ) {
                Ok(part) => all.extend(part),
                Err(StreamError::Closed) => return Some(all),
                Err(StreamError::LastOperationFailed(_)) => return None,
            }
        }
    }
}
