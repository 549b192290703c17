//! Commands for lists, and those that wait for an element.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::{Call, Refused, Reply, SYNTAX, number};
use crate::embedded::resp::store::{End, own};
use crate::embedded::resp::waiting::Want;

pub(super) fn lpush(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    push(call, arguments, End::Left)
}

pub(super) fn rpush(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    push(call, arguments, End::Right)
}

fn push(call: &mut Call<'_>, arguments: &[Bytes], end: End) -> Result<Reply, Refused> {
    let at = call.at();
    let length = call.store.edit_list(at, &arguments[0], |list| {
        arguments[1..].iter().for_each(|item| list.push(end, item));
        list.items().len()
    })?;
    Ok(Reply::count(length))
}

pub(super) fn lpop(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    pop(call, arguments, End::Left, "lpop")
}

pub(super) fn rpop(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    pop(call, arguments, End::Right, "rpop")
}

fn pop(call: &mut Call<'_>, arguments: &[Bytes], end: End, name: &str) -> Result<Reply, Refused> {
    let count = match &arguments[1..] {
        [] => None,
        [count] => {
            let count = number(count).ok().and_then(|count| usize::try_from(count).ok());
            Some(count.ok_or_else(|| Refused::error("value is out of range, must be positive"))?)
        }
        _ => return Err(Refused::arity(name)),
    };
    let (at, key) = (call.at(), &arguments[0]);
    if call.store.list(at, key)?.is_none() {
        return Ok(if count.is_some() { Reply::NullArray } else { Reply::Null });
    }
    let reply = call.store.edit_list(at, key, |list| match count {
        None => list.pop(end).map_or(Reply::Null, Reply::Bulk),
        Some(count) => Reply::Array((0..count).map_while(|_| list.pop(end)).map(Reply::Bulk).collect()),
    })?;
    Ok(reply)
}

pub(super) fn llen(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    Ok(Reply::count(call.store.list(at, &arguments[0])?.map_or(0, |list| list.items().len())))
}

/// Both ends count, and are counted from the end where they are negative.
fn range(first: i64, last: i64, length: usize) -> Range<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_start = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
    let (first, last) = (from_start(first).max(0), from_start(last).min(length - 1));
    if first > last {
        return 0..0;
    }
    usize::try_from(first).unwrap_or(0)..usize::try_from(last + 1).unwrap_or(0)
}

pub(super) fn lrange(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let (first, last) = (number(&arguments[1])?, number(&arguments[2])?);
    let at = call.at();
    let Some(list) = call.store.list(at, &arguments[0])? else { return Ok(Reply::Array(Vec::new())) };
    let items = list.items();
    Ok(Reply::Array(items.range(range(first, last, items.len())).cloned().map(Reply::Bulk).collect()))
}

pub(super) fn lindex(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    // Redis looks at the key first.
    let Some(list) = call.store.list(at, &arguments[0])? else { return Ok(Reply::Null) };
    let index = number(&arguments[1])?;
    let items = list.items();
    let item = items.range(range(index, index, items.len())).next();
    Ok(item.cloned().map_or(Reply::Null, Reply::Bulk))
}

pub(super) fn lset(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let (at, key) = (call.at(), &arguments[0]);
    let Some(length) = call.store.list(at, key)?.map(|list| list.items().len()) else {
        return Err(Refused::error("no such key"));
    };
    let index = number(&arguments[1])?;
    let place = range(index, index, length).next().ok_or_else(|| Refused::error("index out of range"))?;
    call.store.edit_list(at, key, |list| list.replace(place, &arguments[2]))?;
    Ok(Reply::OK)
}

pub(super) fn lrem(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let count = number(&arguments[1])?;
    let (at, key) = (call.at(), &arguments[0]);
    if call.store.list(at, key)?.is_none() {
        return Ok(Reply::Integer(0));
    }
    let from = if count < 0 { End::Right } else { End::Left };
    let most = if count == 0 { usize::MAX } else { usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX) };
    Ok(Reply::count(call.store.edit_list(at, key, |list| list.remove(&arguments[2], from, most))?))
}

pub(super) fn ltrim(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let (first, last) = (number(&arguments[1])?, number(&arguments[2])?);
    let (at, key) = (call.at(), &arguments[0]);
    let Some(length) = call.store.list(at, key)?.map(|list| list.items().len()) else { return Ok(Reply::OK) };
    let kept = range(first, last, length);
    // The gateway trims with every dead letter, and mostly nothing is to go.
    if kept != (0..length) {
        call.store.edit_list(at, key, |list| list.keep(kept))?;
    }
    Ok(Reply::OK)
}

pub(super) fn lmove(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let (take, put) = (end(&arguments[2])?, end(&arguments[3])?);
    let at = call.at();
    let moved = call.store.shift(at, &arguments[0], &arguments[1], take, put)?;
    Ok(moved.map_or(Reply::Null, Reply::Bulk))
}

pub(super) fn blmove(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let timeout = {
        end(&arguments[2])?;
        end(&arguments[3])?;
        timeout(&arguments[4])?
    };
    let reply = lmove(call, &arguments[..4])?;
    if reply == Reply::Null {
        let (from, to) = (own(&arguments[0]), own(&arguments[1]));
        let want = Want::Move { from, to, take: end(&arguments[2])?, put: end(&arguments[3])? };
        call.wait = Some((want, timeout));
    }
    Ok(reply)
}

pub(super) fn blpop(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    blocking_pop(call, arguments, End::Left)
}

pub(super) fn brpop(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    blocking_pop(call, arguments, End::Right)
}

fn blocking_pop(call: &mut Call<'_>, arguments: &[Bytes], end: End) -> Result<Reply, Refused> {
    let Some((last, keys)) = arguments.split_last() else { return Err(Refused::error(SYNTAX)) };
    let timeout = timeout(last)?;
    let at = call.at();
    for key in keys {
        if call.store.list(at, key)?.is_some() {
            let item = call.store.edit_list(at, key, |list| list.pop(end))?;
            return Ok(Reply::Array(vec![Reply::Bulk(key.clone()), item.map_or(Reply::Null, Reply::Bulk)]));
        }
    }
    call.wait = Some((Want::Pop { keys: keys.iter().map(|key| own(key)).collect(), end }, timeout));
    Ok(Reply::NullArray)
}

fn end(argument: &[u8]) -> Result<End, Refused> {
    if argument.eq_ignore_ascii_case(b"left") {
        Ok(End::Left)
    } else if argument.eq_ignore_ascii_case(b"right") {
        Ok(End::Right)
    } else {
        Err(Refused::error(SYNTAX))
    }
}

/// Seconds, perhaps with a fraction; 0 is for ever.
fn timeout(argument: &[u8]) -> Result<Option<Duration>, Refused> {
    let seconds = std::str::from_utf8(argument).ok().and_then(|text| text.parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| !seconds.is_nan());
    let seconds = seconds.ok_or_else(|| Refused::error("timeout is not a float or out of range"))?;
    let range = || Refused::error("timeout is out of range");
    // Redis counts it in 64-bit milliseconds since 1970.
    if seconds * 1000.0 > 9.2e18 {
        return Err(range());
    }
    // Redis rounds up to whole milliseconds, so that what is just below 0 is for ever too.
    let millis = (seconds * 1000.0).ceil();
    if millis < 0.0 {
        return Err(Refused::error("timeout is negative"));
    }
    if millis == 0.0 {
        return Ok(None);
    }
    Duration::try_from_secs_f64(millis / 1000.0).map(Some).map_err(|_| range())
}
