//! Commands for keys of any type: existence, expiry, listing, flushing.

use bytes::Bytes;

use super::glob::matches;
use super::{Call, LATEST, Refused, Reply, SYNTAX, number};
use crate::embedded::resp::store::{DATABASES, Millis, Place};

pub(super) fn del(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    Ok(Reply::count(arguments.iter().filter(|key| call.store.remove(at, key)).count()))
}

pub(super) fn exists(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    Ok(Reply::count(arguments.iter().filter(|key| call.store.value(at, key).is_some()).count()))
}

pub(super) fn expire(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    expire_in(call, arguments, 1000, "expire")
}

pub(super) fn pexpire(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    expire_in(call, arguments, 1, "pexpire")
}

fn expire_in(call: &mut Call<'_>, arguments: &[Bytes], unit: Millis, name: &str) -> Result<Reply, Refused> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for option in &arguments[2..] {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" => nx = true,
            b"XX" => xx = true,
            b"GT" => gt = true,
            b"LT" => lt = true,
            _ => {
                let option = String::from_utf8_lossy(option).replace(['\r', '\n'], " ");
                return Err(Refused::error(format!("Unsupported option {option}")));
            }
        }
    }
    if nx && (xx || gt || lt) {
        return Err(Refused::error("NX and XX, GT or LT options at the same time are not compatible"));
    }
    if gt && lt {
        return Err(Refused::error("GT and LT options at the same time are not compatible"));
    }
    let after = number(&arguments[1])?.checked_mul(unit).filter(|after| *after <= LATEST);
    let after = after.ok_or_else(|| Refused::error(format!("invalid expire time in '{name}' command")))?;
    let (at, key) = (call.at(), &arguments[0]);
    let Some(current) = call.store.expires(at, key) else { return Ok(Reply::Integer(0)) };
    let new = at.now.saturating_add(after);
    // A key that stays counts as one that expires later than any other.
    let refused = (nx && current.is_some())
        || (xx && current.is_none())
        || (gt && current.is_none_or(|current| new <= current))
        || (lt && current.is_some_and(|current| new >= current));
    if refused {
        return Ok(Reply::Integer(0));
    }
    call.store.expire(at, key, Some(new));
    Ok(Reply::Integer(1))
}

pub(super) fn ttl(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    Ok(Reply::Integer(left(call, &arguments[0], |millis| millis.saturating_add(500) / 1000)))
}

pub(super) fn pttl(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    Ok(Reply::Integer(left(call, &arguments[0], |millis| millis)))
}

fn left(call: &mut Call<'_>, key: &[u8], unit: impl FnOnce(Millis) -> i64) -> i64 {
    let at = call.at();
    match call.store.expires(at, key) {
        None => -2,
        Some(None) => -1,
        Some(Some(expires)) => unit(expires - at.now),
    }
}

pub(super) fn persist(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    let expires = call.store.expires(at, &arguments[0]).flatten().is_some();
    if expires {
        call.store.expire(at, &arguments[0], None);
    }
    Ok(Reply::Integer(expires.into()))
}

pub(super) fn kind(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    Ok(Reply::Status(call.store.value(at, &arguments[0]).map_or("none", |value| value.kind())))
}

pub(super) fn keys(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    let keys = call.store.keys(at).map(|(key, _)| key).filter(|key| matches(&arguments[0], key));
    Ok(Reply::Array(keys.cloned().map(Reply::Bulk).collect()))
}

/// All keys in one page: SCAN promises no more than that each key that stays is told once at least.
pub(super) fn scan(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let cursor = std::str::from_utf8(&arguments[0]).ok().and_then(|cursor| cursor.parse::<u64>().ok());
    let cursor = cursor.ok_or_else(|| Refused::error("invalid cursor"))?;
    let (mut pattern, mut kind) = (None, None);
    let mut rest = &arguments[1..];
    while let [option, tail @ ..] = rest {
        let [value, tail @ ..] = tail else { return Err(Refused::error(SYNTAX)) };
        match option.to_ascii_uppercase().as_slice() {
            b"MATCH" => pattern = Some(value),
            b"TYPE" => kind = Some(value),
            b"COUNT" => {
                if number(value)? < 1 {
                    return Err(Refused::error(SYNTAX));
                }
            }
            _ => return Err(Refused::error(SYNTAX)),
        }
        rest = tail;
    }
    let at = call.at();
    let found = call.store.keys(at).filter(|(key, value)| {
        // A cursor other than 0 is not ours: nothing comes behind our only page.
        cursor == 0
            && pattern.is_none_or(|pattern| matches(pattern, key))
            && kind.is_none_or(|kind| kind.eq_ignore_ascii_case(value.kind().as_bytes()))
    });
    let found = found.map(|(key, _)| Reply::Bulk(key.clone())).collect();
    Ok(Reply::Array(vec![Reply::text("0"), Reply::Array(found)]))
}

pub(super) fn dbsize(call: &mut Call<'_>, _: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    Ok(Reply::count(call.store.counts(at).0))
}

pub(super) fn flushdb(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    flush_option(arguments)?;
    let Place { db, .. } = call.at();
    call.store.flush(db);
    Ok(Reply::OK)
}

pub(super) fn flushall(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    flush_option(arguments)?;
    (0..DATABASES).for_each(|db| call.store.flush(db));
    Ok(Reply::OK)
}

fn flush_option(arguments: &[Bytes]) -> Result<(), Refused> {
    match arguments {
        [] => Ok(()),
        [how] if how.eq_ignore_ascii_case(b"sync") || how.eq_ignore_ascii_case(b"async") => Ok(()),
        _ => Err(Refused::error(SYNTAX)),
    }
}
