//! One request and its answer, on the event loop of [`super::net`]: sent, bounded, counted.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::client::Client;
use super::connect::Unreached;
use crate::telemetry::metrics;

/// What waits longest for a server: a call has no more than this.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The answer's head with a body that is still to come, or why there is none.
pub(super) type Answer = Result<Response<WasiBody>, Error>;

/// Sends a request and passes its answer on, as far as it is taken.
///
/// # Cancel safety
/// Dropped, the connection is closed; the answer's body ends with an error.
pub(super) async fn run(
    client: Arc<Client>,
    request: Request<Sent>,
    options: RequestOptions,
    mut head: oneshot::Sender<Answer>,
) {
    let mut record = Record::new(&client, &request);
    let places = client.places.clone();
    let _place = tokio::select! {
        place = places.acquire_owned() => place,
        () = head.closed() => return,
    };
    let patience = options.first_byte_timeout.map(|first| first + options.connect_timeout.unwrap_or_default());
    let answered = tokio::select! {
        answered = timeout(patience.unwrap_or(MAX_WAIT), client.sender.request(request)) => answered,
        () = head.closed() => return,
    };
    let most = client.limits.response.0;
    let response = match answered {
        Err(_) => Err(Error::HttpResponseTimeout),
        Ok(Err(error)) => Err(told(&error)),
        Ok(Ok(response)) if response.body().size_hint().lower() > most => {
            Err(Error::HttpResponseBodySize(Some(response.body().size_hint().lower())))
        }
        Ok(Ok(response)) => Ok(response),
    };
    let response = match response {
        Ok(response) => response,
        Err(error) => {
            record.failed(&error);
            // Whoever is gone needs no answer.
            let _ = head.send(Err(error));
            return;
        }
    };
    record.answered(response.status());
    let (parts, mut body) = response.into_parts();
    // One: a guest that does not read holds the server back, not the host's memory.
    let (frames, taken) = mpsc::channel(1);
    if head.send(Ok(Response::from_parts(parts, Taken { frames: taken, ended: false }.boxed_unsync()))).is_err() {
        return;
    }
    let between = options.between_bytes_timeout.unwrap_or(MAX_WAIT);
    let mut left = most;
    loop {
        let frame = tokio::select! {
            frame = timeout(between, body.frame()) => frame,
            () = frames.closed() => return,
        };
        let part = match frame {
            Err(_) => Part::Failed(Error::ConnectionReadTimeout),
            Ok(None) => Part::End,
            Ok(Some(Err(error))) => Part::Failed(told(&error)),
            Ok(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                match left.checked_sub(length) {
                    Some(rest) => {
                        left = rest;
                        Part::Frame(frame)
                    }
                    None => Part::Failed(Error::HttpResponseBodySize(Some(most))),
                }
            }
        };
        if let Part::Failed(error) = &part {
            record.failed(error);
        }
        let last = !matches!(part, Part::Frame(_));
        if frames.send(part).await.is_err() || last {
            return;
        }
    }
}

enum Part {
    Frame(Frame<Bytes>),
    End,
    Failed(Error),
}

/// The answer's body as the guest has it.
struct Taken {
    frames: mpsc::Receiver<Part>,
    ended: bool,
}

impl Body for Taken {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let part = ready!(self.frames.poll_recv(context));
        self.ended = !matches!(part, Some(Part::Frame(_)));
        Poll::Ready(match part {
            Some(Part::Frame(frame)) => Some(Ok(frame)),
            Some(Part::End) => None,
            Some(Part::Failed(error)) => Some(Err(error)),
            // Cut off: half a body must not look like a whole one.
            None => Some(Err(Error::ConnectionTerminated)),
        })
    }
}

/// A request's body on its way out.
pub(super) struct Sent {
    body: WasiBody,
    most: u64,
    left: u64,
}

/// Why a request's body came to no end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    #[error("it is larger than {0} bytes (limits.http_request)")]
    TooLarge(u64),
    #[error("the plugin did not finish it")]
    Unfinished,
}

