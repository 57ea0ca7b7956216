-- wrk sends the lines of a file as bodies, one after the other, and prints one JSON object: wrk -s wrk.lua URL -- FILE PATH
local requests, at = {}, 0

function init(args)
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", args[2], {["content-type"] = "application/json"}, line)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e, seconds = summary.errors, summary.duration / 1e6
  io.write(string.format(
    '{"generator": "wrk", "requests": %d, "errors": %d, "rps": %.0f, "p50_ms": %.2f, "p99_ms": %.2f, "max_ms": %.2f}\n',
    summary.requests, e.connect + e.read + e.write + e.status + e.timeout, summary.requests / seconds,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
