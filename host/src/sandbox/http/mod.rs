//! `wasi:http`, for plugins that were granted servers (`grants.http`): these may be called, and nobody else.
//!
//! The engine's library has what a guest holds: requests, header fields, bodies. What is sent, to whom and how much of it is decided here, and
//! done on a thread of its own, so that neither a lane nor what polls the gateway's sockets waits for a stranger's server.
//!
//! - [`net`]: that thread.
//! - [`client`]: what one build has there.
//! - [`connect`]: names, addresses, TLS.
//! - [`exchange`]: one request and its answer.

mod client;
mod connect;
mod exchange;
mod net;

use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use sluicegate_core::http::{HttpGrant, Scheme};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::LinkOptions;
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttp, WasiHttpCtx,
    WasiHttpCtxView, WasiHttpHooks,
};

pub(super) use client::Client;
pub(super) use net::Net;

use super::guest::State;
use crate::telemetry::metrics;
use exchange::Sent;

/// What an instance with these may hold of the host's at once: header fields and bodies are larger than other handles.
pub(super) const MAX_HANDLES: usize = 256;
/// Of one request's or answer's header fields, as they are in memory.
const MAX_FIELDS: usize = 32 << 10;
/// Bytes of a request's body that are taken at once, and kept until they are sent.
const MAX_CHUNK: usize = 16 << 10;
/// Of a request's path and query.
const MAX_PATH: usize = 8 << 10;

/// Whether it is one of the interfaces that are there.
pub(super) fn has(import: &str) -> bool {
    let Some((interface, version)) = import.strip_prefix("wasi:http/").and_then(|rest| rest.split_once('@')) else {
        return false;
    };
    version.starts_with("0.2.") && matches!(interface, "types" | "outgoing-handler")
}

/// Gives them.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, WasiHttp>(linker, &LinkOptions::default().into(), view)?;
    // The library's own never lets go of a request's options: after a thousand of them an instance could hold nothing more.
    linker.instance("wasi:http/outgoing-handler@0.2.12")?.func_wrap("handle", handle)
}

fn view(state: &mut State) -> WasiHttpCtxView<'_> {
    let (wasi, http) = state.http();
    WasiHttpCtxView { hooks: &mut http.hooks, table: &mut wasi.table, ctx: &mut http.context }
}

type Handed = (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>);
type Given = (Result<Resource<HostFutureIncomingResponse>, ErrorCode>,);

fn handle(mut store: StoreContextMut<'_, State>, (request, options): Handed) -> wasmtime::Result<Given> {
    let (wasi, http) = store.data_mut().http();
    let request = wasi.table.delete(request)?;
    let options = options.map(|options| wasi.table.delete(options)).transpose()?;
    Ok((match http.send(request, options.unwrap_or_default()) {
        Ok(pending) => Ok(wasi.table.push(pending)?),
        Err(code) => Err(code),
    },))
}

/// The server that a request is for, where it is granted.
fn server<'a>(grants: &'a [HttpGrant], uri: &Uri) -> Option<&'a HttpGrant> {
    let scheme = match uri.scheme_str()? {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    grants.iter().find(|grant| grant.is_for(scheme, uri.host().unwrap_or_default(), uri.port_u16()))
}

/// What is behind the imports.
pub(super) enum Behind {
    /// They are not linked.
    None,
    /// Nothing: the build is only tried.
    Shadow,
    /// The servers that were granted.
    Servers(Arc<Client>),
}

/// One instance's part.
pub(super) struct Http {
    behind: Behind,
    context: WasiHttpCtx,
    hooks: Hooks,
    /// Requests of this call.
    sent: u32,
    /// They end with it.
    under_way: Vec<AbortOnDropHandle<()>>,
}

