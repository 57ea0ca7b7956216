"""What can go wrong, sorted by who must act; the DAGs retry by these classes and by nothing else."""


class PerennialError(Exception):
    """Base of every error Perennial raises on purpose; its text says what, where and what to do."""


class UserMistake(PerennialError):
    """The spec, the data or the call is wrong: the same call fails again, so it is never retried."""


class Unavailable(PerennialError):
    """Another part (a server, a disk, a registry) did not answer: worth another try."""


class Corrupt(PerennialError):
    """A stored thing is not what its record says: its digest differs or a part is missing."""


class Conflict(PerennialError):
    """Somebody else moved first: a compare-and-set found another value than expected."""
