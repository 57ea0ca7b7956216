"""The pods of a training as Kubernetes takes them: one pod, or an Indexed Job of one pod a node."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from include.adapters.kubernetes import CONTAINER_SECURITY, POD_SECURITY, name_of
from include.domain.training.exit_codes import ExitCode
from include.domain.training.pods import CONTAINER, Pods
from include.settings import Settings
from include.spec.model_spec import ModelSpec

#: The headless Service of all trainings; its name is the pods' subdomain, so that they find each other before they are ready.
SUBDOMAIN = "perennial-training"
SERVICE_ACCOUNT = "perennial-trainer"
#: Keys and address of the storage, by reference; without one the pod has what its service account is given.
STORAGE_SECRET = "perennial-storage"
#: The volume that all machines share where storage is no bucket.
HOME_CLAIM = "perennial-home"
#: What the trainer must not exceed: another pod of the same training is found and removed by this label.
TRAINING = "perennial.dev/training"
#: Tries of one node whose trainer failed; a lost node does not count.
TRIES = 3
#: Seconds after which a finished Job is removed with its pods.
KEPT = 600
OUT_OF_MEMORY = 137
#: What a training's pod runs.
PROGRAM = ("python", "-m", "include.entrypoints.training_pod")


def pod(spec: ModelSpec, jobs: Sequence[Path], settings: Settings, training: str) -> dict[str, Any]:
    """The pod that trains these jobs one after another."""
    return _pod(spec, settings, training, [*PROGRAM, *_arguments(spec, jobs)], [])


def job(spec: ModelSpec, jobs: Sequence[Path], settings: Settings, training: str) -> dict[str, Any]:
    """One pod a node. A node that is lost or was stopped is replaced without end, a mistake ends all at once."""
    nodes = spec.training.kubernetes.nodes
    # Kubernetes fills in $(NAME) from the variables of the pod.
    meeting = ["--node=$(JOB_COMPLETION_INDEX)", f"--nodes={nodes}", f"--master=$(JOB_NAME)-0.{SUBDOMAIN}"]
    label = {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}
    index = {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"}}
    variables = [{"name": "JOB_NAME", "valueFrom": label}, {"name": "JOB_COMPLETION_INDEX", "valueFrom": index}]
    template = _pod(
        spec,
        settings,
        training,
        ["python", "-m", "include.entrypoints.training_pod", *_arguments(spec, jobs), *meeting],
        variables,
    )
    template["spec"]["subdomain"] = SUBDOMAIN
    deadline = template["spec"].pop("activeDeadlineSeconds")
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": template["metadata"],
        "spec": {
            "completionMode": "Indexed", "completions": nodes, "parallelism": nodes, "backoffLimitPerIndex": TRIES,
            "maxFailedIndexes": 0, "activeDeadlineSeconds": deadline, "ttlSecondsAfterFinished": KEPT,
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]},
        },
    }  # fmt: skip


def _failure_rules() -> list[dict[str, Any]]:
    def on(action: str, *codes: int) -> dict[str, Any]:
        values = [int(code) for code in codes]
        return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": values}}

    lost = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return [lost, on("Ignore", ExitCode.STOPPED), on("FailJob", ExitCode.USER_MISTAKE, OUT_OF_MEMORY)]


def _arguments(spec: ModelSpec, jobs: Sequence[Path]) -> list[str]:
    asked = spec.training.kubernetes
    return [*(str(job) for job in jobs), f"--processes={asked.gpus or spec.training.processes}"]


def _pod(
    spec: ModelSpec, settings: Settings, training: str, command: list[str], variables: list[dict[str, Any]]
) -> dict[str, Any]:
    asked, name = spec.training.kubernetes, name_of(spec.name)
    labels = {
        "app.kubernetes.io/name": "perennial-trainer", "app.kubernetes.io/part-of": "perennial",
        "perennial.dev/model": name, TRAINING: training,
    }  # fmt: skip
    own: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {**POD_SECURITY},
        "terminationGracePeriodSeconds": int(asked.grace.total_seconds()),
        "activeDeadlineSeconds": int(spec.training.timeout.total_seconds()),
        "containers": [_container(asked, settings, command, variables)],
        "volumes": [_home(settings), {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": asked.shared_memory}},
                    {"name": "tmp", "emptyDir": {}}],
        "nodeSelector": _nodes(asked),
        "tolerations": [dict(each) for each in asked.tolerations],
    }  # fmt: skip
    if asked.priority_class:
        own["priorityClassName"] = asked.priority_class
    metadata = {"name": f"train-{name}", "namespace": settings.namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": own}


def _container(
    asked: Pods, settings: Settings, command: list[str], variables: list[dict[str, Any]]
) -> dict[str, Any]:  # fmt: skip
    limits = {"memory": asked.memory, **({asked.gpu_resource: str(asked.gpus)} if asked.gpus else {})}
    home = {"name": "PERENNIAL_HOME", "value": str(settings.home)}
    return {
        "name": CONTAINER,
        "image": settings.trainer_image,
        "imagePullPolicy": settings.pull_policy,
        "command": command,
        "env": [home, {"name": "PERENNIAL_STORAGE", "value": settings.storage}, *variables],
        "envFrom": [{"secretRef": {"name": STORAGE_SECRET, "optional": True}}],
        "resources": {"requests": {"cpu": asked.cpu, **limits}, "limits": limits},
        "securityContext": {**CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "home", "mountPath": str(settings.home)}, {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }  # fmt: skip


def _home(settings: Settings) -> dict[str, Any]:
    if settings.storage:
        return {"name": "home", "emptyDir": {}}
    return {"name": "home", "persistentVolumeClaim": {"claimName": HOME_CLAIM}}


def _nodes(asked: Pods) -> Mapping[str, str]:
    wanted = {"nvidia.com/gpu.product": asked.gpu_type} if asked.gpu_type else {}
    return {**wanted, **asked.node_selector}
