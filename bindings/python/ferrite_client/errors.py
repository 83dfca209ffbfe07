"""What calls raise. Every error has a hint: what to do about it."""

from __future__ import annotations


class FerriteError(Exception):
    """A call failed. ``kind`` is one word, the same in every language."""

    kind: str = "internal"

    def __init__(self, message: str, hint: str, retryable: bool, key: bytes | None) -> None:
        super().__init__(message)
        self.hint = hint
        #: Whether all of it, for a transaction from its begin, may be tried again.
        self.retryable = retryable
        #: The key it is about, if it is about one.
        self.key = key

    def __str__(self) -> str:
        return f"{super().__str__()} (hint: {self.hint})"


class RetryableError(FerriteError):
    """The cluster could not serve the call now."""

    kind = "retryable"


class DeadlineError(FerriteError, TimeoutError):
    """The time of the call is over, and it has not been done."""

    kind = "deadline"


class ConflictError(FerriteError):
    """Another transaction wrote a key of this one."""

    kind = "conflict"


class LockedError(FerriteError):
    """Another transaction holds a lock that was not waited for."""

    kind = "locked"


class DeadlockError(FerriteError):
    """Waiting for a lock would have closed a circle."""

    kind = "deadlock"


class AbortedError(FerriteError):
    """The transaction was rolled back by others."""

    kind = "aborted"


class ExistsError(FerriteError):
    """A key that was to be inserted is there."""

    kind = "exists"


class UndeterminedError(FerriteError):
    """It is unknown whether a write was done."""

    kind = "undetermined"


class NotFoundError(FerriteError):
    """An entry that was named does not exist, such as a keyspace."""

    kind = "not_found"


class ConfigurationError(FerriteError, ValueError):
    """Addresses, options or the form of keys are wrong."""

    kind = "configuration"


class RefusedError(FerriteError):
    """The cluster refuses the request as it stands."""

    kind = "refused"


class CancelledError(FerriteError):
    """The call was cancelled. Under asyncio one sees ``asyncio.CancelledError`` instead."""

    kind = "cancelled"


class ClosedError(FerriteError):
    """The transaction was used after its end."""

    kind = "closed"


_KINDS: dict[str, type[FerriteError]] = {
    error.kind: error
    for error in (
        RetryableError,
        DeadlineError,
        ConflictError,
        LockedError,
        DeadlockError,
        AbortedError,
        ExistsError,
        UndeterminedError,
        NotFoundError,
        ConfigurationError,
        RefusedError,
        CancelledError,
        ClosedError,
    )
}


def _make(kind: str, message: str, hint: str, retryable: bool, key: bytes | None) -> FerriteError:
    """The error of a kind; called by the extension."""
    return _KINDS.get(kind, FerriteError)(message, hint, retryable, key)
