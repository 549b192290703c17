//! The answer to a question, within the time that EMQX waits.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use sluicegate_core::access::Denied;
use sluicegate_core::access::failures::Failures;
use sluicegate_core::access::known::Entry;
use sluicegate_core::access::token::TokenHash;
use tokio::time::timeout;

use super::request::Asked;
use super::rules::{Current, Rules};
use crate::redis::connect::RedisFault;
use crate::redis::tokens::Tokens;
use crate::telemetry::{clock, metrics};

/// For one answer, the body's way here included. EMQX waits for 3 s (`request_timeout` in config/emqx/http.hocon).
const DECISION: Duration = Duration::from_millis(2_500);
/// How long Redis may take of it, with all that asks at the same time: a thousand machines that come back at once are to get in.
const REDIS: Duration = Duration::from_secs(2);
/// The largest body: user name, password, client id and topic as long as anybody has them, several times over.
const BODY: usize = 32 << 10;
/// Lines in the log in a second.
const LINES: u32 = 10;
/// Characters of what a stranger wrote that the log shows.
const SHOWN: usize = 64;

const ALLOW: &str = r#"{"result":"allow","is_superuser":false}"#;
const DENY: &str = r#"{"result":"deny","is_superuser":false}"#;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Authenticate,
    Authorize,
    /// Nobody answers there.
    Other,
}

impl Endpoint {
    fn of(path: &str) -> Self {
        match path {
            "/emqx/authenticate" => Self::Authenticate,
            "/emqx/authorize" => Self::Authorize,
            _ => Self::Other,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Authorize => "authorize",
            Self::Other => "other",
        }
    }
}

/// Why the answer is yes.
#[derive(Clone, Copy)]
enum Allowed {
    /// By the rules, and by the token where one was given.
    Known,
    /// By the rules alone: Redis does not say whether the machine was revoked.
    Unasked,
}

impl Allowed {
    fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Unasked => "redis-away",
        }
    }
}

/// Answers.
pub(super) struct Decider {
    rules: Current,
    tokens: Tokens,
    /// The locks are held for a look only.
    failures: Mutex<Failures>,
    lines: Mutex<Lines>,
}

impl Decider {
    pub(super) fn new(rules: Current, tokens: Tokens) -> Self {
        Self { rules, tokens, failures: Mutex::default(), lines: Mutex::default() }
    }

