//! Commands from bytes and replies to bytes. The codec is `redis-protocol`'s; here stand the limits that a server has to
//! put before it (the codec recurses, and knows no bounds), the inline form of a command, and the two kinds of null.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes_mut;
use redis_protocol::resp2::encode::extend_encode_borrowed;
use redis_protocol::resp2::types::{BorrowedFrame, BytesFrame};

/// The longest argument.
pub(super) const MAX_BULK: usize = 64 << 20;
/// The longest command: its arguments and what stands between them.
const MAX_COMMAND: usize = MAX_BULK + (16 << 20);
const MAX_ARGUMENTS: i64 = 1 << 20;
/// The longest line: a length, or a command in the inline form.
const MAX_LINE: usize = 64 << 10;

/// What a client sent is no command; the text is what Redis says before it closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Protocol error: {0}")]
pub(super) struct ProtocolError(Cow<'static, str>);

/// Finds commands in what came so far. It remembers how far it looked, so that a long command is not looked through again
/// with every read.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Where the next argument begins; 0 before the number of arguments is known.
    position: usize,
    /// How many arguments are still to come.
    missing: i64,
}

impl Decoder {
    /// Takes the next whole command off the front of `input`; `None` where more bytes are needed. No command is empty.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        while let Some(&first) = input.first() {
            let command = if first == b'*' { self.array(input)? } else { inline(input)? };
            match command {
                Some(command) if command.is_empty() => {}
                command => return Ok(command),
            }
        }
        Ok(None)
    }

    fn array(&mut self, input: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        if self.position == 0 {
            let Some((count, end)) = number(input, 1, "too big mbulk count string")? else { return Ok(None) };
            let count = count.filter(|count| *count <= MAX_ARGUMENTS);
            let count = count.ok_or(ProtocolError("invalid multibulk length".into()))?;
            if count <= 0 {
                input.advance(end);
                return Ok(Some(Vec::new()));
            }
            (self.position, self.missing) = (end, count);
        }
        while self.missing > 0 {
            let Some(&kind) = input.get(self.position) else { return Ok(None) };
            if kind != b'$' {
                return Err(ProtocolError(format!("expected '$', got '{}'", char::from(kind)).into()));
            }
            let Some((length, end)) = number(input, self.position + 1, "too big bulk count string")? else {
                return Ok(None);
            };
            let length = length.and_then(|length| usize::try_from(length).ok()).filter(|length| *length <= MAX_BULK);
            let length = length.ok_or(ProtocolError("invalid bulk length".into()))?;
            let next = end + length + 2;
            if next > MAX_COMMAND {
                return Err(ProtocolError("too big command".into()));
            }
            if input.len() < next {
                return Ok(None);
            }
            (self.position, self.missing) = (next, self.missing - 1);
        }
        *self = Self::default();
        // Invariant: an array of bulk strings, whole and of bounded depth, begins here.
        let malformed = || ProtocolError("invalid command".into());
        let Ok(Some((BytesFrame::Array(frames), _, _))) = decode_bytes_mut(input) else { return Err(malformed()) };
        let argument = |frame| if let BytesFrame::BulkString(bytes) = frame { Ok(bytes) } else { Err(malformed()) };
        frames.into_iter().map(argument).collect::<Result<_, _>>().map(Some)
    }
}

/// The number on the line that begins at `start`, and where the next line begins. The inner `None`: no number.
type Line = Option<(Option<i64>, usize)>;

fn number(input: &[u8], start: usize, too_long: &'static str) -> Result<Line, ProtocolError> {
    let rest = input.get(start..).unwrap_or_default();
    let window = &rest[..rest.len().min(MAX_LINE)];
    match window.windows(2).position(|two| two == b"\r\n") {
        Some(length) => Ok(Some((integer(&window[..length]), start + length + 2))),
        None if rest.len() >= MAX_LINE => Err(ProtocolError(too_long.into())),
        None => Ok(None),
    }
}

