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
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodNotFoundException
from airflow.sdk.exceptions import AirflowException
from kubernetes import client as kube

from include.adapters.kubernetes import NOT_FOUND
from include.adapters.training import pods as training_pods
from include.artifacts.store import Reference
from include.domain.errors import Unavailable, UserMistake
from include.domain.training.families import FAMILIES, FamilyName
from include.domain.training.pods import Cause, Ending, PodLost, TookTooLong, ending
from include.settings import from_env
from include.spec.model_spec import ModelSpec
from include.stages.training import training
from plugins.pod_logs import PodLogs
from plugins.run import open_model, run_name, synced_run_folder, training_request, training_run

#: Seconds between looks at a Job, its pods and their logs.
LOOK = 3.0


def operator(spec: ModelSpec, dataset: Any, *, baselines: bool = False) -> "TrainInPod | TrainInJob":
    """The task `train`, or `baselines`, on the cluster: baselines and trees need no second node."""
    asked, settings = spec.training.kubernetes, from_env()
    several = asked.nodes > 1 and not baselines and FAMILIES[spec.model.family].runs_on_several_processes
    wait = int(asked.schedule_timeout.total_seconds())
    own: dict[str, Any] = {"deferrable": False, "job_poll_interval": LOOK} if several else {
        "deferrable": True, "logging_interval": 10, "on_finish_action": "delete_pod"}  # fmt: skip
    return (TrainInJob if several else TrainInPod)(
        task_id="baselines" if baselines else "train",
        model=spec.name,
        baselines=baselines,
        dataset=dataset,
        pool="training",
        execution_timeout=spec.training.timeout,
        retries=asked.retries,
        kubernetes_conn_id=None,
        config_file=settings.kubeconfig or None,
        in_cluster=not settings.kubeconfig,
        namespace=settings.namespace,
        durable=False,
        do_xcom_push=False,
        log_pod_spec_on_failure=False,
        termination_message_policy="FallbackToLogsOnError",
        schedule_timeout_seconds=wait,
        startup_timeout_seconds=wait,
        termination_grace_period=int(asked.grace.total_seconds()),
        **own,
    )


class _Trains(KubernetesPodOperator):
    """What both operators share: the jobs to be trained, what they came to, and that no two trainings run."""

    template_fields = (*KubernetesPodOperator.template_fields, "dataset")
    slack, look = 60.0, 1.0  #: seconds: after its grace until a pod is gone; between looks whether it is

    def __init__(self, *, model: str, baselines: bool, dataset: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model, self.baselines, self.dataset = model, baselines, dataset
        self.training = ""  #: the label of all its pods, whichever try began them; known once the run is

    def convert_config_file_to_dict(self) -> None:
        """The operator's arguments alone name the cluster: a KUBECONFIG beside them would fail every trigger."""
        self._config_dict = None
        if self.config_file:
            super().convert_config_file_to_dict()

    def families(self, spec: ModelSpec) -> tuple[FamilyName, ...]:
        return spec.gates.baselines if self.baselines else (spec.model.family,)

    def begin(self, context: Any) -> list[Path]:
        """The job files that wait for a trainer, in storage; nothing of an earlier try is left running."""
        spec, parts = open_model(self.model)
        with synced_run_folder(spec, parts):
            run = training_run(spec, parts, self.dataset, warm_start=not self.baselines)
            job_files = [training.prepare(spec, run, family) for family in self.families(spec)]
        self.training = hashlib.sha256(f"{self.dag_id} {self.task_id} {run_name()}".encode()).hexdigest()[:40]
        self.sweep()
        return [job_file for job_file in job_files if job_file]

    def keep(self, context: Any) -> None:
        """Push the result's reference, or one a family for the baselines; note the challenger's hours."""
        spec, parts = open_model(self.model)
        with synced_run_folder(spec, parts) as folder:
            found = {f: training.result(spec, Reference(**self.dataset), folder / f) for f in self.families(spec)}
        if self.baselines:
            return context["ti"].xcom_push("return_value", {f: asdict(result) for f, result in found.items()})
        as_of = training_request().as_of
        training.record_hours(spec, [found[spec.model.family]], as_of, run_name(), parts.ledger())
        return context["ti"].xcom_push("return_value", asdict(found[spec.model.family]))

    def left(self) -> list[kube.V1Pod]:
        return list(
            self.client.list_namespaced_pod(
                self.namespace, label_selector=f"{training_pods.TRAINING}={self.training}"
            ).items
        )

    def sweep(self) -> None:
        """Stop what an earlier try left, and wait until it is gone. Raises Unavailable where it does not go."""
        grace = (self.termination_grace_period or 0) + self.slack
        deadline = time.monotonic() + grace
        told: set[str] = set()
        while pods := self.left():
            for name in {pod.metadata.name for pod in pods} - told:
                self.log.info("stopping pod %s of an earlier try", name)
                with _or_gone():
                    self.client.delete_namespaced_pod(name, self.namespace)
                told.add(name)
            if time.monotonic() > deadline:
                raise Unavailable(f"pod {pods[0].metadata.name} of an earlier try does not end within {grace:g} s")
            time.sleep(self.look)


class TrainInPod(_Trains):
    """One pod, waited for by a trigger."""

    _overdue = False

    def execute(self, context: Any) -> Any:
        if jobs := self.begin(context):
            spec, parts = open_model(self.model)
            self.pod_template_dict = training_pods.pod(spec, jobs, parts.settings, self.training)
            return super().execute(context)  # defers
        return self.keep(context)

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> Any:
        self._overdue = event["status"] == "timeout"
        try:
            super().trigger_reentry(context, event)
        except PodNotFoundException:
            raise ending(None, event["name"]).error from None
        except AirflowException as fault:
            if self.pod is None:  # it went between the trigger's last look and now
                raise PodLost(f"pod {event['name']}: {fault}") from None
            raise
        return self.keep(context)

    def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None) -> None:
        """Remove the pod; any end but a good one becomes the error of its cause."""
        if self._killed or not remote_pod:
            return
        ended = ending(_as_shown(remote_pod), overdue=self._overdue)
        self.process_pod_deletion(remote_pod, reraise=False)
        if ended.cause is not Cause.DONE:
            raise ended.error


