"""Clients, transactions and snapshots."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from . import _native as extension
from .calls import Call, Scan

if TYPE_CHECKING:
    from typing_extensions import Unpack

Pair = tuple[bytes, bytes]

#: The timestamp of a snapshot that reads the latest of each key.
LATEST = 2**64 - 1


class Swap(NamedTuple):
    """Outcome of :meth:`RawClient.compare_and_swap`."""

    done: bool
    #: What was there before, done or not.
    previous: bytes | None


class Checksum(NamedTuple):
    """Fingerprint of the pairs in a range."""

    crc64_xor: int
    pairs: int
    bytes: int


def _options(options: dict[str, Any]) -> str:
    """Options as text: the library knows their names, and tells faults."""

    def text(value: Any) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            return f"{round(value * 1000)}ms"
        return str(value)

    given = {name: value for name, value in options.items() if value is not None}
    return ",".join(f"{name.replace('_', '-')}={text(value)}" for name, value in given.items())


class ClientOptions(TypedDict, total=False):
    """Options of a client; those that are not given, or None, are as usual."""

    #: Seconds that each call may take, 5 if not given.
    deadline: float | None
    #: A keyspace of API V2 by its name.
    keyspace: str | None
    #: A keyspace of API V2 by its id.
    keyspace_id: int | None
    batch_commands: bool | None
    connections: int | None
    retry_undetermined: bool | None
    answer_bytes_max: int | None
    #: For TLS, the authority of the cluster's certificates: the path of a PEM file, read again when it changes, or PEM text.
    ca: str | None
    #: A certificate to show to the cluster, as ``ca``.
    cert: str | None
    #: The key of it, as ``ca``.
    key: str | None


def _client_options(options: ClientOptions) -> str:
    unknown = options.keys() - ClientOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"connect() got an unexpected keyword argument {min(unknown)!r}")
    given: dict[str, Any] = {**options}
    if given.get("deadline") is not None:
        given["deadline"] = float(given["deadline"])
    return _options(given)


def _endpoints(endpoints: str | Iterable[str]) -> str:
    return endpoints if isinstance(endpoints, str) else ",".join(endpoints)


class _Reader:
    """What can be read from."""

    _native: extension.Raw | extension.Snapshot | extension.Txn

    def get(self, key: bytes) -> Call[bytes | None]:
        """Value of ``key``, None if there is none."""
        return Call(self._native.get(key))

    def batch_get(self, keys: Iterable[bytes]) -> Call[list[Pair]]:
        """The pairs of those ``keys`` that are there, by key."""
        return Call(self._native.batch_get(list(keys)))

    def scan(
        self, start: bytes = b"", end: bytes = b"", *, limit: int = 0, reverse: bool = False, keys_only: bool = False
    ) -> Scan:
        """Pairs from ``start`` to before ``end`` (empty: no bound), at most ``limit`` (0: all)."""
        return Scan(self._native.scan(start, end, limit, reverse, keys_only))


class Snapshot(_Reader):
    """What was committed at or before a timestamp."""

    _native: extension.Snapshot

    def __init__(self, native: extension.Snapshot) -> None:
        self._native = native

    @property
    def ts(self) -> int:
        return self._native.ts


class Transaction(_Reader):
    """A transaction: see :meth:`TxnClient.begin`. Let go before its end it is rolled back."""

    _native: extension.Txn

    def __init__(self, native: extension.Txn) -> None:
        self._native = native
        self._ended = False

    @property
    def start_ts(self) -> int:
        """The timestamp at which it reads."""
        return self._native.start_ts

    def get_for_update(self, key: bytes) -> Call[bytes | None]:
        """Locks ``key`` and reads it, its latest value in a pessimistic transaction."""
        return Call(self._native.get_for_update(key))

    def batch_get_for_update(self, keys: Iterable[bytes]) -> Call[list[Pair]]:
        """Locks keys and reads those that are there."""
        return Call(self._native.batch_get_for_update(list(keys)))

    def put(self, key: bytes, value: bytes) -> Call[None]:
        """Sets ``key``. A pessimistic transaction locks it now, as with all writes."""
        return Call(self._native.put(key, value))

    def batch_put(self, pairs: Iterable[Pair]) -> Call[None]:
        """Sets all pairs."""
        return Call(self._native.batch_put(list(pairs)))

    def insert(self, key: bytes, value: bytes) -> Call[None]:
        """Sets ``key``, which must not be there: ExistsError now, or at commit of an optimistic transaction."""
        return Call(self._native.insert(key, value))

    def delete(self, key: bytes) -> Call[None]:
        """Removes ``key``, if it is there."""
        return Call(self._native.delete(key))

    def lock_keys(self, keys: Iterable[bytes]) -> Call[None]:
        """Keeps others from writing ``keys`` while the transaction is under way."""
        return Call(self._native.lock_keys(list(keys)))

    def savepoint(self) -> Call[int]:
        """Remembers the writes so far."""
        return Call(self._native.savepoint())

    def rollback_to(self, savepoint: int) -> Call[None]:
        """Undoes the writes since a savepoint; locks stay."""
        return Call(self._native.rollback_to(savepoint))

    def commit(self) -> Call[int | None]:
        """Commits; gives the commit timestamp, None if there was nothing to write. Goes on if it is cancelled."""
        self._ended = True
        return Call(self._native.commit())

    def rollback(self) -> Call[None]:
        """Gives up what was written."""
        self._ended = True
        return Call(self._native.rollback())


class TransactionStart(Call[Transaction]):
    """A call that begins a transaction: await it, wait for it, or use it in ``async with`` or ``with``, which commit at the end of
    the block and roll back if it raises."""

    __slots__ = ("_transaction",)

    def __init__(self, operation: extension.Operation) -> None:
        super().__init__(operation, Transaction)

    async def __aenter__(self) -> Transaction:
        self._transaction = await self
        return self._transaction

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._transaction._ended:
            await (self._transaction.commit() if kind is None else self._transaction.rollback())

    def __enter__(self) -> Transaction:
        self._transaction = self.wait()
        return self._transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._transaction._ended:
            if kind is None:
                self._transaction.commit().wait()
            else:
                self._transaction.rollback().wait()

    def __await__(self) -> Generator[Any, None, Transaction]:
        return super().__await__()


class TxnClient:
    """A client for transactions; may be used from any thread and any event loop."""

    def __init__(self, native: extension.Txns) -> None:
        self._native = native

    @staticmethod
    def connect(endpoints: str | Iterable[str], **options: Unpack[ClientOptions]) -> Call[TxnClient]:
        """Connects through any of the placement driver's endpoints; see :class:`ClientOptions`."""
        return Call(extension.connect_txns(_endpoints(endpoints), _client_options(options)), TxnClient)

    def with_deadline(self, seconds: float) -> TxnClient:
        """The same client, whose calls, and those of its transactions, may take so long."""
        return TxnClient(self._native.with_deadline(seconds))

    def metrics(self) -> str:
        """What the client has done since it was connected, as the text that Prometheus reads."""
        return self._native.metrics()

    def begin(
        self,
        *,
        pessimistic: bool | None = None,
        lock_wait: float | None = None,
        async_commit: bool | None = None,
        one_phase: bool | None = None,
        causal: bool | None = None,
        deadline: float | None = None,
    ) -> TransactionStart:
        """Begins a transaction. ``lock_wait`` is the seconds that a pessimistic one waits for others' locks: 0 not at all, None as long as
        the deadline allows."""
        options: dict[str, Any] = {
            "pessimistic": pessimistic,
            "async_commit": async_commit,
            "one_phase": one_phase,
            "causal": causal,
            "deadline": None if deadline is None else float(deadline),
        }
        if lock_wait is not None:
            options["lock_wait"] = float(lock_wait) if lock_wait > 0 else "no"
        return TransactionStart(self._native.begin(_options(options)))

    def timestamp(self) -> Call[int]:
        """A timestamp greater than every one before."""
        return Call(self._native.timestamp())

    def snapshot(self, ts: int = LATEST) -> Snapshot:
        """Reads as of ``ts``; the latest of each key if it is not given."""
        return Snapshot(self._native.snapshot(ts))

    def gc(self, safe_point: int) -> Call[int]:
        """Ends what dead clients left and lets stores drop old versions; gives the safe point as it is then."""
        return Call(self._native.gc(safe_point))

    def resolve_locks(self, start: bytes, end: bytes, ts: int) -> Call[int]:
        """Ends transactions that began up to ``ts`` and left locks in the range; gives how many locks."""
        return Call(self._native.resolve_locks(start, end, ts))


