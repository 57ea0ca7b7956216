"""The operators that train on a cluster, against a fake of its API: what they ask for, and what each end becomes."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred
from kubernetes import client as kube

from include.adapters.kubernetes import Cluster
from include.adapters.routers.gateway_api import GatewayApiRouter
from include.adapters.routers.replicas import ReplicasRouter
from include.adapters.training.pods import TrainingManifests
from include.domain.errors import Unavailable, UserMistake
from include.domain.training.pods import TRAINING_LABEL, NotStarted, OutOfMemory, PodLost, TookTooLong
from include.ports.traffic import Routes
from include.settings import ROOT, Settings, from_env
from plugins import kubernetes_operators
from plugins.pod_logs import PodLogs
from plugins.tasks import train as tasks
from tests.kubernetes_api import FakeKubernetes, serving
from tests.kustomize import render
from tests.unit.toy import toy

STATUSES = Path(__file__).parents[1] / "unit" / "training" / "pods"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    fake = FakeKubernetes()
    with serving(fake, tmp_path / "kubeconfig"):
        monkeypatch.setenv("PERENNIAL_KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield fake


def one_pod(**kubernetes: Any) -> kubernetes_operators.TrainInPod:
    operator = kubernetes_operators.training_operator(
        toy(training={"kubernetes": kubernetes}), {"uri": "u", "digest": "d"}
    )
    assert isinstance(operator, kubernetes_operators.TrainInPod)
    return operator


def remote(name: str) -> kube.V1Pod:
    content = json.loads((STATUSES / f"{name}.json").read_text())
    return kubernetes_operators.from_api_content(
        {**content, "spec": {"containers": [{"name": "base", "image": "trainer"}]}}, "V1Pod"
    )


def test_several_nodes_are_an_indexed_job_and_baselines_need_one_pod() -> None:
    spec = toy(training={"kubernetes": {"nodes": 2}})
    assert isinstance(kubernetes_operators.training_operator(spec, {}), kubernetes_operators.TrainInJob)
    assert isinstance(kubernetes_operators.training_operator(spec, {}, baselines=True), kubernetes_operators.TrainInPod)
    assert isinstance(
        kubernetes_operators.training_operator(
            toy(model={"family": "lightgbm"}, training={"kubernetes": {"nodes": 2}}), {}
        ),
        kubernetes_operators.TrainInPod,
    )


def test_a_setting_moves_training_to_the_cluster_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_LAUNCHER", "kubernetes")
    spec = toy()
    with DAG("toy.train"):
        dataset = tasks.assemble(spec.name, {})
        trained, compared = tasks.train(spec, dataset), tasks.train_baselines(spec, dataset)
    assert isinstance(trained.operator, kubernetes_operators.TrainInPod)
    assert [x.operator.task_id for x in (trained, compared)] == ["train", "baselines"]
    assert trained.operator.upstream_task_ids == {"features"}


def test_the_operator_takes_its_patience_and_retries_from_the_spec() -> None:
    operator = one_pod(schedule_timeout="PT10M", grace="PT90S", retries=7)
    assert (operator.schedule_timeout_seconds, operator.startup_timeout_seconds) == (600, 600)
    assert (operator.termination_grace_period, operator.retries) == (90, 7)
    assert operator.deferrable
    assert operator.logging_interval
    assert operator.on_finish_action.value == "delete_pod"
    assert not operator.do_xcom_push


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("evicted", PodLost),
        ("preempted", PodLost),
        ("node_lost", PodLost),
        ("stopped", PodLost),
        ("out_of_memory", OutOfMemory),
        ("mistake", UserMistake),
        ("deadline", TookTooLong),
        ("unschedulable", NotStarted),
        ("image_pull_back_off", NotStarted),
        ("failed", Unavailable),
    ],
)
def test_each_end_of_a_pod_becomes_its_error_and_the_pod_is_removed(
    fake: FakeKubernetes, status: str, error: type
) -> None:
    pod = remote(status)
    pod.metadata.namespace = "perennial"
    fake.put("pods", {"metadata": {"name": pod.metadata.name}})
    with pytest.raises(error) as raised:
        one_pod().cleanup(pod, pod)
    assert type(raised.value) is error
    assert not fake.objects


def test_a_pod_that_is_gone_when_the_task_comes_back_counts_as_lost(fake: FakeKubernetes) -> None:
    event = {"status": "error", "name": "train-toy-1", "namespace": "perennial", "message": "Not Found"}
    with pytest.raises(PodLost, match="train-toy-1: gone"):
        one_pod().trigger_reentry({}, event)


def test_a_kubeconfig_of_the_environment_does_not_reach_the_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    operator = one_pod()
    operator.convert_config_file_to_dict()
    assert operator._config_dict is None
    assert operator.in_cluster


def test_what_an_earlier_try_left_is_stopped_before_another_begins(fake: FakeKubernetes) -> None:
    operator = one_pod()
    operator.training = "mine"
    for name, training in (("left", "mine"), ("failed-and-kept", "mine"), ("of-another", "other")):
        fake.put("pods", {"metadata": {"name": name, "labels": {TRAINING_LABEL: training}}})
    operator.stop_earlier_tries()
    assert [name for _, name in fake.objects] == ["of-another"]


def test_a_pod_of_an_earlier_try_that_does_not_end_is_waited_for_and_named(fake: FakeKubernetes) -> None:
    operator = one_pod(grace="PT0S")
    operator.training, operator.removal_seconds = "mine", 0.0
    fake.finalizers.add("stuck")
    fake.put("pods", {"metadata": {"name": "stuck", "labels": {TRAINING_LABEL: "mine"}}})
    with pytest.raises(Unavailable, match="pod stuck of an earlier try does not end"):
        operator.stop_earlier_tries()


def a_job(fake: FakeKubernetes) -> kubernetes_operators.TrainInJob:
    operator = kubernetes_operators.training_operator(toy(training={"kubernetes": {"nodes": 2}}), {})
    assert isinstance(operator, kubernetes_operators.TrainInJob)
    operator.training, operator.job_poll_interval = "mine", 0.01
    spec = toy(training={"kubernetes": {"nodes": 2}})
    operator.manifest = TrainingManifests(Settings()).job(spec, [Path("job.json")], "mine")
    operator.job = operator.build_job_request_obj()
    operator.hook.create_job(operator.job)
    return operator


def test_each_line_of_every_nodes_log_comes_once(fake: FakeKubernetes) -> None:
    operator = a_job(fake)
    for name in ("train-0", "train-1"):
        fake.put("pods", {"metadata": {"name": name, "labels": {TRAINING_LABEL: "mine"}}})
    logs = PodLogs(operator.client, "perennial")
    assert not list(logs.new_lines(operator.training_pods()))
    fake.logs["train-0"] = "2026-11-24T11:55:46.953062242Z epoch 1/2 für alle\n"
    assert list(logs.new_lines(operator.training_pods())) == ["[train-0] epoch 1/2 für alle"]
    fake.logs["train-0"] += "2026-11-24T11:55:47.953062242Z epoch 2/2\n"
    fake.logs["train-1"] = "2026-11-24T11:55:46.000000001Z joined\n"
    assert list(logs.new_lines(operator.training_pods())) == ["[train-0] epoch 2/2", "[train-1] joined"]


def end(fake: FakeKubernetes, *statuses: str, condition: str, reason: str = "") -> None:
    """As the kubelets and the Job's controller would report it."""
    for number, status in enumerate(statuses):
        content = json.loads((STATUSES / f"{status}.json").read_text())
        fake.put(
            "pods",
            {"metadata": {"name": f"train-{number}", "labels": {TRAINING_LABEL: "mine"}}, "status": content["status"]},
        )
    (job,) = [thing for (plural, _), thing in fake.objects.items() if plural == "jobs"]
    job["status"] = {"conditions": [{"type": condition, "status": "True", "reason": reason}]}


