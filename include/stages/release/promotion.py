"""Promotion: a model's way through the registry, each step with its reason in the ledger.

Every function names an explicit version, never the latest, and can be called again: what is done already stays.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from include.artifacts import store
from include.artifacts.store import Reference
from include.domain.errors import UserMistake
from include.domain.evaluation.gates import CHALLENGER, CHAMPION
from include.domain.events import (
    ChallengerJudged,
    ChampionPromoted,
    VersionApproved,
    VersionRegistered,
    VersionRejected,
)
from include.ports.ledger import Ledger
from include.ports.registry import Registry, Version
from include.stages.evaluation.evaluation import Judged

PREVIOUS = "previous"


def publish(
    model: str,
    evaluation: Reference,
    judged: Judged,
    pages: Iterable[Path],
    description: str,
    *,
    registry: Registry,
    ledger: Ledger,
) -> None:
    """Attach the evidence to the training's tracking run, whatever the verdict says.

    `pages` are files for people, such as the model card and its plots; `description` is Markdown.
    """
    record, manifest = _records(evaluation)
    if run_id := manifest["mlflow_run_id"]:
        registry.attach(run_id, [store.path_of(record["models"][CHALLENGER]["uri"])], "model")
        registry.attach(run_id, [*map(store.path_of, (evaluation.uri, judged.record.uri)), *pages], "evaluation")
        said = {"verdict": judged.verdict.outcome, "reasons": "\n".join(judged.verdict.reasons)}
        registry.describe(run_id, said, description)
    if all(event.run != record["run"] for event in ledger.read(model, ChallengerJudged)):
        verdict = judged.verdict
        event = ChallengerJudged(
            run=record["run"], released=judged.released, verdict=verdict.outcome, reasons=tuple(verdict.reasons)
        )
        ledger.append(model, event)


def register(model: str, evaluation: Reference, judged: Judged, *, registry: Registry, ledger: Ledger) -> Version:
    """The version of the evaluated challenger, tagged with where it comes from, its metrics and its verdict."""
    record, manifest = _records(evaluation)
    artifact = Reference(**record["models"][CHALLENGER])
    version = registry.register(model, artifact, _tags(evaluation, record, manifest, judged), manifest["mlflow_run_id"])
    event = VersionRegistered(
        version=version.number,
        artifact=artifact.digest,
        run=record["run"],
        verdict=judged.verdict.outcome,
        reasons=tuple(judged.verdict.reasons),
    )
    _append_once(ledger, model, event)
    return version


def page(version: Version, registry: Registry) -> str | None:
    """Where a person sees the version's evidence with its plots; None where its training was not tracked."""
    run_id = version.tags.get("mlflow_run_id")
    return registry.page(run_id) if run_id else None


def approve(model: str, number: str, by: str, at: datetime, *, registry: Registry, ledger: Ledger) -> None:
    """A person, or `auto`, lets this version be rolled out."""
    registry.tag(model, number, {"approval": "approved", "approved_by": by, "approved_at": at.isoformat()})
    _append_once(ledger, model, VersionApproved(version=number, by=by))


def reject(
    model: str, number: str, reasons: list[str], by: str, at: datetime, *, registry: Registry, ledger: Ledger
) -> None:
    """This version is not rolled out; it keeps the reasons."""
    said = {"rejected_by": by, "rejected_at": at.isoformat(), "reasons": "\n".join(reasons)}
    registry.tag(model, number, {"approval": "rejected", **said})
    _append_once(ledger, model, VersionRejected(version=number, by=by, reasons=tuple(reasons)))


def challenge(model: str, number: str, registry: Registry) -> str | None:
    """Make the version the challenger; the number of the champion it is to replace, None for a first release.

    Raises UserMistake when it is the champion already.
    """
    champion, challenger = _number(registry, model, CHAMPION), _number(registry, model, CHALLENGER)
    if champion == number:
        raise UserMistake(f"{model}: version {number} is the champion already")
    if challenger != number:
        registry.move(model, CHALLENGER, number, challenger)
    return champion


