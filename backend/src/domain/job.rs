//! An entry of the list of jobs (the gateway's envelope), or of its list of results, read as what is to be done.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use sluicegate_core::json;
use sluicegate_core::message::SerialNo;

use super::command::{State, Step};
use super::decimal::Decimal;

/// Which `type` of an envelope is which work. Each is the name of a route, or its `type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Types {
    /// A machine is there.
    pub heartbeat: String,
    /// It tells of an error.
    pub error: String,
    /// It sold something.
    pub transaction: String,
    /// It tells what became of a command.
    pub command_ack: String,
}

impl Default for Types {
    fn default() -> Self {
        Self {
            heartbeat: "heartbeat".to_owned(),
            error: "error".to_owned(),
            transaction: "transaction".to_owned(),
            command_ack: "command_ack".to_owned(),
        }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Whose it is; for a result the command's target.
    pub serial_no: String,
    /// When the gateway received it.
    pub received_at: Timestamp,
    /// What is to be done.
    pub work: Work,
}

/// What a job is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A machine is there.
    Heartbeat(Heartbeat),
    /// It tells of an error.
    Error(Error),
    /// It sold something.
    Sale(Sale),
    /// Something moved a command.
    Command(Step),
    /// Nothing is to be done: the gateway tells of a command that it stands as it did.
    Nothing,
    /// A `type` that this program does not know.
    Unknown {
        /// The type.
        kind: String,
        /// Its payload, as it came.
        payload: String,
    },
}

/// What a heartbeat says, where it does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// In the machine, degrees.
    pub temperature: Option<Decimal>,
    /// What its screen shows.
    pub current_page: Option<i64>,
}

/// What went wrong at a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The machine's word or number for it.
    pub code: String,
    /// `info`, `warning`, `error` or `critical`.
    pub level: String,
    /// For people; empty where it says none.
    pub message: String,
    /// Where in the machine.
    pub slot_no: Option<i64>,
    /// All of it, as it came.
    pub payload: String,
}

/// What a machine sold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// The machine's own number of it.
    pub transaction_id: String,
    /// Where it came from.
    pub slot_no: i64,
    /// For how much, all together.
    pub amount: Decimal,
    /// How many; 1 where it does not say.
    pub quantity: i64,
    /// What.
    pub product_id: Option<String>,
    /// How it was paid.
    pub payment_type: Option<String>,
    /// How it went, in the machine's words.
    pub status: Option<String>,
    /// All of it, as it came.
    pub payload: String,
}

/// Why an entry is no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Not JSON that every back end can read.
    #[error(transparent)]
    Json(#[from] json::JsonError),
    /// Not the envelope.
    #[error("not a job: {0}; it must be an object with `type`, `serial_no`, `payload` and `received_at`")]
    Envelope(String),
    /// Not what this list has.
    #[error("not a result: {0}; it must be an object with `message_id`, `target`, `status` and `at`")]
    Result(String),
    /// A field of the envelope or of the payload.
    #[error("`{field}` {what}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it is, and what it must be.
        what: String,
    },
    /// The payload is no object, or a field of it stands there twice.
    #[error("payload: {0}")]
    Payload(String),
}

fn field(field: &'static str, found: &str, must: &str) -> JobError {
    let found: String = found.chars().take(64).collect();
    JobError::Field { field, what: format!("is {found}; it must be {must}") }
}

/// Which list an entry came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Jobs: the gateway's envelopes.
    Jobs(Types),
    /// What became of commands.
    Results,
}

