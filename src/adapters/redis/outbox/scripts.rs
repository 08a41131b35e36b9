//! The scripts of the outbox. Each declares every key, and uses only commands that Redis, Valkey
//! and Dragonfly have.

/// KEYS waiting, index, devices, bytes. ARGV text, id, device, time.
pub(super) const APPEND: &str = "
if redis.call('ZSCORE', KEYS[2], ARGV[2]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[2])
redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
redis.call('INCRBY', KEYS[4], #ARGV[1])
return 1";

/// KEYS lease. ARGV token, time to live in milliseconds.
pub(super) const LEASE: &str = "
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
return 0";

/// KEYS lease. ARGV token, time to live in milliseconds.
pub(super) const RENEW: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// KEYS lease, waiting, processing, relays. ARGV token, the largest text that is returned, how much of
/// a larger one is. A relay that lost its lease takes nothing. Returns whether the lease is held, the
/// size of what was taken, and its text or the beginning of that.
pub(super) const TAKE: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0, 0, false} end
redis.call('SADD', KEYS[4], KEYS[3])
local text = redis.call('LMOVE', KEYS[2], KEYS[3], 'LEFT', 'RIGHT')
if not text then return {1, 0, false} end
if #text > tonumber(ARGV[2]) then return {1, #text, string.sub(text, 1, ARGV[3])} end
return {1, #text, text}";

/// Looks for a letter by how it begins: in the place that is said, then in every one. Each look copies
/// a whole letter, and a hundred large ones would keep the server for seconds.
macro_rules! find {
    () => {
        "
local function find(key, head, first)
  local function look(place)
    local text = redis.call('LINDEX', key, place)
    return text and string.sub(text, 1, #head) == head and text
  end
  local text = look(first)
  if text then return text end
  for place = 0, redis.call('LLEN', key) - 1 do
    text = look(place)
    if text then return text end
  end
  return false
end"
    };
}

/// KEYS lease, processing. ARGV token, how the text begins, where it probably is. Returns whether the
/// lease is held, so that nobody else can have put the letter back, and its text.
pub(super) const FETCH: &str = concat!(
    find!(),
    "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0, false} end
return {1, find(KEYS[2], ARGV[2], ARGV[3])}"
);

/// KEYS dead. ARGV place, the largest text that is returned. Returns the size of the letter there, or
/// -1, and its text unless that is larger.
pub(super) const DEAD: &str = "
local text = redis.call('LINDEX', KEYS[1], ARGV[1])
if not text then return {-1, false} end
if #text > tonumber(ARGV[2]) then return {#text, false} end
return {#text, text}";

/// KEYS lease, processing, waiting, relays. ARGV token, how many at most. From the last one taken
/// to the first, each to the front: their order is as before. Returns how many were moved.
pub(super) const RECOVER: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for moved = 0, ARGV[2] - 1 do
  if not redis.call('LMOVE', KEYS[2], KEYS[3], 'RIGHT', 'LEFT') then
    redis.call('SREM', KEYS[4], KEYS[2])
    return moved
  end
end
return tonumber(ARGV[2])";

/// KEYS processing, index, devices, bytes. ARGV text, id, device, 1 where the text is only how it
/// begins, where it probably is then.
pub(super) const REMOVE: &str = concat!(
    find!(),
    "
local text = ARGV[1]
if ARGV[4] == '1' then
  text = find(KEYS[1], ARGV[1], ARGV[5])
  if not text then return 0 end
end
if redis.call('LREM', KEYS[1], 1, text) == 0 then return 0 end
if redis.call('ZREM', KEYS[2], ARGV[2]) == 1 and redis.call('HINCRBY', KEYS[3], ARGV[3], -1) < 1 then
  redis.call('HDEL', KEYS[3], ARGV[3])
end
redis.call('DECRBY', KEYS[4], #text)
return 1"
);

/// KEYS processing, bytes. ARGV text, new text.
pub(super) const REPLACE: &str = "
if redis.call('LINSERT', KEYS[1], 'BEFORE', ARGV[1], ARGV[2]) < 1 then return 0 end
redis.call('LREM', KEYS[1], -1, ARGV[1])
redis.call('INCRBY', KEYS[2], #ARGV[2] - #ARGV[1])
return 1";

/// KEYS processing, index, devices, bytes, dead. ARGV text, id or nothing, device, new text.
pub(super) const BURY: &str = "
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
if redis.call('ZREM', KEYS[2], ARGV[2]) == 1 and redis.call('HINCRBY', KEYS[3], ARGV[3], -1) < 1 then
  redis.call('HDEL', KEYS[3], ARGV[3])
end
redis.call('RPUSH', KEYS[5], ARGV[4])
redis.call('INCRBY', KEYS[4], #ARGV[4] - #ARGV[1])
return 1";

/// KEYS dead, waiting, index, devices, bytes. ARGV text, new text, id, device, time.
pub(super) const REVIVE: &str = "
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
if redis.call('ZADD', KEYS[3], 'NX', ARGV[5], ARGV[3]) == 0 then
  redis.call('DECRBY', KEYS[5], #ARGV[1])
  return 1
end
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('HINCRBY', KEYS[4], ARGV[4], 1)
redis.call('INCRBY', KEYS[5], #ARGV[2] - #ARGV[1])
return 1";
