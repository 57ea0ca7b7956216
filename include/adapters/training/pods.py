"""The pods of a training as Kubernetes takes them: one pod, or an Indexed Job of one pod a node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.adapters.kubernetes import CONTAINER_SECURITY, POD_SECURITY, name_of
from include.domain.training.exit_codes import ExitCode
from include.domain.training.pods import CONTAINER, TRAINING_LABEL, Pods
from include.settings import Settings
from include.spec.model_spec import ModelSpec

#: The headless Service of all trainings; its name is the pods' subdomain, so that they find each other before they are ready.
SUBDOMAIN = "perennial-training"
SERVICE_ACCOUNT = "perennial-trainer"
#: Keys and address of the storage, by reference; without one the pod has what its service account is given.
STORAGE_SECRET = "perennial-storage"
#: The volume that all machines share where storage is no bucket.
HOME_CLAIM = "perennial-home"
#: Tries of one node whose trainer failed; a lost node does not count.
TRIES = 3
#: Seconds after which a finished Job is removed with its pods.
SECONDS_AFTER_FINISHED = 600
#: The exit code of a process that the kernel killed for its memory.
OUT_OF_MEMORY = 137
PROGRAM = ("python", "-m", "include.entrypoints.training_pod")


@dataclass(frozen=True)
class TrainingManifests:
    """Makes the manifests of trainings; `training` is the label by which all pods of one training are found."""

    settings: Settings

    def pod(self, spec: ModelSpec, jobs: Sequence[Path], training: str) -> dict[str, Any]:
        """Return the pod that trains these jobs one after another."""
        return self._pod(spec, training, [*PROGRAM, *_arguments(spec, jobs)], [])

    def job(self, spec: ModelSpec, jobs: Sequence[Path], training: str) -> dict[str, Any]:
        """Return the Job of one pod a node: a node that is lost or stopped is replaced without end, a mistake ends all."""
        nodes = spec.training.kubernetes.nodes
        # Kubernetes fills in $(NAME) from the variables of the pod.
        rendezvous = ["--node=$(JOB_COMPLETION_INDEX)", f"--nodes={nodes}", f"--master=$(JOB_NAME)-0.{SUBDOMAIN}"]
        variables = [
            _variable("JOB_NAME", "batch.kubernetes.io/job-name"),
            _variable("JOB_COMPLETION_INDEX", "batch.kubernetes.io/job-completion-index"),
        ]
        template = self._pod(spec, training, [*PROGRAM, *_arguments(spec, jobs), *rendezvous], variables)
        template["spec"]["subdomain"] = SUBDOMAIN
        deadline = template["spec"].pop("activeDeadlineSeconds")
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": template["metadata"],
            "spec": {
                "completionMode": "Indexed",
                "completions": nodes,
                "parallelism": nodes,
                "backoffLimitPerIndex": TRIES,
                "maxFailedIndexes": 0,
                "activeDeadlineSeconds": deadline,
                "ttlSecondsAfterFinished": SECONDS_AFTER_FINISHED,
                "podFailurePolicy": {"rules": _failure_rules()},
                "template": {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]},
            },
        }

    def _pod(
        self, spec: ModelSpec, training: str, command: list[str], variables: list[dict[str, Any]]
    ) -> dict[str, Any]:
        pods, name = spec.training.kubernetes, name_of(spec.name)
        labels = {
            "app.kubernetes.io/name": "perennial-trainer",
            "app.kubernetes.io/part-of": "perennial",
            "perennial.dev/model": name,
            TRAINING_LABEL: training,
        }
        content: dict[str, Any] = {
            "restartPolicy": "Never",
            "serviceAccountName": SERVICE_ACCOUNT,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {**POD_SECURITY},
            "terminationGracePeriodSeconds": int(pods.grace.total_seconds()),
            "activeDeadlineSeconds": int(spec.training.timeout.total_seconds()),
            "containers": [self._container(pods, command, variables)],
            "volumes": self._volumes(pods),
            "nodeSelector": _node_labels(pods),
            "tolerations": [dict(toleration) for toleration in pods.tolerations],
        }
        if pods.priority_class:
            content["priorityClassName"] = pods.priority_class
        metadata = {"name": f"train-{name}", "namespace": self.settings.namespace, "labels": labels}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": content}

    def _container(self, pods: Pods, command: list[str], variables: list[dict[str, Any]]) -> dict[str, Any]:
        limits = {"memory": pods.memory, **({pods.gpu_resource: str(pods.gpus)} if pods.gpus else {})}
        home = str(self.settings.home)
        return {
            "name": CONTAINER,
            "image": self.settings.trainer_image,
            "imagePullPolicy": self.settings.pull_policy,
            "command": command,
            "env": [
                {"name": "PERENNIAL_HOME", "value": home},
                {"name": "PERENNIAL_STORAGE", "value": self.settings.storage},
                *variables,
            ],
            "envFrom": [{"secretRef": {"name": STORAGE_SECRET, "optional": True}}],
            "resources": {"requests": {"cpu": pods.cpu, **limits}, "limits": limits},
            "securityContext": {**CONTAINER_SECURITY, "readOnlyRootFilesystem": True},
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {"name": "home", "mountPath": home},
                {"name": "shm", "mountPath": "/dev/shm"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }

    def _volumes(self, pods: Pods) -> list[dict[str, Any]]:
        claim = {"persistentVolumeClaim": {"claimName": HOME_CLAIM}}
        return [
            {"name": "home", **({"emptyDir": {}} if self.settings.storage else claim)},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": pods.shared_memory}},
            {"name": "tmp", "emptyDir": {}},
        ]


def _failure_rules() -> list[dict[str, Any]]:
    """Return the Job's podFailurePolicy: what ends it, and what does not count as a try of its node."""

    def on_codes(action: str, *codes: int) -> dict[str, Any]:
        values = [int(code) for code in codes]
        return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": values}}

    lost = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return [lost, on_codes("Ignore", ExitCode.STOPPED), on_codes("FailJob", ExitCode.USER_MISTAKE, OUT_OF_MEMORY)]


def _arguments(spec: ModelSpec, jobs: Sequence[Path]) -> list[str]:
    processes = spec.training.kubernetes.gpus or spec.training.processes
    return [*(str(job) for job in jobs), f"--processes={processes}"]


def _variable(name: str, label: str) -> dict[str, Any]:
    """Return an environment variable that Kubernetes fills with the pod's value of the label."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{label}']"}}}


def _node_labels(pods: Pods) -> Mapping[str, str]:
    gpu_type = {"nvidia.com/gpu.product": pods.gpu_type} if pods.gpu_type else {}
    return {**gpu_type, **pods.node_selector}
