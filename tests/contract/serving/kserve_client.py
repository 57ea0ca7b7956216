"""KServe's own client against the server at that port; run in an environment of its own by test_server_clients.py."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def scores(url: str, ids: np.ndarray, numbers: np.ndarray, binary: bool, token: str) -> list[float]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url) and await client.is_server_ready(url)
    assert await client.is_model_ready(url, "flights")
    inputs = [InferInput("ids", list(ids.shape), "INT64"), InferInput("numbers", list(numbers.shape), "FP32")]
    for tensor, values in zip(inputs, (ids, numbers), strict=True):
        tensor.set_data_from_numpy(values, binary_data=binary)
    answer = await client.infer(url, InferRequest("flights", inputs), model_name="flights",
                                headers={"Authorization": token})  # fmt: skip
    return answer.outputs[0].as_numpy().tolist()


if __name__ == "__main__":
    url, given = f"http://127.0.0.1:{sys.argv[1]}", json.load(sys.stdin)
    ids, numbers = np.array(given["ids"], np.int64), np.array(given["numbers"], np.float32)
    print(json.dumps([asyncio.run(scores(url, ids, numbers, binary, given["token"])) for binary in (False, True)]))