def crown(model: str, number: str, champion: str | None, reason: str, *, registry: Registry, ledger: Ledger) -> None:
    """Make the version champion in the place of `champion`, which becomes `previous`.

    Raises Conflict when somebody else was made champion meanwhile.
    """
    if _number(registry, model, CHAMPION) != number:
        registry.move(model, CHAMPION, number, champion)
    previous = _number(registry, model, PREVIOUS)
    if previous != champion:
        registry.move(model, PREVIOUS, champion, previous)
    version = registry.version(model, number)
    champions = ledger.read(model, ChampionPromoted)
    if not champions or champions[-1].version != number:
        event = ChampionPromoted(
            version=number,
            previous=champion,
            artifact=version.artifact.digest,
            reason=reason,
            run=version.tags.get("run"),
            verdict=version.tags.get("verdict"),
            approved_by=version.tags.get("approved_by"),
            approved_at=version.tags.get("approved_at"),
        )
        ledger.append(model, event)


def restore(model: str, by: str, *, registry: Registry, ledger: Ledger) -> str:
    """Make `previous` champion again, when a champion turns out bad after its rollout; its version.

    The stable slot follows by itself. Raises UserMistake when there is no previous champion.
    """
    champion, previous = _number(registry, model, CHAMPION), _number(registry, model, PREVIOUS)
    if previous is None:
        raise UserMistake(f"{model}: there is no previous champion to go back to")
    crown(model, previous, champion, f"put back by {by}", registry=registry, ledger=ledger)
    return previous


def retire(model: str, number: str, registry: Registry, tags: Mapping[str, str]) -> None:
    """The version's rollout has ended: it keeps `tags` and is no challenger any more."""
    registry.tag(model, number, tags)
    if _number(registry, model, CHALLENGER) == number:
        registry.move(model, CHALLENGER, None, number)


def champion_on(model: str, at: datetime, ledger: Ledger) -> ChampionPromoted | None:
    """Who was champion at that moment, and why: the event of its promotion; None when there was no champion yet."""
    promotions = [event for event in ledger.read(model, ChampionPromoted) if event.at <= at]
    return promotions[-1] if promotions else None


def _records(evaluation: Reference) -> tuple[dict[str, Any], dict[str, Any]]:
    """The evaluation's record and its challenger's manifest."""
    record = store.read(evaluation)
    return record, store.read(Reference(**record["models"][CHALLENGER]))


def _tags(
    evaluation: Reference, record: Mapping[str, Any], manifest: Mapping[str, Any], judged: Judged
) -> dict[str, str]:
    metrics = record["metrics"][CHALLENGER]
    said = {f"test_{n}": f"{m['value']:.4f} ({m['low']:.4f} to {m['high']:.4f})" for n, m in metrics.items()}
    windows = record["windows"]
    return {
        "run": record["run"], "family": manifest["family"], "verdict": judged.verdict.outcome,
        "reasons": "\n".join(judged.verdict.reasons), "table_version": str(record["table_version"]),
        "evaluation": evaluation.digest, "dataset_digest": record["dataset"]["digest"], "spec_digest": record["spec_digest"],
        "git_commit": str(manifest["git_commit"]), "trained_on": f"{windows['train'][0]} to {windows['train'][-1]}",
        "tested_on": f"{windows['test'][0]} to {windows['test'][-1]}",
        "mlflow_run_id": manifest["mlflow_run_id"] or "", **said,
    }  # fmt: skip


def _number(registry: Registry, model: str, alias: str) -> str | None:
    version = registry.alias(model, alias)
    return None if version is None else version.number


def _append_once(ledger: Ledger, model: str, event: VersionRegistered | VersionApproved | VersionRejected) -> None:
    """Append the event unless the version has one of its kind, so that a retried step leaves one row."""
    if all(earlier.version != event.version for earlier in ledger.read(model, type(event))):
        ledger.append(model, event)
