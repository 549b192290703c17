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
/// 1: held for another life (a change of the time to live works when memory is used up); a negative number: it had run out, and is held
/// again under that one, since others may have taken over, and forgotten the instance; 0: a newer process has it. DEL comes first, as
/// above. KEYS: lease, starts, instances; ARGV: number, life in ms, name.
pub const RENEW: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
local latest = redis.call('GET', KEYS[2])
if latest and tonumber(latest) > tonumber(ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1])
local number = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], number, 'PX', ARGV[2])
redis.call('SADD', KEYS[3], ARGV[3])
return -number
";
/// Takes the lease again after a newer process of the same name has had it, where nobody has it any more. 0: somebody has.
/// KEYS: lease, starts, instances; ARGV: life in ms, name.
pub const SUCCEED: &str = r"
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('DEL', KEYS[1])
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
