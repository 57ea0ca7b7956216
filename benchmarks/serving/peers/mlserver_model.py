"""MLServer's runtime for the model; `mlserver start <folder>` finds it by the folder's model-settings.json."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from scoring import Session


class MLServerFlights(MLModel):
    """The bench's model, as MLServer calls it."""

    async def load(self) -> bool:
        self.session = Session(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        ids, numbers = (NumpyCodec.decode_input(tensor) for tensor in payload.inputs)
        scores = self.session.score(ids, numbers)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("score", scores)])
