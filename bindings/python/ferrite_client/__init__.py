"""A client of Ferrite, and of every cluster that speaks its wire.

Every call gives a :class:`Call`: ``await`` it under asyncio, or ``.wait()`` for it in a blocking program. Work starts when it is awaited, and
cancelling the task cancels the request.

    client = await RawClient.connect("127.0.0.1:2379")
    await client.put(b"greeting", b"hello")

    txns = await TxnClient.connect("127.0.0.1:2379")
    async with txns.begin() as txn:
        await txn.put(b"a", b"1")
"""

from .calls import Call, Scan
from .clients import Checksum, ClientOptions, RawClient, Snapshot, Swap, Transaction, TransactionStart, TxnClient
from .errors import (
    AbortedError,
    ClosedError,
    ConfigurationError,
    ConflictError,
    DeadlineError,
    DeadlockError,
    ExistsError,
    FerriteError,
    LockedError,
    NotFoundError,
    RefusedError,
    RetryableError,
    UndeterminedError,
)

__all__ = [
    "AbortedError",
    "Call",
    "Checksum",
    "ClientOptions",
    "ClosedError",
    "ConfigurationError",
    "ConflictError",
    "DeadlineError",
    "DeadlockError",
    "ExistsError",
    "FerriteError",
    "LockedError",
    "NotFoundError",
    "RawClient",
    "RefusedError",
    "RetryableError",
    "Scan",
    "Snapshot",
    "Swap",
    "Transaction",
    "TransactionStart",
    "TxnClient",
    "UndeterminedError",
]