impl Source {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`JobError`] says what is wrong with it. It is wrong for ever.
    pub fn read(&self, raw: &[u8]) -> Result<Job, JobError> {
        let text = json::check(raw)?;
        match self {
            Self::Jobs(types) => read_job(text, types),
            Self::Results => read_result(text),
        }
    }

    /// What metrics call the type of an entry; `work` is none where it cannot be read. These are this program's words: a machine's are endless.
    #[must_use]
    pub fn label(&self, work: Option<&Work>) -> &'static str {
        match (self, work) {
            (_, None) => "unreadable",
            (Self::Results, Some(_)) => "command_result",
            (Self::Jobs(_), Some(Work::Heartbeat(_))) => "heartbeat",
            (Self::Jobs(_), Some(Work::Error(_))) => "error",
            (Self::Jobs(_), Some(Work::Sale(_))) => "transaction",
            (Self::Jobs(_), Some(Work::Command(_) | Work::Nothing)) => "command_ack",
            (Self::Jobs(_), Some(Work::Unknown { .. })) => "unknown",
        }
    }

    /// Whose an entry is, as far as it can be read; else empty. It says which lane the entry takes, so it must not change.
    #[must_use]
    pub fn machine(&self, raw: &[u8]) -> String {
        #[derive(Deserialize)]
        struct Jobs {
            serial_no: String,
        }
        #[derive(Deserialize)]
        struct Results {
            target: String,
        }
        match self {
            Self::Jobs(_) => serde_json::from_slice(raw).map(|jobs: Jobs| jobs.serial_no),
            Self::Results => serde_json::from_slice(raw).map(|results: Results| results.target),
        }
        .unwrap_or_default()
    }
}

fn read_job(text: &str, types: &Types) -> Result<Job, JobError> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(rename = "type")]
        kind: String,
        serial_no: String,
        #[serde(borrow)]
        payload: &'a RawValue,
        received_at: String,
    }
    if !text.trim_start().starts_with('{') {
        return Err(JobError::Envelope("it is no object".to_owned()));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| JobError::Envelope(error.to_string()))?;
    SerialNo::new(&envelope.serial_no)
        .map_err(|error| JobError::Field { field: "serial_no", what: format!("is refused: {error}") })?;
    let received_at = time("received_at", &envelope.received_at)?;
    let payload = envelope.payload.get();
    let kind = envelope.kind;
    let work = if kind == types.heartbeat {
        Work::Heartbeat(heartbeat(payload)?)
    } else if kind == types.error {
        Work::Error(error(payload)?)
    } else if kind == types.transaction {
        Work::Sale(sale(payload)?)
    } else if kind == types.command_ack {
        Work::Command(acknowledgement(payload, &envelope.serial_no, received_at)?)
    } else {
        Work::Unknown { kind, payload: payload.to_owned() }
    };
    Ok(Job { serial_no: envelope.serial_no, received_at, work })
}

fn read_result(text: &str) -> Result<Job, JobError> {
    #[derive(Deserialize)]
    struct Told {
        message_id: String,
        target: String,
        status: String,
        reason: Option<String>,
        at: String,
    }
    if !text.trim_start().starts_with('{') {
        return Err(JobError::Result("it is no object".to_owned()));
    }
    let told: Told = serde_json::from_str(text).map_err(|error| JobError::Result(error.to_string()))?;
    let at = time("at", &told.at)?;
    let state = State::of_result(&told.status)
        .map_err(|word| field("status", &format!("`{word}`"), "a word of the gateway's results"))?;
    let work = match state {
        // Whoever sent it gave it no id: nobody asks for it.
        Some(_) if told.message_id.is_empty() => Work::Nothing,
        Some(state) => Work::Command(Step {
            message_id: told.message_id,
            serial_no: told.target.clone(),
            state,
            reason: told.reason,
            at,
        }),
        None => Work::Nothing,
    };
    Ok(Job { serial_no: told.target, received_at: at, work })
}

fn time(name: &'static str, text: &str) -> Result<Timestamp, JobError> {
    // No clock says an earlier one that was ever set, and a column that is a TIMESTAMP holds none.
    text.parse()
        .ok()
        .filter(|time: &Timestamp| *time >= Timestamp::UNIX_EPOCH)
        .ok_or_else(|| field(name, &format!("`{text}`"), "a time such as 2026-04-14T09:00:00+08:00, not before 1970"))
}

