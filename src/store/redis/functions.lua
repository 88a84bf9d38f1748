-- The state machine of `budget::books` where several replicas share it. The words, the order of checks and every answer
-- are those of `budget/books`; one test drives both with the same commands and compares.
--
-- One source, two ways to run: as a function library (Redis 7), or as a script (`EVALSHA`) where functions are missing
-- or forbidden. `functions.rs` puts the few lines around it that differ.
--
-- KEYS[1] is `{namespace}:z`; every other key is made from its prefix and lies in the same slot of a cluster.
-- Lua counts in doubles: no amount exceeds 2^53, sums are left to HINCRBY, and every number is written by `str`, because
-- `tostring` loses digits after the fourteenth. Rows of the log are JSON texts that nothing here looks into.
--
-- {ns}:z          open leases by the time they expire          {ns}:l:<lease>    'c' (closed) or a packed record
-- {ns}:b:<account> s spent, r reserved, o overrun, f forget-at, m:<mark>
-- {ns}:w:<account> p parallel, q<bucket> requests, t<bucket> tokens
-- {ns}:n:<node>   last number applied     {ns}:log  spend log   {ns}:days, {ns}:d:<day>  daily sums
-- {ns}:doc:<kind>, {ns}:ids:<kind>, {ns}:changes  documents     {ns}:stat  counters

local BUCKET_MS = 5000
local BUCKETS = 13
local CLOSED_MS = 900000
local EXPIRED_MS = 604800000
local NODE_MS = 7776000000
local AMOUNT_MAX = 9007199254740992
local REAP_MAX = 16
local CHANGES_MAX = 10000
-- What a limit of zero answers: there is no moment at which a request would fit.
local NEVER_RETRY_MS = 60000

local function str(x)
  return string.format('%.0f', x)
end

local function num(x)
  return tonumber(x or '0') or 0
end

local function begin(keys)
  local time = redis.call('TIME')
  return {
    prefix = string.sub(keys[1], 1, -2),
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000),
    days = {},
  }
end

-- The UTC day of a time in milliseconds, by Howard Hinnant's civil_from_days.
local function day_of(ms)
  local z = math.floor(ms / 86400000) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02d', year, month, day)
end

-- An entry of the log and what it adds to the sums of its day. `usage` is {prompt tokens, completion tokens} of a call
-- that ended.
local function book(c, kind, cost, row, rollups, usage)
  local id = redis.call('XADD', c.prefix .. 'log', '*', 'k', kind, 'c', str(cost), 'r', row)
  local day = day_of(tonumber(string.match(id, '^%d+')))
  if not c.days[day] then
    c.days[day] = true
    redis.call('ZADD', c.prefix .. 'days', 0, day)
  end
  local key = c.prefix .. 'd:' .. day
  for i = 1, #rollups do
    redis.call('HINCRBY', key, 'c' .. rollups[i], str(cost))
    if usage then
      redis.call('HINCRBY', key, 'r' .. rollups[i], 1)
      if usage[1] ~= '0' then redis.call('HINCRBY', key, 'p' .. rollups[i], usage[1]) end
      if usage[2] ~= '0' then redis.call('HINCRBY', key, 'o' .. rollups[i], usage[2]) end
    end
  end
end

-- What is known of a lease: nil, {'c'}, or {state, amount, accounts, tickets, row, rollups} with state 'o' (open) or
-- 'x' (expired; the amount is what was charged). A ticket is {throttle account, bucket, tokens counted or ''}.
local function lease_of(c, lease)
  local packed = redis.call('GET', c.prefix .. 'l:' .. lease)
  if not packed then return nil end
  if packed == 'c' then return {'c'} end
  return cmsgpack.unpack(packed)
end

local function keep_open(c, lease, record)
  redis.call('SET', c.prefix .. 'l:' .. lease, cmsgpack.pack(record))
end

local function keep_expired(c, lease, record)
  redis.call('SET', c.prefix .. 'l:' .. lease, cmsgpack.pack(record), 'PX', str(EXPIRED_MS))
