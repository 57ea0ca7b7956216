"""Steering: what a person does to a model's traffic, from a run of `<model>.steer` or by a button of the model's page."""

from datetime import datetime

from include.domain.events import ActionRequested
from include.domain.rollout.actions import RolloutAction
from include.stages.release import promotion
from include.stages.rollout import rollout, state_file
from include.stages.rollout.services import RolloutServices


def perform(
    model: str, action: RolloutAction, by: str, reason: str, *, services: RolloutServices, now: datetime
) -> str:
    """Carry out the action and record who asked for it and why; return that as a sentence.

    Pause, resume and promote are left for the next analysis. Going back needs no registry. Raises UserMistake where the
    action makes no sense now.
    """
    who = f"{by}: {reason or 'no reason was given'}"
    state = state_file.load(services.folder, model)
    run = state.run if state and state.active else None
    if action is RolloutAction.ROLL_BACK:
        rollout.rollback(model, services, who)
    elif action is RolloutAction.ABORT:
        rollout.abort(model, services, who)
    elif action is RolloutAction.RESTORE:
        promotion.restore_previous(model, who, services.release)
    else:
        state_file.leave_action(services.folder, model, action, who, now)
    services.ledger.append(model, ActionRequested(word=action, by=by, reason=reason, run=run))
    return f"{action}, asked for by {who}"