impl Sent {
    pub(super) fn new(body: WasiBody, most: u64) -> Self {
        Self { body, most, left: most }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Unsent;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Unsent>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match frame {
            None => None,
            Some(Err(_)) => Some(Err(Unsent::Unfinished)),
            Some(Ok(frame)) => match self.left.checked_sub(frame.data_ref().map_or(0, Bytes::len) as u64) {
                Some(left) => {
                    self.left = left;
                    Some(Ok(frame))
                }
                None => Some(Err(Unsent::TooLarge(self.most))),
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a failure is called in `wasi:http`; what the server or the system said of it is nothing for a guest.
fn told(error: &(dyn StdError + 'static)) -> Error {
    let mut said = Error::HttpProtocolError;
    let mut cause = Some(error);
    while let Some(one) = cause {
        if let Some(unreached) = one.downcast_ref::<Unreached>() {
            return unreached.told();
        }
        if let Some(unsent) = one.downcast_ref::<Unsent>() {
            return match unsent {
                Unsent::TooLarge(most) => Error::HttpRequestBodySize(Some(*most)),
                Unsent::Unfinished => Error::HttpRequestBodySize(None),
            };
        }
        if let Some(tls) = one.downcast_ref::<rustls::Error>() {
            return match tls {
                rustls::Error::InvalidCertificate(_) => Error::TlsCertificateError,
                rustls::Error::AlertReceived(alert) => {
                    Error::TlsAlertReceived { alert_id: Some((*alert).into()), alert_message: None }
                }
                _ => Error::TlsProtocolError,
            };
        }
        if let Some(hyper) = one.downcast_ref::<hyper::Error>() {
            if hyper.is_parse_too_large() {
                return Error::HttpResponseHeaderSectionSize(None);
            }
            if hyper.is_incomplete_message() {
                said = Error::HttpResponseIncomplete;
            }
        }
        cause = match one.downcast_ref::<io::Error>() {
            Some(failed) => {
                said = Error::ConnectionTerminated;
                // Its own cause, not that of its cause.
                failed.get_ref().map(|inner| inner as &(dyn StdError + 'static))
            }
            None => one.source(),
        };
    }
    said
}

impl Unreached {
    fn told(&self) -> Error {
        match self {
            Self::NotGranted => Error::HttpRequestDenied,
            Self::Lookup(_) => Error::DnsError { rcode: None, info_code: None },
            Self::Prohibited => Error::DestinationIpProhibited,
            Self::Late => Error::ConnectionTimeout,
            Self::Connect(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
                io::ErrorKind::TimedOut => Error::ConnectionTimeout,
                _ => Error::DestinationUnavailable,
            },
        }
    }
}

/// What is said of a request once it is over, however that comes.
struct Record {
    plugin: String,
    server: String,
    method: http::Method,
    path: String,
    began: Instant,
    status: u16,
    outcome: &'static str,
}

impl Record {
    fn new(client: &Client, request: &Request<Sent>) -> Self {
        Self {
            plugin: client.plugin.clone(),
            server: super::server(&client.grants, request.uri()).map(ToString::to_string).unwrap_or_default(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            began: Instant::now(),
            status: 0,
            outcome: "cut off",
        }
    }

    fn answered(&mut self, status: http::StatusCode) {
        self.status = status.as_u16();
        self.outcome = match self.status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
    }

    fn failed(&mut self, error: &Error) {
        self.outcome = match error {
            Error::DnsError { .. } => "no address",
            Error::DestinationIpProhibited => "prohibited address",
            Error::ConnectionRefused | Error::ConnectionTimeout | Error::DestinationUnavailable => "unreachable",
            Error::TlsCertificateError | Error::TlsProtocolError | Error::TlsAlertReceived { .. } => "no TLS",
            Error::HttpResponseTimeout | Error::ConnectionReadTimeout => "late",
            Error::HttpRequestBodySize(_)
            | Error::HttpResponseBodySize(_)
            | Error::HttpResponseHeaderSectionSize(_) => "too large",
            _ => "broken",
        };
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        metrics::http_request(&self.plugin, &self.server, self.outcome);
        // What is behind the `?` may hold secrets, and the path is the guest's words.
        tracing::debug!(
            plugin = self.plugin,
            server = self.server,
            method = %self.method,
            path = %self.path.escape_debug(),
            status = self.status,
            outcome = self.outcome,
            milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "http request"
        );
    }
}
