"""What happens to rollouts on the real stack, scene by scene: each returns what it showed, and which of its claims hold."""

import signal
import time
from collections.abc import Callable
from typing import Any

from benchmarks.rollout.live import MODEL, ROLLOUT, Live
from include.domain.rollout.actions import RolloutAction
from include.ports.traffic import Routes
from include.stages.rollout import rollout
from include.stages.rollout.state import Phase
from include.stages.rollout.steps import steps_of

#: Requests a second where a scene asks for no figure under full load.
CALM = 300
BOUNDS = {
    "failed of a good rollout": 0,
    "worst second of a killed canary": 0.01,
    "failed 2 s after it": 0,
    "seconds until a dead canary gets no traffic": 1.0,
    "seconds until a rollback takes effect": 1.0,
}
#: What drives or carries a rollout, by how its process is known.
VICTIMS = ("scheduler", "triggerer", "worker", "gateway", "canary")
END = (Phase.PROMOTED, Phase.ROLLED_BACK)
LAST = 3

Shown = tuple[dict[str, Any], dict[str, bool]]


def good(live: Live, rate: float) -> Shown:
    """A good challenger goes all the way under the full rate."""
    version = live.other
    with live.load(rate) as seen:
        end = live.ended(version, live.challenge(version))
    figures = {"ended": end, **_told(seen)}
    return figures, {
        "promoted": end == Phase.PROMOTED,
        "champion moved": live.version("champion") == version,
        "failed": figures["failed"] <= BOUNDS["failed of a good rollout"],
    }


def killed_canary(live: Live, rate: float) -> Shown:
    """The canary dies at 50 %."""
    version = live.other
    with live.load(rate) as seen:
        run = live.challenge(version)
        live.at_step(2, 2000)
        died, since = time.time(), time.monotonic()
        killed, quiet = live.kill("canary"), live.last_request_after(since)
        end = live.ended(version, run)
    after = sum(n for second, (n, _) in seen["failing_seconds"].items() if seen["began"] + int(second) > died + 2)
    figures = {"ended": end, "killed": killed, "traffic_ends_after_s": quiet, "failed_after_2_s": after, **_told(seen)}
    return figures, {
        "ended": end in END,
        "worst second": figures["worst_second"] <= BOUNDS["worst second of a killed canary"],
        "failed after 2 s": after <= BOUNDS["failed 2 s after it"],
        "traffic ends": quiet <= BOUNDS["seconds until a dead canary gets no traffic"],
    }


def back(live: Live, _: float) -> Shown:
    """Somebody rolls back at 50 % while neither MLflow nor the scheduler answers."""
    version = live.other
    with live.load(CALM) as seen:
        run = live.challenge(version)
        live.at_step(2, 500)
        stopped = {victim: live.kill(victim, signal.SIGSTOP) for victim in ("mlflow", "scheduler")}
        since = time.monotonic()
        rollout.rollback(MODEL, live.parts.rollout_services(), "somebody said so")
        returned, quiet = round(time.monotonic() - since, 2), live.last_request_after(since)
        for victim in stopped:
            live.kill(victim, signal.SIGCONT)
        end = live.ended(version, run)
    figures = {
        "ended": end,
        "stopped": stopped,
        "returned_after_s": returned,
        "takes_effect_after_s": quiet,
        **_told(seen),
    }
    return figures, {
        "rolled back": end == Phase.ROLLED_BACK,
        "takes effect": quiet <= BOUNDS["seconds until a rollback takes effect"],
    }


def spoiled(live: Live, _: float) -> Shown:
    """A challenger trained on wrong outcomes, which labels give away; the margin is below what that costs on these requests."""
    version, guards = live.spoiled, {"error_rate": 0.02, "slow_share": None, "logloss": 0.01}
    with live.plan(guards=guards), live.load(CALM) as seen:
        end = live.ended(version, live.challenge(version))
    last = live.analyses(version)[-1]
    figures = {"ended": end, "why": live.reason(version), "step": last.step, "counts": last.counts, **_told(seen)}
    return figures, {"rolled back": end == Phase.ROLLED_BACK, "by the judge": last.decision == "roll back"}


def held(live: Live, _: float) -> Shown:
    """No traffic decides nothing: the step is held until a person aborts it from Airflow."""
    version = live.other
    with live.load(0) as seen:
        run = live.challenge(version)
        live.await_held()
        live.steer(RolloutAction.ABORT, "nobody came")
        end = live.ended(version, run)
    why = live.reason(version)
    figures = {"ended": end, "why": why, **_told(seen)}
    return figures, {"rolled back": end == Phase.ROLLED_BACK, "by a person": why.startswith("aborted by admin: nobody")}


