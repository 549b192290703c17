//! A handler that calls a server over `wasi:http` as its message says, and answers with what came of it.

use crate::{Guest, ONE_JOB};

/// What is asked for; the default: `GET /` of nobody.
#[derive(Debug, Clone)]
pub struct Asker {
    /// `http` or `https`, or none: then it is left out.
    pub scheme: Option<&'static str>,
    /// Who is asked.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// Its place in `wasi:http`'s list: 0 get, 2 post, 5 connect.
    pub method: u8,
    /// A header field; without a name there is none.
    pub header: (String, Vec<u8>),
    /// Bytes of its body, in parts of 4 KiB.
    pub body: Option<u32>,
    /// How often, one after another; the last one is what is answered.
    pub times: u32,
    /// Milliseconds until the answer's head, as an option of the request.
    pub patience: Option<u32>,
    /// What it does with the answer.
    pub then: Then,
}

/// What becomes of the answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is read to its end.
    Read,
    /// Its first bytes are read; body and stream are kept for ever.
    Leave,
    /// The answer is not waited for, and kept for ever.
    Forget,
}

impl Default for Asker {
    fn default() -> Self {
        Self {
            scheme: Some("http"),
            authority: "nobody.invalid".to_owned(),
            path: "/".to_owned(),
            method: 0,
            header: (String::new(), Vec::new()),
            body: None,
            times: 1,
            patience: None,
            then: Then::Read,
        }
    }
}

/// Interfaces that it imports.
pub const IMPORTS: &str = "
    import wasi:io/poll@0.2.3;
    import wasi:io/streams@0.2.3;
    import wasi:http/types@0.2.3;
    import wasi:http/outgoing-handler@0.2.3;";

/// As the real packages have them, as far as it needs them.
pub const PACKAGES: &str = "
package wasi:io@0.2.3 {
    interface error { resource error; }
    interface poll { resource pollable { block: func(); } }
    interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource input-stream { blocking-read: func(len: u64) -> result<list<u8>, stream-error>; }
        resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
    }
}
package wasi:http@0.2.3 {
    interface types {
        use wasi:io/streams@0.2.3.{input-stream, output-stream};
        use wasi:io/poll@0.2.3.{pollable};
        variant method { get, head, post, put, delete, connect, options, trace, patch, other(string) }
        variant scheme { HTTP, HTTPS, other(string) }
        record DNS-error-payload { rcode: option<string>, info-code: option<u16> }
        record TLS-alert-received-payload { alert-id: option<u8>, alert-message: option<string> }
        record field-size-payload { field-name: option<string>, field-size: option<u32> }
        variant error-code {
            DNS-timeout, DNS-error(DNS-error-payload), destination-not-found, destination-unavailable,
            destination-IP-prohibited, destination-IP-unroutable, connection-refused, connection-terminated,
            connection-timeout, connection-read-timeout, connection-write-timeout, connection-limit-reached,
            TLS-protocol-error, TLS-certificate-error, TLS-alert-received(TLS-alert-received-payload),
            HTTP-request-denied, HTTP-request-length-required, HTTP-request-body-size(option<u64>),
            HTTP-request-method-invalid, HTTP-request-URI-invalid, HTTP-request-URI-too-long,
            HTTP-request-header-section-size(option<u32>), HTTP-request-header-size(option<field-size-payload>),
            HTTP-request-trailer-section-size(option<u32>), HTTP-request-trailer-size(field-size-payload),
            HTTP-response-incomplete, HTTP-response-header-section-size(option<u32>),
            HTTP-response-header-size(field-size-payload), HTTP-response-body-size(option<u64>),
            HTTP-response-trailer-section-size(option<u32>), HTTP-response-trailer-size(field-size-payload),
            HTTP-response-transfer-coding(option<string>), HTTP-response-content-coding(option<string>),
            HTTP-response-timeout, HTTP-upgrade-failed, HTTP-protocol-error, loop-detected, configuration-error,
            internal-error(option<string>),
        }
        variant header-error { invalid-syntax, forbidden, immutable }
        resource fields {
            constructor();
            append: func(name: string, value: list<u8>) -> result<_, header-error>;
        }
        resource outgoing-request {
            constructor(headers: fields);
            body: func() -> result<outgoing-body>;
            set-method: func(method: method) -> result;
            set-path-with-query: func(path-with-query: option<string>) -> result;
            set-scheme: func(scheme: option<scheme>) -> result;
            set-authority: func(authority: option<string>) -> result;
        }
        resource request-options {
            constructor();
            set-first-byte-timeout: func(duration: option<u64>) -> result;
        }
        resource incoming-response {
            status: func() -> u16;
            consume: func() -> result<incoming-body>;
        }
        resource incoming-body { %stream: func() -> result<input-stream>; }
        resource outgoing-body {
            write: func() -> result<output-stream>;
            finish: static func(this: outgoing-body, trailers: option<fields>) -> result<_, error-code>;
        }
        resource future-incoming-response {
            subscribe: func() -> pollable;
            get: func() -> option<result<result<incoming-response, error-code>>>;
        }
    }
    interface outgoing-handler {
        use types.{outgoing-request, request-options, future-incoming-response, error-code};
        handle: func(request: outgoing-request, options: option<request-options>) -> result<future-incoming-response, error-code>;
    }
}";

