"""An inventory with pessimistic locks: many buyers, no item sold twice. A blocking program with threads.

    inventory.py [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--stock N] [--buyers N]
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

from ferrite_client import FerriteError, TxnClient

ITEMS = (b"inventory/apples", b"inventory/pears")
SOLD, AFTER_SOLD = b"inventory/sold/", b"inventory/sold0"


def fill(txns: TxnClient, stock: int) -> None:
    """What an earlier run sold is forgotten."""
    with txns.begin() as txn:
        for key, _ in txn.scan(SOLD, AFTER_SOLD, keys_only=True):
            txn.delete(key).wait()
        for item in ITEMS:
            txn.put(item, b"%d" % stock).wait()


def buy(txns: TxnClient, buyer: int) -> bool:
    """One of each item, or none; tried again when others were in the way."""
    while True:
        try:
            with txns.begin(pessimistic=True) as txn:
                stock = {}
                # In one order, so that buyers do not wait for each other in a circle.
                for item in ITEMS:
                    stock[item] = int(txn.get_for_update(item).wait() or b"0")
                if min(stock.values()) == 0:
                    return False
                for item, count in stock.items():
                    txn.put(item, b"%d" % (count - 1)).wait()
                txn.insert(SOLD + b"%06d" % buyer, b"one of each").wait()
            return True
        except FerriteError as error:
            if not error.retryable:
                raise


def main(flags: argparse.Namespace) -> None:
    txns = TxnClient.connect(flags.pd, deadline=20.0, ca=flags.ca, cert=flags.cert, key=flags.key).wait()
    fill(txns, flags.stock)
    with ThreadPoolExecutor(8) as threads:
        served = sum(threads.map(lambda buyer: buy(txns, buyer), range(flags.buyers)))
    snapshot = txns.snapshot()
    sold = len(list(snapshot.scan(SOLD, AFTER_SOLD)))
    left = [int(value) for _, value in snapshot.batch_get(ITEMS).wait()]
    assert sold == served == min(flags.stock, flags.buyers), f"{sold} sold, {served} served"
    assert left == [flags.stock - sold] * len(ITEMS), f"{left} left"
    print(f"{served} of {flags.buyers} buyers served, {left[0]} of each left")


parser = argparse.ArgumentParser(description="An inventory with pessimistic locks.")
parser.add_argument("--pd", default="127.0.0.1:2379")
for file in ("--ca", "--cert", "--key"):
    parser.add_argument(file)
parser.add_argument("--stock", type=int, default=20)
parser.add_argument("--buyers", type=int, default=32)
main(parser.parse_args())
