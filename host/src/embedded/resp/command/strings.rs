//! SET, GET, INCR.

use bytes::Bytes;

use super::{Call, LATEST, NOT_AN_INTEGER, Refused, Reply, SYNTAX, number};
use crate::embedded::resp::frame::integer;
use crate::embedded::resp::store::Millis;

#[derive(PartialEq)]
enum If {
    Always,
    New,
    Old,
}

enum Expiry {
    Never,
    Keep,
    In(Millis),
}

pub(super) fn set(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let (key, value) = (&arguments[0], &arguments[1]);
    let (condition, expiry, get) = options(&arguments[2..])?;
    let at = call.at();
    let old = if get { call.store.text(at, key)?.cloned() } else { None };
    let exists = call.store.expires(at, key);
    let told = if get { old.map_or(Reply::Null, Reply::Bulk) } else { Reply::Null };
    if (condition == If::New && exists.is_some()) || (condition == If::Old && exists.is_none()) {
        return Ok(told);
    }
    let expires = match expiry {
        Expiry::Never => None,
        Expiry::Keep => exists.flatten(),
        Expiry::In(after) => Some(at.now.saturating_add(after)),
    };
    call.store.set(at, key, value, expires);
    Ok(if get { told } else { Reply::OK })
}

fn options(mut rest: &[Bytes]) -> Result<(If, Expiry, bool), Refused> {
    let syntax = || Refused::error(SYNTAX);
    let (mut condition, mut get, mut keep, mut after) = (If::Always, false, false, None);
    while let [option, tail @ ..] = rest {
        rest = tail;
        match (option.to_ascii_uppercase().as_slice(), tail) {
            (b"NX", _) if condition != If::Old => condition = If::New,
            (b"XX", _) if condition != If::New => condition = If::Old,
            (b"GET", _) => get = true,
            (b"KEEPTTL", _) if after.is_none() => keep = true,
            (unit @ (b"EX" | b"PX"), [time, tail @ ..]) if after.is_none() && !keep => {
                after = Some((time, if unit == b"EX" { 1000 } else { 1 }));
                rest = tail;
            }
            _ => return Err(syntax()),
        }
    }
    let expiry = match after {
        None if keep => Expiry::Keep,
        None => Expiry::Never,
        Some((time, unit)) => {
            let after = number(time)?.checked_mul(unit).filter(|after| (1..=LATEST).contains(after));
            Expiry::In(after.ok_or_else(|| Refused::error("invalid expire time in 'set' command"))?)
        }
    };
    Ok((condition, expiry, get))
}

pub(super) fn get(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    Ok(call.store.text(at, &arguments[0])?.cloned().map_or(Reply::Null, Reply::Bulk))
}

pub(super) fn incr(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let (at, key) = (call.at(), &arguments[0]);
    let old = match call.store.text(at, key)? {
        None => 0,
        Some(text) => integer(text).ok_or_else(|| Refused::error(NOT_AN_INTEGER))?,
    };
    let new = old.checked_add(1).ok_or_else(|| Refused::error("increment or decrement would overflow"))?;
    let expires = call.store.expires(at, key).flatten();
    call.store.set(at, key, new.to_string().as_bytes(), expires);
    Ok(Reply::Integer(new))
}
