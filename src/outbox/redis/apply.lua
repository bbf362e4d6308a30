-- Applies the number of a publisher's last change of a repository, and tells all gates of it.
--
-- KEYS: the versions of the repository; the epoch; the list of repositories.
-- ARGV: the publisher's incarnation; the number; what is kept beside it; the event, a JSON object; an epoch, should there be
-- none; the channel; the repository.
-- Answers the epoch, the version of the repository, and whether this was news.
local most = 9007199254740991
local kept = redis.call('HGET', KEYS[1], ARGV[1])
local version = redis.call('HGET', KEYS[1], 'version') or '0'
if not tonumber(version) then
  return redis.error_reply('WRONGTYPE the version is no number')
end
local epoch = redis.call('GET', KEYS[2])
if not epoch then
  epoch = ARGV[5]
  redis.call('SET', KEYS[2], epoch)
end
local number = tonumber(ARGV[2])
local known = tonumber(string.match(kept or '', '^(%d+) ') or 0)
-- What no gate can have written is none; floating numbers beyond this bound are not told apart.
if known > most then
  known = 0
end
if number <= known then
  return {epoch, version, 0}
end
version = string.format('%.0f', math.max(0, math.min(tonumber(version), most)) + number - known)
redis.call('SADD', KEYS[3], ARGV[7])
-- Before it is noted: what cannot be published must not count as known, and what is published twice is heard once.
redis.call('PUBLISH', ARGV[6], '{"epoch":"' .. epoch .. '","version":' .. version .. ',' .. string.sub(ARGV[4], 2))
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3], 'version', version)
return {epoch, version, 1}
