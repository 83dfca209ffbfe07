"""Loads many pairs as fast as the cluster takes them, a few batches in flight, with a bar of progress.

    bulk_load.py [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--pairs N]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator

from ferrite_client import FerriteError, RawClient

BATCH, IN_FLIGHT = 512, 8


def batches(pairs: int) -> Iterator[list[tuple[bytes, bytes]]]:
    for first in range(0, pairs, BATCH):
        numbers = range(first, min(first + BATCH, pairs))
        yield [(b"bulk/%09d" % number, b"value of %d" % number) for number in numbers]


def show(done: int, pairs: int, begun: float) -> None:
    bar = "#" * (40 * done // pairs)
    print(f"\r[{bar:40}] {done}/{pairs} pairs, {done / (time.monotonic() - begun):.0f}/s", end="", file=sys.stderr, flush=True)


async def main(flags: argparse.Namespace) -> None:
    client = await RawClient.connect(flags.pd, deadline=30.0, ca=flags.ca, cert=flags.cert, key=flags.key)
    await client.delete_range(b"bulk/", b"bulk0")
    room, done, begun = asyncio.Semaphore(IN_FLIGHT), 0, time.monotonic()

    async def put(batch: list[tuple[bytes, bytes]]) -> None:
        nonlocal done
        async with room:
            while True:
                try:
                    await client.batch_put(batch)
                    break
                except FerriteError as error:
                    # Putting the same again does no harm, so an unknown outcome may be tried again too.
                    if not error.retryable and error.kind != "undetermined":
                        raise
            done += len(batch)
            show(done, flags.pairs, begun)

    await asyncio.gather(*(put(batch) for batch in batches(flags.pairs)))
    print(file=sys.stderr)
    sum_ = await client.checksum(b"bulk/", b"bulk0")
    assert sum_.pairs == flags.pairs, f"{sum_.pairs} pairs are there"
    print(f"{sum_.pairs} pairs loaded")


parser = argparse.ArgumentParser(description="Loads many pairs with a bar of progress.")
parser.add_argument("--pd", default="127.0.0.1:2379")
for file in ("--ca", "--cert", "--key"):
    parser.add_argument(file)
parser.add_argument("--pairs", type=int, default=20000)
asyncio.run(main(parser.parse_args()))
