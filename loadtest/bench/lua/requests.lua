-- Sends one body, or the keys of a file in turn, and says as JSON what came of it.
-- wrk … -s requests.lua URL -- BODY_FILE HEADERS_FILE [KEYS_FILE]
-- HEADERS_FILE holds a "Name: value" a line; each key of KEYS_FILE is sent as bearer token.

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local prepared, at = {}, 0

function init(args)
  wrk.method = "POST"
  wrk.body = read(args[1])
  for name, value in read(args[2]):gmatch("([^:\n]+): ([^\n]+)") do
    wrk.headers[name] = value
  end
  if args[3] then
    for key in read(args[3]):gmatch("[^\n]+") do
      wrk.headers["Authorization"] = "Bearer " .. key
      prepared[#prepared + 1] = wrk.format()
    end
  else
    prepared[1] = wrk.format()
  end
end

function request()
  at = at % #prepared + 1
  return prepared[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"bytes":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d,'
      .. '"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(90),
    latency:percentile(99), latency.max, errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
