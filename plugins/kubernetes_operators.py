"""Training on a cluster: operators that train in one pod, or in an Indexed Job of one pod a node.

The pods hand nothing back through XCom: the result is the manifest in storage. Before a training starts, whatever an
earlier try left is told to stop and waited for, so that two never run; the new one goes on from the checkpoint.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodNotFoundException
from airflow.sdk.exceptions import AirflowException
from kubernetes import client as kube

from include.artifacts.store import Reference
from include.domain.errors import Unavailable, UserMistake
from include.domain.training.families import FAMILIES, FamilyName
from include.domain.training.pods import TRAINING_LABEL, PodCause, PodEnding, PodLost, TookTooLong, pod_ending
from include.settings import from_env
from include.spec.model_spec import ModelSpec
from include.stages.training import training
from plugins.current_run import XComReference, open_model, run_name, synced_run_folder, training_request, training_run
from plugins.pod_logs import PodLogs

#: Seconds between two looks at a Job, its pods and their logs.
POLL_INTERVAL = 3.0


def training_operator(
    spec: ModelSpec, dataset: XComReference | Any, *, baselines: bool = False
) -> "TrainInPod | TrainInJob":
    """Return the task `train`, or `baselines`, on the cluster; baselines and trees need no second node."""
    pods, settings = spec.training.kubernetes, from_env()
    several_nodes = pods.nodes > 1 and not baselines and FAMILIES[spec.model.family].runs_on_several_processes
    startup_seconds = int(pods.schedule_timeout.total_seconds())
    waiting: dict[str, Any] = (
        {"deferrable": False, "job_poll_interval": POLL_INTERVAL}
        if several_nodes
        else {"deferrable": True, "logging_interval": 10, "on_finish_action": "delete_pod"}
    )
    return (TrainInJob if several_nodes else TrainInPod)(
        task_id="baselines" if baselines else "train",
        model=spec.name,
        baselines=baselines,
        dataset=dataset,
        pool="training",
        execution_timeout=spec.training.timeout,
        retries=pods.retries,
        kubernetes_conn_id=None,
        config_file=settings.kubeconfig or None,
        in_cluster=not settings.kubeconfig,
        namespace=settings.namespace,
        durable=False,
        do_xcom_push=False,
        log_pod_spec_on_failure=False,
        termination_message_policy="FallbackToLogsOnError",
        schedule_timeout_seconds=startup_seconds,
        startup_timeout_seconds=startup_seconds,
        termination_grace_period=int(pods.grace.total_seconds()),
        **waiting,
    )


class _TrainsOnCluster(KubernetesPodOperator):
    """What both operators share: the jobs to train, their results, and that no two trainings run."""

    template_fields = (*KubernetesPodOperator.template_fields, "dataset")
    #: Seconds after its grace until a stopped pod is gone, and between two looks whether it is.
    removal_seconds, removal_poll_interval = 60.0, 1.0

    def __init__(self, *, model: str, baselines: bool, dataset: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model, self.baselines, self.dataset = model, baselines, dataset
        self.training = ""  #: the label of all pods of this task in this run, whichever try started them

    def convert_config_file_to_dict(self) -> None:
        """Name the cluster by the operator's arguments alone: a KUBECONFIG beside them would fail every trigger."""
        self._config_dict = None
        if self.config_file:
            super().convert_config_file_to_dict()

    def families(self, spec: ModelSpec) -> tuple[FamilyName, ...]:
        """Return the model families that this task trains."""
        return spec.baselines if self.baselines else (spec.model.family,)

    def prepare_jobs(self) -> list[Path]:
        """Stop what an earlier try left, and return the job files in storage that have no result yet."""
        spec, parts = open_model(self.model)
        with synced_run_folder(spec, parts):
            run = training_run(spec, parts, self.dataset, warm_start=not self.baselines)
            job_files = [training.prepare(spec, run, family) for family in self.families(spec)]
        self.training = hashlib.sha256(f"{self.dag_id} {self.task_id} {run_name()}".encode()).hexdigest()[:40]
        self.stop_earlier_tries()
        return [job_file for job_file in job_files if job_file]

    def push_results(self, context: Any) -> None:
        """Push the result's reference, or one a family for the baselines, and record the challenger's hours."""
        spec, parts = open_model(self.model)
        with synced_run_folder(spec, parts) as folder:
            dataset = Reference(**self.dataset)
            results = {f: training.result(spec, dataset, folder / f) for f in self.families(spec)}
        if self.baselines:
            context["ti"].xcom_push("return_value", {family: asdict(result) for family, result in results.items()})
            return
        result = results[spec.model.family]
        training.record_hours(spec, [result], training_request().as_of, run_name(), parts.ledger())
        context["ti"].xcom_push("return_value", asdict(result))

    @property
    def training_selector(self) -> str:
        """The label selector of everything that any try of this task started."""
        return f"{TRAINING_LABEL}={self.training}"

    def training_pods(self) -> list[kube.V1Pod]:
        """Return the pods that any try of this task started and that are still there."""
        return list(self.client.list_namespaced_pod(self.namespace, label_selector=self.training_selector).items)

    def stop_earlier_tries(self) -> None:
        """Stop what an earlier try left, and wait until it is gone. Raises Unavailable where it does not go."""
        seconds = (self.termination_grace_period or 0) + self.removal_seconds
        deadline = time.monotonic() + seconds
        stopping: set[str] = set()
        while pods := self.training_pods():
            for name in {pod.metadata.name for pod in pods} - stopping:
                self.log.info("stopping pod %s of an earlier try", name)
                with _ignoring_not_found():
                    self.client.delete_namespaced_pod(name, self.namespace)
                stopping.add(name)
            if time.monotonic() > deadline:
                raise Unavailable(f"pod {pods[0].metadata.name} of an earlier try does not end within {seconds:g} s")
            time.sleep(self.removal_poll_interval)


