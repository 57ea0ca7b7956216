"""The composition root: which adapter stands behind which port. Nothing else chooses.

Adapters are imported where they are made, because some take seconds and each task needs only a few.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from include.online_store.opening import open_store
from include.online_store.store import OnlineStore
from include.ports.ledger import Ledger
from include.ports.registry import Registry
from include.ports.serving import Probe, Scorer, Slots
from include.ports.sources import Source
from include.ports.tables import Engine, Records, Tables
from include.ports.traffic import PredictionLog, Router, Signals
from include.ports.training import Launcher, Searcher, Storage
from include.ports.validation import Validator
from include.settings import SLOTS, Settings, from_env
from include.spec.model_spec import ModelSpec
from include.stages.rollout import rollout

if TYPE_CHECKING:
    from include.adapters.cluster_check import ClusterReport
    from include.adapters.kubernetes import Cluster
    from include.adapters.serving.segments import Segments
    from include.stages.monitoring.timeline import Course, Sides


class Production(TypedDict):
    tables: Tables
    signals: Signals
    registry: Registry


@dataclass(frozen=True)
class Parts:
    """Every part that the settings name, made when it is asked for."""

    settings: Settings

    def tables(self, spec: ModelSpec) -> Tables:
        return self._tables(spec.name)

    def _tables(self, model: str) -> Tables:
        from include.adapters.tables.delta import DeltaTables

        return DeltaTables(self.settings.tables_of(model))

    def storage(self) -> Storage:
        from include.adapters.tables.object_storage import Mirror, OneDisk

        return Mirror(self.settings.home, self.settings.storage) if self.settings.storage else OneDisk()

    def engine(self, spec: ModelSpec) -> Engine:
        from include.adapters.engines.duckdb import DuckDB
        from include.adapters.engines.spark import SUBMITTED, Spark

        if spec.features.engine == "spark":
            return Spark(None if self.settings.spark == SUBMITTED else self.settings.spark)

        return DuckDB()

    def online(self, spec: ModelSpec) -> OnlineStore:
        return open_store(self.settings.online_store, spec.name)

    def validator(self, spec: ModelSpec) -> Validator:
        from include.adapters.validation.great_expectations import GreatExpectations

        return GreatExpectations(spec, self.settings.reports / spec.name / "validation")

    def launcher(self) -> Launcher:
        from include.adapters.training.torchrun import Torchrun

        return Torchrun()

    def searcher(self) -> Searcher:
        from include.adapters.training.optuna import TreeParzen

        return TreeParzen()

    def scorer(self) -> Scorer:
        from include.adapters.serving.onnx_scorer import OnnxScorer

        return OnnxScorer()

    def probe(self) -> Probe:
        from include.adapters.serving.probe import ServerProbe

        return ServerProbe()

    def registry(self) -> Registry:
        from include.adapters.registry.mlflow import MLflow

        return MLflow(self.settings.mlflow_url, self.settings.home / "locks")

    def router(self) -> Router:
        if self.settings.router == "gateway":
            from include.adapters.routers.gateway_api import Gateway

            return Gateway(self.cluster())
        if self.settings.router == "replicas":
            from include.adapters.routers.replicas import Replicas

            return Replicas(self.cluster())
        from include.adapters.routers import haproxy

        return haproxy.for_settings(self.settings)

    def cluster(self) -> "Cluster":
        from include.adapters.kubernetes import Cluster

        return Cluster(self.settings.namespace, self.settings.kubeconfig)

    def cluster_check(self) -> "ClusterReport":
        """What the cluster has of what the manifests need. Raises Unavailable when its API does not answer."""
        from include.adapters.cluster_check import check_cluster

        return check_cluster(self.cluster())

    def lay_out_gateway(self) -> list[str]:
        """Write the files of the embedded gateway; return the command that starts it."""
        from include.adapters.routers import haproxy

        return haproxy.lay_out(self.settings)

    def gateway_program(self) -> str:
        """Return the path of the embedded gateway's program."""
        from include.adapters.routers import haproxy

        return haproxy.binary()

    def slots(self) -> Slots:
        from include.adapters.serving.slots import HttpSlots

        return HttpSlots(self._slot_urls())

    def _slot_urls(self) -> dict[str, list[str]]:
        return {slot: self.settings.slot_urls(slot) for slot in SLOTS}

    def signals(self) -> Signals:
        from include.adapters.serving.request_counters import Served
        from include.adapters.serving.signals import ProductionSignals

        gateway = self.settings.gateway_admin_url if self.settings.router == "haproxy" else None
        served = Served(self._slot_urls(), self.settings.home / "counters", gateway)
        return ProductionSignals(served, self._segments(), self._tables)

    def prediction_log(self) -> PredictionLog:
        return self._segments()

    def _segments(self) -> "Segments":
        from include.adapters.serving.segments import Segments

        return Segments(self.settings.predictions)

    def ledger(self) -> Ledger:
        from include.adapters.tables.ledger import FileLedger

        return FileLedger(self.settings.ledger)

    def controls(self) -> rollout.Controls:
        """What a rollout acts on."""
        return rollout.Controls(
            self.settings.home / "rollouts", self.router(), self.signals(), self.ledger(), self.tables
        )

    def records(self, spec: ModelSpec) -> Records:
        from include.adapters.tables.json_records import JsonRecords

        return JsonRecords(self.settings.records / spec.name)

    def source(self, spec: ModelSpec, given: Mapping[str, str] = {}) -> Source:
        """`given` is what a connection says of S3, by the names of the environment, which speaks otherwise."""
        from include.adapters.sources.delta import DeltaSource
        from include.adapters.sources.files import FileSource

        kind = DeltaSource if spec.source.format == "delta" else FileSource
        return kind(spec.source, self.settings.home, given)

    def production(self, spec: ModelSpec) -> Production:
        """What the watch looks at, by the names of its arguments."""
        return {"tables": self.tables(spec), "signals": self.signals(), "registry": self.registry()}

    def watch_page(self, spec: ModelSpec, course: "Course") -> Path:
        from include.reports import timeline_page

        return timeline_page.write(course, self.settings.reports / spec.name / "watch.html")

    def drift_report(self, spec: ModelSpec, sides: "Sides") -> Path:
        """Evidently's page of that window, made and attached to the champion's tracking run once."""
        from include.adapters.monitoring import evidently

        path = self.settings.reports / spec.name / "drift" / f"{sides.window} version {sides.version}.html"
        if not path.exists():
            evidently.write(sides.reference, sides.newest, sides.numeric, sides.categorical, path)
            if sides.run_id:
                self.registry().attach(sides.run_id, [path], "drift")
        return path

    def watch_folder(self, spec: ModelSpec) -> Path:
        """What each look of the watch saw."""
        return self.settings.home / "watch" / spec.name

    def run_folder(self, spec: ModelSpec, run: str) -> Path:
        """Where a training run keeps its dataset, results and verdicts."""
        return self.settings.runs / spec.name / run


def parts() -> Parts:
    """As the environment says."""
    return Parts(from_env())