fn object<'a, T: Deserialize<'a>>(payload: &'a str) -> Result<T, JobError> {
    // A derived struct would take an array for its fields in order.
    if !payload.starts_with('{') {
        return Err(JobError::Payload("it is no object".to_owned()));
    }
    serde_json::from_str(payload).map_err(|error| JobError::Payload(error.to_string()))
}

/// A field that is there and is not `null`.
fn given(value: Option<&RawValue>) -> Option<&str> {
    value.map(RawValue::get).filter(|text| *text != "null")
}

/// The text of a string; none: it is no string.
fn string(text: &str) -> Option<String> {
    text.starts_with('"').then(|| serde_json::from_str(text).ok()).flatten()
}

fn integer(name: &'static str, text: &str, least: i64) -> Result<i64, JobError> {
    let must = || field(name, text, &format!("an integer from {least} to {}", i64::MAX));
    text.parse::<i64>().ok().filter(|number| *number >= least).ok_or_else(must)
}

/// A string, or an integer as it was written.
fn word(name: &'static str, text: &str, longest: usize) -> Result<String, JobError> {
    let word = string(text).or_else(|| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.to_owned())
    });
    word.filter(|word| word.chars().count() <= longest)
        .ok_or_else(|| field(name, text, &format!("a string of at most {longest} characters, or an integer")))
}

fn required<'a>(name: &'static str, value: Option<&'a RawValue>) -> Result<&'a str, JobError> {
    given(value).ok_or_else(|| JobError::Field { field: name, what: "is missing; it must be there".to_owned() })
}

fn heartbeat(payload: &str) -> Result<Heartbeat, JobError> {
    #[derive(Deserialize)]
    struct Written<'a> {
        #[serde(borrow)]
        temperature: Option<&'a RawValue>,
        #[serde(borrow)]
        current_page: Option<&'a RawValue>,
    }
    let written: Written<'_> = object(payload)?;
    let temperature = given(written.temperature)
        .map(|text| Decimal::parse(text).ok_or_else(|| field("temperature", text, "a number")));
    let page = given(written.current_page).map(|text| integer("current_page", text, 0));
    Ok(Heartbeat { temperature: temperature.transpose()?, current_page: page.transpose()? })
}

fn error(payload: &str) -> Result<Error, JobError> {
    #[derive(Deserialize)]
    struct Written<'a> {
        #[serde(borrow)]
        error_code: Option<&'a RawValue>,
        #[serde(borrow)]
        level: Option<&'a RawValue>,
        #[serde(borrow)]
        message: Option<&'a RawValue>,
        #[serde(borrow)]
        slot_no: Option<&'a RawValue>,
    }
    let written: Written<'_> = object(payload)?;
    let level = match given(written.level) {
        None => "error".to_owned(),
        Some(text) => word("level", text, 16)?,
    };
    let message = match given(written.message) {
        None => String::new(),
        Some(text) => string(text).ok_or_else(|| field("message", text, "a string"))?,
    };
    Ok(Error {
        code: word("error_code", required("error_code", written.error_code)?, 64)?,
        level,
        message,
        slot_no: given(written.slot_no).map(|text| integer("slot_no", text, 0)).transpose()?,
        payload: payload.to_owned(),
    })
}

