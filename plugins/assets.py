"""The named assets on which the DAGs of one model meet."""

from airflow.sdk import Asset


def features(model: str) -> Asset:
    """Return the asset that is updated when features of a window were built."""
    return Asset(f"{model}.features", uri=f"perennial://{model}/features", group="perennial")


def retraining(model: str) -> Asset:
    """Return the asset that is updated when the watch asks for a training.

    The event's extra holds `request`, `cause`, `sentence`, `as_of` (train on the windows labelled by then), `evidence`
    (the record of what the watch saw) and `page`.
    """
    return Asset(f"{model}.retraining", uri=f"perennial://{model}/retraining", group="perennial")


def challenger(model: str) -> Asset:
    """Return the asset that is updated when a version was approved; the event's extra holds `version`."""
    return Asset(f"{model}.challenger", uri=f"perennial://{model}/challenger", group="perennial")
