//! The same plan on a deployment that runs already, as far as it can be seen from outside: by its broker, its Redis, and the back end's API.
//! It has one machine of its own, and changes nothing else.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::report::{Report, Wrong};
use super::run::until;
use super::single::{self, MACHINE, SINGLE};
use crate::wire::Wire;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Heartbeats that are done, of all machines.
const BEATS: &str = "sluicegate_backend_jobs_done_total{type=\"heartbeat\"}";

/// Where the deployment is.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The broker's host and port.
    pub broker: String,
    /// `redis://…`
    pub redis: String,
    /// The back end's API: host and port.
    pub api: String,
    /// A token of `api.tokens`.
    pub api_token: String,
    /// The machine's own token, where the broker has one; none: the API issues one, and takes it away at the end.
    pub machine_token: Option<String>,
    /// The whole key of the list of jobs.
    pub list: String,
}

/// Goes through all steps; whether all were good.
pub async fn run(deployment: &Deployment) -> bool {
    let mut report = Report::default();
    report.step("ready", ready(deployment).await);
    report.step("redis", waiting(deployment).await);
    let token = match &deployment.machine_token {
        Some(token) => Ok(token.clone()),
        None => issued(deployment).await,
    };
    let token = match token {
        Ok(token) => token,
        Err(wrong) => {
            report.step("token", Err(wrong));
            return report.end();
        }
    };
    report.step("closed", closed(deployment).await);
    report.step("heartbeat", heartbeat(deployment, &token).await);
    report.step("command", command(deployment, &token).await);
    if deployment.machine_token.is_none() {
        report.step("revoked", revoked(deployment, &token).await);
    }
    report.end()
}

fn wrong(expected: &str, seen: impl Into<String>, look: &str) -> Wrong {
    Wrong { expected: expected.to_owned(), seen: seen.into(), look: look.to_owned() }
}

impl Deployment {
    /// The status, and the body: JSON, or a text.
    async fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, Value), String> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.api,
            self.api_token,
            body.len()
        );
        let asked = async {
            let mut stream = TcpStream::connect(&self.api).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(ANSWER, asked).await.map_err(|_| format!("no answer within {ANSWER:?}"))?;
        let answer = answer.map_err(|error| format!("http://{}: {error}", self.api))?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no HTTP status")?;
        Ok((status, serde_json::from_str(body).unwrap_or_else(|_| Value::from(body))))
    }

    async fn connect(&self, token: Option<&str>) -> Result<Wire, String> {
        let connected = tokio::time::timeout(ANSWER, Wire::login(&self.broker, MACHINE, token)).await;
        connected.map_err(|_| "the broker does not answer".to_owned())?.map_err(|error| error.to_string())
    }

    /// How many heartbeats are done.
    async fn beats(&self) -> Option<u64> {
        let (_, text) = self.ask("GET", "/metrics", "").await.ok()?;
        let line = text.as_str()?.lines().find_map(|line| line.strip_prefix(BEATS).map(str::trim).map(str::to_owned));
        Some(line.and_then(|count| count.parse().ok()).unwrap_or(0))
    }
}

async fn ready(deployment: &Deployment) -> Result<String, Wrong> {
    let expected = "200 of the back end's /readyz, and of /api/status with the token";
    let look = "the back end's log, and /api/status";
    for path in ["/readyz", "/api/status"] {
        match deployment.ask("GET", path, "").await {
            Ok((200, _)) => {}
            Ok((status, body)) => return Err(wrong(expected, format!("{path} answers {status} {body}"), look)),
            Err(error) => return Err(wrong(expected, error, look)),
        }
    }
    Ok("the back end does all of its work".to_owned())
}

async fn waiting(deployment: &Deployment) -> Result<String, Wrong> {
    let asked = async {
        let client = redis::Client::open(&*deployment.redis)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("LLEN").arg(&deployment.list).query_async::<u64>(&mut connection).await
    };
    let expected = format!("the length of {}", deployment.list);
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(length)) => Ok(format!("{length} jobs wait in {}", deployment.list)),
        Ok(Err(error)) => Err(wrong(&expected, error.to_string(), "Redis, and the user in its URL")),
        Err(_) => Err(wrong(&expected, format!("no answer within {ANSWER:?}"), "Redis")),
    }
}

async fn issued(deployment: &Deployment) -> Result<String, Wrong> {
    let path = format!("/api/machines/{MACHINE}/token");
    let mut seen = String::new();
    // Another token, where an earlier run left one.
    for method in ["POST", "PUT"] {
        match deployment.ask(method, &path, "").await {
            Ok((200 | 201, body)) if body["api_token"].is_string() => {
                return Ok(body["api_token"].as_str().unwrap_or_default().to_owned());
            }
            Ok((status, body)) => seen = format!("{method} {path} answers {status} {body}"),
            Err(error) => seen = error,
        }
    }
    Err(wrong("a token for the machine", seen, "the back end's log"))
}

