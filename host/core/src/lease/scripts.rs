//! The lease's steps in Redis, each one script whose keys lie in one cluster slot. Whoever takes turns at a processing list runs these: the
//! gateway at its commands, a back end at its jobs.

/// Takes the lease, whoever had it: of two processes with one name the newer wins. DEL comes first: what comes after a write that needs
/// no memory is done when memory is used up. KEYS: lease, starts, instances; ARGV: life in ms, name.
pub const START: &str = r"
redis.call('DEL', KEYS[1])
local number = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], number, 'PX', ARGV[1])
redis.call('SADD', KEYS[3], ARGV[2])
return number
";
/// 1: held for another life (a change of the time to live works when memory is used up); -1: it ran out, and [`SUCCEED`] takes it again; 0: a newer
/// process has it. It gives no number: one that nobody waits for any more is run by a Redis that hung, and its process would not know
/// the number for its own. KEYS: lease, starts; ARGV: number, life in ms.
pub const RENEW: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
local latest = redis.call('GET', KEYS[2])
if latest and tonumber(latest) > tonumber(ARGV[1]) then return 0 end
return -1
";
/// Takes the lease again after it ran out, or a newer process of the same name has had it, where nobody has it any more: under a number of its own,
/// since others may have taken over, and forgotten the instance. 0: somebody has it. DEL comes first, as above.
/// KEYS: lease, starts, instances; ARGV: life in ms, name, the number before.
pub const SUCCEED: &str = r"
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('DEL', KEYS[1])
local latest = redis.call('GET', KEYS[2])
local least = latest and tonumber(latest) > tonumber(ARGV[3]) and latest or ARGV[3]
redis.call('SET', KEYS[2], least)
local number = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], number, 'PX', ARGV[1])
redis.call('SADD', KEYS[3], ARGV[2])
return number
";
/// Gives the lease back, where it is still held. KEYS: lease; ARGV: number.
pub const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
";