impl Http {
    pub(super) fn new(behind: Behind) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MAX_FIELDS);
        Self { behind, context, hooks: Hooks, sent: 0, under_way: Vec::new() }
    }

    /// Whether the imports are there.
    pub(super) fn is_linked(&self) -> bool {
        !matches!(self.behind, Behind::None)
    }

    /// A call is over: what it left under way ends.
    pub(super) fn end(&mut self) {
        self.sent = 0;
        self.under_way.clear();
    }

    fn send(
        &mut self,
        request: HostOutgoingRequest,
        options: RequestOptions,
    ) -> Result<HostFutureIncomingResponse, ErrorCode> {
        let client = match &self.behind {
            Behind::Servers(client) => client,
            Behind::None | Behind::Shadow => {
                return Err(internal("http is not there while a build is only tried (samples, rehearsal, a trial)"));
            }
        };
        let most = client.limits.requests;
        if self.sent >= most {
            metrics::http_request(&client.plugin, "", "too many");
            return Err(internal(&format!("more than {most} requests in one call (limits.http_requests)")));
        }
        self.sent += 1;
        let request = checked(request, client).inspect_err(|code| {
            let outcome = if matches!(code, ErrorCode::HttpRequestDenied) { "not granted" } else { "no request" };
            metrics::http_request(&client.plugin, "", outcome);
        })?;
        let (exchange, pending) = client.send(request, options);
        self.under_way.push(exchange);
        Ok(pending)
    }
}

/// What is sent for what the guest made: to a server that was granted, by its own name, with nothing in it that steers the connection.
fn checked(request: HostOutgoingRequest, client: &Client) -> Result<Request<Sent>, ErrorCode> {
    let method = TryInto::<Method>::try_into(request.method).map_err(|_| ErrorCode::HttpRequestMethodInvalid)?;
    if method == Method::CONNECT {
        return Err(ErrorCode::HttpRequestMethodInvalid);
    }
    let scheme = match request.scheme {
        None | Some(types::Scheme::Https) => Scheme::Https,
        Some(types::Scheme::Http) => Scheme::Http,
        Some(types::Scheme::Other(_)) => return Err(ErrorCode::HttpRequestDenied),
    };
    let authority = request.authority.unwrap_or_default();
    let authority: Authority = authority.parse().map_err(|_| ErrorCode::HttpRequestUriInvalid)?;
    // A user, a port that is none: nothing that two readers could take for two servers.
    let port = authority.port_u16();
    let plain = match port {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    };
    if plain != authority.as_str() {
        return Err(ErrorCode::HttpRequestUriInvalid);
    }
    let granted = client.grants.iter().find(|grant| grant.is_for(scheme, authority.host(), port));
    let grant = granted.ok_or(ErrorCode::HttpRequestDenied)?;
    let path = request.path_with_query.unwrap_or_default();
    if path.len() > MAX_PATH {
        return Err(ErrorCode::HttpRequestUriTooLong);
    }
    let path: PathAndQuery = if path.is_empty() { "/" } else { &path }.parse().map_err(invalid)?;
    let uri = Uri::builder().scheme(&*scheme.to_string()).authority(grant.authority()).path_and_query(path);
    let mut sent = Request::new(());
    *sent.method_mut() = method;
    *sent.uri_mut() = uri.build().map_err(invalid)?;
    let headers = HeaderMap::from(request.headers);
    let promised = headers.get(header::CONTENT_LENGTH).map(|length| length.to_str().unwrap_or_default().parse::<u64>());
    *sent.headers_mut() = headers;
    let most = client.limits.request.0;
    match (promised, &request.body) {
        (Some(Ok(0)), _) | (None, _) => {}
        (Some(Ok(length)), Some(_)) if length <= most => {}
        (Some(length), _) => return Err(ErrorCode::HttpRequestBodySize(length.ok())),
    }
    let body = request.body.unwrap_or_else(|| Empty::new().map_err(Error::from).boxed_unsync());
    Ok(sent.map(|()| Sent::new(body, most)))
}

fn invalid<E>(_: E) -> ErrorCode {
    ErrorCode::HttpRequestUriInvalid
}

fn internal(text: &str) -> ErrorCode {
    ErrorCode::InternalError(Some(text.to_owned()))
}

struct Hooks;

fn is_forbidden(name: &HeaderName) -> bool {
    // `Host` is the granted server's, and what is between two neighbours on the way is the connection's.
    DEFAULT_FORBIDDEN_HEADERS.contains(name) || *name == header::TE || *name == header::TRAILER
}

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(is_forbidden)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        MAX_CHUNK
    }

    /// For the library's own `handle`, which is not linked.
    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Sending), Error>> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

type Sending = Box<dyn Future<Output = Result<(), Error>> + Send>;
