//! The samples that a plugin carries: what goes in, and what must come out. The plugin's own tests, the build and the
//! gateway judge them by the same code.
//!
//! A sample is one JSON object in `samples/NAME.json` beside the plugin's source; all of them are embedded in the component,
//! as an array in the custom section `sluicegate:samples`, each with its `name`. Payloads are text, so that bytes are
//! exact; what is not UTF-8 stands in `payload_base64`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use serde::Deserialize;

/// The most samples that one plugin may carry.
const MOST: usize = 10_000;

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The file's name without its ending.
    pub name: String,
    /// What `setting` gives while it runs.
    pub settings: IndexMap<String, String>,
    /// What goes in.
    pub input: Input,
    /// What must come out.
    pub expect: Expect,
}

/// What goes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// For a handler.
    Message(SampleMessage),
    /// For a validator.
    Command(SampleCommand),
}

/// A publish.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the interface documents them")]
pub struct SampleMessage {
    pub topic: String,
    pub captures: IndexMap<String, String>,
    pub payload: Vec<u8>,
    pub properties: IndexMap<String, String>,
    pub received_at: String,
    pub attempt: u32,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the interface documents them")]
pub struct SampleCommand {
    pub target: String,
    pub name: String,
    pub payload: Vec<u8>,
    pub message_id: String,
}

/// What must come out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Exactly these outputs; none: the message is dropped.
    Outputs {
        /// In order.
        jobs: Vec<SampleJob>,
        /// In order.
        publications: Vec<SamplePublication>,
    },
    /// A validator's payload, byte for byte.
    Payload(Vec<u8>),
    /// A rejection whose reason contains this.
    Reject(String),
    /// A request for another attempt whose reason contains this.
    Retry(String),
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the interface documents them")]
pub struct SampleJob {
    pub payload: Vec<u8>,
    pub idempotency_key: Option<String>,
}

/// A publication.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the interface documents them")]
pub struct SamplePublication {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
}

/// What a plugin answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the interface documents them")]
pub enum Answer {
    Outputs { jobs: Vec<SampleJob>, publications: Vec<SamplePublication> },
    Payload(Vec<u8>),
    Reject(String),
    Retry(String),
}

/// Why a sample cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// Not JSON of this shape.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The parts do not fit together.
    #[error("sample `{name}`: {reason}")]
    Shape {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
}

/// What came out instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {got}")]
pub struct Mismatch {
    expected: String,
    got: String,
}

/// Reads one sample file.
///
/// # Errors
/// [`SampleError`] says where it is wrong.
pub fn parse_file(name: &str, bytes: &[u8]) -> Result<Sample, SampleError> {
    let mut written: Written = serde_json::from_slice(bytes)?;
    written.name = Some(name.to_owned());
    written.resolve()
}

/// Reads the custom section: an array of samples with their names.
///
/// # Errors
/// [`SampleError`] says where it is wrong.
pub fn parse_section(bytes: &[u8]) -> Result<Vec<Sample>, SampleError> {
    let Several(samples) = serde_json::from_slice(bytes)?;
    samples.into_iter().map(Written::resolve).collect()
}

/// Several samples, and never more than [`MOST`], however long the array is.
struct Several(Vec<Written>);

impl<'de> Deserialize<'de> for Several {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;

        impl<'de> serde::de::Visitor<'de> for Array {
            type Value = Several;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an array of samples")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut array: A) -> Result<Several, A::Error> {
                let mut samples = Vec::new();
                while let Some(sample) = array.next_element()? {
                    if samples.len() == MOST {
                        return Err(serde::de::Error::custom(format_args!("at most {MOST} samples are read")));
                    }
                    samples.push(sample);
                }
                Ok(Several(samples))
            }
        }

        deserializer.deserialize_seq(Array)
    }
}

