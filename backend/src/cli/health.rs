//! `health`: whether the process lives, for whoever restarts what hangs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::output::{Code, Failure, Output};
use crate::settings::Settings;

/// Less than whoever restarts it waits for this.
const LIMIT: Duration = Duration::from_secs(3);
/// The most of an answer that is read.
const MAX_ANSWER: u64 = 4 << 10;

pub(super) async fn run(settings: &Settings, output: &Output) -> Result<Code, Failure> {
    let address = reachable(settings.api.listen);
    let asked = tokio::time::timeout(LIMIT, ask(address)).await;
    let seen = match asked {
        Ok(Ok(status)) if status.contains(" 200 ") => return Ok(output.good("it lives\n", &json!({ "lives": true }))),
        Ok(Ok(status)) => format!("it answers `{status}`"),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {LIMIT:?}"),
    };
    let next = "see its log; `sluicegate-backend listen` alone serves no API, and is not asked by this";
    Err(Failure::new(Code::NotReachable, format!("http://{address}/healthz: {seen}"), next))
}

/// The first line of the answer.
async fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

/// What listens everywhere is asked on the loopback address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_here() {
        for (listen, asked) in
            [("0.0.0.0:9091", "127.0.0.1:9091"), ("[::]:1", "[::1]:1"), ("10.0.0.1:9091", "10.0.0.1:9091")]
        {
            assert_eq!(reachable(listen.parse().expect("an address")), asked.parse().expect("an address"));
        }
    }
}
