"""The first program: `first.py [ENDPOINTS]`."""

import asyncio
import sys

from ferrite_client import RawClient


async def main(endpoints: str) -> None:
    client = await RawClient.connect(endpoints, deadline=10.0)
    await client.put(b"greeting", b"hello")
    print(await client.get(b"greeting"))
    async for key, value in client.scan(b"a", b"z"):
        print(key, value)


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379"))
