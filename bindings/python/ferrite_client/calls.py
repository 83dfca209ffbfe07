"""Calls that can be awaited or waited for, and scans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from ._native import Hub, Operation
from ._native import Scan as NativeScan

T = TypeVar("T")

_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def _hub(loop: asyncio.AbstractEventLoop) -> Hub:
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = Hub()
        loop.add_reader(hub.fileno(), hub.drain)
    return hub


class Call(Generic[T]):
    """A call that begins when it is awaited or waited for, once."""

    __slots__ = ("_operation", "_shape")

    def __init__(self, operation: Operation, shape: Callable[[Any], T] | None = None) -> None:
        self._operation = operation
        self._shape = shape

    def __await__(self) -> Generator[Any, None, T]:
        answer = self._operation.now()
        if answer is ...:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[Any] = loop.create_future()
            started = self._operation.start(_hub(loop), future)
            try:
                answer = yield from future
            except BaseException:
                # Of no use after an error of the call itself, but then it does nothing.
                started.cancel()
                raise
        return answer if self._shape is None else self._shape(answer)

    def wait(self) -> T:
        """Blocks until the call has ended; other threads of Python run on."""
        answer = self._operation.wait()
        return answer if self._shape is None else self._shape(answer)


class Scan:
    """Pairs of a range, page by page: ``async for key, value in scan``, or ``for`` in a blocking program."""

    def __init__(self, native: NativeScan) -> None:
        self._native = native

    async def __aiter__(self) -> AsyncIterator[tuple[bytes, bytes]]:
        while page := await self.page():
            for pair in page:
                yield pair

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        while page := self.page().wait():
            yield from page

    def page(self, pairs_max: int = 0) -> Call[list[tuple[bytes, bytes]]]:
        """The next pairs, at most ``pairs_max`` or for 0 about a MiB; empty at the end."""
        return Call(self._native.next(pairs_max))