/// A decimal as Redis writes it: no plus sign, no leading zeros, no spaces.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if canonical { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// A command that somebody types: words on one line, perhaps quoted.
fn inline(input: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
    let window = &input[..input.len().min(MAX_LINE)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if input.len() >= MAX_LINE { Err(ProtocolError("too big inline request".into())) } else { Ok(None) };
    };
    let line = input.split_to(end + 1);
    let line = &line[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match words(line) {
        Some(words) => Ok(Some(words)),
        None => Err(ProtocolError("unbalanced quotes in request".into())),
    }
}

fn words(mut rest: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        let mut quote = None;
        loop {
            match (rest, quote) {
                ([], None) => break,
                ([], Some(_)) => return None,
                ([b'\\', b'x', high, low, tail @ ..], Some(b'"'))
                    if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
                {
                    word.push(hex(*high) * 16 + hex(*low));
                    rest = tail;
                }
                ([b'\\', escaped, tail @ ..], Some(b'"')) => {
                    word.push(match escaped {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'a' => 7,
                        other => *other,
                    });
                    rest = tail;
                }
                ([b'\\', b'\'', tail @ ..], Some(b'\'')) => {
                    word.push(b'\'');
                    rest = tail;
                }
                ([byte, tail @ ..], Some(open)) if *byte == open => {
                    if tail.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                        return None;
                    }
                    rest = tail;
                    break;
                }
                ([byte @ (b'"' | b'\''), tail @ ..], None) => {
                    quote = Some(*byte);
                    rest = tail;
                }
                ([byte, ..], None) if byte.is_ascii_whitespace() || *byte == 0 => {
                    rest = &rest[1..];
                    break;
                }
                ([byte, tail @ ..], _) => {
                    word.push(*byte);
                    rest = tail;
                }
            }
        }
        words.push(Bytes::from(word));
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// A word such as `OK`.
    Status(&'static str),
    /// A refusal, with its code: `ERR syntax error`.
    Error(Cow<'static, str>),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Bytes),
    /// No bytes.
    Null,
    /// No array: RESP2 has a null of its own for it, which the codec does not write.
    NullArray,
    /// Several replies.
    Array(Vec<Reply>),
}

impl Reply {
    /// The usual success.
    pub(super) const OK: Self = Self::Status("OK");

    /// An `ERR`.
    pub(super) fn error(text: &str) -> Self {
        Self::Error(format!("ERR {text}").into())
    }

    /// Bytes that are text.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Bulk(Bytes::from(text.into()))
    }

    /// The number of something.
    pub(super) fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Writes it behind what stands in `output`.
    pub(super) fn encode(&self, output: &mut BytesMut) {
        let frame = match self {
            Self::Status(word) => BorrowedFrame::SimpleString(word.as_bytes()),
            Self::Error(text) => BorrowedFrame::Error(text),
            Self::Integer(number) => BorrowedFrame::Integer(*number),
            Self::Bulk(bytes) => BorrowedFrame::BulkString(bytes),
            Self::Null => BorrowedFrame::Null,
            Self::NullArray => return output.extend_from_slice(b"*-1\r\n"),
            Self::Array(replies) => {
                output.extend_from_slice(format!("*{}\r\n", replies.len()).as_bytes());
                return replies.iter().for_each(|reply| reply.encode(output));
            }
        };
        // The codec reserves by a logarithm in floating point, which is a byte too long for 999,999,999,999,999,999.
        match extend_encode_borrowed(output, &frame, false) {
            Ok(end) => output.truncate(end),
            Err(error) => unreachable!("invariant: the codec made the room itself: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;

    use super::{Decoder, MAX_BULK, Reply};

    /// Everything that stands in the bytes, given in pieces of `piece` bytes: the commands, and the error at the end.
    fn decode(bytes: &[u8], piece: usize) -> (Vec<Vec<Bytes>>, Option<String>) {
        let (mut decoder, mut input, mut commands) = (Decoder::default(), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            input.extend_from_slice(piece);
            loop {
                match decoder.next(&mut input) {
                    Ok(Some(command)) => commands.push(command),
                    Ok(None) => break,
                    Err(error) => return (commands, Some(error.to_string())),
                }
            }
        }
        (commands, None)
    }

    #[track_caller]
    fn check(bytes: &str, expected: &[&[&str]]) {
        for piece in [1, 2, 7, 1000] {
            let expected =
                expected.iter().map(|words| words.iter().map(|word| Bytes::from(word.to_string())).collect());
            assert_eq!(decode(bytes.as_bytes(), piece), (expected.collect(), None), "{bytes:?} in pieces of {piece}");
        }
    }

    #[track_caller]
    fn check_refused(bytes: &str, expected: &str) {
        assert_eq!(decode(bytes.as_bytes(), 1000).1.as_deref(), Some(expected), "{bytes:?}");
    }

    #[track_caller]
    fn check_encoded(reply: Reply, expected: &str) {
        let mut output = BytesMut::from("before");
        reply.encode(&mut output);
        assert_eq!(String::from_utf8_lossy(&output), format!("before{expected}"));
    }

    #[test]
    fn commands() {
        check("*1\r\n$4\r\nPING\r\n", &[&["PING"]]);
        check("*2\r\n$3\r\nGET\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n", &[&["GET", ""], &["PING"]]);
        check("*0\r\n*-1\r\n\r\nPING\r\n", &[&["PING"]]);
        check("*2\r\n$4\r\nECHO\r\n$4\r\na\r\nb\r\n", &[&["ECHO", "a\r\nb"]]);
        check("set  k 'a b'\n", &[&["set", "k", "a b"]]);
        check("set k \"\\x41\\n\\\"\"\r\n", &[&["set", "k", "A\n\""]]);
        check("*1\r\n$4\r\nPI", &[]);
    }

    #[test]
    fn refusals() {
        check_refused("*x\r\n", "Protocol error: invalid multibulk length");
        check_refused("*1048577\r\n", "Protocol error: invalid multibulk length");
        check_refused("*1\r\n:1\r\n", "Protocol error: expected '$', got ':'");
        check_refused("*1\r\n*1\r\n", "Protocol error: expected '$', got '*'");
        check_refused("*1\r\n$-1\r\n", "Protocol error: invalid bulk length");
        check_refused(&format!("*1\r\n${}\r\n", MAX_BULK + 1), "Protocol error: invalid bulk length");
        check_refused("set k \"a\r\n", "Protocol error: unbalanced quotes in request");
        check_refused("set k \"a\"b\r\n", "Protocol error: unbalanced quotes in request");
        let long = "1".repeat(70_000);
        assert_eq!(decode(long.as_bytes(), 70_000).1.as_deref(), Some("Protocol error: too big inline request"));
        let long = format!("*{long}");
        assert_eq!(decode(long.as_bytes(), 71_000).1.as_deref(), Some("Protocol error: too big mbulk count string"));
    }

    #[test]
    fn replies() {
        check_encoded(Reply::OK, "+OK\r\n");
        check_encoded(Reply::Null, "$-1\r\n");
        check_encoded(Reply::NullArray, "*-1\r\n");
        check_encoded(Reply::Array(vec![Reply::Integer(-7), Reply::text("")]), "*2\r\n:-7\r\n$0\r\n\r\n");
        for digits in 1..=18 {
            let nines = "9".repeat(digits);
            check_encoded(Reply::Integer(nines.parse().expect("a number")), &format!(":{nines}\r\n"));
        }
        check_encoded(Reply::Integer(i64::MIN), ":-9223372036854775808\r\n");
        check_encoded(Reply::Integer(i64::MAX), ":9223372036854775807\r\n");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
            decode(&bytes, piece);
        }

        /// Bytes that look like a command come far into the parser.
        #[test]
        fn any_likely_bytes_are_survived(text in "([*$:+][0-9-]{0,3}\r?\n|[a-z\"'\\\\x ]{0,5}|\r\n){0,40}", piece in 1_usize..50) {
            let whole = decode(text.as_bytes(), 10_000);
            prop_assert_eq!(decode(text.as_bytes(), piece), whole);
        }

        #[test]
        fn what_is_sent_comes(words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..10), piece in 1_usize..50) {
            let words: Vec<Bytes> = words.into_iter().map(Bytes::from).collect();
            let mut bytes = BytesMut::new();
            // A reply of bulk strings is written as a command is.
            Reply::Array(words.iter().cloned().map(Reply::Bulk).collect()).encode(&mut bytes);
            prop_assert_eq!(decode(&bytes, piece), (vec![words], None));
        }
    }
}
