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


class Cause(StrEnum):
    DONE = "done"
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


ERRORS: Mapping[Cause, type[PerennialError]] = {
    Cause.OUT_OF_MEMORY: OutOfMemory, Cause.DEADLINE: TookTooLong, Cause.MISTAKE: UserMistake,
    Cause.EVICTED: PodLost, Cause.PREEMPTED: PodLost, Cause.NODE_LOST: PodLost, Cause.GONE: PodLost,
    Cause.STOPPED: PodLost, Cause.NO_IMAGE: NotStarted, Cause.UNSCHEDULABLE: NotStarted,
    Cause.RUNNING: Unavailable, Cause.FAILED: Unavailable,
}  # fmt: skip
#: What a disruption's reason means (the pod's condition DisruptionTarget).
DISRUPTIONS = {
    "PreemptionByScheduler": Cause.PREEMPTED, "DeletionByTaintManager": Cause.NODE_LOST, "DeletionByPodGC": Cause.NODE_LOST,
    "EvictionByEvictionAPI": Cause.EVICTED, "TerminationByKubelet": Cause.EVICTED,
}  # fmt: skip
#: What a failed pod's own reason means, where its node or the kubelet gave one.
REASONS = {
    "DeadlineExceeded": Cause.DEADLINE, "Evicted": Cause.EVICTED, "Preempting": Cause.PREEMPTED,
    "NodeLost": Cause.NODE_LOST, "NodeShutdown": Cause.NODE_LOST, "Shutdown": Cause.NODE_LOST, "Terminated": Cause.NODE_LOST,
    "NodeAffinity": Cause.EVICTED, "UnexpectedAdmissionError": Cause.EVICTED, "OutOfcpu": Cause.EVICTED,
    "OutOfmemory": Cause.EVICTED, "OutOfpods": Cause.EVICTED,
}  # fmt: skip
NO_IMAGE = {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}


@dataclass(frozen=True)
class Ending:
    """How a pod ended, in a sentence for people."""

    pod: str
    cause: Cause
    sentence: str

    @property
    def error(self) -> PerennialError:
        """Raised, it is retried or not as the cause deserves."""
        return ERRORS[self.cause](f"pod {self.pod}: {self.cause}: {self.sentence}")


def ending(pod: Mapping[str, Any] | None, name: str = "", *, overdue: bool = False) -> Ending:
    """From the pod as the API shows it (`metadata`, `status`), None when it is gone; `overdue` when it was waited for long
    enough.

    The more certain sign comes first: the kernel's kill for memory has the exit code of any other SIGKILL, and a pod that
    had to go may still end with the trainer's own code.
    """
    if pod is None:
        return Ending(name, Cause.GONE, "it is no longer there, and its log neither; the checkpoint in storage is")
    cause, sentence = next(_signs(pod.get("status") or {}))
    if overdue and cause is Cause.RUNNING and pod["status"]["phase"] == "Running":
        cause, sentence = Cause.DEADLINE, "raise training.timeout"
    return Ending(pod["metadata"]["name"], cause, sentence)


def _signs(status: Mapping[str, Any]) -> Iterator[tuple[Cause, str]]:
    state = _state(status)
    ended, waits = state.get("terminated") or {}, state.get("waiting") or {}
    code, last = ended.get("exitCode"), _last_line(ended.get("message"))
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    reason, message = status.get("reason"), status.get("message") or ""
    if code == ExitCode.SUCCESS:
        yield Cause.DONE, "it ended well"
    if ended.get("reason") == "OOMKilled":
        yield Cause.OUT_OF_MEMORY, "raise training.kubernetes.memory, or lower training.batch_size"
    if reason == "DeadlineExceeded":
        yield Cause.DEADLINE, "raise training.timeout"
    disruption = conditions.get("DisruptionTarget", {})
    if disruption.get("status") == "True":
        yield DISRUPTIONS.get(disruption["reason"], Cause.EVICTED), disruption.get("message") or disruption["reason"]
    if reason in REASONS:
        yield REASONS[reason], message or reason
    if code == ExitCode.USER_MISTAKE:
        yield Cause.MISTAKE, last
    if code == ExitCode.STOPPED:
        yield Cause.STOPPED, last
    if code is not None:
        yield Cause.FAILED, f"exit code {code} ({ended.get('reason')}): {last}"
    if waits.get("reason") in NO_IMAGE:
        yield Cause.NO_IMAGE, f"{waits['reason']}: {waits.get('message') or ''}".rstrip(": ")
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("reason") == "Unschedulable":
        yield Cause.UNSCHEDULABLE, scheduled.get("message") or "no node takes it"
    if status.get("phase") in ("Pending", "Running"):
        yield Cause.RUNNING, f"it is {status['phase'].lower()} {waits.get('reason') or ''}".rstrip()
    yield Cause.FAILED, message or f"phase {status.get('phase')}"


def _state(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for container in status.get("containerStatuses") or []:
        if container["name"] == CONTAINER:
            return dict(container.get("state") or {})
    return {}


def _last_line(message: str | None) -> str:
    lines = (message or "").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
