"""Every way in which a training's pod ends, as the API shows it, becomes a cause, a sentence and a retry or none."""

import json
from pathlib import Path
from typing import Any

import pytest

from include.domain.errors import Unavailable, UserMistake
from include.domain.training.pods import NotStarted, OutOfMemory, PodCause, PodLost, TookTooLong, pod_ending

STATUSES = Path(__file__).with_name("pods")
ENDINGS = {
    "out_of_memory": (OutOfMemory, "out of memory: raise training.kubernetes.memory"),
    "evicted": (PodLost, "evicted: The node was low on resource"),
    "evicted_by_drain": (PodLost, "evicted: Eviction API"),
    "preempted": (PodLost, "preempted: .*higher priority"),
    "node_lost": (PodLost, "node lost: Taint manager"),
    "node_removed": (PodLost, "node lost: PodGC: node no longer exists"),
    "node_shutdown": (PodLost, "node lost: Pod was terminated in response to imminent node shutdown"),
    "image_pull_back_off": (NotStarted, 'no image: ImagePullBackOff: Back-off pulling image "perennial-trainer:9"'),
    "err_image_never_pull": (NotStarted, "no image: ErrImageNeverPull"),
    "unschedulable": (NotStarted, "unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu"),
    "deadline": (TookTooLong, "deadline: raise training.timeout"),
    "mistake": (UserMistake, "mistake: train: all 1000 labels of .* are 0; learning needs both$"),
    "stopped": (PodLost, "stopped: stopped after step 812 of 6400; a checkpoint is saved"),
    "failed": (Unavailable, "failed: exit code 1 .*: step 17: the loss is nan"),
    "segmentation_fault": (Unavailable, "failed: exit code 139"),
    "killed": (Unavailable, "failed: exit code 137"),
    "admission": (PodLost, "evicted: Allocate failed due to no healthy devices"),
    "starting": (Unavailable, "running: it is pending ContainerCreating"),
}


def status(name: str) -> dict[str, Any]:
    return dict(json.loads((STATUSES / f"{name}.json").read_text()))


@pytest.mark.parametrize("name", ENDINGS)
def test_the_cause_decides_the_error_and_says_what_happened(name: str) -> None:
    error, sentence = ENDINGS[name]
    raised = pod_ending(status(name)).error
    assert type(raised) is error
    with pytest.raises(error, match=f"pod train-flights-x7: {sentence}"):
        raise raised


def test_a_pod_that_is_gone_counts_as_lost_and_is_named() -> None:
    with pytest.raises(PodLost, match="pod train-flights-x7: gone"):
        raise pod_ending(None, "train-flights-x7").error


def test_a_pod_that_ended_well_did() -> None:
    assert pod_ending(status("done")).cause is PodCause.SUCCEEDED


def test_a_pod_still_at_work_after_its_time_took_too_long() -> None:
    late = {"metadata": {"name": "train"}, "status": {"phase": "Running"}}
    assert isinstance(pod_ending(late, overdue=True).error, TookTooLong)
    assert not isinstance(pod_ending(status("starting"), overdue=True).error, TookTooLong)


def test_every_recorded_status_is_judged() -> None:
    assert {path.stem for path in STATUSES.glob("*.json")} == {*ENDINGS, "done"}
