"""The composition root: which adapter stands behind which port. Nothing else chooses one.

Adapters are imported where they are made, because some take seconds to import and each task needs only a few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.settings import SLOTS, Settings, from_env

if TYPE_CHECKING:
    from pathlib import Path

    from include.adapters.cluster_check import ClusterReport
    from include.adapters.engines.spark_application import SparkApplication
    from include.adapters.kubernetes import Cluster
    from include.adapters.serving.segments import LogSegments
    from include.adapters.training.pods import TrainingManifests
    from include.online_store.protocol import OnlineStore
    from include.ports.ledger import Ledger
    from include.ports.registry import Registry
    from include.ports.serving import Probe, Scorer, Slots
    from include.ports.sources import Source
    from include.ports.tables import Engine, Records, Tables
    from include.ports.traffic import PredictionLog, Router, Signals
    from include.ports.training import Launcher, Searcher, Storage, TrainingNode
    from include.ports.validation import Validator
    from include.spec.model_spec import ModelSpec
    from include.stages.features.features import FeatureServices
    from include.stages.monitoring.services import MonitoringServices
    from include.stages.monitoring.timeline import DriftReportInput, Timeline
    from include.stages.release.promotion import ReleaseServices
    from include.stages.rollout.services import RolloutServices


@dataclass(frozen=True)
class Parts:
    """Every part that the settings name; each method makes one."""

    settings: Settings

    def tables(self, spec: ModelSpec) -> Tables:
        """Return the model's tables."""
        return self._tables(spec.name)

    def _tables(self, model: str) -> Tables:
        from include.adapters.tables.delta import DeltaTables

        return DeltaTables(self.settings.tables_of(model))

    def storage(self) -> Storage:
        """Return where runs are kept beside this disk."""
        from include.adapters.tables.object_storage import LocalDisk, ObjectStorage

        return ObjectStorage(self.settings.home, self.settings.storage) if self.settings.storage else LocalDisk()

    def engine(self, spec: ModelSpec) -> Engine:
        """Return what adds up the aggregates' sums."""
        from include.adapters.engines.duckdb import DuckDB
        from include.adapters.engines.spark import SUBMITTED, Spark

        if spec.features.engine == "spark":
            return Spark(None if self.settings.spark == SUBMITTED else self.settings.spark)
        return DuckDB()

    def feature_services(self, spec: ModelSpec) -> FeatureServices:
        """Return what the stage `features` works with."""
        from include.stages.features.features import FeatureServices

        return FeatureServices(self.tables(spec), self.records(spec), self.engine(spec), self.online(spec))

    def online(self, spec: ModelSpec) -> OnlineStore:
        """Return the store in which the servers look up the model's aggregates."""
        from include.online_store.opening import open_store

        return open_store(self.settings.online_store, spec.name)

    def validator(self, spec: ModelSpec) -> Validator:
        """Return what judges a landed window of the model."""
        from include.adapters.validation.great_expectations import GreatExpectations

        return GreatExpectations(spec, self.settings.reports / spec.name / "validation")

    def launcher(self, node: TrainingNode | None = None) -> Launcher:
        """Return what starts a training on this machine; `node` says which of several machines it is."""
        from include.adapters.training.torchrun import Torchrun

        return Torchrun(node)

    def training_manifests(self) -> TrainingManifests:
        """Return what makes the pods and Jobs of trainings on a cluster."""
        from include.adapters.training.pods import TrainingManifests

        return TrainingManifests(self.settings)

    def searcher(self) -> Searcher:
        """Return what suggests settings to try."""
        from include.adapters.training.optuna import TreeParzen

        return TreeParzen()

    def scorer(self) -> Scorer:
        """Return what scores rows with an exported model."""
        from include.adapters.serving.onnx_scorer import OnnxScorer

        return OnnxScorer()

    def probe(self) -> Probe:
        """Return what starts a model server and measures it."""
        from include.adapters.serving.probe import ServerProbe

        return ServerProbe()

    def registry(self) -> Registry:
        """Return the registry of model versions."""
        from include.adapters.registry.mlflow import MLflow

        return MLflow(self.settings.mlflow_url, self.settings.home / "locks")

    def router(self) -> Router:
        """Return what splits live traffic between the slots."""
        if self.settings.router == "gateway":
            from include.adapters.routers.gateway_api import GatewayApiRouter

            return GatewayApiRouter(self.cluster())
        if self.settings.router == "replicas":
            from include.adapters.routers.replicas import ReplicasRouter

            return ReplicasRouter(self.cluster())
        from include.adapters.routers import haproxy

        return haproxy.router_of(self.settings)

    def cluster(self) -> Cluster:
        """Return the Kubernetes cluster that the settings name."""
        from include.adapters.kubernetes import Cluster

        return Cluster(self.settings.namespace, self.settings.kubeconfig)

    def cluster_check(self) -> ClusterReport:
        """Return what the cluster has of what the manifests need. Raises Unavailable when its API does not answer."""
        from include.adapters.cluster_check import check_cluster

        return check_cluster(self.cluster())

    def lay_out_gateway(self) -> list[str]:
        """Write the files of the embedded gateway; return the command that starts it."""
        from include.adapters.routers import haproxy

        return haproxy.write_configuration(self.settings)

    def gateway_program(self) -> str:
        """Return the path of the embedded gateway's program."""
        from include.adapters.routers import haproxy

        return haproxy.haproxy_path()

    def slots(self) -> Slots:
        """Return the model servers behind the gateway."""
        from include.adapters.serving.slots import HttpSlots

        return HttpSlots(self._slot_urls())

    def _slot_urls(self) -> dict[str, list[str]]:
        return {slot: self.settings.slot_urls(slot) for slot in SLOTS}

    def signals(self) -> Signals:
        """Return what live traffic shows: counts of requests, predictions and their labels."""
        from include.adapters.serving.request_counters import RequestCounters
        from include.adapters.serving.signals import ProductionSignals

        gateway = self.settings.gateway_admin_url if self.settings.router == "haproxy" else None
        counters = RequestCounters(self._slot_urls(), self.settings.home / "counters", gateway)
        return ProductionSignals(counters, self._segments(), self._tables)

    def prediction_log(self) -> PredictionLog:
        """Return the segments in which the model servers log."""
        return self._segments()

    def _segments(self) -> LogSegments:
        from include.adapters.serving.segments import LogSegments

        return LogSegments(self.settings.predictions)

    def ledger(self) -> Ledger:
        """Return the record of decisions."""
        from include.adapters.tables.ledger import FileLedger

        return FileLedger(self.settings.ledger)

    def rollout_folder(self) -> Path:
        """Return where the state files of rollouts lie."""
        return self.settings.home / "rollouts"

    def rollout_services(self) -> RolloutServices:
        """Return what the stages of a rollout need."""
        from include.stages.rollout.services import RolloutServices

        return RolloutServices(
            folder=self.rollout_folder(),
            router=self.router(),
            slots=self.slots(),
            signals=self.signals(),
            registry=self.registry(),
            ledger=self.ledger(),
            tables=self.tables,
        )

    def release(self) -> ReleaseServices:
        """Return what a release acts on."""
        from include.stages.release.promotion import ReleaseServices

        return ReleaseServices(self.registry(), self.ledger())

    def records(self, spec: ModelSpec) -> Records:
        """Return the record of what was done to each window of the model."""
        from include.adapters.tables.json_records import JsonRecords

        return JsonRecords(self.settings.records / spec.name)

    def source(self, spec: ModelSpec, credentials: Mapping[str, str] = {}) -> Source:
        """Return where the model's raw rows come from.

        `credentials` for S3 go by the names of the environment variables that they stand in for.
        """
        from include.adapters.sources.delta import DeltaSource
        from include.adapters.sources.files import FileSource

        kind = DeltaSource if spec.source.format == "delta" else FileSource
        return kind(spec.source, self.settings.home, credentials)

    def spark_application(self, spec: ModelSpec, arguments: Sequence[str]) -> SparkApplication:
        """Return what a cluster runs, with these arguments of `include/entrypoints/spark_features.py`, to build features."""
        from include.adapters.engines import spark_application

        return spark_application.features(spec, self.settings, arguments)

    def monitoring_services(self, spec: ModelSpec) -> MonitoringServices:
        """Return what the stages of monitoring need."""
        from include.stages.monitoring.services import MonitoringServices

        return MonitoringServices(
            tables=self.tables(spec), signals=self.signals(), registry=self.registry(), ledger=self.ledger()
        )

    def timeline_page(self, spec: ModelSpec, timeline: Timeline) -> Path:
        """Write the page of the champion's windows since its training, and return its path."""
        from include.reports import timeline_page

        return timeline_page.write(timeline, self.settings.reports / spec.name / "watch.html")

    def drift_report(self, spec: ModelSpec, compared: DriftReportInput) -> Path:
        """Return Evidently's page of a window; it is written and attached to the champion's tracking run once."""
        from include.adapters.monitoring import evidently

        path = self.settings.reports / spec.name / "drift" / f"{compared.window} version {compared.version}.html"
        if not path.exists():
            evidently.write(compared.reference, compared.newest, compared.numeric, compared.categorical, path)
            if compared.run_id:
                self.registry().attach(compared.run_id, [path], "drift")
        return path

    def watch_folder(self, spec: ModelSpec) -> Path:
        """Return the folder of the snapshots, one for each run of the watch."""
        return self.settings.home / "watch" / spec.name

    def run_folder(self, spec: ModelSpec, run: str) -> Path:
        """Return the folder in which a training run keeps its dataset, results and verdicts."""
        return self.settings.runs / spec.name / run


def parts() -> Parts:
    """Return the parts that the environment names."""
    return Parts(from_env())
