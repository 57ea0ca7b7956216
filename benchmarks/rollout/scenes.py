"""Play rollouts on the real stack, scene by scene: each returns its figures, and which of its claims hold."""

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

#: Requests a second in scenes that do not need the full load.
CALM = 300
BOUNDS = {
    "failed of a good rollout": 0,
    "worst second of a killed canary": 0.01,
    "failed 2 s after it": 0,
    "seconds until a dead canary gets no traffic": 1.0,
    "seconds until a rollback takes effect": 1.0,
}
#: The processes that drive or carry a rollout, by the name under which `Live.kill` finds them.
VICTIMS = ("scheduler", "triggerer", "worker", "gateway", "canary")
END = (Phase.PROMOTED, Phase.ROLLED_BACK)
LAST = 3

SceneResult = tuple[dict[str, Any], dict[str, bool]]


def good_challenger(live: Live, rate: float) -> SceneResult:
    """Roll out a good challenger under the full rate, to the end."""
    version = live.challenger
    with live.load(rate) as report:
        end = live.await_end(version, live.start_rollout(version))
    figures = {"ended": end, **_caller_figures(report)}
    return figures, {
        "promoted": end == Phase.PROMOTED,
        "champion moved": live.version("champion") == version,
        "failed": figures["failed"] <= BOUNDS["failed of a good rollout"],
    }


def killed_canary(live: Live, rate: float) -> SceneResult:
    """Kill the canary at 50 %."""
    version = live.challenger
    with live.load(rate) as report:
        run = live.start_rollout(version)
        live.await_step(2, 2000)
        killed_at, since = time.time(), time.monotonic()
        killed, quiet = live.kill("canary"), live.last_request_after(since)
        end = live.await_end(version, run)
    after = sum(
        n for second, (n, _) in report["failing_seconds"].items() if report["began"] + int(second) > killed_at + 2
    )
    figures = {
        "ended": end,
        "killed": killed,
        "traffic_ends_after_s": quiet,
        "failed_after_2_s": after,
        **_caller_figures(report),
    }
    return figures, {
        "ended": end in END,
        "worst second": figures["worst_second"] <= BOUNDS["worst second of a killed canary"],
        "failed after 2 s": after <= BOUNDS["failed 2 s after it"],
        "traffic ends": quiet <= BOUNDS["seconds until a dead canary gets no traffic"],
    }


def rolled_back_by_command(live: Live, _: float) -> SceneResult:
    """Roll back by hand at 50 % while neither MLflow nor the scheduler answers."""
    version = live.challenger
    with live.load(CALM) as report:
        run = live.start_rollout(version)
        live.await_step(2, 500)
        stopped = {victim: live.kill(victim, signal.SIGSTOP) for victim in ("mlflow", "scheduler")}
        since = time.monotonic()
        rollout.rollback(MODEL, live.parts.rollout_services(), "somebody said so")
        returned, quiet = round(time.monotonic() - since, 2), live.last_request_after(since)
        for victim in stopped:
            live.kill(victim, signal.SIGCONT)
        end = live.await_end(version, run)
    figures = {
        "ended": end,
        "stopped": stopped,
        "returned_after_s": returned,
        "takes_effect_after_s": quiet,
        **_caller_figures(report),
    }
    return figures, {
        "rolled back": end == Phase.ROLLED_BACK,
        "takes effect": quiet <= BOUNDS["seconds until a rollback takes effect"],
    }


def spoiled_challenger(live: Live, _: float) -> SceneResult:
    """Roll out a challenger trained on wrong outcomes, which labels show; the margin is below what they cost here."""
    version, guards = live.spoiled_version, {"error_rate": 0.02, "slow_share": None, "logloss": 0.01}
    with live.changed_plan(guards=guards), live.load(CALM) as report:
        end = live.await_end(version, live.start_rollout(version))
    last = live.analyses(version)[-1]
    figures = {
        "ended": end,
        "why": live.reason(version),
        "step": last.step,
        "counts": last.counts,
        **_caller_figures(report),
    }
    return figures, {"rolled back": end == Phase.ROLLED_BACK, "by the judge": last.decision == "roll back"}


def held_step(live: Live, _: float) -> SceneResult:
    """Roll out without traffic, which decides nothing: the step is held until a person aborts it from Airflow."""
    version = live.challenger
    with live.load(0) as report:
        run = live.start_rollout(version)
        live.await_held()
        live.steer(RolloutAction.ABORT, "nobody came")
        end = live.await_end(version, run)
    why = live.reason(version)
    figures = {"ended": end, "why": why, **_caller_figures(report)}
    return figures, {"rolled back": end == Phase.ROLLED_BACK, "by a person": why.startswith("aborted by admin: nobody")}


