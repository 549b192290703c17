//! A customer's payloads that only the customer can read: Acme's machines seal what they send, and Acme's own server opens it. It needs
//! `grants.http` with that server, and the setting `url`.

use sluicegate_sdk::{Failure, Message, Output, handler, http, job, reject, setting};

handler!(handle);

fn handle(message: Message) -> Result<Vec<Output>, Failure> {
    if message.payload.is_empty() {
        return reject("the payload is empty");
    }
    // The message is not wrong, and goes well once the setting is there.
    let Some(url) = setting("url") else {
        return Err(Failure::Retry("the plugin's setting `url` is missing".to_owned()));
    };
    let answer = http::post(url, message.payload)
        .header("Content-Type", "application/octet-stream")
        // A message may be tried more than once: by this the server knows it again.
        .header("Idempotency-Key", &message.id)
        .send()?;
    match answer.status {
        200 => job(answer.body).unkeyed(),
        status @ 400..=499 => reject(format!("Acme's server refuses it: {status}")),
        status => Err(Failure::Retry(format!("Acme's server answers {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_sdk::http::Answer;
    use sluicegate_sdk::testing::{handler_samples, message, one_job, rejection, with_server, with_settings};

    use super::*;

    fn answered(status: u16) -> Result<Vec<Output>, Failure> {
        let server = move |request: &http::Request| {
            assert_eq!((&*request.method, &*request.url), ("POST", "https://acme"));
            assert_eq!(request.headers[1], ("Idempotency-Key".to_owned(), "1-1".to_owned()));
            let body = request.body.clone().unwrap_or_default();
            Ok(Answer { status, headers: Vec::new(), body: [b"[", &*body, b"]"].concat() })
        };
        with_settings(&[("url", "https://acme")], || with_server(server, || handle(message("7"))))
    }

    #[test]
    fn samples() {
        handler_samples(env!("CARGO_MANIFEST_DIR"), handle);
    }

    #[test]
    fn the_job_is_what_the_server_answers() {
        assert_eq!(one_job(answered(200)).0, "[7]");
        assert_eq!(rejection(answered(422)), "Acme's server refuses it: 422");
        assert!(matches!(answered(503), Err(Failure::Retry(reason)) if reason == "Acme's server answers 503"));
    }
}