/// A broker that lets everybody in makes all the rest worth nothing.
async fn closed(deployment: &Deployment) -> Result<String, Wrong> {
    for token in [None, Some("not the token")] {
        if deployment.connect(token).await.is_ok() {
            let seen =
                format!("{MACHINE} was let in {}", if token.is_some() { "with a wrong token" } else { "without one" });
            return Err(wrong("nobody logs in without a token of its own", seen, "config/emqx, config/mosquitto"));
        }
    }
    Ok("nobody logs in without a token of its own".to_owned())
}

async fn heartbeat(deployment: &Deployment, token: &str) -> Result<String, Wrong> {
    let expected = "the broker takes a heartbeat, and the back end has done one more";
    let wrong = |seen: String| wrong(expected, seen, "the gateway's log, the back end's log");
    let before = deployment.beats().await.ok_or_else(|| wrong("the back end shows no /metrics".to_owned()))?;
    let began = Instant::now();
    let mut wire = deployment.connect(Some(token)).await.map_err(&wrong)?;
    match tokio::time::timeout(SINGLE, single::beat(&mut wire)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(wrong(format!("the broker did not take it: {error}"))),
        Err(_) => return Err(wrong("the broker acknowledged nothing".to_owned())),
    }
    let done = until(SINGLE, async || deployment.beats().await.filter(|beats| *beats > before)).await;
    match done {
        // Other machines' count as well; that this one's own messages come through is what the next step shows.
        Some(_) => {
            Ok(format!("done {} ms after it was published, it or another machine's", began.elapsed().as_millis()))
        }
        None => Err(wrong(format!("no heartbeat was done within {SINGLE:?}"))),
    }
}

async fn command(deployment: &Deployment, token: &str) -> Result<String, Wrong> {
    let expected = "a reboot reaches the machine, and its acknowledgement the command's row";
    let wrong = |seen: String| wrong(expected, seen, "the gateway's log, the back end's log, the route `command-ack`");
    let io = |error: std::io::Error| wrong(format!("the machine: {error}"));
    let mut wire = deployment.connect(Some(token)).await.map_err(&wrong)?;
    let subscribed = tokio::time::timeout(SINGLE, single::subscribe(&mut wire)).await;
    subscribed.map_err(|_| wrong("nobody could subscribe".to_owned()))?.map_err(io)?;
    let began = Instant::now();
    let given = deployment.ask("POST", &format!("/api/machines/{MACHINE}/commands"), r#"{"command":"reboot"}"#).await;
    let id = match given.map_err(&wrong)? {
        (202, body) => body["message_id"].as_str().unwrap_or_default().to_owned(),
        (status, body) => return Err(wrong(format!("it was not given: {status} {body}"))),
    };
    let received = tokio::time::timeout(SINGLE, single::reboot(&mut wire, &id)).await;
    received.map_err(|_| wrong(format!("{id} did not reach it within {SINGLE:?}")))?.map_err(io)?;
    let received = began.elapsed();
    single::acknowledge(&mut wire, &id).await.map_err(io)?;
    let mut state = "unknown".to_owned();
    let done = until(SINGLE, async || {
        let (_, body) = deployment.ask("GET", &format!("/api/commands/{id}"), "").await.ok()?;
        body["state"].as_str().unwrap_or("unknown").clone_into(&mut state);
        (state == "acknowledged").then_some(())
    });
    match done.await {
        Some(()) => {
            let (received, all) = (received.as_millis(), began.elapsed().as_millis());
            Ok(format!("it reached the machine after {received} ms, and is `acknowledged` after {all} ms"))
        }
        None => Err(wrong(format!("it arrived; the state of {id} is `{state}`"))),
    }
}

async fn revoked(deployment: &Deployment, token: &str) -> Result<String, Wrong> {
    let expected = "the token is taken away, and nobody logs in with it";
    let look = "config/emqx, the back end's log";
    match deployment.ask("DELETE", &format!("/api/machines/{MACHINE}/token"), "").await {
        Ok((204, _)) => {}
        Ok((status, body)) => return Err(wrong(expected, format!("the API answers {status} {body}"), look)),
        Err(error) => return Err(wrong(expected, error, look)),
    }
    match deployment.connect(Some(token)).await {
        Ok(_) => Err(wrong(expected, "the broker lets it in all the same", look)),
        Err(_) => Ok(expected.to_owned()),
    }
}
