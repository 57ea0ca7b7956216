-- `http-request lua.copy URL,URL…` sends a copy of the request to one of the servers and drops the answer.
local MAX_IN_FLIGHT = 256 -- a shadow that falls behind gets no more copies than that, so that it holds up nobody
local NOT_COPIED = { host = true, connection = true, ["content-length"] = true, ["transfer-encoding"] = true }
local in_flight, sent, skipped = 0, 0, 0

local function skip(reason)
  skipped = skipped + 1
  if skipped % 1000 == 1 then -- a line each would fill the log
    core.Warning("shadow: " .. reason .. "; requests not copied so far: " .. skipped)
  end
end

local function headers_of(txn, body)
  local headers = { ["content-length"] = { tostring(#body) } } -- else it would go out in chunks
  for name, values in pairs(txn.http:req_get_headers()) do
    if not NOT_COPIED[name] then
      headers[name] = { values[0] }
    end
  end
  return headers
end

core.register_action("copy", { "http-req" }, function(txn, urls)
  if txn.sf:req_body_len() ~= txn.sf:req_body_size() then
    return skip("a request is longer than the gateway's buffer")
  elseif in_flight >= MAX_IN_FLIGHT then
    return skip("its server is slower than the requests come")
  end
  local servers = {}
  for url in urls:gmatch("[^,]+") do
    servers[#servers + 1] = url
  end
  sent, in_flight = sent + 1, in_flight + 1
  local url, body = servers[sent % #servers + 1] .. txn.sf:pathq(), txn.sf:req_body()
  local copy = { url = url, headers = headers_of(txn, body), body = body, timeout = 5000 }
  core.register_task(function()
    pcall(function() core.httpclient():post(copy) end)
    in_flight = in_flight - 1
  end)
end, 1)