/// The same, as its core module has them.
const CORE: &str = r#"
    (import "wasi:http/types@0.2.3" "[constructor]fields" (func $fields (result i32)))
    (import "wasi:http/types@0.2.3" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "wasi:http/types@0.2.3" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
    (import "wasi:http/types@0.2.3" "[method]outgoing-request.set-method" (func $method (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.3" "[method]outgoing-request.set-scheme" (func $scheme (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.3" "[method]outgoing-request.set-authority" (func $authority (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.3" "[method]outgoing-request.set-path-with-query" (func $path (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.3" "[method]outgoing-request.body" (func $body (param i32 i32)))
    (import "wasi:http/types@0.2.3" "[method]outgoing-body.write" (func $write (param i32 i32)))
    (import "wasi:http/types@0.2.3" "[static]outgoing-body.finish" (func $finish (param i32 i32 i32 i32)))
    (import "wasi:http/types@0.2.3" "[constructor]request-options" (func $options (result i32)))
    (import "wasi:http/types@0.2.3" "[method]request-options.set-first-byte-timeout" (func $first_byte (param i32 i32 i64) (result i32)))
    (import "wasi:http/outgoing-handler@0.2.3" "handle" (func $handle (param i32 i32 i32 i32)))
    (import "wasi:http/types@0.2.3" "[method]future-incoming-response.subscribe" (func $subscribe (param i32) (result i32)))
    (import "wasi:http/types@0.2.3" "[method]future-incoming-response.get" (func $get (param i32 i32)))
    (import "wasi:http/types@0.2.3" "[method]incoming-response.status" (func $status (param i32) (result i32)))
    (import "wasi:http/types@0.2.3" "[method]incoming-response.consume" (func $consume (param i32 i32)))
    (import "wasi:http/types@0.2.3" "[method]incoming-body.stream" (func $stream (param i32 i32)))
    (import "wasi:io/poll@0.2.3" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/streams@0.2.3" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
    (import "wasi:io/streams@0.2.3" "[method]output-stream.blocking-write-and-flush" (func $out (param i32 i32 i32 i32)))
    (import "wasi:io/poll@0.2.3" "[resource-drop]pollable" (func $drop_pollable (param i32)))
    (import "wasi:io/streams@0.2.3" "[resource-drop]input-stream" (func $drop_input (param i32)))
    (import "wasi:io/streams@0.2.3" "[resource-drop]output-stream" (func $drop_output (param i32)))
    (import "wasi:io/error@0.2.3" "[resource-drop]error" (func $drop_error (param i32)))
    (import "wasi:http/types@0.2.3" "[resource-drop]future-incoming-response" (func $drop_future (param i32)))
    (import "wasi:http/types@0.2.3" "[resource-drop]incoming-response" (func $drop_response (param i32)))
    (import "wasi:http/types@0.2.3" "[resource-drop]incoming-body" (func $drop_body (param i32)))"#;

/// What it answers: a status, the place of an `error-code` in its list (91 to 93: a header field was not taken), bytes that were read, and
/// whether they came to their end (`c`) or broke off (`f`).
const ANSWER: &str = r#"{"status":"000","error":"--","read":"00000000","end":"-"}"#;

/// Where things stand in its memory; answers of the host's functions at 2048.
const TEMPLATE: usize = 3072;

/// What the message holds: numbers of four bytes, then authority, path, and the header field's name and value.
const SCHEME: usize = 0;
const METHOD: usize = 4;
const THEN: usize = 8;
const TIMES: usize = 12;
const BODY: usize = 16;
const PATIENCE: usize = 20;
const LENGTHS: usize = 24;
const WORDS: usize = 40;

impl Asker {
    /// What it answers where this came of it: `status`, `error`, `read` and `end` as it writes them.
    #[must_use]
    pub fn answer(status: u16, error: &str, read: u32, end: char) -> String {
        format!(r#"{{"status":"{status:03}","error":"{error}","read":"{read:08}","end":"{end}"}}"#)
    }

    /// What it answers to a whole answer.
    #[must_use]
    pub fn good(status: u16, read: u32) -> String {
        Self::answer(status, "--", read, 'c')
    }

    /// What it answers where there was none.
    #[must_use]
    pub fn failed(code: u8) -> String {
        Self::answer(0, &format!("{code:02}"), 0, '-')
    }

    /// The message that asks for it.
    ///
    /// # Panics
    /// Never: a word of a test is short.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let scheme = match self.scheme {
            Some("http") => 0,
            Some(_) => 1,
            None => 2,
        };
        let words = [self.authority.as_bytes(), self.path.as_bytes(), self.header.0.as_bytes(), &self.header.1];
        let numbers = [
            scheme,
            u32::from(self.method),
            self.then as u32,
            self.times,
            self.body.unwrap_or(u32::MAX),
            self.patience.unwrap_or(0),
        ];
        let lengths = words.map(|word| u32::try_from(word.len()).expect("a short word"));
        let mut message: Vec<u8> = numbers.into_iter().chain(lengths).flat_map(u32::to_le_bytes).collect();
        message.extend(words.concat());
        message
    }

    /// As a component of the world topic-handler: one for whatever is asked.
    ///
    /// # Panics
    /// Where it is no WebAssembly.
    #[must_use]
    pub fn handler() -> Vec<u8> {
        let number = |at: usize| format!("(i32.load offset={at} (local.get $p))");
        let length = |word: usize| number(LENGTHS + word * 4);
        // Where a word begins: behind those before it.
        let begins = |word: usize| {
            (0..word).fold(format!("(i32.add (local.get $p) (i32.const {WORDS}))"), |at, before| {
                format!("(i32.add {at} {})", length(before))
            })
        };
        let word = |word: usize| format!("{} {}", begins(word), length(word));
        let extra = format!(
            r#"
            (data (i32.const {TEMPLATE}) "{answer}")
            (data (i32.const 4096) "{answer}")
            (func $number (param $at i32) (param $digits i32) (param $value i32)
              (loop $again
                (local.set $digits (i32.sub (local.get $digits) (i32.const 1)))
                (i32.store8 (i32.add (local.get $at) (local.get $digits))
                  (i32.add (i32.const 48) (i32.rem_u (local.get $value) (i32.const 10))))
                (local.set $value (i32.div_u (local.get $value) (i32.const 10)))
                (br_if $again (local.get $digits))))
            (func $wrong (param $code i32)
              (call $number (i32.const {error}) (i32.const 2) (local.get $code)))
            (func $with_patience (param $millis i32) (result i32) (local $options i32)
              (local.set $options (call $options))
              (drop (call $first_byte (local.get $options) (i32.const 1)
                (i64.mul (i64.extend_i32_u (local.get $millis)) (i64.const 1000000))))
              (local.get $options))
            (func $send (param $body i32) (param $left i32) (local $stream i32) (local $part i32)
              (call $write (local.get $body) (i32.const 2048))
              (local.set $stream (i32.load (i32.const 2052)))
              (block $done
                (loop $again
                  (br_if $done (i32.eqz (local.get $left)))
                  (local.set $part (select (i32.const 4096) (local.get $left) (i32.gt_u (local.get $left) (i32.const 4096))))
                  (call $out (local.get $stream) (i32.const 0) (local.get $part) (i32.const 2048))
                  (br_if $done (i32.load8_u (i32.const 2048)))
                  (local.set $left (i32.sub (local.get $left) (local.get $part)))
                  (br $again)))
              (call $drop_output (local.get $stream))
              (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 2048)))
            (func $ask (param $p i32) (local $fields i32) (local $request i32) (local $out i32) (local $patience i32)
                (local $future i32) (local $poll i32) (local $response i32) (local $body i32) (local $stream i32)
                (local $read i32) (local $mark i32)
              (memory.copy (i32.const {TEMPLATE}) (i32.const 4096) (i32.const {all}))
              (local.set $fields (call $fields))
              (if {name_length} (then
                (call $append (local.get $fields) {name} {value} (i32.const 2048))
                (if (i32.load8_u (i32.const 2048)) (then
                  (call $wrong (i32.add (i32.const 91) (i32.load8_u (i32.const 2049))))
                  (return)))))
              (local.set $request (call $request (local.get $fields)))
              (drop (call $method (local.get $request) {method} (i32.const 0) (i32.const 0)))
              (if (i32.lt_u {scheme} (i32.const 2)) (then
                (drop (call $scheme (local.get $request) (i32.const 1) {scheme} (i32.const 0) (i32.const 0)))))
              ;; What is refused here is left out, and the request says the rest.
              (drop (call $authority (local.get $request) (i32.const 1) {authority}))
              (drop (call $path (local.get $request) (i32.const 1) {path}))
              (if (i32.ne {body} (i32.const -1)) (then
                (call $body (local.get $request) (i32.const 2048))
                (local.set $out (i32.load (i32.const 2052)))))
              (if {patience} (then
                (local.set $patience (call $with_patience {patience}))
                (call $handle (local.get $request) (i32.const 1) (local.get $patience) (i32.const 2048)))
              (else
                (call $handle (local.get $request) (i32.const 0) (i32.const 0) (i32.const 2048))))
              (if (i32.load8_u (i32.const 2048)) (then
                (call $wrong (i32.load8_u (i32.const 2056)))
                (return)))
              (local.set $future (i32.load (i32.const 2056)))
              (if (i32.eq {then} (i32.const {forget})) (then (return)))
              (if (i32.ne {body} (i32.const -1)) (then (call $send (local.get $out) {body})))
              (local.set $poll (call $subscribe (local.get $future)))
              (call $block (local.get $poll))
              (call $drop_pollable (local.get $poll))
              (call $get (local.get $future) (i32.const 2048))
              (call $drop_future (local.get $future))
              (if (i32.load8_u (i32.const 2064)) (then
                (call $wrong (i32.load8_u (i32.const 2072)))
                (return)))
              (local.set $response (i32.load (i32.const 2072)))
              (call $number (i32.const {status}) (i32.const 3) (call $status (local.get $response)))
              (call $consume (local.get $response) (i32.const 2048))
              (local.set $body (i32.load (i32.const 2052)))
              (call $stream (local.get $body) (i32.const 2048))
              (local.set $stream (i32.load (i32.const 2052)))
              (local.set $mark (global.get $next))
              (block $end
                (loop $more
                  (global.set $next (local.get $mark))
                  (call $read (local.get $stream) (i64.const 16384) (i32.const 2048))
                  (br_if $end (i32.load8_u (i32.const 2048)))
                  (local.set $read (i32.add (local.get $read) (i32.load (i32.const 2056))))
                  (call $number (i32.const {bytes}) (i32.const 8) (local.get $read))
                  (if (i32.eq {then} (i32.const {leave})) (then (return)))
                  (br $more)))
              (if (i32.load8_u (i32.const 2052))
                (then (i32.store8 (i32.const {end}) (i32.const 99)))
                (else (i32.store8 (i32.const {end}) (i32.const 102)) (call $drop_error (i32.load (i32.const 2056)))))
              (call $drop_input (local.get $stream))
              (call $drop_body (local.get $body))
              (call $drop_response (local.get $response)))"#,
            answer = ANSWER.replace('"', "\\22"),
            all = ANSWER.len(),
            name_length = length(2),
            name = word(2),
            value = word(3),
            method = number(METHOD),
            scheme = number(SCHEME),
            authority = word(0),
            path = word(1),
            body = number(BODY),
            patience = number(PATIENCE),
            then = number(THEN),
            forget = Then::Forget as u32,
            leave = Then::Leave as u32,
            error = at("error"),
            status = at("status"),
            bytes = at("read"),
            end = at("end"),
        );
        let body = format!(
            "(local.set $len (i32.load offset={TIMES} (local.get 4)))
             (loop $again
               (call $ask (local.get 4))
               (local.set $len (i32.sub (local.get $len) (i32.const 1)))
               (br_if $again (local.get $len)))
             (local.set $at (i32.const {TEMPLATE})) (local.set $len (i32.const {all})) {ONE_JOB}",
            all = ANSWER.len(),
        );
        let guest = Guest { imports: CORE.to_owned(), pages: 8, extra, ..Guest::doing(&body) };
        guest.handler_importing(IMPORTS, PACKAGES)
    }
}

/// Where the value of a key stands.
fn at(key: &str) -> usize {
    let found = ANSWER.find(&format!("\"{key}\":\"")).unwrap_or_default();
    TEMPLATE + found + key.len() + 4
}
