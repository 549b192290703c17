//! The back end from outside: the binary, a real redis-server, and each of the two databases. What holds on one holds on the other.

// The futures of a whole test, one within the other.
#![recursion_limit = "256"]

mod alerts;
mod api;
mod commands;
mod delivery;
mod faults;
mod letters;
mod metrics;
mod redis;
mod reload;
mod stage;
mod tokens;

/// The same test on SQLite and on MariaDB.
macro_rules! on_both {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::stage::Stage::sqlite().await).await;
            })*
        }
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::stage::Stage::mariadb().await).await;
            })*
        }
    };
}
pub(crate) use on_both;
