"""TorchServe's handler for the model; requests that wait together come together."""

from pathlib import Path

from scoring import Session


class TorchServeFlights:
    """Has the two methods that TorchServe calls."""

    initialized = False

    def initialize(self, context) -> None:
        folder = Path(context.system_properties["model_dir"])
        self.session, self.initialized = Session(str(folder / context.manifest["model"]["serializedFile"])), True

    def handle(self, data, _context) -> list:
        rows = [request["body"] for request in data]
        scores = self.session.score([row["ids"] for row in rows], [row["numbers"] for row in rows])
        return [{"score": float(score)} for score in scores]