impl Sample {
    /// Whether an answer is what the sample promises.
    ///
    /// # Errors
    /// [`Mismatch`] shows both.
    pub fn judge(&self, answer: &Answer) -> Result<(), Mismatch> {
        let same = match (&self.expect, answer) {
            (Expect::Outputs { jobs, publications }, Answer::Outputs { jobs: got, publications: published }) => {
                jobs == got && publications == published
            }
            (Expect::Payload(expected), Answer::Payload(got)) => expected == got,
            (Expect::Reject(part), Answer::Reject(reason)) | (Expect::Retry(part), Answer::Retry(reason)) => {
                reason.contains(part.as_str())
            }
            _ => false,
        };
        if same { Ok(()) } else { Err(Mismatch { expected: show_expected(&self.expect), got: show(answer) }) }
    }
}

fn show_expected(expect: &Expect) -> String {
    match expect {
        Expect::Outputs { jobs, publications } => show_outputs(jobs, publications),
        Expect::Payload(payload) => format!("the payload `{}`", String::from_utf8_lossy(payload)),
        Expect::Reject(part) => format!("a rejection with `{part}`"),
        Expect::Retry(part) => format!("a retry with `{part}`"),
    }
}

fn show(answer: &Answer) -> String {
    match answer {
        Answer::Outputs { jobs, publications } => show_outputs(jobs, publications),
        Answer::Payload(payload) => format!("the payload `{}`", String::from_utf8_lossy(payload)),
        Answer::Reject(reason) => format!("the rejection `{reason}`"),
        Answer::Retry(reason) => format!("the retry `{reason}`"),
    }
}