def test_a_job_is_done_when_all_its_nodes_are(fake: FakeKubernetes) -> None:
    operator = a_job(fake)
    end(fake, "done", "done", condition="Complete")
    operator._wait_for_job()


@pytest.mark.parametrize(
    ("statuses", "reason", "error"),
    [
        (("stopped", "out_of_memory"), "PodFailurePolicy", OutOfMemory),
        (("failed", "failed"), "FailedIndexes", Unavailable),
        (("done", "mistake"), "PodFailurePolicy", UserMistake),
        (("stopped", "stopped"), "DeadlineExceeded", TookTooLong),
    ],
)
def test_a_job_fails_by_the_pod_that_no_retry_mends(
    fake: FakeKubernetes, statuses: tuple[str, ...], reason: str, error: type
) -> None:
    operator = a_job(fake)
    end(fake, *statuses, condition="Failed", reason=reason)
    with pytest.raises(error) as raised:
        operator._wait_for_job()
    assert type(raised.value) is error


def test_a_job_that_somebody_removed_counts_as_lost(fake: FakeKubernetes) -> None:
    operator = a_job(fake)
    fake.objects.clear()
    with pytest.raises(PodLost, match="no longer there"):
        operator._wait_for_job()


def test_an_ended_or_stopped_task_leaves_no_job(fake: FakeKubernetes) -> None:
    operator = a_job(fake)
    operator.stop_earlier_tries()
    assert not fake.objects