end

local function bury(c, lease)
  redis.call('SET', c.prefix .. 'l:' .. lease, 'c', 'PX', str(CLOSED_MS))
end

-- Adds to a field of each account; nothing for zero.
local function add(c, accounts, field, amount)
  if amount == 0 then return end
  for i = 1, #accounts do
    redis.call('HINCRBY', c.prefix .. 'b:' .. accounts[i], field, str(amount))
  end
end

-- Changes what accounts have spent. One that was set to less meanwhile stays at zero.
local function add_spent(c, accounts, amount)
  if amount == 0 then return end
  for i = 1, #accounts do
    local key = c.prefix .. 'b:' .. accounts[i]
    if redis.call('HINCRBY', key, 's', str(amount)) < 0 then redis.call('HSET', key, 's', 0) end
  end
end

-- When an account may go: the latest it was told, and never earlier than an expired lease may still be corrected.
local function forget_at(c, key, known, at)
  if at ~= '' and num(at) > num(known) then
    redis.call('HSET', key, 'f', at)
    redis.call('PEXPIREAT', key, str(math.max(num(at), c.now + EXPIRED_MS)))
  end
end

-- Ends what the throttles of a lease count. `tokens` is what the call took; nil leaves the estimate.
local function leave(c, tickets, tokens)
  local oldest = math.floor(c.now / BUCKET_MS) - BUCKETS + 1
  for i = 1, #tickets do
    local ticket = tickets[i]
    local key = c.prefix .. 'w:' .. ticket[1]
    if redis.call('HINCRBY', key, 'p', -1) < 0 then redis.call('HSET', key, 'p', 0) end
    if tokens and ticket[3] ~= '' and num(ticket[2]) >= oldest then
      local delta = tokens - num(ticket[3])
      if delta ~= 0 and redis.call('HINCRBY', key, 't' .. ticket[2], str(delta)) < 0 then
        redis.call('HSET', key, 't' .. ticket[2], 0)
      end
    end
  end
end

local function reap(c, limit)
  local expired = redis.call('ZRANGEBYSCORE', c.prefix .. 'z', '-inf', str(c.now), 'LIMIT', 0, limit)
  for i = 1, #expired do
    local lease = expired[i]
    redis.call('ZREM', c.prefix .. 'z', lease)
    local record = lease_of(c, lease)
    if record and record[1] == 'o' then
      local amount = num(record[2])
      add_spent(c, record[3], amount)
      add(c, record[3], 'r', -amount)
      leave(c, record[4], nil)
      if amount > 0 then book(c, 'expired', amount, record[5], record[6], nil) end
      record[1] = 'x'
      record[4] = {}
      keep_expired(c, lease, record)
      redis.call('HINCRBY', c.prefix .. 'stat', 'expired', 1)
    end
  end
  return #expired
end

