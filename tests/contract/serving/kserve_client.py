"""Calls the server at a port by KServe's own client; test_server_clients.py runs it in KServe's environment."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from numpy.typing import NDArray


async def infer(
    url: str, ids: NDArray[np.int64], numbers: NDArray[np.float32], binary: bool, token: str
) -> list[float]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url) and await client.is_server_ready(url)
    assert await client.is_model_ready(url, "flights")
    inputs = [InferInput("ids", list(ids.shape), "INT64"), InferInput("numbers", list(numbers.shape), "FP32")]
    for tensor, values in zip(inputs, (ids, numbers), strict=True):
        tensor.set_data_from_numpy(values, binary_data=binary)
    answer = await client.infer(
        url, InferRequest("flights", inputs), model_name="flights", headers={"Authorization": token}
    )
    return [float(score) for score in answer.outputs[0].as_numpy()]


if __name__ == "__main__":
    url, request = f"http://127.0.0.1:{sys.argv[1]}", json.load(sys.stdin)
    ids, numbers = np.array(request["ids"], np.int64), np.array(request["numbers"], np.float32)
    print(json.dumps([asyncio.run(infer(url, ids, numbers, binary, request["token"])) for binary in (False, True)]))
