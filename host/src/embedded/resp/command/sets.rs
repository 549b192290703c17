//! Commands for sets.

use bytes::Bytes;

use super::{Call, Refused, Reply};

pub(super) fn sadd(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    let added =
        call.store.edit_set(at, &arguments[0], |set| arguments[1..].iter().filter(|member| set.add(member)).count())?;
    Ok(Reply::count(added))
}

pub(super) fn srem(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    if call.store.members(at, &arguments[0])?.is_none() {
        return Ok(Reply::Integer(0));
    }
    let removed = call
        .store
        .edit_set(at, &arguments[0], |set| arguments[1..].iter().filter(|member| set.take(member)).count())?;
    Ok(Reply::count(removed))
}

pub(super) fn smembers(call: &mut Call<'_>, arguments: &[Bytes]) -> Result<Reply, Refused> {
    let at = call.at();
    let Some(set) = call.store.members(at, &arguments[0])? else { return Ok(Reply::Array(Vec::new())) };
    Ok(Reply::Array(set.members().cloned().map(Reply::Bulk).collect()))
}
