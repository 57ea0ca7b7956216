"""What a training asks of a cluster, and what the end of one of its pods means: its cause, and whether it is retried."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from include.domain.bounds import SECTION, Duration, NonNegativeInt, PositiveDuration, PositiveInt
from include.domain.errors import PerennialError, Unavailable, UserMistake
from include.domain.training.exit_codes import ExitCode

#: The container that trains.
CONTAINER = "base"
#: All pods of one training have the same value of this label, whichever try started them.
TRAINING_LABEL = "perennial.dev/training"


@dataclass(frozen=True)
class Pods:
    """The `training.kubernetes` section. `gpus`, `cpu`, `memory` and `shared_memory` are each pod's.

    `nodes` pods train together. `gpu_type` is the node label `nvidia.com/gpu.product`. `grace` is how long a pod that must
    go has for its checkpoint, `schedule_timeout` how long a node may take to come. `retries` are those of a lost pod.
    """

    __pydantic_config__ = SECTION
    nodes: PositiveInt = 1
    gpus: NonNegativeInt = 0
    gpu_resource: str = "nvidia.com/gpu"
    gpu_type: str | None = None
    cpu: str = "2"
    memory: str = "8Gi"
    shared_memory: str = "2Gi"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    priority_class: str | None = None
    grace: Duration = timedelta(minutes=2)
    schedule_timeout: PositiveDuration = timedelta(minutes=30)
    retries: NonNegativeInt = 5


class PodLost(Unavailable):
    """The pod went before the training did: a new one goes on from the last checkpoint."""


class NotStarted(Unavailable):
    """The pod never ran: there was no node or no image for it. Worth another try, later."""


class OutOfMemory(UserMistake):
    """The training needs more memory than its pod may have; the next pod would end the same way."""


class TookTooLong(UserMistake):
    """The training passed its deadline."""


class PodCause(StrEnum):
    """Why a pod ended, or what state it is in."""

    SUCCEEDED = "done"
    OUT_OF_MEMORY = "out of memory"
    DEADLINE = "deadline"
    EVICTED = "evicted"
    PREEMPTED = "preempted"
    NODE_LOST = "node lost"
    GONE = "gone"
    STOPPED = "stopped"
    MISTAKE = "mistake"
    NO_IMAGE = "no image"
    UNSCHEDULABLE = "unschedulable"
    RUNNING = "running"
    FAILED = "failed"


ERRORS: Mapping[PodCause, type[PerennialError]] = {
    PodCause.OUT_OF_MEMORY: OutOfMemory,
    PodCause.DEADLINE: TookTooLong,
    PodCause.MISTAKE: UserMistake,
    PodCause.EVICTED: PodLost,
    PodCause.PREEMPTED: PodLost,
    PodCause.NODE_LOST: PodLost,
    PodCause.GONE: PodLost,
    PodCause.STOPPED: PodLost,
    PodCause.NO_IMAGE: NotStarted,
    PodCause.UNSCHEDULABLE: NotStarted,
    PodCause.RUNNING: Unavailable,
    PodCause.FAILED: Unavailable,
}
#: The causes by the reason of a pod's condition DisruptionTarget.
DISRUPTIONS = {
    "PreemptionByScheduler": PodCause.PREEMPTED,
    "DeletionByTaintManager": PodCause.NODE_LOST,
    "DeletionByPodGC": PodCause.NODE_LOST,
    "EvictionByEvictionAPI": PodCause.EVICTED,
    "TerminationByKubelet": PodCause.EVICTED,
}
#: The causes by a failed pod's own reason, where its node or the kubelet gave one.
REASONS = {
    "DeadlineExceeded": PodCause.DEADLINE,
    "Evicted": PodCause.EVICTED,
    "Preempting": PodCause.PREEMPTED,
    "NodeLost": PodCause.NODE_LOST,
    "NodeShutdown": PodCause.NODE_LOST,
    "Shutdown": PodCause.NODE_LOST,
    "Terminated": PodCause.NODE_LOST,
    "NodeAffinity": PodCause.EVICTED,
    "UnexpectedAdmissionError": PodCause.EVICTED,
    "OutOfcpu": PodCause.EVICTED,
    "OutOfmemory": PodCause.EVICTED,
    "OutOfpods": PodCause.EVICTED,
}
IMAGE_REASONS = {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}


@dataclass(frozen=True)
class PodEnding:
    """Why a pod ended, with a sentence for people."""

    pod: str
    cause: PodCause
    sentence: str

    @property
    def error(self) -> PerennialError:
        """The error of this cause, whose class decides whether it is retried."""
        return ERRORS[self.cause](f"pod {self.pod}: {self.cause}: {self.sentence}")


def pod_ending(pod: Mapping[str, Any] | None, name: str = "", *, overdue: bool = False) -> PodEnding:
    """Return why a pod ended, from the pod as the API shows it (`metadata`, `status`), None when it is gone.

    `overdue` says that it was waited for long enough. The more certain sign comes first: the kernel's kill for memory has the
    exit code of any other SIGKILL, and a pod that had to go may still end with the trainer's own code.
    """
    if pod is None:
        return PodEnding(
            name, PodCause.GONE, "it is no longer there, and its log neither; the checkpoint in storage is"
        )
    cause, sentence = next(_causes(pod.get("status") or {}))
    if overdue and cause is PodCause.RUNNING and pod["status"]["phase"] == "Running":
        cause, sentence = PodCause.DEADLINE, "raise training.timeout"
    return PodEnding(pod["metadata"]["name"], cause, sentence)


def _causes(status: Mapping[str, Any]) -> Iterator[tuple[PodCause, str]]:
    """Yield every cause that the status shows, with its sentence, the most certain first; there is one at least."""
    state = _container_state(status)
    terminated, waiting = state.get("terminated") or {}, state.get("waiting") or {}
    yield from _causes_of_disruption(status, terminated)
    yield from _causes_of_exit(terminated)
    if waiting.get("reason") in IMAGE_REASONS:
        yield PodCause.NO_IMAGE, f"{waiting['reason']}: {waiting.get('message') or ''}".rstrip(": ")
    scheduled = _conditions(status).get("PodScheduled", {})
    if scheduled.get("reason") == "Unschedulable":
        yield PodCause.UNSCHEDULABLE, scheduled.get("message") or "no node takes it"
    if status.get("phase") in ("Pending", "Running"):
        yield PodCause.RUNNING, f"it is {status['phase'].lower()} {waiting.get('reason') or ''}".rstrip()
    yield PodCause.FAILED, status.get("message") or f"phase {status.get('phase')}"


def _causes_of_disruption(status: Mapping[str, Any], terminated: Mapping[str, Any]) -> Iterator[tuple[PodCause, str]]:
    """Yield success, and what ended the pod from outside of the trainer."""
    reason, message = status.get("reason"), status.get("message") or ""
    if terminated.get("exitCode") == ExitCode.SUCCESS:
        yield PodCause.SUCCEEDED, "it ended well"
    if terminated.get("reason") == "OOMKilled":
        yield PodCause.OUT_OF_MEMORY, "raise training.kubernetes.memory, or lower training.batch_size"
    if reason == "DeadlineExceeded":
        yield PodCause.DEADLINE, "raise training.timeout"
    disruption = _conditions(status).get("DisruptionTarget", {})
    if disruption.get("status") == "True":
        sentence = disruption.get("message") or disruption["reason"]
        yield DISRUPTIONS.get(disruption["reason"], PodCause.EVICTED), sentence
    if reason in REASONS:
        yield REASONS[reason], message or reason


def _causes_of_exit(terminated: Mapping[str, Any]) -> Iterator[tuple[PodCause, str]]:
    """Yield what the trainer's own exit code says."""
    code, last_line = terminated.get("exitCode"), _last_line(terminated.get("message"))
    if code == ExitCode.USER_MISTAKE:
        yield PodCause.MISTAKE, last_line
    if code == ExitCode.STOPPED:
        yield PodCause.STOPPED, last_line
    if code is not None:
        yield PodCause.FAILED, f"exit code {code} ({terminated.get('reason')}): {last_line}"


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {condition["type"]: condition for condition in status.get("conditions") or []}


def _container_state(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for container in status.get("containerStatuses") or []:
        if container["name"] == CONTAINER:
            return dict(container.get("state") or {})
    return {}


def _last_line(message: str | None) -> str:
    lines = (message or "").strip().splitlines()
    return lines[-1].strip() if lines else "it printed nothing"