class RawClient(_Reader):
    """A client for keys without transactions; may be used from any thread and any event loop. A scan of it is not a snapshot."""

    _native: extension.Raw

    def __init__(self, native: extension.Raw) -> None:
        self._native = native

    @staticmethod
    def connect(endpoints: str | Iterable[str], **options: Unpack[ClientOptions]) -> Call[RawClient]:
        """Connects through any of the placement driver's endpoints; see :class:`ClientOptions`."""
        return Call(extension.connect_raw(_endpoints(endpoints), _client_options(options)), RawClient)

    def with_deadline(self, seconds: float) -> RawClient:
        """The same client, whose calls may take so long."""
        return RawClient(self._native.with_deadline(seconds))

    def metrics(self) -> str:
        """What the client has done since it was connected, as the text that Prometheus reads."""
        return self._native.metrics()

    def put(self, key: bytes, value: bytes, *, ttl: float | None = None) -> Call[None]:
        """Sets ``key``, for ``ttl`` seconds rounded up to whole ones, or for ever."""
        return Call(self._native.put(key, value, ttl))

    def delete(self, key: bytes) -> Call[None]:
        """Removes ``key``, if it is there."""
        return Call(self._native.delete(key))

    def batch_put(self, pairs: Iterable[Pair], *, ttl: float | None = None) -> Call[None]:
        """Sets all pairs, which is not one step."""
        return Call(self._native.batch_put(list(pairs), ttl))

    def batch_delete(self, keys: Iterable[bytes]) -> Call[None]:
        """Removes all ``keys`` that are there."""
        return Call(self._native.batch_delete(list(keys)))

    def delete_range(self, start: bytes, end: bytes) -> Call[None]:
        """Removes all keys from ``start`` to before ``end`` (empty: no bound)."""
        return Call(self._native.delete_range(start, end))

    def compare_and_swap(self, key: bytes, expected: bytes | None, new: bytes | None) -> Call[Swap]:
        """Sets ``key`` to ``new`` (None removes it) if its value is ``expected`` (None: if it is not there). Never repeated if it is unknown
        whether it was done."""
        return Call(self._native.compare_and_swap(key, expected, new), Swap._make)

    def ttl(self, key: bytes) -> Call[float | None]:
        """Seconds that ``key`` will live, ``math.inf`` for ever, None if it is not there."""
        return Call(self._native.ttl(key))

    def checksum(self, start: bytes = b"", end: bytes = b"") -> Call[Checksum]:
        """Fingerprint of the pairs in a range."""
        return Call(self._native.checksum(start, end), Checksum._make)