def steered_by_person(live: Live, _: float) -> SceneResult:
    """Pause a step that would go on, resume it, and promote the next one, as a person does."""
    version = live.challenger
    with live.load(CALM) as report:
        run = live.start_rollout(version)
        live.await_step(1)
        live.steer(RolloutAction.PAUSE, "let me look")
        live.await_analysis(version, "paused by admin: let me look", outcome="pass")
        paused = live.active_routes()
        live.steer(RolloutAction.RESUME)
        live.await_step(2)
        live.steer(RolloutAction.PROMOTE, "good enough")
        end = live.await_end(version, run)
    decided = {event.step: event.sentence for event in live.analyses(version) if event.decision == "go on"}
    figures = {"ended": end, "paused": str(paused), "decided": decided, **_caller_figures(report)}
    return figures, {
        "paused at its weight though the judge would pass it": paused == Routes(10),
        "resumed": "not worse on any guard" in decided.get("10 %", ""),
        "promoted by a person": "promoted by admin: good enough" in decided.get("100 %", ""),
        "promoted": end == Phase.PROMOTED and live.version("champion") == version,
    }


def newer_waits(live: Live, _: float) -> SceneResult:
    """Approve a newer challenger, which waits until a person aborts the older one; end its own run by hand, as failed."""
    older, younger = live.challenger, live.spoiled_version
    with live.load(CALM) as report:
        first = live.start_rollout(older)
        live.await_step(1)
        live.approve(younger)
        live.await_condition(live.has_queued_approval, 60, "an approval that waits")
        waited = live.version("challenger"), live.active_routes()
        live.steer(RolloutAction.ABORT, "make way")
        ends = [live.await_end(older, first)]
        second = live.await_start(younger)
        live.await_step(0)
        live.airflow.mark(ROLLOUT, second, "failed")
        ends.append(live.await_end(younger, second))
    why = live.reason(older), live.reason(younger)
    figures = {"ended": ends, "waited beside": str(waited), "why": why, **_caller_figures(report)}
    return figures, {
        "waited": waited == (older, Routes(10)),
        "rolled back": set(ends) == {Phase.ROLLED_BACK} and live.active_routes() == rollout.ALL_TO_STABLE,
        "by a person": why[0].startswith("aborted by admin: make way") and "ended by a person" in why[1],
    }


def newer_supersedes(live: Live, _: float) -> SceneResult:
    """Approve a newer challenger under a spec that lets it end the older one's rollout and start its own."""
    older, younger = live.challenger, live.spoiled_version
    with live.changed_plan(runs=2, newer="supersede"), live.load(CALM) as report:
        first = live.start_rollout(older)
        live.await_step(1)
        second = live.start_rollout(younger)
        end, why = live.await_end(older, first), live.reason(older)
        live.steer(RolloutAction.ABORT)
        ends = [end, live.await_end(younger, second)]
    figures = {"ended": ends, "why": why, **_caller_figures(report)}
    return figures, {
        "superseded": why == f"superseded by version {younger}",
        "rolled back": set(ends) == {Phase.ROLLED_BACK} and live.active_routes() == rollout.ALL_TO_STABLE,
    }


def kills(live: Live, _: float) -> SceneResult:
    """Kill each victim at every step of a rollout, and while it is promoted."""
    victims: dict[str, Any] = {}
    for victim in VICTIMS:
        version, killed = live.challenger, {}
        with live.load(CALM) as report:
            run = live.start_rollout(version)
            for name, await_moment in _moments(live).items():
                await_moment()
                if not live.state.active:
                    break
                killed[name] = live.kill(victim)
            end = live.await_end(version, run)
        victims[victim] = {"killed": killed, "ended": end, "why": live.reason(version), **_caller_figures(report)}
        live.console.print(f"{victim}: {victims[victim]}")
    return {"victims": victims}, {
        f"{victim}: goes on or back": row["ended"] in END and not row["unplanned"] for victim, row in victims.items()
    }


def _moments(live: Live) -> dict[str, Callable[[], None]]:
    """Return by name what waits for each step and for the promotion; each also returns if the rollout has ended."""
    names = [step.name for step in steps_of(live.spec.rollout)]
    steps = {name: lambda step=step: live.await_step(step) for step, name in enumerate(names)}
    return {
        **steps,
        "promotion": lambda: live.await_condition(lambda: live.state.phase is not Phase.RUNNING, 180, "the promotion"),
    }


def table(victims: dict[str, Any]) -> str:
    """Return the figures of the scene `kills` as a Markdown table: the processes killed at each step, and the outcome."""
    moments = list(dict.fromkeys(name for row in victims.values() for name in row["killed"]))
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
        for victim, row in victims.items()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows])


def _caller_figures(report: dict[str, Any]) -> dict[str, Any]:
    """Return the callers' figures; requests that were due but not sent, for want of cores, lower the rate and are no failures."""
    failed = report.get("requests", 0) - report.get("statuses", {}).get("200", 0)
    names = ("splits", "unplanned", "requests", "rps", "p99_ms", "worst_second", "failing_seconds", "statuses")
    return {"failed": failed, **{name: report[name] for name in names if name in report}}


#: The scenes by their names on the command line and in the figures.
SCENES = {
    "good": good_challenger,
    "killed_canary": killed_canary,
    "back": rolled_back_by_command,
    "spoiled": spoiled_challenger,
    "held": held_step,
    "person": steered_by_person,
    "newer_waits": newer_waits,
    "newer_supersedes": newer_supersedes,
    "kills": kills,
}