class TrainInPod(_TrainsOnCluster):
    """One pod, waited for by a trigger."""

    _overdue = False

    def execute(self, context: Any) -> Any:
        """Start the pod and defer; push the results at once where there is nothing left to train."""
        if not (jobs := self.prepare_jobs()):
            return self.push_results(context)
        spec, parts = open_model(self.model)
        self.pod_template_dict = parts.training_manifests().pod(spec, jobs, self.training)
        return super().execute(context)

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> Any:
        """Push the results of a pod that ended well; every other end is raised as the error of its cause."""
        self._overdue = event["status"] == "timeout"
        try:
            super().trigger_reentry(context, event)
        except PodNotFoundException:
            raise pod_ending(None, event["name"]).error from None
        except AirflowException as error:
            if self.pod is None:  # it went between the trigger's last look and now
                raise PodLost(f"pod {event['name']}: {error}") from None
            raise
        return self.push_results(context)

    def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None) -> None:
        """Remove the pod; any end but a good one is raised as the error of its cause."""
        if self._killed or not remote_pod:
            return
        ending = pod_ending(_as_api_content(remote_pod), overdue=self._overdue)
        self.process_pod_deletion(remote_pod, reraise=False)
        if ending.cause is not PodCause.SUCCEEDED:
            raise ending.error


class TrainInJob(_TrainsOnCluster, KubernetesJobOperator):
    """An Indexed Job, waited for by the task itself: a deferred one would leave its Job running when it is stopped."""

    template_fields = (*KubernetesJobOperator.template_fields, "dataset")

    def execute(self, context: Any) -> Any:
        """Create the Job, wait for its end, remove it, and push the results."""
        if jobs := self.prepare_jobs():
            spec, parts = open_model(self.model)
            self.manifest = parts.training_manifests().job(spec, jobs, self.training)
            try:
                super().execute(context)  # creates the Job and returns
                self._wait_for_job()
            finally:
                self._remove_jobs()
        return self.push_results(context)

    def build_job_request_obj(self, context: Any = None) -> kube.V1Job:
        """Return the Job under a name of its own."""
        self.manifest["metadata"]["name"] += f"-{uuid.uuid4().hex[:8]}"
        return from_api_content(self.manifest, "V1Job")

    def stop_earlier_tries(self) -> None:
        """Remove the Jobs of earlier tries, then their pods as `TrainInPod` does."""
        self._remove_jobs()
        super().stop_earlier_tries()

    def _remove_jobs(self) -> None:
        jobs = self.job_client.list_namespaced_job(self.namespace, label_selector=self.training_selector).items
        for job in jobs:
            with _ignoring_not_found():
                self.job_client.delete_namespaced_job(
                    job.metadata.name, self.namespace, propagation_policy=self.on_kill_propagation_policy
                )

    def _wait_for_job(self) -> None:
        """Return once the Job is complete; its pods' lines go to the log as they come. Raises the cause of its failure."""
        assert self.namespace is not None and self.job is not None
        logs, name = PodLogs(self.client, self.namespace), self.job.metadata.name
        endings: dict[str, PodEnding] = {}
        while True:
            pods = self.training_pods()
            for line in logs.new_lines(pods):
                self.log.info("%s", line)
            endings |= {pod.metadata.name: pod_ending(_as_api_content(pod)) for pod in pods}
            with _ignoring_not_found(instead=PodLost(f"job {name} is no longer there")):
                status = self.job_client.read_namespaced_job_status(name, self.namespace).status
            conditions = {c.type: c for c in status.conditions or [] if c.status == "True"}
            if "Complete" in conditions:
                return
            if "Failed" in conditions:
                raise _job_error(conditions["Failed"], list(endings.values()))
            time.sleep(self.job_poll_interval)


def _job_error(failed: kube.V1JobCondition, endings: list[PodEnding]) -> Exception:
    """Return why a Job failed: the end of a pod that no retry can change, where there is one."""
    if failed.reason == "DeadlineExceeded":
        return TookTooLong(f"the Job was at work longer than training.timeout: {failed.message}")
    failures = [e for e in endings if e.cause not in (PodCause.SUCCEEDED, PodCause.RUNNING)]
    final = [e for e in failures if isinstance(e.error, UserMistake)]
    other = Unavailable(f"the Job failed ({failed.reason}): {failed.message}")
    return next((e.error for e in [*final, *failures]), other)


@contextmanager
def _ignoring_not_found(instead: Exception | None = None) -> Iterator[None]:
    """Ignore that an object is gone, or raise `instead` where it should have been there."""
    try:
        yield
    except kube.ApiException as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        if instead:
            raise instead from None


def _as_api_content(pod: kube.V1Pod) -> dict[str, Any]:
    """Return the pod with the API's own names."""
    return dict(kube.ApiClient().sanitize_for_serialization(pod))


def from_api_content(content: dict[str, Any], kind: str) -> Any:
    """Return an object with the API's own names as one of the client's class `kind`."""
    return kube.ApiClient().deserialize(SimpleNamespace(data=json.dumps(content)), kind)
