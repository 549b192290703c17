//! What one build calls servers with: whom it may call, its connections, its limits.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper_util::client::legacy::Client as Sender;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sluicegate_core::http::HttpGrant;
use sluicegate_core::settings::HttpLimits;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;
use wasmtime_wasi_http::p2::types::HostFutureIncomingResponse;
use wasmtime_wasi_http::{Error, RequestOptions};

use super::connect::Connector;
use super::exchange::{self, Sent};
use super::net::Net;
use crate::sandbox::refusal::{Problem, Refusal, Step};

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);
/// How many of them to one server.
const MAX_IDLE: usize = 4;
/// Header fields of an answer.
const MAX_ANSWER_FIELDS: usize = 100;
/// All of them together, and what is read of a body at once.
const MAX_HEAD: usize = 64 << 10;

/// A build's. Nothing of it is shared with other builds: no connection, no place.
pub(in crate::sandbox) struct Client {
    pub(super) plugin: String,
    pub(super) grants: Arc<[HttpGrant]>,
    pub(super) limits: HttpLimits,
    /// `limits.http_in_flight` of them; who finds none waits, in its call's time.
    pub(super) places: Arc<Semaphore>,
    pub(super) sender: Sender<Connector, Sent>,
    handle: Handle,
}

impl Client {
    /// # Errors
    /// [`Refusal`] at `checked`, where the system gives no event loop for it.
    pub(in crate::sandbox) fn new(
        net: &Net,
        plugin: &str,
        grants: &[HttpGrant],
        limits: HttpLimits,
    ) -> Result<Arc<Self>, Refusal> {
        let (handle, tls) = net.get().map_err(|error| Refusal::new(Step::Checked, Problem::Host(error.to_string())))?;
        let grants: Arc<[HttpGrant]> = grants.into();
        // Its connections' tasks are the event loop's, which ends with the sandbox.
        let mut builder = Sender::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_max_headers(MAX_ANSWER_FIELDS)
            .http1_max_buf_size(MAX_HEAD);
        Ok(Arc::new(Self {
            plugin: plugin.to_owned(),
            sender: builder.build(Connector::new(grants.clone(), tls)),
            grants,
            limits,
            places: Arc::new(Semaphore::new(limits.in_flight)),
            handle,
        }))
    }

    /// Sends a request; it is under way as long as what is given back first, which ends all of it.
    pub(super) fn send(
        self: &Arc<Self>,
        request: Request<Sent>,
        options: RequestOptions,
    ) -> (AbortOnDropHandle<()>, HostFutureIncomingResponse) {
        let (head, answer) = oneshot::channel();
        let exchange = self.handle.spawn(exchange::run(self.clone(), request, options, head));
        let handle = self.handle.clone();
        let answer = self.handle.spawn(async move {
            let answer = answer.await.unwrap_or(Err(Error::ConnectionTerminated))?;
            // The library keeps a task alive beside a body; the exchange is the call's instead.
            Ok((answer, handle.spawn(async {}).into()))
        });
        let pending = HostFutureIncomingResponse::Pending(AbortOnDropJoinHandle::from(answer));
        (AbortOnDropHandle::new(exchange), pending)
    }
}