class TrainInJob(_Trains, KubernetesJobOperator):
    """An Indexed Job, waited for by the task itself: a deferred one would leave its Job running when it is stopped."""

    template_fields = (*KubernetesJobOperator.template_fields, "dataset")

    def execute(self, context: Any) -> Any:
        if jobs := self.begin(context):
            spec, parts = open_model(self.model)
            self.wanted = training_pods.job(spec, jobs, parts.settings, self.training)
            try:
                super().execute(context)  # makes the Job and returns
                self._await()
            finally:
                self._remove_jobs()
        return self.keep(context)

    def build_job_request_obj(self, context: Any = None) -> kube.V1Job:
        self.wanted["metadata"]["name"] += f"-{uuid.uuid4().hex[:8]}"
        return _model(self.wanted, "V1Job")

    def sweep(self) -> None:
        self._remove_jobs()
        super().sweep()

    def _remove_jobs(self) -> None:
        for job in self.job_client.list_namespaced_job(
            self.namespace, label_selector=f"{training_pods.TRAINING}={self.training}"
        ).items:
            with _or_gone():
                self.job_client.delete_namespaced_job(
                    job.metadata.name, self.namespace, propagation_policy=self.on_kill_propagation_policy
                )

    def _await(self) -> None:
        """Return once the Job is complete, its pods' lines in the log as they come. Raises the cause of its failure."""
        logs = PodLogs(self.client, self.namespace)
        name = self.job.metadata.name
        endings: dict[str, Ending] = {}
        while True:
            pods = self.left()
            for line in logs.new(pods):
                self.log.info("%s", line)
            endings |= {pod.metadata.name: ending(_as_shown(pod)) for pod in pods}
            with _or_gone(PodLost(f"job {name} is no longer there")):
                status = self.job_client.read_namespaced_job_status(name, self.namespace).status
            met = {c.type: c for c in status.conditions or [] if c.status == "True"}
            if "Complete" in met:
                return
            if "Failed" in met:
                raise _why(met["Failed"], list(endings.values()))
            time.sleep(self.job_poll_interval)


def _why(failed: kube.V1JobCondition, endings: list[Ending]) -> Exception:
    """A Job fails by the pod whose end no retry can change, where there is one."""
    if failed.reason == "DeadlineExceeded":
        return TookTooLong(f"the Job was at work longer than training.timeout: {failed.message}")
    ended = [e for e in endings if e.cause not in (Cause.DONE, Cause.RUNNING)]
    final = [e for e in ended if isinstance(e.error, UserMistake)]
    return next((e.error for e in [*final, *ended]), Unavailable(f"the Job failed ({failed.reason}): {failed.message}"))


@contextmanager
def _or_gone(instead: Exception | None = None) -> Iterator[None]:
    """What is gone already need not be removed; `instead` is raised where it should have been there."""
    try:
        yield
    except kube.ApiException as fault:
        if fault.status != NOT_FOUND:
            raise
        if instead:
            raise instead from None


def _as_shown(pod: kube.V1Pod) -> dict[str, Any]:
    """The pod with the API's own names."""
    return dict(kube.ApiClient().sanitize_for_serialization(pod))


def _model(content: dict[str, Any], kind: str) -> Any:
    """Return the client's own model of an object; the client makes it of an answer, whose body is read as JSON."""
    return kube.ApiClient().deserialize(SimpleNamespace(data=json.dumps(content)), kind)
