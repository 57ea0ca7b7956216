"""Promotion: a model's way through the registry, each step with its reason in the ledger.

Every function names an explicit version, never the latest, and can be called again: a step that was taken stays as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from include.artifacts import store
from include.artifacts.evaluation_record import EvaluationRecord
from include.artifacts.model_manifest import ModelManifest
from include.artifacts.store import Reference
from include.domain.errors import UserMistake
from include.domain.evaluation.candidates import CHALLENGER, CHAMPION
from include.domain.events import (
    ChallengerJudged,
    ChampionPromoted,
    VersionApproved,
    VersionRegistered,
    VersionRejected,
)
from include.ports.ledger import Ledger
from include.ports.registry import Registry, Version
from include.stages.evaluation.evaluation import GateResult

PREVIOUS = "previous"


@dataclass(frozen=True)
class ReleaseServices:
    """What a release acts on: the registry of versions and aliases, and the ledger of decisions."""

    registry: Registry
    ledger: Ledger


def publish(
    model: str,
    evaluation: Reference,
    result: GateResult,
    pages: Iterable[Path],
    description: str,
    services: ReleaseServices,
) -> None:
    """Attach the evidence to the training's tracking run, whatever the verdict is.

    `pages` are files for people, such as the model card and its plots; `description` is Markdown.
    """
    record = store.read(evaluation, EvaluationRecord)
    manifest = store.read(record.challenger, ModelManifest)
    verdict, registry = result.verdict, services.registry
    if run_id := manifest.mlflow_run_id:
        registry.attach(run_id, [store.path_of(record.challenger.uri)], "model")
        registry.attach(run_id, [*map(store.path_of, (evaluation.uri, result.record.uri)), *pages], "evaluation")
        tags = {"verdict": verdict.outcome, "reasons": "\n".join(verdict.reasons)}
        registry.describe(run_id, tags, description)
    if all(event.run != record.run for event in services.ledger.read(model, ChallengerJudged)):
        event = ChallengerJudged(
            run=record.run, released=result.released, verdict=verdict.outcome, reasons=tuple(verdict.reasons)
        )
        services.ledger.append(model, event)


def register(model: str, evaluation: Reference, result: GateResult, services: ReleaseServices) -> Version:
    """Return the version of the evaluated challenger, tagged with where it comes from, its metrics and its verdict."""
    record = store.read(evaluation, EvaluationRecord)
    manifest = store.read(record.challenger, ModelManifest)
    tags = _tags(evaluation, record, manifest, result)
    version = services.registry.register(model, record.challenger, tags, manifest.mlflow_run_id)
    event = VersionRegistered(
        version=version.number,
        artifact=record.challenger.digest,
        run=record.run,
        verdict=result.verdict.outcome,
        reasons=tuple(result.verdict.reasons),
    )
    _append_once(services.ledger, model, event)
    return version


def evidence_url(version: Version, registry: Registry) -> str | None:
    """Return where a person sees the version's evidence with its plots; None where its training was not tracked."""
    run_id = version.tags.get("mlflow_run_id")
    return registry.run_url(run_id) if run_id else None


def approve(model: str, number: str, by: str, at: datetime, services: ReleaseServices) -> None:
    """Record that a person, or `auto`, lets this version be rolled out."""
    tags = {"approval": "approved", "approved_by": by, "approved_at": at.isoformat()}
    services.registry.set_tags(model, number, tags)
    _append_once(services.ledger, model, VersionApproved(version=number, by=by))


def reject(model: str, number: str, reasons: list[str], by: str, at: datetime, services: ReleaseServices) -> None:
    """Record that this version is not rolled out, and why."""
    tags = {
        "approval": "rejected",
        "rejected_by": by,
        "rejected_at": at.isoformat(),
        "reasons": "\n".join(reasons),
    }
    services.registry.set_tags(model, number, tags)
    _append_once(services.ledger, model, VersionRejected(version=number, by=by, reasons=tuple(reasons)))