    /// Always 200.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let endpoint = Endpoint::of(request.uri().path());
        let mut asked = Asked::default();
        let decided = timeout(DECISION, self.decide(endpoint, request, &mut asked)).await.unwrap_or(Err(Denied::Late));
        let (result, reason, body) = match decided {
            Ok(allowed) => ("allow", allowed.name(), ALLOW),
            Err(denied) => {
                self.log(endpoint, denied, &asked);
                ("deny", denied.name(), DENY)
            }
        };
        metrics::access(endpoint.name(), result, reason);
        let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        response
    }

    async fn decide(
        &self,
        endpoint: Endpoint,
        request: Request<Incoming>,
        asked: &mut Asked,
    ) -> Result<Allowed, Denied> {
        let rules = self.rules.load_full();
        // A 401 would be "ignore": what the next one says, or the broker's default, would decide then. So who does not know the secret is
        // told no like anybody else.
        if !knows_the_secret(request.headers(), &rules) {
            return Err(Denied::Secret);
        }
        if endpoint == Endpoint::Other || request.method() != Method::POST {
            return Err(Denied::Request);
        }
        let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
        let content_type = content_type.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let body = Limited::new(request.into_body(), BODY).collect().await.map_err(|_| Denied::Request)?.to_bytes();
        *asked = Asked::read(content_type, &body).ok_or(Denied::Request)?;
        match endpoint {
            Endpoint::Authenticate => self.authenticate(&rules, asked).await,
            _ => self.authorize(&rules, asked).await,
        }
    }

    async fn authenticate(&self, rules: &Rules, asked: &Asked) -> Result<Allowed, Denied> {
        let Asked { user, password, client_id, from, .. } = asked;
        rules.policy.login(user, client_id)?;
        let most = rules.failures_per_minute;
        if self.failures().limited(user, from, most, clock::uptime()) {
            return Err(Denied::Limited);
        }
        let given = TokenHash::of(password);
        // Of a machine that there is not, it is found out in the same way and in the same time.
        let entry = self.read(rules, user).await.map_err(|()| Denied::Redis)?;
        let stored = if let Entry::Token(hash) = &entry { Some(hash) } else { None };
        // The hash of no token at all is somebody's mistake.
        if given.is(stored) && !password.is_empty() {
            return Ok(Allowed::Known);
        }
        self.failures().failed(user, from, most, clock::uptime());
        Err(Denied::Token)
    }

    /// The connection was let in. That its machine was revoked since is seen here; while Redis does not say so the rules alone decide: a
    /// denied publish ends the connection (`deny_action = disconnect`), and an outage of Redis, which the spool is for, would end them all.
    async fn authorize(&self, rules: &Rules, asked: &Asked) -> Result<Allowed, Denied> {
        let action = asked.action().ok_or(Denied::Request)?;
        rules.policy.decide(&asked.user, action, &asked.topic)?;
        if rules.policy.is_gateway(&asked.user) {
            return Ok(Allowed::Known);
        }
        match self.find(rules, &asked.user).await {
            Ok(Entry::Token(_)) => Ok(Allowed::Known),
            Ok(Entry::Revoked) => Err(Denied::Revoked),
            Err(()) => Ok(Allowed::Unasked),
        }
    }

    /// What a machine has now.
    async fn read(&self, rules: &Rules, user: &str) -> Result<Entry, ()> {
        let read = self.tokens.read(user, rules.keep, REDIS).await;
        Self::counted(read.map(|entry| (entry, false)))
    }

    /// What a machine has, as far as Redis told.
    async fn find(&self, rules: &Rules, user: &str) -> Result<Entry, ()> {
        Self::counted(self.tokens.find(user, rules.keep, REDIS).await)
    }

    fn counted(found: Result<(Entry, bool), RedisFault>) -> Result<Entry, ()> {
        match found {
            Ok((entry, known)) => {
                metrics::access_lookup(if known { "hit" } else { "read" });
                Ok(entry)
            }
            Err(fault) => {
                metrics::access_lookup("fault");
                // The log says once that Redis is away; this is said of each.
                tracing::debug!(reason = %fault, "a token cannot be read");
                Err(())
            }
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What strangers wrote is shown escaped, and a part of it; never a password.
    fn log(&self, endpoint: Endpoint, denied: Denied, asked: &Asked) {
        let left_out = self.lines.lock().unwrap_or_else(PoisonError::into_inner).next(clock::uptime());
        let Some(left_out) = left_out else { return };
        let shown = |text: &str| text.chars().take(SHOWN).collect::<String>();
        let (user, client_id, topic, from) =
            (shown(&asked.user), shown(&asked.client_id), shown(&asked.topic), shown(&asked.from));
        tracing::info!(
            endpoint = endpoint.name(),
            reason = denied.name(),
            ?user,
            ?client_id,
            ?topic,
            ?from,
            left_out,
            "denied"
        );
    }
}

fn knows_the_secret(headers: &HeaderMap, rules: &Rules) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let secret = given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    // By their hashes, so that not even the length can be measured.
    TokenHash::of(secret.map_or("", |(_, secret)| secret)).is(rules.secret.as_ref())
}

/// So that whoever is denied cannot fill the disk.
#[derive(Default)]
struct Lines {
    second: u64,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// Whether a line is written: how many were not since the last.
    fn next(&mut self, now: Duration) -> Option<u64> {
        if self.second != now.as_secs() {
            (self.second, self.written) = (now.as_secs(), 0);
        }
        if self.written >= LINES {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_denials_is_ten_lines_a_second_and_a_number() {
        let (mut lines, second) = (Lines::default(), Duration::from_secs);
        assert_eq!((0..50).filter_map(|_| lines.next(second(5))).count(), 10);
        assert_eq!(lines.next(second(6)), Some(40));
        assert_eq!(lines.next(second(6)), Some(0));
    }
}