fn sale(payload: &str) -> Result<Sale, JobError> {
    #[derive(Deserialize)]
    struct Written<'a> {
        #[serde(borrow)]
        transaction_id: Option<&'a RawValue>,
        #[serde(borrow)]
        slot_no: Option<&'a RawValue>,
        #[serde(borrow)]
        amount: Option<&'a RawValue>,
        #[serde(borrow)]
        quantity: Option<&'a RawValue>,
        #[serde(borrow)]
        product_id: Option<&'a RawValue>,
        #[serde(borrow)]
        payment_type: Option<&'a RawValue>,
        #[serde(borrow)]
        status: Option<&'a RawValue>,
    }
    let written: Written<'_> = object(payload)?;
    let amount = required("amount", written.amount)?;
    let number = match string(amount) {
        Some(text) => Decimal::parse(&text),
        None => Decimal::parse(amount),
    };
    let text = |name, value| given(value).map(|text| word(name, text, 64)).transpose();
    let transaction_id = word("transaction_id", required("transaction_id", written.transaction_id)?, 64)?;
    if transaction_id.is_empty() {
        return Err(field("transaction_id", "empty", "a string of 1 to 64 characters"));
    }
    Ok(Sale {
        transaction_id,
        slot_no: integer("slot_no", required("slot_no", written.slot_no)?, 0)?,
        amount: number.ok_or_else(|| field("amount", amount, "a number, or the same as a string"))?,
        quantity: given(written.quantity).map_or(Ok(1), |text| integer("quantity", text, 0))?,
        product_id: text("product_id", written.product_id)?,
        payment_type: text("payment_type", written.payment_type)?,
        status: text("status", written.status)?,
        payload: payload.to_owned(),
    })
}