fn show_outputs(jobs: &[SampleJob], publications: &[SamplePublication]) -> String {
    if jobs.is_empty() && publications.is_empty() {
        return "nothing (dropped)".to_owned();
    }
    let jobs = jobs.iter().map(|job| {
        let key = job.idempotency_key.as_ref().map(|key| format!(" with the key `{key}`")).unwrap_or_default();
        format!("the job `{}`{key}", String::from_utf8_lossy(&job.payload))
    });
    let publications = publications.iter().map(|publication| {
        let retained = if publication.retain { " retained" } else { "" };
        format!("`{}` on `{}`{retained}", String::from_utf8_lossy(&publication.payload), publication.topic)
    });
    jobs.chain(publications).collect::<Vec<_>>().join(", ")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    #[serde(default)]
    settings: IndexMap<String, String>,
    message: Option<WrittenMessage>,
    command: Option<WrittenCommand>,
    expect: WrittenExpect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMessage {
    topic: String,
    #[serde(default)]
    captures: IndexMap<String, String>,
    payload: Option<String>,
    payload_base64: Option<String>,
    #[serde(default)]
    properties: IndexMap<String, String>,
    #[serde(default = "some_time")]
    received_at: String,
    #[serde(default = "first")]
    attempt: u32,
}

fn some_time() -> String {
    "2026-04-14T09:00:00.000+08:00".to_owned()
}

fn first() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCommand {
    #[serde(default)]
    target: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    payload: String,
    #[serde(default)]
    message_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenExpect {
    jobs: Option<Vec<WrittenJob>>,
    publications: Option<Vec<WrittenPublication>>,
    payload: Option<String>,
    reject: Option<String>,
    retry: Option<String>,
    drop: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenJob {
    payload: String,
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPublication {
    topic: String,
    payload: String,
    #[serde(default)]
    retain: bool,
}

impl Written {
    fn resolve(self) -> Result<Sample, SampleError> {
        let name = self.name.unwrap_or_default();
        let wrong = |reason: &str| SampleError::Shape { name: name.clone(), reason: reason.to_owned() };
        if name.is_empty() {
            return Err(wrong("it has no `name`"));
        }
        let input = match (self.message, self.command) {
            (Some(message), None) => Input::Message(message.resolve().map_err(|reason| wrong(&reason))?),
            (None, Some(command)) => Input::Command(SampleCommand {
                target: command.target,
                name: command.name,
                payload: command.payload.into_bytes(),
                message_id: command.message_id,
            }),
            _ => return Err(wrong("it needs either `message` or `command`")),
        };
        let expect = self.expect.resolve().map_err(wrong)?;
        Ok(Sample { name, settings: self.settings, input, expect })
    }
}

impl WrittenMessage {
    fn resolve(self) -> Result<SampleMessage, String> {
        let payload = match (self.payload, self.payload_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(encoded)) => {
                STANDARD.decode(encoded).map_err(|error| format!("`payload_base64` is not base64: {error}"))?
            }
            _ => return Err("`message` needs either `payload` or `payload_base64`".to_owned()),
        };
        Ok(SampleMessage {
            topic: self.topic,
            captures: self.captures,
            payload,
            properties: self.properties,
            received_at: self.received_at,
            attempt: self.attempt,
        })
    }
}

impl WrittenExpect {
    fn resolve(self) -> Result<Expect, &'static str> {
        let outputs = self.jobs.is_some() || self.publications.is_some();
        let dropped = self.drop == Some(true);
        match (outputs, self.payload, self.reject, self.retry, dropped) {
            (true, None, None, None, false) => {
                let job = |job: WrittenJob| SampleJob {
                    payload: job.payload.into_bytes(),
                    idempotency_key: job.idempotency_key,
                };
                let publication = |publication: WrittenPublication| SamplePublication {
                    topic: publication.topic,
                    payload: publication.payload.into_bytes(),
                    retain: publication.retain,
                };
                Ok(Expect::Outputs {
                    jobs: self.jobs.unwrap_or_default().into_iter().map(job).collect(),
                    publications: self.publications.unwrap_or_default().into_iter().map(publication).collect(),
                })
            }
            (false, Some(payload), None, None, false) => Ok(Expect::Payload(payload.into_bytes())),
            (false, None, Some(part), None, false) => Ok(Expect::Reject(part)),
            (false, None, None, Some(part), false) => Ok(Expect::Retry(part)),
            (false, None, None, None, true) => Ok(Expect::Outputs { jobs: Vec::new(), publications: Vec::new() }),
            _ => Err(
                "`expect` needs exactly one of `jobs`/`publications`, `payload`, `reject`, `retry`, `\"drop\": true`",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_byte_for_byte() {
        let text =
            br#"{"message":{"topic":"t","payload":"{}"},"expect":{"jobs":[{"payload":"{ }","idempotency_key":"k"}]}}"#;
        let sample = parse_file("one", text).expect("a sample");
        let answer = |payload: &str, key: Option<&str>| Answer::Outputs {
            jobs: vec![SampleJob { payload: payload.into(), idempotency_key: key.map(str::to_owned) }],
            publications: Vec::new(),
        };
        assert_eq!(sample.judge(&answer("{ }", Some("k"))), Ok(()));
        let mismatch = sample.judge(&answer("{}", Some("k"))).expect_err("other bytes").to_string();
        assert_eq!(mismatch, "expected the job `{ }` with the key `k`, got the job `{}` with the key `k`");
        assert!(sample.judge(&answer("{ }", None)).is_err());
        assert!(sample.judge(&Answer::Reject("no".into())).is_err());
    }

    #[track_caller]
    fn refused(text: &str, part: &str) {
        let error = parse_file("x", text.as_bytes()).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn refuses_samples_that_promise_nothing() {
        refused(r#"{"message":{"topic":"t","payload":""},"expect":{}}"#, "exactly one of");
        refused(r#"{"message":{"topic":"t","payload":""},"expect":{"drop":false}}"#, "exactly one of");
        refused(r#"{"expect":{"drop":true}}"#, "either `message` or `command`");
        refused(r#"{"message":{"topic":"t"},"expect":{"drop":true}}"#, "either `payload` or");
        refused(r#"{"mesage":{}}"#, "unknown field");
    }
}
