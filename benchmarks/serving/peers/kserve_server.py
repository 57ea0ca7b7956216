"""KServe's model server: `python kserve_server.py <model.onnx> <port>`."""

import sys

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from scoring import Session


class KServeFlights(Model):
    """The bench's model, as KServe calls it."""

    def __init__(self, path: str) -> None:
        super().__init__("flights")
        self.session, self.ready = Session(path), True

    def predict(self, payload: InferRequest, *_, **__) -> InferResponse:
        ids, numbers = (tensor.as_numpy() for tensor in payload.inputs)
        scores = self.session.score(ids, numbers)
        output = InferOutput("score", [len(scores)], "FP32", scores.tolist())
        return InferResponse(payload.id or "", "flights", [output])


if __name__ == "__main__":
    server = ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1)
    server.start([KServeFlights(sys.argv[1])])