def set_challenger(model: str, number: str, registry: Registry) -> str | None:
    """Make the version the challenger, and return the champion that it is to replace; None for a first release.

    Raises UserMistake when it is the champion already.
    """
    champion, challenger = _number(registry, model, CHAMPION), _number(registry, model, CHALLENGER)
    if champion == number:
        raise UserMistake(f"{model}: version {number} is the champion already")
    if challenger != number:
        registry.move_alias(model, CHALLENGER, number, challenger)
    return champion


def promote(model: str, number: str, champion: str | None, reason: str, services: ReleaseServices) -> None:
    """Make the version champion in the place of `champion`, which becomes `previous`.

    Raises Conflict when another version was made champion meanwhile.
    """
    registry, ledger = services.registry, services.ledger
    if _number(registry, model, CHAMPION) != number:
        registry.move_alias(model, CHAMPION, number, champion)
    previous = _number(registry, model, PREVIOUS)
    if previous != champion:
        registry.move_alias(model, PREVIOUS, champion, previous)
    version = registry.version(model, number)
    promotions = ledger.read(model, ChampionPromoted)
    if not promotions or promotions[-1].version != number:
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


def restore_previous(model: str, by: str, services: ReleaseServices) -> str:
    """Make the previous champion champion again, when one turns out bad after its rollout, and return its version.

    The stable slot follows by itself. Raises UserMistake when there is no previous champion.
    """
    champion, previous = (_number(services.registry, model, alias) for alias in (CHAMPION, PREVIOUS))
    if previous is None:
        raise UserMistake(f"{model}: there is no previous champion to go back to")
    promote(model, previous, champion, f"put back by {by}", services)
    return previous


def end_challenge(model: str, number: str, registry: Registry, tags: Mapping[str, str]) -> None:
    """Tag a version whose rollout has ended, and take the alias `challenger` from it."""
    registry.set_tags(model, number, tags)
    if _number(registry, model, CHALLENGER) == number:
        registry.move_alias(model, CHALLENGER, None, number)


def promotion_at(model: str, at: datetime, ledger: Ledger) -> ChampionPromoted | None:
    """Return the promotion of the version that was champion at that moment; None when there was no champion yet."""
    promotions = [event for event in ledger.read(model, ChampionPromoted) if event.at <= at]
    return promotions[-1] if promotions else None


def _tags(
    evaluation: Reference, record: EvaluationRecord, manifest: ModelManifest, result: GateResult
) -> dict[str, str]:
    """Return what the registry shows of a version: where it comes from, its metrics and its verdict."""
    metrics = {f"test_{name}": str(estimate) for name, estimate in record.metrics[CHALLENGER].items()}
    windows = record.windows
    return {
        "run": record.run,
        "family": manifest.family,
        "verdict": result.verdict.outcome,
        "reasons": "\n".join(result.verdict.reasons),
        "table_version": str(record.table_version),
        "evaluation": evaluation.digest,
        "dataset_digest": record.dataset.digest,
        "spec_digest": record.spec_digest,
        "git_commit": str(manifest.git_commit),
        "trained_on": f"{windows.train[0]} to {windows.train[-1]}",
        "tested_on": f"{windows.test[0]} to {windows.test[-1]}",
        "mlflow_run_id": manifest.mlflow_run_id or "",
        **metrics,
    }


def _number(registry: Registry, model: str, alias: str) -> str | None:
    """Return the number of the version at the alias; None where the alias names none."""
    version = registry.version_by_alias(model, alias)
    return None if version is None else version.number


def _append_once(ledger: Ledger, model: str, event: VersionRegistered | VersionApproved | VersionRejected) -> None:
    """Append the event unless the version has one of its kind, so that a retried step leaves one row."""
    if all(earlier.version != event.version for earlier in ledger.read(model, type(event))):
        ledger.append(model, event)
