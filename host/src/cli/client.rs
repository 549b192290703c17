//! Asks a running gateway, over its admin server.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sluicegate_core::settings::Settings;

use super::config;
use super::output::{Code, Failure};

/// How long a gateway may take to be connected to.
const CONNECT: Duration = Duration::from_secs(3);
/// The largest answer that is read.
const MAX_ANSWER: u64 = 64 << 20;

/// Where a gateway's admin server is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    address: SocketAddr,
    /// How long an answer may take.
    patience: Duration,
}

impl Client {
    /// The given address, or else that of the settings.
    pub(super) fn find(file: Option<&Path>, address: Option<SocketAddr>) -> Result<Self, Failure> {
        match address {
            Some(address) => Ok(Self { address, patience: CONNECT }),
            None => Ok(Self::of(&config::load(file)?.settings)),
        }
    }

    /// The gateway at `ADDRESS:PORT` or `http://HOST:PORT`.
    pub(super) fn at(text: &str) -> Result<Self, Failure> {
        let host = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let found = host.to_socket_addrs().map(|mut addresses| addresses.next());
        match found {
            Ok(Some(address)) => Ok(Self { address, patience: CONNECT }),
            Ok(None) => {
                Err(Failure::new(Code::NotReachable, format!("`{text}`: no such host"), "sluicegate check --help"))
            }
            Err(error) => {
                let message = format!("`{text}` is no ADDRESS:PORT: {error}");
                Err(Failure::new(Code::Usage, message, "sluicegate check --help"))
            }
        }
    }

    /// The gateway with these settings, on this machine.
    pub(super) fn of(settings: &Settings) -> Self {
        let mut address = settings.admin.listen;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        Self { address, patience: CONNECT }
    }

    /// For what takes the gateway a while.
    pub(super) fn patient(self) -> Self {
        Self { patience: Duration::from_secs(60), ..self }
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask("GET", path, None)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.ask("POST", path, Some(body))
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        self.exchange(method, path, body).map_err(|error| self.unreachable(&error.to_string()))
    }

    pub(super) fn unreachable(&self, reason: &str) -> Failure {
        Failure::new(
            Code::NotReachable,
            format!("no gateway answers on {}: {reason}", self.address),
            "sluicegate run, or say where it is with --address ADDRESS:PORT",
        )
    }

    /// One request of HTTP/1.0, whose answer ends with the connection.
    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&self.address, CONNECT)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )?;
        let mut text = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut text)?;
        let no_http = || io::Error::new(io::ErrorKind::InvalidData, "what answers is no gateway");
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(no_http)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(no_http)?;
        Ok(Answer { status, body: body.to_owned() })
    }
}

/// What the server said.
pub(super) struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    /// Its JSON, whatever its status.
    pub(super) fn json(&self, client: &Client) -> Result<Value, Failure> {
        serde_json::from_str(&self.body).map_err(|_| client.unreachable("what answers is no gateway"))
    }

    /// Its JSON, where the gateway did what was asked.
    pub(super) fn good(&self, client: &Client) -> Result<Value, Failure> {
        let value = self.json(client)?;
        if (200..300).contains(&self.status) {
            return Ok(value);
        }
        let reason = value["error"].as_str().unwrap_or("the gateway refuses without a reason");
        Err(Failure::new(Code::Refused, reason, "sluicegate health"))
    }
}
