"""Triton with its Python backend, by PyTriton: `python triton_server.py <model.onnx> <port>`."""

import sys

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from scoring import Session

path, port = sys.argv[1], int(sys.argv[2])
session = Session(path)
widths = {i.name: i.shape[-1] for i in ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs()}


@batch
def score(ids, numbers):
    return {"score": session.score(ids, numbers).reshape(-1, 1)}


config = TritonConfig(
    http_port=port,
    grpc_port=port + 1,
    metrics_port=port + 2,
    http_address="127.0.0.1",
    grpc_address="127.0.0.1",
    log_verbose=0,
)
with Triton(config=config) as triton:
    triton.bind(
        "flights",
        score,
        inputs=[
            Tensor(name="ids", dtype=np.int64, shape=(widths["ids"],)),
            Tensor(name="numbers", dtype=np.float32, shape=(widths["numbers"],)),
        ],
        outputs=[Tensor(name="score", dtype=np.float32, shape=(1,))],
        config=ModelConfig(max_batch_size=256, batcher=DynamicBatcher(max_queue_delay_microseconds=100)),
    )
    triton.serve()