local function balances_into(c, reply, accounts)
  for i = 1, #accounts do
    local v = redis.call('HMGET', c.prefix .. 'b:' .. accounts[i], 's', 'r', 'o')
    reply[#reply + 1] = v[1] or '0'
    reply[#reply + 1] = v[2] or '0'
    reply[#reply + 1] = v[3] or '0'
  end
  return reply
end

-- Whether an account cannot take an amount, and what it can. Nothing fits an account that is over its limit, not even
-- zero. By subtraction, so that no sum leaves the exact range of a double.
local function refuses(spent, reserved, limit, amount)
  -- What only counts is never full: HINCRBY goes on counting exactly where doubles do not.
  if limit == '' then return amount > AMOUNT_MAX, AMOUNT_MAX end
  limit = math.min(num(limit), AMOUNT_MAX)
  if spent > limit or reserved > limit - spent then return true, 0 end
  local left = limit - spent - reserved
  return amount > left, left
end

local function list(args, i)
  local count = num(args[i])
  local items = {}
  for k = 1, count do items[k] = args[i + k] end
  return items, i + count + 1
end

local commands = {}

-- What a throttle counts: under way, and within the last minute by bucket. Remembers fields that are too old to count.
local function window(c, t)
  local oldest = math.floor(c.now / BUCKET_MS) - BUCKETS + 1
  local w = { parallel = 0, requests = {}, tokens = {} }
  t.stale = {}
  local flat = redis.call('HGETALL', t.key)
  for i = 1, #flat, 2 do
    local field, value = flat[i], num(flat[i + 1])
    if field == 'p' then
      w.parallel = value
    else
      local bucket = num(string.sub(field, 2))
      if bucket < oldest then
        t.stale[#t.stale + 1] = field
      elseif string.sub(field, 1, 1) == 'q' then
        w.requests[bucket] = value
      else
        w.tokens[bucket] = value
      end
    end
  end
  return w
end

-- How long until no more than `room` of what is counted is left; nil for now.
local function wait(c, counted, room)
  local newest = math.floor(c.now / BUCKET_MS)
  local used = 0
  for _, value in pairs(counted) do used = used + value end
  if used <= room then return nil end
  for bucket = newest - BUCKETS + 1, newest do
    used = used - (counted[bucket] or 0)
    if used <= room then return (bucket + BUCKETS) * BUCKET_MS - c.now end
  end
  return NEVER_RETRY_MS
end

-- Why a throttle refuses, and how long; nil where it agrees.
local function refusal(c, t, tokens)
  if t.rpm == '' and t.tpm == '' then
    if t.parallel ~= '' and num(redis.call('HGET', t.key, 'p')) >= num(t.parallel) then return 'P', 0 end
    return nil
  end
  local w = window(c, t)
  if t.parallel ~= '' and w.parallel >= num(t.parallel) then return 'P', 0 end
  if t.rpm ~= '' then
    local rpm = num(t.rpm)
    local retry = rpm == 0 and NEVER_RETRY_MS or wait(c, w.requests, rpm - 1)
    if retry then return 'R', retry end
  end
  if t.tpm ~= '' then
    local tpm = num(t.tpm)
    t.tokens = math.min(tokens, tpm)
    local retry = (tpm == 0 and tokens > 0) and NEVER_RETRY_MS or wait(c, w.tokens, tpm - t.tokens)
    if retry then return 'T', retry end
  end
  return nil
end

-- Counts a request on a throttle that agreed, and makes its ticket.
local function enter(c, t)
  local bucket = str(math.floor(c.now / BUCKET_MS))
  if redis.call('HINCRBY', t.key, 'p', 1) == 1 then redis.call('PEXPIRE', t.key, str(EXPIRED_MS)) end
  if t.stale and #t.stale > 0 then redis.call('HDEL', t.key, unpack(t.stale)) end
  if t.rpm ~= '' and redis.call('HINCRBY', t.key, 'q' .. bucket, 1) == 1 then
    redis.call('PEXPIRE', t.key, str(EXPIRED_MS))
  end
  if t.tokens then redis.call('HINCRBY', t.key, 't' .. bucket, str(t.tokens)) end
  return {t.account, bucket, t.tokens and str(t.tokens) or ''}
end

-- Sets the money aside and adds the balances after it to the answer; returns the accounts, each once.
local function hold(c, charges, amount, reply)
  local accounts, first = {}, {}
  for k = 1, #charges do
    local charge = charges[k]
    local same = first[charge.account]
    if not same then
      same = charge
      first[charge.account] = charge
      accounts[#accounts + 1] = charge.account
      if amount > 0 then charge.reserved = str(redis.call('HINCRBY', charge.key, 'r', str(amount))) end
      forget_at(c, charge.key, charge.known, charge.forget)
    end
    reply[#reply + 1] = same.spent
    reply[#reply + 1] = same.reserved
    reply[#reply + 1] = same.overrun
  end
  return accounts
end

-- lease amount tokens ttl, n (account limit forget)*, n (account rpm tpm parallel)*, n rollup*, row
function commands.reserve(keys, args, i)
  local c = begin(keys)
  reap(c, REAP_MAX)
  local lease, amount, tokens, ttl = args[i], num(args[i + 1]), num(args[i + 2]), num(args[i + 3])
  i = i + 4
  local charges, asked, throttles, rollups = {}, {}, {}, nil
  for k = 1, num(args[i]) do
    asked[k] = args[i + 1]
    charges[k] = { account = args[i + 1], limit = args[i + 2], forget = args[i + 3] }
    i = i + 3
  end
  i = i + 1
  for k = 1, num(args[i]) do
    local key = c.prefix .. 'w:' .. args[i + 1]
    throttles[k] = { key = key, account = args[i + 1], rpm = args[i + 2], tpm = args[i + 3], parallel = args[i + 4] }
    i = i + 4
  end
  rollups, i = list(args, i + 1)
  local known = lease_of(c, lease)
  if known then
    if known[1] ~= 'o' then return {c.now, 'C'} end
    return balances_into(c, {c.now, 'G'}, asked)
  end
  for k = 1, #throttles do
    local why, retry = refusal(c, throttles[k], tokens)
    if why then return {c.now, why, str(k - 1), str(retry)} end
  end
  for k = 1, #charges do
    local charge = charges[k]
    charge.key = c.prefix .. 'b:' .. charge.account
    local v = redis.call('HMGET', charge.key, 's', 'r', 'o', 'f')
    charge.spent, charge.reserved, charge.overrun, charge.known = v[1] or '0', v[2] or '0', v[3] or '0', v[4]
    local refused, left = refuses(num(charge.spent), num(charge.reserved), charge.limit, amount)
    if refused then return {c.now, 'B', str(k - 1), str(left)} end
  end
  local reply = {c.now, 'G'}
  local accounts = hold(c, charges, amount, reply)
  local tickets, entered = {}, {}
  for k = 1, #throttles do
    local t = throttles[k]
    if not entered[t.account] then
      entered[t.account] = true
      tickets[#tickets + 1] = enter(c, t)
    end
  end
  keep_open(c, lease, {'o', str(amount), accounts, tickets, args[i], rollups})
  redis.call('ZADD', c.prefix .. 'z', str(c.now + ttl), lease)
  return reply
end

-- lease to, n (account limit)*
function commands.extend(keys, args, i)
  local c = begin(keys)
  local lease, to = args[i], num(args[i + 1])
  i = i + 2
  local asked, limits = {}, {}
  for k = 1, num(args[i]) do
    asked[k], limits[k] = args[i + 1], args[i + 2]
    i = i + 2
  end
  local record = lease_of(c, lease)
  if not record or record[1] ~= 'o' then return {c.now, 'C'} end
  local more = to - num(record[2])
  if more > 0 then
    local held = {}
    for k = 1, #record[3] do held[record[3][k]] = true end
    for k = 1, #asked do
      if held[asked[k]] then
        local v = redis.call('HMGET', c.prefix .. 'b:' .. asked[k], 's', 'r')
        local refused, left = refuses(num(v[1]), num(v[2]), limits[k], more)
        if refused then return {c.now, 'B', str(k - 1), str(left)} end
      end
    end
    add(c, record[3], 'r', more)
    record[2] = str(to)
    keep_open(c, lease, record)
  end
  return balances_into(c, {c.now, 'G'}, asked)
end

local ops = {}

-- Ends an open lease; what it still holds goes back.
local function give_back(c, lease, record, tokens)
  add(c, record[3], 'r', -num(record[2]))
  leave(c, record[4], tokens)
  redis.call('ZREM', c.prefix .. 'z', lease)
  bury(c, lease)
end

-- lease close cost tokens prompt completion, n (account forget)*, n rollup*, row
function ops.S(c, args, i)
  local lease, close, cost, tokens = args[i], args[i + 1] == '1', num(args[i + 2]), num(args[i + 3])
  local usage = {args[i + 4], args[i + 5]}
  i = i + 6
  local fallback, forget = {}, {}
  for k = 1, num(args[i]) do
    fallback[k], forget[k] = args[i + 1], args[i + 2]
    i = i + 2
  end
  local rollups
  rollups, i = list(args, i + 1)
  local row = args[i]
  local record = lease ~= '' and lease_of(c, lease) or nil
  book(c, 'request', cost, row, rollups, usage)
  if record and record[1] == 'o' then
    local amount = num(record[2])
    local take = math.min(cost, amount)
    add_spent(c, record[3], cost)
    add(c, record[3], 'o', cost - take)
    if close then
      give_back(c, lease, record, tokens)
    elseif take > 0 then
      add(c, record[3], 'r', -take)
      record[2] = str(amount - take)
      keep_open(c, lease, record)
    end
  elseif record and record[1] == 'x' then
    -- The charge at expiry stands for the cost as far as it reaches; the rest of it goes back when the lease closes.
    local charged = num(record[2])
    local take = math.min(cost, charged)
    if take > 0 then book(c, 'corrected', -take, row, rollups, nil) end
    if close then
      add_spent(c, record[3], cost - charged)
      if charged > take then book(c, 'corrected', take - charged, row, rollups, nil) end
      bury(c, lease)
    else
      add_spent(c, record[3], cost - take)
      record[2] = str(charged - take)
      if take > 0 then keep_expired(c, lease, record) end
    end
  else
    local seen = {}
    for k = 1, #fallback do
      if not seen[fallback[k]] then
        seen[fallback[k]] = true
        local key = c.prefix .. 'b:' .. fallback[k]
        add_spent(c, {fallback[k]}, cost)
        if forget[k] ~= '' then forget_at(c, key, redis.call('HGET', key, 'f'), forget[k]) end
      end
    end
    if close and lease ~= '' then bury(c, lease) end
  end
end

-- lease
function ops.C(c, args, i)
  local lease = args[i]
  local record = lease_of(c, lease)
  if not record then
    bury(c, lease)
  elseif record[1] == 'o' then
    give_back(c, lease, record, 0)
  elseif record[1] == 'x' then
    local charged = num(record[2])
    add_spent(c, record[3], -charged)
    if charged > 0 then book(c, 'corrected', -charged, record[5], record[6], nil) end
    bury(c, lease)
  end
end

-- account spent, n rollup*, row
function ops.R(c, args, i)
  redis.call('HSET', c.prefix .. 'b:' .. args[i], 's', args[i + 1])
  local rollups
  rollups, i = list(args, i + 2)
  book(c, 'reset', 0, args[i], rollups, nil)
end

-- node first n, (length kind …)*
function commands.apply(keys, args, i)
  local c = begin(keys)
  reap(c, REAP_MAX)
  local key, first, count = c.prefix .. 'n:' .. args[i], num(args[i + 1]), num(args[i + 2])
  local last = num(redis.call('GET', key))
  if count == 0 or first > last + 1 then return {c.now, str(last)} end
  i = i + 3
  for number = first, first + count - 1 do
    local length = num(args[i])
    if number > last then
      -- An error undoes nothing. What was applied before it is remembered, so that it is not applied again.
      local done, why = pcall(ops[args[i + 1]], c, args, i + 2)
      if not done then
        redis.call('SET', key, str(number - 1), 'PX', str(NODE_MS))
        return type(why) == 'table' and why or redis.error_reply('ERR ' .. tostring(why))
      end
    end
    i = i + 1 + length
  end
  last = math.max(last, first + count - 1)
  redis.call('SET', key, str(last), 'PX', str(NODE_MS))
  return {c.now, str(last)}
end

-- ttl lease*
function commands.touch(keys, args, i)
  local c = begin(keys)
  local z, expiry = c.prefix .. 'z', c.now + num(args[i])
  local reply = {c.now}
  for k = i + 1, #args do
    local known = redis.call('ZSCORE', z, args[k])
    if not known then
      reply[#reply + 1] = args[k]
    elseif num(known) < expiry then
      redis.call('ZADD', z, str(expiry), args[k])
    end
  end
  return reply
end

-- limit
function commands.reap(keys, args, i)
  local c = begin(keys)
  return {c.now, str(reap(c, num(args[i])))}
end

-- account*
function commands.balances(keys, args, i)
  local c = begin(keys)
  local accounts = {}
  for k = i, #args do accounts[#accounts + 1] = args[k] end
  return balances_into(c, {c.now}, accounts)
end

-- account mark
function commands.claim(keys, args, i)
  local c = begin(keys)
  return {c.now, str(redis.call('HSETNX', c.prefix .. 'b:' .. args[i], 'm:' .. args[i + 1], 1))}
end

function commands.counts(keys, args, i)
  local c = begin(keys)
  return {c.now, str(redis.call('ZCARD', c.prefix .. 'z')), redis.call('HGET', c.prefix .. 'stat', 'expired') or '0'}
end

-- (kind id expect operation json)*; expect is 'any', 'none' or a version, operation 'set' or 'delete'
function commands.commit(keys, args, i)
  local c = begin(keys)
  local made = {}
  for k = i, #args, 5 do
    local kind, id, expect = args[k], args[k + 1], args[k + 2]
    local name = kind .. ':' .. id
    local known = made[name]
    if known == nil then
      local document = redis.call('HGET', c.prefix .. 'doc:' .. kind, id)
      known = document and string.match(document, '^%d+') or 'none'
    end
    if expect ~= 'any' and expect ~= known then return {c.now, str((k - i) / 5)} end
    -- What an earlier change of this commit made has a version that nobody can expect yet.
    made[name] = args[k + 3] == 'set' and 'made' or 'none'
  end
  for k = i, #args, 5 do
    local kind, id = args[k], args[k + 1]
    if args[k + 3] == 'set' then
      local version = str(redis.call('HINCRBY', c.prefix .. 'stat', 'version', 1))
      redis.call('HSET', c.prefix .. 'doc:' .. kind, id, version .. ' ' .. args[k + 4])
      redis.call('ZADD', c.prefix .. 'ids:' .. kind, 0, id)
    else
      redis.call('HDEL', c.prefix .. 'doc:' .. kind, id)
      redis.call('ZREM', c.prefix .. 'ids:' .. kind, id)
    end
    redis.call('XADD', c.prefix .. 'changes', 'MAXLEN', '~', CHANGES_MAX, '*', 'k', kind, 'i', id)
  end
  return {c.now}
end

-- kind after limit; after is '-' or '(' and an id
function commands.list(keys, args, i)
  local c = begin(keys)
  local ids = redis.call('ZRANGEBYLEX', c.prefix .. 'ids:' .. args[i], args[i + 1], '+', 'LIMIT', 0, args[i + 2])
  local reply = {c.now}
  for k = 1, #ids do
    local document = redis.call('HGET', c.prefix .. 'doc:' .. args[i], ids[k])
    if document then
      reply[#reply + 1] = ids[k]
      reply[#reply + 1] = document
    end
  end
  return reply
end

-- cursor limit; answers cursor, lost, (kind id)*. The entry at the cursor must still be there: trimming takes the oldest
-- first, and a server that never had it (a failover, an emptied database) does not know what came after it either.
function commands.changes(keys, args, i)
  local c = begin(keys)
  local key, cursor = c.prefix .. 'changes', args[i]
  local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
  local last = newest[1] and newest[1][1] or '0-0'
  if cursor == '' then return {c.now, last, '0'} end
  local whole
  if cursor == '0-0' then
    whole = redis.call('XLEN', key) < CHANGES_MAX
  else
    whole = #redis.call('XRANGE', key, cursor, cursor) == 1
  end
  if not whole then return {c.now, last, '1'} end
  local reply = {c.now, cursor, '0'}
  local found = redis.call('XRANGE', key, '(' .. cursor, '+', 'COUNT', args[i + 1])
  for k = 1, #found do
    reply[2] = found[k][1]
    local fields = found[k][2]
    reply[#reply + 1] = fields[2]
    reply[#reply + 1] = fields[4]
  end
  return reply
end
