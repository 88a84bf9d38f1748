-- Makes virtual keys FIRST+1 to LAST by POST /key/generate.
-- wrk -t1 … -s keys.lua URL -- MASTER_KEY FIRST LAST
-- The key of a number is "sk-" and the number in 32 digits.

local number, last, wanted, made, asked = 0, 0, 0, 0, false

function init(args)
  number, last = tonumber(args[2]), tonumber(args[3])
  wanted = last - number
  wrk.headers["Authorization"] = "Bearer " .. args[1]
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  if not asked or number >= last then
    -- The first time wrk only looks what the request is like.
    asked = true
    return wrk.format("GET", "/health/liveliness")
  end
  number = number + 1
  local body = string.format('{"key":"sk-%032d","max_budget":1000000}', number)
  return wrk.format("POST", "/key/generate", nil, body)
end

-- The harness ends wrk when it reads one of these.
local function say(what)
  io.write(what .. "\n")
  io.flush()
end

function response(status, _, body)
  if status ~= 200 then
    say("REFUSED " .. status .. " " .. body:sub(1, 300))
  elseif body:find('"key_id"', 1, true) then
    made = made + 1
    if made == wanted then
      say("MADE " .. made)
    end
  end
end
