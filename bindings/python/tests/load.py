"""Load for `cargo xtask bench clients` and `cargo xtask bindings soak`; what it does is said in bindings/conformance/src/load.rs.

    load.py ENDPOINTS KEYSPACE MODE IN_FLIGHT AMOUNT PREFIX
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import ferrite_client as ferrite

KEYS = 10_000
SLOTS = 8
VALUE = b"v" * 100


class Bench:
    """Calls as fast as they come, measured after a warm-up of half the time."""

    def __init__(self, raw: ferrite.RawClient, txns: ferrite.TxnClient, prefix: bytes) -> None:
        self.raw, self.txns, self.prefix = raw, txns, prefix
        self.latencies: list[float] = []
        self.failures = 0
        self.is_over = False

    def key(self, number: int) -> bytes:
        return b"%s/k/%06d" % (self.prefix, number % KEYS)

    async def get(self, number: int, worker: int) -> None:
        await self.raw.get(self.key(number))

    async def put(self, number: int, worker: int) -> None:
        await self.raw.put(self.key(number), VALUE)

    async def txn(self, number: int, worker: int) -> None:
        async with self.txns.begin() as txn:
            await txn.put(b"%s/t/%d/%d/a" % (self.prefix, worker, number % 100), VALUE)
            await txn.put(b"%s/t/%d/%d/b" % (self.prefix, worker, number % 100), VALUE)

    async def work(self, call: Callable[[int, int], Awaitable[None]], worker: int) -> None:
        number = worker * 7919
        while not self.is_over:
            number = (number * 1103515245 + 12345) & 0x7FFFFFFF
            begun = time.perf_counter()
            try:
                await call(number >> 8, worker)
            except ferrite.FerriteError:
                self.failures += 1
            self.latencies.append(time.perf_counter() - begun)

    async def run(self, mode: str, in_flight: int, seconds: float) -> None:
        call: Callable[[int, int], Awaitable[None]] = getattr(self, mode)
        workers = [asyncio.create_task(self.work(call, worker)) for worker in range(in_flight)]
        await asyncio.sleep(seconds / 2)
        self.latencies.clear()
        self.failures = 0
        begun, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        took, cpu = time.perf_counter() - begun, time.process_time() - cpu
        latencies, failures = sorted(self.latencies), self.failures
        self.is_over = True
        await asyncio.gather(*workers)
        print(
            json.dumps(
                {
                    "operations": len(latencies),
                    "seconds": took,
                    "cpu_seconds": cpu,
                    "p50_us": latencies[len(latencies) // 2] * 1e6 if latencies else None,
                    "p99_us": latencies[len(latencies) * 99 // 100] * 1e6 if latencies else None,
                    "failures": failures,
                }
            )
        )


class Wrong(Exception):
    """An answer that cannot be."""


class Soak:
    """Operations whose every answer is checked against what this worker did before."""

    def __init__(self, raw: ferrite.RawClient, txns: ferrite.TxnClient, prefix: bytes, operations: int) -> None:
        self.raw, self.txns, self.prefix, self.operations = raw, txns, prefix, operations
        self.begun = self.undetermined = self.failed = 0

    def next(self) -> int | None:
        if self.begun >= self.operations:
            return None
        self.begun += 1
        return self.begun

    async def work(self, worker: int) -> None:
        generations, expected = [0] * SLOTS, [None] * SLOTS  # type: tuple[list[int], list[bytes | None]]
        pair, count = 0, 0
        while (number := self.next()) is not None:
            slot, kind = number % SLOTS, number // SLOTS % 20
            key = b"%s/%d/%d/%d" % (self.prefix, worker, slot, generations[slot])
            value = b"%d:%d:" % (worker, number) + VALUE
            try:
                if kind < 10:
                    found = await self.raw.get(key)
                    if found != expected[slot]:
                        raise Wrong(f"{key!r} is {found!r}, wanted {expected[slot]!r}")
                elif kind < 17:
                    await self.raw.put(key, value)
                    expected[slot] = value
                else:
                    await self.count_up(b"%s/%d/t%d" % (self.prefix, worker, pair), count)
                    count += 1
            except ferrite.UndeterminedError:
                # A write that may still come: its keys are not looked at again.
                self.undetermined += 1
                if kind < 17:
                    generations[slot], expected[slot] = generations[slot] + 1, None
                else:
                    pair, count = pair + 1, 0
            except ferrite.FerriteError as error:
                self.failed += 1
                if not error.retryable:
                    raise Wrong(f"{error.kind}: {error}") from error

    async def count_up(self, pair: bytes, count: int) -> None:
        async with self.txns.begin() as txn:
            for key in (pair + b"a", pair + b"b"):
                found = int(await txn.get(key) or b"0")
                if found != count:
                    raise Wrong(f"{key!r} counts {found}, wanted {count}")
                await txn.put(key, b"%d" % (count + 1))

    async def progress(self) -> None:
        while True:
            print(f"progress {self.begun}", flush=True)
            await asyncio.sleep(1)

    async def run(self, in_flight: int) -> None:
        progress = asyncio.create_task(self.progress())
        await asyncio.gather(*(self.work(worker) for worker in range(in_flight)))
        progress.cancel()
        print(json.dumps({"operations": self.begun, "undetermined": self.undetermined, "failed": self.failed}))


async def main(endpoints: str, keyspace: str, mode: str, in_flight: int, amount: int, prefix: bytes) -> None:
    of = None if keyspace == "-" else keyspace
    raw = await ferrite.RawClient.connect(endpoints, keyspace=of, deadline=20.0)
    txns = await ferrite.TxnClient.connect(endpoints, keyspace=of, deadline=20.0)
    if mode == "soak":
        await Soak(raw, txns, prefix, amount).run(in_flight)
    else:
        await Bench(raw, txns, prefix).run(mode, in_flight, amount / 1000)


if __name__ == "__main__":
    endpoints, keyspace, mode, in_flight, amount, prefix = sys.argv[1:]
    asyncio.run(main(endpoints, keyspace, mode, int(in_flight), int(amount), prefix.encode()))
