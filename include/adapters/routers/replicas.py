"""Router without a gateway: a Service spreads requests evenly over its pods, so a split is a number of pods of each slot.

That is coarse: with N pods the least share is 1/N, a key does not stay with one model, nothing can be mirrored, and the
stable slot does not stand in for a canary that fails. All or nothing needs no pod to start: the Service then selects
one slot alone, and each slot keeps a pod that holds its version.
"""

import time
from dataclasses import dataclass
from typing import Any

from include.adapters.kubernetes import Cluster, name_of
from include.domain.errors import Unavailable, UserMistake
from include.ports.traffic import Routes

#: Percent of the traffic by which the nearest number of pods may miss a share.
TOLERANCE = 5
#: The pod label by which the live Service selects a slot; a selector without it takes the pods of both.
SLOT_LABEL = "perennial.dev/slot"


@dataclass(frozen=True)
class ReplicasRouter:
    """Implements `ports.traffic.Router` on Deployments, whose pods may take `patience` seconds to get ready."""

    cluster: Cluster
    patience: float = 300.0

    def apply(self, model: str, routes: Routes) -> None:
        """Set the split and return once its pods are ready.

        Raises Unavailable, and UserMistake for a mirror or a share that so many pods cannot give.
        """
        if routes.mirror:
            raise UserMistake(
                "rollout.shadow: a Service cannot mirror requests; set it to 0 or run a Gateway controller"
            )
        name = name_of(model)
        counts = pod_counts(sum(self._replicas(name, slot) for slot in ("stable", "canary")), routes.canary)
        only_slot = {0: "stable", 100: "canary"}.get(routes.canary)
        if only_slot:  # at once; the numbers follow
            self._select(name, only_slot)
        for slot, count in counts.items():
            self.cluster.merge(f"{_deployment(name, slot)}/scale", {"spec": {"replicas": count}})
        if not only_slot:
            self._await_ready(name, counts)
            self._select(name, None)

    def current(self, model: str) -> Routes:
        """Return the split as last applied, in whole percent."""
        name = name_of(model)
        only_slot = self.cluster.get(_service(name))["spec"]["selector"].get(SLOT_LABEL)
        if only_slot:
            return Routes(100 if only_slot == "canary" else 0)
        stable, canary = (self._replicas(name, slot) for slot in ("stable", "canary"))
        return Routes(round(100 * canary / (stable + canary)))

    def _replicas(self, name: str, slot: str) -> int:
        return int(self.cluster.get(f"{_deployment(name, slot)}/scale")["spec"].get("replicas", 0))

    def _select(self, name: str, slot: str | None) -> None:
        self.cluster.merge(_service(name), {"spec": {"selector": {SLOT_LABEL: slot}}})

    def _await_ready(self, name: str, counts: dict[str, int]) -> None:
        deadline = time.monotonic() + self.patience
        while unready := {s: ready for s, n in counts.items() if (ready := self._ready(name, s)) != n}:
            if time.monotonic() > deadline:
                states = ", ".join(
                    f"{ready} of {counts[slot]} {slot} pods are ready" for slot, ready in unready.items()
                )
                raise Unavailable(f"{name}: after {self.patience:g} s {states}; kubectl describe pods says why")
            time.sleep(0.2)

    def _ready(self, name: str, slot: str) -> int:
        status: dict[str, Any] = self.cluster.get(_deployment(name, slot)).get("status", {})
        return int(status.get("readyReplicas", 0))


def pod_counts(pods: int, canary: int) -> dict[str, int]:
    """Return the pods of each slot, the nearest to `canary` percent of `pods`; each slot keeps at least one.

    Raises UserMistake when that misses a share between 0 and 100 by more than TOLERANCE.
    """
    if pods < 2:
        raise UserMistake("the two slots have fewer than 2 pods together: scale them up")
    count = min(max(round(pods * canary / 100), 1), pods - 1)
    if 0 < canary < 100 and abs(100 * count / pods - canary) > TOLERANCE:
        raise UserMistake(
            f"{pods} pods cannot give the canary {canary} % of the requests (the nearest is {100 * count / pods:.0f} %): "
            f"scale the stable slot up, or change rollout.steps"
        )
    return {"stable": pods - count, "canary": count}


def _deployment(name: str, slot: str) -> str:
    return f"apis/apps/v1/namespaced/deployments/{name}-{slot}"


def _service(name: str) -> str:
    return f"api/v1/namespaced/services/{name}"
