"""The bench's ONNX model as each peer runs it: in one session on one thread, like Perennial's server."""

import numpy as np
import onnxruntime as ort


class Session:
    """The ONNX model on one thread."""

    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def score(self, ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Return float32 scores `[n]` of ids `[n, categorical]` and numbers `[n, numeric]`."""
        feed = {"ids": np.asarray(ids, np.int64), "numbers": np.asarray(numbers, np.float32)}
        return self._session.run(["score"], feed)[0].reshape(-1)
