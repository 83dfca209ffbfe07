"""An inventory with pessimistic locks: many buyers, no item sold twice. A blocking program with threads.

    inventory.py [ENDPOINTS [STOCK [BUYERS]]]
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from ferrite_client import FerriteError, TxnClient

ITEMS = (b"inventory/apples", b"inventory/pears")


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
                txn.insert(b"inventory/sold/%06d" % buyer, b"one of each").wait()
            return True
        except FerriteError as error:
            if not error.retryable:
                raise


def main(endpoints: str = "127.0.0.1:2379", stock: str = "20", buyers: str = "32") -> None:
    txns = TxnClient.connect(endpoints, deadline=20.0).wait()
    with txns.begin() as txn:
        for item in ITEMS:
            txn.put(item, stock.encode()).wait()
    with ThreadPoolExecutor(8) as threads:
        served = sum(threads.map(lambda buyer: buy(txns, buyer), range(int(buyers))))
    snapshot = txns.snapshot()
    sold = len(list(snapshot.scan(b"inventory/sold/", b"inventory/sold0")))
    left = [int(value) for _, value in snapshot.batch_get(ITEMS).wait()]
    assert sold == served == min(int(stock), int(buyers)), f"{sold} sold, {served} served"
    assert left == [int(stock) - sold] * len(ITEMS), f"{left} left"
    print(f"{served} of {buyers} buyers served, {left[0]} of each left")


main(*sys.argv[1:])
