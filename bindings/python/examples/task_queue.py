"""A queue of tasks for many workers, in transactions: each task is done once, also if a worker dies in the middle.

    task_queue.py [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--tasks N] [--workers N]

Tasks lie under `queue/todo/`; who takes one moves it to `queue/done/` in the transaction in which its result is written, so that nobody else can.
"""

from __future__ import annotations

import argparse
import asyncio

from ferrite_client import FerriteError, TxnClient

TODO, DONE = b"queue/todo/", b"queue/done/"


def after(prefix: bytes) -> bytes:
    """The first key behind all that begin with a prefix."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


async def add(txns: TxnClient, tasks: int) -> None:
    """Tasks are added all at once; what an earlier run left is forgotten."""
    async with txns.begin() as txn:
        for prefix in (TODO, DONE):
            async for key, _ in txn.scan(prefix, after(prefix), keys_only=True):
                await txn.delete(key)
        await txn.batch_put((TODO + b"%06d" % number, b"%d" % number) for number in range(tasks))


async def take_one(txns: TxnClient, worker: int) -> bool:
    """Does the first task that nobody else holds; False if none is left."""
    async with txns.begin(pessimistic=True, lock_wait=0) as txn:
        is_empty = True
        async for key, _ in txn.scan(TODO, after(TODO), limit=32):
            is_empty = False
            try:
                task = await txn.get_for_update(key)
            except FerriteError as error:
                # Somebody else is at it.
                if error.kind not in ("locked", "conflict"):
                    raise
                continue
            if task is None:
                continue
            await txn.put(DONE + key.removeprefix(TODO), b"%d by worker %d" % (int(task) ** 2, worker))
            await txn.delete(key)
            return True
        return not is_empty


async def work(txns: TxnClient, worker: int) -> None:
    while True:
        try:
            if not await take_one(txns, worker):
                return
        except FerriteError as error:
            if not error.retryable:
                raise


async def main(flags: argparse.Namespace) -> None:
    txns = await TxnClient.connect(flags.pd, deadline=20.0, ca=flags.ca, cert=flags.cert, key=flags.key)
    await add(txns, flags.tasks)
    await asyncio.gather(*(work(txns, worker) for worker in range(flags.workers)))
    snapshot = txns.snapshot()
    done = [pair async for pair in snapshot.scan(DONE, after(DONE))]
    left = [pair async for pair in snapshot.scan(TODO, after(TODO))]
    assert len(done) == flags.tasks and not left, f"{len(done)} done, {len(left)} left"
    by = {value.rsplit(b" ", 1)[1] for _, value in done}
    print(f"{len(done)} tasks done once each, by {len(by)} workers")


parser = argparse.ArgumentParser(description="A queue of tasks for many workers.")
parser.add_argument("--pd", default="127.0.0.1:2379")
for file in ("--ca", "--cert", "--key"):
    parser.add_argument(file)
parser.add_argument("--tasks", type=int, default=100)
parser.add_argument("--workers", type=int, default=8)
asyncio.run(main(parser.parse_args()))
