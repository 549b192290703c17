//! EVAL, EVALSHA: several commands in one step.

use bytes::Bytes;

use super::{Call, Need, OUT_OF_MEMORY, Refused, Reply, known, number};
use crate::embedded::resp::script::{Fault, Value, run};

/// What changes the connection, or would run a script in a script.
const NOT_IN_SCRIPTS: [&str; 10] =
    ["auth", "client", "discard", "eval", "evalsha", "exec", "hello", "multi", "quit", "select"];

/// No script is kept: clients send it whole when they hear so.
pub(super) fn evalsha(_: &mut Call<'_>, _: &[Bytes]) -> Result<Reply, Refused> {
    Err(Refused("NOSCRIPT No matching script. Please use EVAL.".into()))
}

pub(super) fn eval(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let (text, count, rest) = (&arguments[0], number(&arguments[1])?, &arguments[2..]);
    let count = usize::try_from(count).map_err(|_| Refused::error("Number of keys can't be negative"))?;
    let Some((keys, values)) = rest.split_at_checked(count) else {
        return Err(Refused::error("Number of keys can't be greater than number of args"));
    };
    // What comes after a write is done whatever memory there is, or half of the script would be.
    let mut wrote = false;
    let value = run(text, keys, values, &mut |words| {
        let refused = |Refused(text): Refused| Fault::Command(text.into_owned());
        let at = call.at();
        let found = known(&words).map_err(refused)?;
        if NOT_IN_SCRIPTS.contains(&found.name) {
            return Err(refused(Refused::error("This Redis command is not allowed from script")));
        }
        if found.need == Need::Room && !wrote && !call.store.has_room(at, &words[1..]) {
            return Err(Fault::Command(OUT_OF_MEMORY.to_owned()));
        }
        wrote |= found.need != Need::Nothing;
        let reply = (found.run)(call, &words[1..]).map_err(refused)?;
        // Nothing waits in a script.
        call.wait = None;
        value(reply)
    });
    match value {
        Ok(value) => Ok(reply(value)),
        Err(Fault::Command(text)) => Err(Refused(text.into())),
        Err(Fault::Script(why)) => {
            Err(Refused::error(format!("the embedded Redis knows only a part of Lua; in this script, {why}")))
        }
    }
}

fn value(reply: Reply) -> Result<Value, Fault> {
    match reply {
        Reply::Status(text) => Ok(Value::Status(text)),
        Reply::Integer(number) => Ok(Value::Number(number as f64)),
        Reply::Bulk(text) => Ok(Value::Text(text)),
        Reply::Null | Reply::NullArray => Ok(Value::Bool(false)),
        Reply::Error(text) => Err(Fault::Command(text.into_owned())),
        Reply::Array(replies) => {
            let text = |reply| match reply {
                Reply::Bulk(text) => Ok(text),
                _ => Err(Fault::Script("a command answers with several values that are no texts".to_owned())),
            };
            replies.into_iter().map(text).collect::<Result<_, _>>().map(Value::List)
        }
    }
}

fn reply(value: Value) -> Reply {
    match value {
        Value::Nil | Value::Bool(false) => Reply::Null,
        Value::Bool(true) => Reply::Integer(1),
        // Redis cuts off what is behind the point.
        Value::Number(number) => Reply::Integer(number as i64),
        Value::Text(text) => Reply::Bulk(text),
        Value::List(texts) => Reply::Array(texts.into_iter().map(Reply::Bulk).collect()),
        Value::Status(text) => Reply::Status(text),
    }
}
