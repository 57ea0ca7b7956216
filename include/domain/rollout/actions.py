"""What a person can say to a model's traffic."""

from enum import StrEnum


class Word(StrEnum):
    """The first four are for a rollout that runs; the others need none."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    ROLL_BACK = "roll back"
    RESTORE = "restore the previous champion"


TO_A_ROLLOUT = (Word.PAUSE, Word.RESUME, Word.PROMOTE, Word.ABORT)