def test_the_roles_allow_what_is_called_and_no_more(fake: FakeKubernetes) -> None:
    """Every call of the operators and the routers, against the Roles of the manifests."""
    _train_in_a_pod(fake)
    job = a_job(fake)
    end(fake, "done", "done", condition="Complete")
    job._wait_for_job()
    job.stop_earlier_tries()
    _split_traffic(fake)
    roles = [t for t in render(ROOT / "include/manifests/overlays/cpu") if t["kind"] in ("Role", "ClusterRole")]
    rules = [rule for role in roles for rule in role["rules"]]
    allowed = {
        call for rule in rules for call in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }
    assert fake.calls == allowed


def _train_in_a_pod(fake: FakeKubernetes) -> None:
    """The provider's calls in the order of a pod's life; the trigger watches the pod's events besides."""
    operator = one_pod()
    operator.training = "mine"
    operator.pod_template_dict = TrainingManifests(Settings()).pod(toy(), [Path("job.json")], "mine")
    request = operator.build_pod_request_obj()
    operator.get_or_create_pod(request, {})
    name = request.metadata.name
    fake.put("events", {"metadata": {"name": "scheduled", "resourceVersion": "1"}, "involvedObject": {"name": name}})
    operator.pod = request
    asyncio.run(_watch_until_it_ends(fake, operator))
    fake.objects["pods", name]["status"] = json.loads((STATUSES / "failed.json").read_text())["status"]
    pod = operator.hook.get_pod(name, "perennial")
    operator._read_pod_events(pod, reraise=False)
    operator._write_logs(pod)
    operator.patch_already_checked(pod)
    with pytest.raises(Unavailable):
        operator.cleanup(pod, pod)
    assert not operator.training_pods()


async def _watch_until_it_ends(fake: FakeKubernetes, operator: kubernetes_operators.TrainInPod) -> None:
    assert operator.pod
    name = operator.pod.metadata.name
    with pytest.raises(TaskDeferred) as deferred:
        operator.invoke_defer_method()
    async for _ in deferred.value.trigger.hook.watch_pod_events(name, "perennial"):
        fake.objects["pods", name]["status"] = {"phase": "Failed"}


def _split_traffic(fake: FakeKubernetes) -> None:
    fake.put("httproutes", {"metadata": {"name": "toy"}, "spec": {"parentRefs": [{"name": "perennial"}]}})
    fake.put("gateways", {"metadata": {"name": "perennial"}, "spec": {"gatewayClassName": "plain"}})
    fake.put("gatewayclasses", {"metadata": {"name": "plain"}})
    fake.put("services", {"metadata": {"name": "toy"}, "spec": {"selector": {}}})
    for slot, count in (("stable", 9), ("canary", 1)):
        fake.put("deployments", {"metadata": {"name": f"toy-{slot}"}, "spec": {"replicas": count}})
    cluster = Cluster("perennial", from_env().kubeconfig)
    with pytest.raises(Unavailable, match="no Gateway took it"):
        GatewayApiRouter(cluster, patience=0).apply("toy", Routes(10))
    with pytest.raises(UserMistake, match="does not say that it copies requests"):
        GatewayApiRouter(cluster).apply("toy", Routes(mirror=True))
    with pytest.raises(Unavailable, match="pods are ready"):
        ReplicasRouter(cluster, patience=0).apply("toy", Routes(50))
    ReplicasRouter(cluster).apply("toy", Routes(0))
    ReplicasRouter(cluster).current("toy")
