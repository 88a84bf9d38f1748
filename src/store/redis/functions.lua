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
-- To call a command costs more than most commands do, and to write a number as a text as much. So what a batch adds is
-- gathered and added at its end (`save`), each account, throttle and day once; and a throttle keeps the sums of its minute.
--
-- {ns}:z          open leases by the time they expire          {ns}:l:<lease>    'c' (closed) or a packed record
-- {ns}:b:<account> s spent, r reserved, o overrun, f forget-at, m:<mark>
-- {ns}:w:<account> p parallel, q<bucket> requests, t<bucket> tokens; q and t sums of the buckets before bucket b that count.
--                 Versions without b, q and t take them for buckets of long ago and delete them.
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

-- Found at the first number: while it is loaded a library sees no `string`.
local whole

-- '%d' takes a fifth of the time of '%.0f', and is exact where a long has 64 bits.
local function str(x)
  if not whole then whole = string.format('%d', AMOUNT_MAX) == '9007199254740992' and '%d' or '%.0f' end
  return string.format(whole, x)
end

local function num(x)
  return x and tonumber(x) or 0
end

-- A number of tokens. More than can be counted is a mistake of whoever counted them.
local function tokens_of(x)
  return math.min(num(x), AMOUNT_MAX)
end

local function begin(keys)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local bucket = math.floor(now / BUCKET_MS)
  return {
    prefix = string.sub(keys[1], 1, -2),
    now = now,
    bucket = bucket,
    bucket_text = str(bucket),
    -- What is to be added: by account, by throttle and field, and by day and rollup.
    accounts = {},
    windows = {},
    days = {},
    -- No sum of it is larger.
    gathered = 0,
    -- Numbers as texts.
    texts = {},
    -- The first error of `save`.
    failed = nil,
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

-- The text of a number that is written more than once.
local function text_of(c, x)
  local text = c.texts[x]
  if not text then
    text = str(x)
    c.texts[x] = text
  end
  return text
end

-- Adds to a field now, and leaves zero where it would be less.
local function add_now(c, key, field, amount)
  if amount == 0 then return end
  local sum = redis.pcall('HINCRBY', key, field, text_of(c, amount))
  if type(sum) == 'table' then
    c.failed = c.failed or sum
  elseif sum < 0 then
    redis.call('HSET', key, field, '0')
  end
end

-- Appends a field and its sum, or adds to it at once where doubles do not count exactly.
local function append_sum(c, key, fields, name, known, amount)
  local is = num(known)
  if math.abs(is) + math.abs(amount) >= AMOUNT_MAX then return add_now(c, key, name, amount) end
  local n = #fields
  fields[n + 1], fields[n + 2] = name, str(is + amount)
end

-- Adds to the sums of a rollup on a day.
local function save_rollup(c, day, rollup, more)
  local key, cost, requests = c.prefix .. 'd:' .. day, 'c' .. rollup, 'r' .. rollup
  local prompt, completion = 'p' .. rollup, 'o' .. rollup
  local known = redis.pcall('HMGET', key, cost, requests, prompt, completion)
  if known.err then
    c.failed = c.failed or known
    return
  end
  local fields = {}
  append_sum(c, key, fields, cost, known[1], more.cost)
  if more.requests > 0 then append_sum(c, key, fields, requests, known[2], more.requests) end
  if more.prompt > 0 then append_sum(c, key, fields, prompt, known[3], more.prompt) end
  if more.completion > 0 then append_sum(c, key, fields, completion, known[4], more.completion) end
  if #fields > 0 then redis.call('HSET', key, unpack(fields)) end
  if not known[1] then redis.call('ZADD', c.prefix .. 'days', '0', day) end
end

-- Adds what was gathered. What cannot be added, because a key is of another type, is told and does not stop the rest.
local function save(c)
  for account, more in pairs(c.accounts) do
    local key = c.prefix .. 'b:' .. account
    add_now(c, key, 's', more.spent)
    add_now(c, key, 'r', more.reserved)
    add_now(c, key, 'o', more.overrun)
  end
  for throttle, fields in pairs(c.windows) do
    local key = c.prefix .. 'w:' .. throttle
    for field, amount in pairs(fields) do add_now(c, key, field, amount) end
  end
  for _, sums in pairs(c.days) do
    for rollup, more in pairs(sums.more) do save_rollup(c, sums.day, rollup, more) end
  end
  c.accounts, c.windows, c.days, c.gathered = {}, {}, {}, 0
end

-- Keeps what is gathered within the exact range of a double.
local function gather(c, amount)
  c.gathered = c.gathered + amount
  if c.gathered > AMOUNT_MAX then
    save(c)
    c.gathered = amount
  end
end

-- What is to be added to the sums of the day of an entry of the log.
local function sums_of(c, id)
  local ms = tonumber(string.match(id, '^%d+'))
  local number = math.floor(ms / 86400000)
  local sums = c.days[number]
  if not sums then
    sums = { day = day_of(ms), more = {} }
    c.days[number] = sums
  end
  return sums.more
end

-- An entry of the log and what it adds to the sums of its day. `prompt` and `completion` are the tokens of a call that
-- ended; nil for another entry.
local function book(c, kind, cost, row, rollups, prompt, completion)
  local id = redis.call('XADD', c.prefix .. 'log', '*', 'k', kind, 'c', str(cost), 'r', row)
  gather(c, math.abs(cost))
  local sums = sums_of(c, id)
  for i = 1, #rollups do
    local more = sums[rollups[i]]
    if not more then
      more = { cost = 0, requests = 0, prompt = 0, completion = 0 }
      sums[rollups[i]] = more
    end
    more.cost = more.cost + cost
    if prompt then
      more.requests, more.prompt, more.completion = more.requests + 1, more.prompt + prompt, more.completion + completion
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

-- Adds to each account.
local function add(c, accounts, spent, reserved, overrun)
  gather(c, math.max(math.abs(spent), math.abs(reserved)))
  for i = 1, #accounts do
    local more = c.accounts[accounts[i]]
    if more then
      more.spent, more.reserved = more.spent + spent, more.reserved + reserved
      more.overrun = more.overrun + overrun
    else
      c.accounts[accounts[i]] = { spent = spent, reserved = reserved, overrun = overrun }
    end
  end
end

-- Takes back what accounts have spent. One that was set to less meanwhile stays at zero, and what is added after that
-- counts from there: it is not gathered.
local function refund(c, accounts, amount)
  if amount == 0 then return end
  save(c)
  add(c, accounts, -amount, 0, 0)
  save(c)
end

-- When an account may go: the latest it was told, and never earlier than an expired lease may still be corrected.
local function forget_at(c, key, known, at)
  if at ~= '' and at ~= known and num(at) > num(known) then
    redis.call('HSET', key, 'f', at)
    redis.call('PEXPIREAT', key, str(math.max(num(at), c.now + EXPIRED_MS)))
  end
end

local function add_count(c, throttle, field, amount)
  local more = c.windows[throttle]
  if not more then
    more = { p = 0 }
    c.windows[throttle] = more
  end
  more[field] = (more[field] or 0) + amount
end

-- Ends what the throttles of a lease count. `tokens` is what the call took; nil leaves the estimate.
local function leave(c, tickets, tokens)
  for i = 1, #tickets do
    local throttle, bucket, counted = tickets[i][1], tickets[i][2], tickets[i][3]
    add_count(c, throttle, 'p', -1)
    local delta = tokens and counted ~= '' and tokens - num(counted) or 0
    if delta ~= 0 and bucket == c.bucket_text then
      add_count(c, throttle, 't' .. bucket, delta)
    elseif delta ~= 0 and num(bucket) > c.bucket - BUCKETS then
      add_count(c, throttle, 't' .. bucket, delta)
      -- A sum before another bucket than this one does not matter: it will be made anew.
      add_count(c, throttle, 't', delta)
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
      add(c, record[3], amount, -amount, 0)
      leave(c, record[4], nil)
      if amount > 0 then book(c, 'expired', amount, record[5], record[6]) end
      save(c)
      record[1] = 'x'
      record[4] = {}
      keep_expired(c, lease, record)
      redis.call('HINCRBY', c.prefix .. 'stat', 'expired', 1)
    end
  end
  return #expired
end

-- Adds `spent reserved overrun` of each account to an answer.
local function balances_into(c, reply, accounts)
  for i = 1, #accounts do
    local v = redis.call('HMGET', c.prefix .. 'b:' .. accounts[i], 's', 'r', 'o')
    reply[#reply + 1] = (v[1] or '0') .. ' ' .. (v[2] or '0') .. ' ' .. (v[3] or '0')
  end
  return reply
end

-- Whether an account cannot take an amount, and what it can. Nothing fits an account that is over its limit, not even
-- zero. By subtraction, so that no sum leaves the exact range of a double.
local function refuses(spent, reserved, limit, amount)
  -- What only counts is never full: HINCRBY goes on counting exactly where doubles do not.
  if limit == '' then return amount > AMOUNT_MAX, AMOUNT_MAX end
  spent, reserved, limit = num(spent), num(reserved), math.min(num(limit), AMOUNT_MAX)
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

-- What a throttle counts: under way, and within the last minute by bucket; and fields that are too old to count.
local function window(c, t)
  local oldest = c.bucket - BUCKETS + 1
  local w = { requests = {}, tokens = {}, stale = {} }
  local flat = redis.call('HGETALL', t.key)
  for i = 1, #flat, 2 do
    local field = flat[i]
    local bucket = tonumber(string.sub(field, 2))
    if bucket and bucket < oldest then
      w.stale[#w.stale + 1] = field
    elseif bucket then
      local counted = string.sub(field, 1, 1) == 'q' and w.requests or w.tokens
      counted[bucket] = num(flat[i + 1])
    end
  end
  return w
end

local function sum_before(bucket, counted)
  local sum = 0
  for number, value in pairs(counted) do
    if number ~= bucket then sum = sum + value end
  end
  return sum
end

-- Sums the buckets before this one, at the first request in it.
local function sum_up(c, t)
  local w = window(c, t)
  t.requests_before, t.tokens_before = sum_before(c.bucket, w.requests), sum_before(c.bucket, w.tokens)
  redis.call('HSET', t.key, 'b', c.bucket_text, 'q', str(t.requests_before), 't', str(t.tokens_before))
  redis.call('PEXPIRE', t.key, str(EXPIRED_MS))
  if #w.stale > 0 then redis.call('HDEL', t.key, unpack(w.stale)) end
end

-- Reads what a throttle counts.
local function know(c, t)
  if t.rpm == '' and t.tpm == '' then
    t.under_way = num(redis.call('HGET', t.key, 'p'))
    return
  end
  local bucket = c.bucket_text
  local v = redis.call('HMGET', t.key, 'p', 'b', 'q', 't', 'q' .. bucket, 't' .. bucket)
  t.under_way, t.requests, t.tokens = num(v[1]), num(v[5]), num(v[6])
  if v[2] == bucket then
    t.requests_before, t.tokens_before = num(v[3]), num(v[4])
  else
    sum_up(c, t)
  end
end

-- How long until no more than `room` of what is counted is left.
local function wait(c, counted, room)
  local used = 0
  for _, value in pairs(counted) do used = used + value end
  for bucket = c.bucket - BUCKETS + 1, c.bucket do
    used = used - (counted[bucket] or 0)
    if used <= room then return (bucket + BUCKETS) * BUCKET_MS - c.now end
  end
  return NEVER_RETRY_MS
end

-- Why a throttle refuses, and how long; nil where it agrees.
local function refusal(c, t, tokens)
  know(c, t)
  if t.parallel ~= '' and t.under_way >= num(t.parallel) then return 'P', 0 end
  if t.rpm ~= '' then
    local rpm = num(t.rpm)
    if rpm == 0 then return 'R', NEVER_RETRY_MS end
    if t.requests_before + t.requests > rpm - 1 then return 'R', wait(c, window(c, t).requests, rpm - 1) end
  end
  if t.tpm ~= '' then
    local tpm = num(t.tpm)
    if tpm == 0 and tokens > 0 then return 'T', NEVER_RETRY_MS end
    t.counted = math.min(tokens, tpm)
    local room = tpm - t.counted
    if t.tokens_before + t.tokens > room then return 'T', wait(c, window(c, t).tokens, room) end
  end
  return nil
end

-- Counts a request on a throttle that agreed, and makes its ticket.
local function enter(c, t)
  local bucket, under_way = c.bucket_text, str(t.under_way + 1)
  local counted = t.counted and str(t.counted) or ''
  if t.rpm == '' and t.tpm == '' then
    redis.call('HSET', t.key, 'p', under_way)
    if t.under_way == 0 then redis.call('PEXPIRE', t.key, str(EXPIRED_MS)) end
  elseif t.tpm == '' then
    redis.call('HSET', t.key, 'p', under_way, 'q' .. bucket, str(t.requests + 1))
  elseif t.rpm == '' then
    redis.call('HSET', t.key, 'p', under_way, 't' .. bucket, str(t.tokens + t.counted))
  else
    redis.call('HSET', t.key, 'p', under_way, 'q' .. bucket, str(t.requests + 1), 't' .. bucket, str(t.tokens + t.counted))
  end
  return {t.account, bucket, counted}
end

-- Sets the money aside and adds the balances after it to the answer; returns the accounts, each once.
local function hold(c, charges, amount, reply)
  local accounts, first = {}, {}
  local text, n = str(amount), #reply
  for k = 1, #charges do
    local charge = charges[k]
    local same = first[charge.account]
    if not same then
      same = charge
      first[charge.account] = charge
      accounts[#accounts + 1] = charge.account
      if amount > 0 then charge.reserved = str(redis.call('HINCRBY', charge.key, 'r', text)) end
      forget_at(c, charge.key, charge.known, charge.forget)
    end
    reply[n + k] = same.spent .. ' ' .. same.reserved .. ' ' .. same.overrun
  end
  return accounts
end

-- lease amount tokens ttl, n (account limit forget)*, n (account rpm tpm parallel)*, n rollup*, row
function commands.reserve(keys, args, i)
  local c = begin(keys)
  reap(c, REAP_MAX)
  if c.failed then return c.failed end
  local lease, amount, tokens, ttl = args[i], num(args[i + 1]), tokens_of(args[i + 2]), num(args[i + 3])
  i = i + 4
  local charges, asked, throttles, rollups = {}, {}, {}, nil
  for k = 1, num(args[i]) do
    asked[k] = args[i + 1]
    -- With all fields: a table that grows costs more than one that is made large enough.
    charges[k] = {
      account = args[i + 1], limit = args[i + 2], forget = args[i + 3], key = c.prefix .. 'b:' .. args[i + 1],
      spent = '0', reserved = '0', overrun = '0', known = false,
    }
    i = i + 3
  end
  i = i + 1
  for k = 1, num(args[i]) do
    throttles[k] = {
      account = args[i + 1], rpm = args[i + 2], tpm = args[i + 3], parallel = args[i + 4],
      key = c.prefix .. 'w:' .. args[i + 1],
      under_way = 0, requests = 0, tokens = 0, requests_before = 0, tokens_before = 0, counted = false,
    }
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
    local v = redis.call('HMGET', charge.key, 's', 'r', 'o', 'f')
    charge.spent, charge.reserved, charge.overrun, charge.known = v[1] or '0', v[2] or '0', v[3] or '0', v[4]
    local refused, left = refuses(charge.spent, charge.reserved, charge.limit, amount)
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
        local refused, left = refuses(v[1], v[2], limits[k], more)
        if refused then return {c.now, 'B', str(k - 1), str(left)} end
      end
    end
    record[2] = str(to)
    keep_open(c, lease, record)
    add(c, record[3], 0, more, 0)
    save(c)
    if c.failed then return c.failed end
  end
  return balances_into(c, {c.now, 'G'}, asked)
end

local ops = {}

-- Ends an open lease that cost `spent` and, of that, `overrun` more than it held; what it holds goes back.
local function close_lease(c, lease, record, spent, overrun, tokens)
  add(c, record[3], spent, -num(record[2]), overrun)
  leave(c, record[4], tokens)
  redis.call('ZREM', c.prefix .. 'z', lease)
  bury(c, lease)
end

-- lease close cost tokens prompt completion, n (account forget)*, n rollup*, row
function ops.S(c, args, i)
  local lease, close, cost, tokens = args[i], args[i + 1] == '1', num(args[i + 2]), tokens_of(args[i + 3])
  local prompt, completion = tokens_of(args[i + 4]), tokens_of(args[i + 5])
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
  book(c, 'request', cost, row, rollups, prompt, completion)
  if record and record[1] == 'o' then
    local amount = num(record[2])
    local take = math.min(cost, amount)
    if close then
      close_lease(c, lease, record, cost, cost - take, tokens)
    else
      add(c, record[3], cost, -take, cost - take)
      record[2] = str(amount - take)
      if take > 0 then keep_open(c, lease, record) end
    end
  elseif record and record[1] == 'x' then
    -- The charge at expiry stands for the cost as far as it reaches; the rest of it goes back when the lease closes.
    local charged = num(record[2])
    local take = math.min(cost, charged)
    if take > 0 then book(c, 'corrected', -take, row, rollups) end
    if close then
      add(c, record[3], math.max(0, cost - charged), 0, 0)
      refund(c, record[3], math.max(0, charged - cost))
      if charged > take then book(c, 'corrected', take - charged, row, rollups) end
      bury(c, lease)
    else
      add(c, record[3], cost - take, 0, 0)
      record[2] = str(charged - take)
      if take > 0 then keep_expired(c, lease, record) end
    end
  else
    local seen = {}
    for k = 1, #fallback do
      if not seen[fallback[k]] then
        seen[fallback[k]] = true
        local key = c.prefix .. 'b:' .. fallback[k]
        add(c, {fallback[k]}, cost, 0, 0)
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
    close_lease(c, lease, record, 0, 0, 0)
  elseif record[1] == 'x' then
    local charged = num(record[2])
    refund(c, record[3], charged)
    if charged > 0 then book(c, 'corrected', -charged, record[5], record[6]) end
    bury(c, lease)
  end
end

-- account spent, n rollup*, row
function ops.R(c, args, i)
  save(c)
  redis.call('HSET', c.prefix .. 'b:' .. args[i], 's', args[i + 1])
  local rollups
  rollups, i = list(args, i + 2)
  book(c, 'reset', 0, args[i], rollups)
end

-- node first n, (length kind …)*
function commands.apply(keys, args, i)
  local c = begin(keys)
  reap(c, REAP_MAX)
  if c.failed then return c.failed end
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
        save(c)
        redis.call('SET', key, str(number - 1), 'PX', str(NODE_MS))
        return type(why) == 'table' and why or redis.error_reply('ERR ' .. tostring(why))
      end
    end
    i = i + 1 + length
  end
  last = math.max(last, first + count - 1)
  redis.call('SET', key, str(last), 'PX', str(NODE_MS))
  save(c)
  return c.failed or {c.now, str(last)}
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
  local count = reap(c, num(args[i]))
  return c.failed or {c.now, str(count)}
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
