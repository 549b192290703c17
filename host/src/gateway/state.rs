//! Plugins' state is in Redis: the sandbox's calls, made Redis's.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use sluicegate_core::state::{Change, Committed};

use crate::redis::state::States;
use crate::sandbox::state::Store;

pub(super) struct InRedis(pub States);

impl Store for InRedis {
    fn get<'a>(
        &'a self,
        plugin: &'a str,
        key: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        async move { self.0.get(plugin, key, within).await.map_err(|fault| fault.to_string()) }.boxed()
    }

    fn commit<'a>(
        &'a self,
        plugin: &'a str,
        changes: &'a [Change],
        most: u64,
    ) -> BoxFuture<'a, Result<Committed, String>> {
        async move { self.0.commit(plugin, changes, most).await.map_err(|fault| fault.to_string()) }.boxed()
    }
}
