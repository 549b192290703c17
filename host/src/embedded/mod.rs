//! An MQTT broker and a Redis-compatible server inside this process, for trying out with nothing installed. Both keep
//! everything in memory, know no passwords and so listen on loopback only. They must never serve production, and nothing
//! else in the gateway may know that it talks to them: it connects as to any other server.

pub mod broker;
pub mod resp;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

/// Why an embedded server did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Others could reach it.
    #[error(
        "the embedded {server} would listen on `{address}`, which other machines can reach; it is for trying out: listen on \
         a loopback address such as 127.0.0.1, or use a real {server}"
    )]
    NotLoopback {
        /// Which server: `MQTT broker` or `Redis`.
        server: &'static str,
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address cannot be had.
    #[error("the embedded {server} cannot listen on `{address}`; stop what listens there, or choose another port")]
    Bind {
        /// Which server.
        server: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The environment names no address.
    #[error("{variable} is `{text}`; it must be an address and a port such as 127.0.0.1:1883")]
    Address {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        text: String,
    },
    /// The broker's library refused.
    #[error(
        "the embedded MQTT broker did not start on `{address}`: {reason}; choose another port, or use a real MQTT broker"
    )]
    Broker {
        /// The address asked for.
        address: SocketAddr,
        /// What the library said.
        reason: String,
    },
}

/// Where an embedded server is to listen: a variable of the environment, or `port` on the loopback address.
fn listen(server: &'static str, variable: &'static str, port: u16) -> Result<SocketAddr, EmbeddedError> {
    let address = match std::env::var_os(variable) {
        Some(text) => {
            let text = text.to_string_lossy().into_owned();
            text.parse().map_err(|_| EmbeddedError::Address { variable, text })?
        }
        None => SocketAddr::from(([127, 0, 0, 1], port)),
    };
    loopback_only(server, address).map(|()| address)
}

/// Invariant: both servers bind only what passed here.
fn loopback_only(server: &'static str, address: SocketAddr) -> Result<(), EmbeddedError> {
    if address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(EmbeddedError::NotLoopback { server, address }) }
}

/// The one line by which a user knows what this is.
fn announce(server: &'static str, address: SocketAddr) {
    tracing::info!(%address, "embedded {server} is listening: for trying out, in memory only, never for production");
}
