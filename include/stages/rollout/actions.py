"""Steering: a person's word to a model's traffic, from a run of `<model>.steer` or by a button of the model's page."""

from datetime import datetime

from include.domain.events import ActionRequested
from include.domain.rollout.actions import Word
from include.ports.registry import Registry
from include.stages.release import promotion
from include.stages.release.promotion import ReleaseServices
from include.stages.rollout import rollout
from include.stages.rollout import state as rollout_state
from include.stages.rollout.rollout import Controls


def obey(model: str, word: Word, by: str, reason: str, *, controls: Controls, registry: Registry, now: datetime) -> str:
    """Do it, and keep who said it and why; the sentence of that. Going back needs no registry.

    Raises UserMistake where the word makes no sense now.
    """
    said = f"{by}: {reason or 'no reason was given'}"
    state = rollout_state.load(controls.folder, model)
    run = state.run if state and state.active else None
    if word is Word.ROLL_BACK:
        rollout.rollback(model, controls, said)
    elif word is Word.ABORT:
        rollout.abort(model, controls, said)
    elif word is Word.RESTORE:
        promotion.restore_previous(model, said, ReleaseServices(registry, controls.ledger))
    else:
        rollout_state.say(controls.folder, model, word, said, now)
    controls.ledger.append(model, ActionRequested(word=word, by=by, reason=reason, run=run))
    return f"{word}, said {said}"
