"""The runner of the conformance suite: operations come on standard input, see bindings/conformance/src/protocol.rs."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import Any

import ferrite_client as ferrite

handles: dict[str, Any] = {}
tasks: dict[str, asyncio.Task[None]] = {}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def pairs_text(pairs: list[tuple[bytes, bytes]]) -> str:
    return "pairs=" + ",".join(f"{key.hex()}:{value.hex()}" for key, value in pairs)


def number_text(number: int | None) -> str:
    return "" if number is None else f"number={number}"


def value_text(value: bytes | None) -> str:
    return "" if value is None else f"value={value.hex()}"


async def scanned(line: dict[str, str], on: Any) -> str:
    scan = on.scan(
        bytes.fromhex(line["start"]),
        bytes.fromhex(line["end"]),
        limit=int(line.get("limit", "0")),
        reverse=line.get("reverse") == "true",
        keys_only=line.get("keys_only") == "true",
    )
    stop, found = int(line.get("stop", "0")), []
    async for pair in scan:
        found.append(pair)
        if len(found) == stop:
            break
    return pairs_text(found)


def seconds(text: str) -> float:
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text[:-1])


def options(text: str) -> dict[str, Any]:
    """The options of the case as keyword arguments."""
    found: dict[str, Any] = {}
    for option in filter(None, text.split(",")):
        name, _, value = option.partition("=")
        name = name.replace("-", "_")
        if name == "keyspace":
            found[name] = value
        elif name == "deadline":
            found[name] = seconds(value)
        elif name == "lock_wait":
            found[name] = 0 if value == "no" else seconds(value)
        else:
            found[name] = value in ("", "true")
    return found


async def connected(kind: Any, line: dict[str, str]) -> str:
    try:
        call = kind.connect(line["endpoints"], **options(line.get("options", "")))
    except TypeError as error:
        # A wrong name in a text is an unknown keyword here.
        raise ferrite.ConfigurationError(str(error), "see the signature", False, None) from error
    handles[line["as"]] = await call
    return ""


async def operate(operation: str, line: dict[str, str]) -> str:
    if operation == "raw.connect":
        return await connected(ferrite.RawClient, line)
    if operation == "txns.connect":
        return await connected(ferrite.TxnClient, line)
    if operation == "drop":
        del handles[line["on"]]
        return ""
    on = handles[line["on"]]
    verb = operation.split(".")[1]
    key, value = bytes.fromhex(line.get("key", "")), bytes.fromhex(line.get("value", ""))
    keys = [bytes.fromhex(key) for key in filter(None, line.get("keys", "").split(","))]
    pairs = [pair.split(":") for pair in filter(None, line.get("pairs", "").split(","))]
    byte_pairs = [(bytes.fromhex(key), bytes.fromhex(value)) for key, value in pairs]
    ttl = {"ttl": int(line["ttl_ms"]) / 1000} if "ttl_ms" in line else {}
    if verb in ("get", "get_for_update"):
        return value_text(await getattr(on, verb)(key))
    if verb in ("batch_get", "batch_get_for_update"):
        return pairs_text(await getattr(on, verb)(keys))
    if verb in ("batch_delete", "lock_keys"):
        await getattr(on, verb)(keys)
    elif verb == "delete":
        await on.delete(key)
    elif verb in ("put", "insert"):
        await getattr(on, verb)(key, value, **ttl)
    elif verb == "batch_put":
        await on.batch_put(byte_pairs, **ttl)
    elif verb == "delete_range":
        await on.delete_range(bytes.fromhex(line["start"]), bytes.fromhex(line["end"]))
    elif verb == "checksum":
        return number_text((await on.checksum(bytes.fromhex(line["start"]), bytes.fromhex(line["end"]))).pairs)
    elif verb == "compare_and_swap":
        expected, new = (bytes.fromhex(line[name]) if name in line else None for name in ("expected", "new"))
        swap = await on.compare_and_swap(key, expected, new)
        return f"swapped={str(swap.done).lower()} {value_text(swap.previous)}"
    elif verb == "ttl":
        left = await on.ttl(key)
        return "ttl=" + ("missing" if left is None else "forever" if left == math.inf else str(int(left)))
    elif verb == "scan":
        return await scanned(line, on)
    elif verb == "begin":
        handles[line["as"]] = await on.begin(**options(line.get("options", "")))
    elif verb == "timestamp":
        return number_text(await on.timestamp())
    elif verb == "snapshot":
        handles[line["as"]] = on.snapshot(int(line["ts"]))
    elif verb == "metrics":
        return value_text(on.metrics().encode())
    elif verb == "savepoint":
        return number_text(await on.savepoint())
    elif verb == "rollback_to":
        await on.rollback_to(int(line["savepoint"]))
    elif verb == "commit":
        return number_text(await on.commit())
    elif verb == "rollback":
        await on.rollback()
    else:
        raise AssertionError(f"the runner does not know {operation}")
    return ""


async def serve(number: str, operation: str, line: dict[str, str]) -> None:
    try:
        say(f"{number} ok {await operate(operation, line)}".rstrip())
    except asyncio.CancelledError:
        say(f"{number} error class=cancelled retryable=false")
    except ferrite.FerriteError as error:
        told = f"class={error.kind} retryable={str(error.retryable).lower()}"
        say(f"{number} error {told} hint={error.hint.encode().hex()} message={str(error).encode().hex()}")
    except Exception as error:
        say(f"{number} error class=case retryable=false message={repr(error).encode().hex()}")
    finally:
        tasks.pop(number, None)


async def main() -> None:
    reader = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while text := (await reader.readline()).decode().strip():
        number, operation, *parts = text.split(" ")
        line = dict(part.split("=", 1) for part in parts)
        if operation == "cancel":
            tasks[line["call"]].cancel()
            say(f"{number} ok")
        else:
            tasks[number] = asyncio.create_task(serve(number, operation, line))


asyncio.run(main())