def person(live: Live, _: float) -> Shown:
    """A person pauses a step that would go on, resumes it, promotes the next one, and sees the champion move."""
    version = live.other
    with live.load(CALM) as seen:
        run = live.challenge(version)
        live.at_step(1)
        live.steer(RolloutAction.PAUSE, "let me look")
        live.await_analysis(version, "paused by admin: let me look", outcome="pass")
        paused = live.split()
        live.steer(RolloutAction.RESUME)
        live.at_step(2)
        live.steer(RolloutAction.PROMOTE, "good enough")
        end = live.ended(version, run)
    decided = {event.step: event.sentence for event in live.analyses(version) if event.decision == "go on"}
    figures = {"ended": end, "paused": str(paused), "decided": decided, **_told(seen)}
    return figures, {
        "paused at its weight though the judge would pass it": paused == Routes(10),
        "resumed": "not worse on any guard" in decided.get("10 %", ""),
        "promoted by a person": "promoted by admin: good enough" in decided.get("100 %", ""),
        "promoted": end == Phase.PROMOTED and live.version("champion") == version,
    }


def newer_waits(live: Live, _: float) -> Shown:
    """A newer challenger waits until a person aborts the older one; its own run is ended by hand, as failed."""
    older, younger = live.other, live.spoiled
    with live.load(CALM) as seen:
        first = live.challenge(older)
        live.at_step(1)
        live.approve(younger)
        live.until(live.waits, 60, "an approval that waits")
        waited = live.version("challenger"), live.split()
        live.steer(RolloutAction.ABORT, "make way")
        ends = [live.ended(older, first)]
        second = live.begun(younger)
        live.at_step(0)
        live.airflow.mark(ROLLOUT, second, "failed")
        ends.append(live.ended(younger, second))
    why = live.reason(older), live.reason(younger)
    figures = {"ended": ends, "waited beside": str(waited), "why": why, **_told(seen)}
    return figures, {
        "waited": waited == (older, Routes(10)),
        "rolled back": set(ends) == {Phase.ROLLED_BACK} and live.split() == rollout.ALL_TO_STABLE,
        "by a person": why[0].startswith("aborted by admin: make way") and "ended by a person" in why[1],
    }


def newer_supersedes(live: Live, _: float) -> Shown:
    """Where the spec says so, a newer challenger ends the older one's rollout and begins its own."""
    older, younger = live.other, live.spoiled
    with live.plan(runs=2, newer="supersede"), live.load(CALM) as seen:
        first = live.challenge(older)
        live.at_step(1)
        second = live.challenge(younger)
        end, why = live.ended(older, first), live.reason(older)
        live.steer(RolloutAction.ABORT)
        ends = [end, live.ended(younger, second)]
    figures = {"ended": ends, "why": why, **_told(seen)}
    return figures, {
        "superseded": why == f"superseded by version {younger}",
        "rolled back": set(ends) == {Phase.ROLLED_BACK} and live.split() == rollout.ALL_TO_STABLE,
    }


def kills(live: Live, _: float) -> Shown:
    """Each victim is killed at every step of a rollout, and while it is promoted."""
    shown: dict[str, Any] = {}
    for victim in VICTIMS:
        version, killed = live.other, {}
        with live.load(CALM) as seen:
            run = live.challenge(version)
            for name, reached in _moments(live).items():
                reached()
                if not live.state.active:
                    break
                killed[name] = live.kill(victim)
            end = live.ended(version, run)
        shown[victim] = {"killed": killed, "ended": end, "why": live.reason(version), **_told(seen)}
        live.console.print(f"{victim}: {shown[victim]}")
    return {"victims": shown}, {
        f"{victim}: goes on or back": row["ended"] in END and not row["unplanned"] for victim, row in shown.items()
    }


def _moments(live: Live) -> dict[str, Callable[[], None]]:
    """When to kill: each step by its name, and the promotion; each returns also when the rollout has ended."""
    names = [step.name for step in steps_of(live.spec.rollout)]
    steps = {name: lambda step=step: live.at_step(step) for step, name in enumerate(names)}
    return {
        **steps,
        "promotion": lambda: live.until(lambda: live.state.phase is not Phase.RUNNING, 180, "the promotion"),
    }


def table(shown: dict[str, Any]) -> str:
    """The scene `kills` as Markdown: how many processes were killed when, and what came of it."""
    moments = list(dict.fromkeys(name for row in shown.values() for name in row["killed"]))
    heads = ["killed", *(f"at {name}" for name in moments), "ended", "the gateway's splits", "requests", "failed"]
    rows = [
        [
            victim,
            *(str(row["killed"].get(name, "–")) for name in moments),
            row["ended"],
            row["splits"],
            f"{row['requests']:,}",
            f"{row['failed']:,}",
        ]
        for victim, row in shown.items()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows])


def _told(seen: dict[str, Any]) -> dict[str, Any]:
    """What the callers saw; what was due and never sent, because two cores could not, is no failure but a lower rate."""
    failed = seen.get("requests", 0) - seen.get("statuses", {}).get("200", 0)
    names = ("splits", "unplanned", "requests", "rps", "p99_ms", "worst_second", "failing_seconds", "statuses")
    return {"failed": failed, **{name: seen[name] for name in names if name in seen}}


SCENES = {
    scene.__name__: scene
    for scene in (good, killed_canary, back, spoiled, held, person, newer_waits, newer_supersedes, kills)
}
