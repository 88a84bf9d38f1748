-- Makes virtual keys FIRST+1 to LAST by POST /key/generate, then stops.
-- wrk -t1 … -s keys.lua URL -- MASTER_KEY FIRST LAST
-- The key of a number is "sk-" and the number in 32 digits.

local number, last, wanted, made = 0, 0, 0, 0

function init(args)
  number, last = tonumber(args[2]), tonumber(args[3])
  wanted = last - number
  wrk.headers["Authorization"] = "Bearer " .. args[1]
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  if number >= last then
    return wrk.format("GET", "/health/liveliness")
  end
  number = number + 1
  local body = string.format('{"key":"sk-%032d","max_budget":1000000}', number)
  return wrk.format("POST", "/key/generate", nil, body)
end

function response(status, _, body)
  local of_a_key = body:find('"key_id"', 1, true)
  if status ~= 200 then
    io.write("REFUSED " .. status .. " " .. body:sub(1, 300) .. "\n")
    wrk.thread:stop()
  elseif of_a_key then
    made = made + 1
    if made == wanted then
      io.write("MADE " .. made .. "\n")
      wrk.thread:stop()
    end
  end
end
