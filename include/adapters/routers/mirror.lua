-- `http-request lua.copy URL,URL…` sends a copy of the request to one of the servers and forgets what it answers.
local AT_ONCE = 256 -- a shadow that falls behind is sent no more than that, so that it holds up nobody
local OWN = { host = true, connection = true, ["content-length"] = true, ["transfer-encoding"] = true }
local under_way, sent, left_out = 0, 0, 0

local function leave_out(why)
  left_out = left_out + 1
  if left_out % 1000 == 1 then -- a line each would fill the log
    core.Warning("shadow: " .. why .. "; requests not copied so far: " .. left_out)
  end
end

local function headers_of(txn, body)
  local headers = { ["content-length"] = { tostring(#body) } } -- else it would go out in chunks
  for name, values in pairs(txn.http:req_get_headers()) do
    if not OWN[name] then
      headers[name] = { values[0] }
    end
  end
  return headers
end

core.register_action("copy", { "http-req" }, function(txn, urls)
  if txn.sf:req_body_len() ~= txn.sf:req_body_size() then
    return leave_out("a request is longer than the gateway's buffer")
  elseif under_way >= AT_ONCE then
    return leave_out("its server is slower than the requests come")
  end
  local servers = {}
  for url in urls:gmatch("[^,]+") do
    servers[#servers + 1] = url
  end
  sent, under_way = sent + 1, under_way + 1
  local url, body = servers[sent % #servers + 1] .. txn.sf:pathq(), txn.sf:req_body()
  local copy = { url = url, headers = headers_of(txn, body), body = body, timeout = 5000 }
  core.register_task(function()
    pcall(function() core.httpclient():post(copy) end)
    under_way = under_way - 1
  end)
end, 1)