fn acknowledgement(payload: &str, serial_no: &str, at: Timestamp) -> Result<Step, JobError> {
    #[derive(Deserialize)]
    struct Written<'a> {
        #[serde(borrow)]
        message_id: Option<&'a RawValue>,
        #[serde(borrow)]
        status: Option<&'a RawValue>,
        #[serde(borrow)]
        reason: Option<&'a RawValue>,
    }
    let written: Written<'_> = object(payload)?;
    let status = given(written.status).map(|text| word("status", text, 64)).transpose()?;
    let state = State::of_acknowledgement(status.as_deref()).map_err(|word| {
        field("status", &format!("`{word}`"), "acknowledged, ok, done or success; or rejected, error or failed")
    })?;
    let reason = given(written.reason).map(|text| word("reason", text, usize::MAX)).transpose()?;
    let message_id = word("message_id", required("message_id", written.message_id)?, 128)?;
    Ok(Step { message_id, serial_no: serial_no.to_owned(), state, reason, at })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jobs() -> Source {
        Source::Jobs(Types::default())
    }

    fn envelope(kind: &str, payload: &str) -> String {
        format!(
            r#"{{"type":"{kind}","serial_no":"M-001","payload":{payload},"received_at":"2026-04-14T09:00:00+08:00"}}"#
        )
    }

    fn read(kind: &str, payload: &str) -> Work {
        jobs().read(envelope(kind, payload).as_bytes()).expect("a job").work
    }

    #[track_caller]
    fn refused(raw: &str, part: &str) {
        let error = jobs().read(raw.as_bytes()).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn reads_the_gateways_contract() {
        let raw = r#"{"type":"heartbeat","serial_no":"M-001","payload":{"current_page":1,"temperature":25.5},"received_at":"2026-04-14T09:00:00+08:00"}"#;
        let job = jobs().read(raw.as_bytes()).expect("a job");
        assert_eq!(job.serial_no, "M-001");
        assert_eq!(job.received_at, "2026-04-14T01:00:00Z".parse().expect("a time"));
        let heartbeat = Heartbeat { temperature: Decimal::parse("25.5"), current_page: Some(1) };
        assert_eq!(job.work, Work::Heartbeat(heartbeat));
        assert_eq!(jobs().machine(raw.as_bytes()), "M-001");
    }

    #[test]
    fn an_amount_keeps_its_digits_as_a_number_and_as_a_string() {
        for amount in ["12.30", "\"12.30\""] {
            let payload = format!(r#"{{"transaction_id":"T1","slot_no":5,"amount":{amount},"product_id":7}}"#);
            let Work::Sale(sale) = read("transaction", &payload) else { panic!("a sale") };
            assert_eq!((sale.amount.as_str(), sale.quantity, sale.slot_no), ("12.30", 1, 5));
            assert_eq!((sale.product_id.as_deref(), sale.payload.as_str()), (Some("7"), payload.as_str()));
        }
    }

    #[test]
    fn an_error_has_a_code_and_a_level() {
        let Work::Error(error) = read("error", r#"{"error_code":-12,"message":"jam","slot_no":3}"#) else {
            panic!("an error")
        };
        assert_eq!((error.code.as_str(), error.level.as_str(), error.slot_no), ("-12", "error", Some(3)));
    }

    #[test]
    fn a_machine_and_the_gateway_move_commands() {
        let Work::Command(step) = read("command_ack", r#"{"message_id":"X","status":"failed","reason":"jam"}"#) else {
            panic!("a step")
        };
        assert_eq!((step.state, step.reason.as_deref()), (State::Rejected, Some("jam")));
        let result = |status: &str| {
            let raw = format!(
                r#"{{"message_id":"X","target":"M-1","status":"{status}","reason":null,"at":"2026-04-14T09:00:00+08:00"}}"#
            );
            Source::Results.read(raw.as_bytes()).map(|job| job.work)
        };
        assert!(matches!(result("sent"), Ok(Work::Command(Step { state: State::Sent, .. }))));
        assert_eq!(result("waiting"), Ok(Work::Nothing));
        assert!(result("lost").expect_err("refused").to_string().contains("`status` is `lost`"));
    }

    #[test]
    fn what_is_unknown_is_kept_as_it_came() {
        let unknown = Work::Unknown { kind: "door".to_owned(), payload: "[1.10]".to_owned() };
        assert_eq!(read("door", "[1.10]"), unknown);
    }

    #[test]
    fn says_what_is_wrong() {
        refused("[]", "it is no object");
        refused("{", "not JSON");
        refused(r#"{"type":"heartbeat"}"#, "missing field `serial_no`");
        refused(&envelope("heartbeat", "{}").replace("M-001", ""), "`serial_no` is refused: serial_no is empty");
        refused(&envelope("heartbeat", "{}").replace("2026", "year"), "`received_at` is `year-04-14");
        for year in ["0000", "1969", "-000001"] {
            refused(&envelope("heartbeat", "{}").replace("2026", year), "+08:00, not before 1970");
        }
        refused(&envelope("heartbeat", "[]"), "payload: it is no object");
        refused(&envelope("heartbeat", r#"{"temperature":"hot"}"#), "`temperature` is \"hot\"; it must be a number");
        refused(&envelope("heartbeat", r#"{"current_page":9223372036854775808}"#), "an integer from 0");
        refused(&envelope("transaction", r#"{"slot_no":1,"amount":1}"#), "`transaction_id` is missing");
        let sale = |rest: &str| envelope("transaction", &format!(r#"{{"transaction_id":"T","slot_no":1,{rest}}}"#));
        refused(&sale(r#""amount":"1,5""#), "`amount` is \"1,5\"");
        refused(&sale(r#""amount":1,"amount":2"#), "duplicate field");
        refused(&sale(r#""amount":1,"quantity":1.5"#), "`quantity` is 1.5");
        refused(&envelope("error", r#"{"error_code":""}"#).replace("\"\"", "[]"), "`error_code` is []");
        refused(&envelope("command_ack", r#"{"message_id":"X","status":"perhaps"}"#), "`status` is `perhaps`");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_job_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = jobs().read(&bytes);
            let _ = Source::Results.read(&bytes);
        }

        /// What is read as a machine's job goes to the lane of that machine.
        #[test]
        fn a_job_takes_the_lane_of_its_machine(serial in "[^\\p{C}]{1,20}") {
            let name = serde_json::Value::from(serial.as_str()).to_string();
            let raw = envelope("heartbeat", "{}").replace("\"M-001\"", &name);
            if let Ok(job) = jobs().read(raw.as_bytes()) {
                prop_assert_eq!(jobs().machine(raw.as_bytes()), job.serial_no);
            }
        }
    }
}
