//! Commands for hashes.

use bytes::Bytes;

use super::{Call, Refused, Reply};

pub(super) fn hset(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    Ok(Reply::count(set(call, arguments, "hset")?))
}

pub(super) fn hmset(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    set(call, arguments, "hmset")?;
    Ok(Reply::OK)
}

fn set(call: &mut Call<'_>, arguments: &[Bytes], name: &str) -> Result<usize, Refused> {
    let (pairs, rest) = arguments[1..].as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Refused::arity(name));
    }
    let at = call.at();
    let new = call
        .store
        .edit_hash(at, &arguments[0], |hash| pairs.iter().filter(|[field, value]| hash.set(field, value)).count())?;
    Ok(new)
}

pub(super) fn hget(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    let hash = call.store.hash(at, &arguments[0])?;
    let value = hash.and_then(|hash| hash.fields().get(&arguments[1]));
    Ok(value.cloned().map_or(Reply::Null, Reply::Bulk))
}

pub(super) fn hmget(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    let hash = call.store.hash(at, &arguments[0])?;
    let value = |field: &Bytes| hash.and_then(|hash| hash.fields().get(field)).cloned();
    Ok(Reply::Array(arguments[1..].iter().map(|field| value(field).map_or(Reply::Null, Reply::Bulk)).collect()))
}

pub(super) fn hgetall(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    let pairs = call.store.hash(at, &arguments[0])?.into_iter().flat_map(|hash| hash.fields());
    Ok(Reply::Array(pairs.flat_map(|(field, value)| [field, value]).cloned().map(Reply::Bulk).collect()))
}

pub(super) fn hdel(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    if call.store.hash(at, &arguments[0])?.is_none() {
        return Ok(Reply::Integer(0));
    }
    let removed = call
        .store
        .edit_hash(at, &arguments[0], |hash| arguments[1..].iter().filter(|field| hash.remove(field)).count())?;
    Ok(Reply::count(removed))
}
