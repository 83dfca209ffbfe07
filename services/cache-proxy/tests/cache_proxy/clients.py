"""Clients of PyPI against the proxy, each as its own manual shows it. `clients.py WHAT PORT...`; exit code 0 if all is as it should be."""
import asyncio
import sys
import threading


def same(found, wanted):
    assert found == wanted, f"{found!r}, wanted {wanted!r}"


def redis_py(port):
    """redis with its defaults: version 3 of the protocol, a pool of connections."""
    import redis

    r = redis.Redis(port=port)
    same(r.set("a", "1"), True)
    same(r.get("a"), b"1")
    same(r.get("none"), None)
    same(r.mset({f"k{n}": n for n in range(100)}), True)
    same(r.mget([f"k{n}" for n in range(100)]), [str(n).encode() for n in range(100)])
    same(r.delete(*[f"k{n}" for n in range(100)]), 100)
    same(r.hset("h", mapping={"x": 1, "y": 2}), 2)
    same(r.hgetall("h"), {b"x": b"1", b"y": b"2"})
    same(r.zadd("z", {"one": 1, "two": 2.5}), 2)
    same([(name, score) for name, score in r.zrange("z", 0, -1, withscores=True)], [(b"one", 1.0), (b"two", 2.5)])
    same(r.sadd("s", "m"), 1)
    same(r.smembers("s"), {b"m"})
    same(r.xadd("x", {"f": "v"}, id="1-1"), b"1-1")
    same(r.xlen("x"), 1)
    # Transactions, optimistic ones too, and pipelines without one.
    with r.pipeline() as pipe:
        same(pipe.set("{t}a", 1).incr("{t}a").get("{t}a").execute(), [True, 2, b"2"])
    with r.pipeline(transaction=False) as pipe:
        for number in range(200):
            pipe.set(f"p{number}", number)
        same(pipe.execute(), [True] * 200)

    def one_more(pipe):
        value = int(pipe.get("{t}a"))
        pipe.multi()
        pipe.set("{t}a", value + 1)

    same(r.transaction(one_more, "{t}a"), [True])
    same(r.get("{t}a"), b"3")
    # A script, by its digest first.
    add = r.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    same(add(keys=["{t}a"], args=[4]), 7)
    # Blocking, a lock, subscriptions.
    waiting = threading.Thread(target=lambda: same(r.blpop("queue", timeout=10), [b"queue", b"item"]))
    waiting.start()
    r.rpush("queue", "item")
    waiting.join()
    with r.lock("lock", timeout=5):
        same(r.lock("lock", timeout=5).acquire(blocking=False), False)
    with r.pubsub() as pubsub:
        pubsub.subscribe("news")
        same(pubsub.get_message(timeout=5)["type"], "subscribe")
        same(r.publish("news", "hello"), 1)
        same(pubsub.get_message(timeout=5)["data"], b"hello")
    same(sorted(r.scan_iter("p1*")), sorted(f"p{n}".encode() for n in range(200) if str(n).startswith("1")))
    same(r.client_info()["lib-name"], "redis-py")
    try:
        r.execute_command("FROBNICATE")
        raise AssertionError("an unknown command was served")
    except redis.ResponseError as error:
        assert "unknown command" in str(error), error
    same(redis.Redis(port=port, protocol=2, db=3).get("a"), None)
    asyncio.run(redis_asyncio(port))


async def redis_asyncio(port):
    import redis.asyncio

    async with redis.asyncio.Redis(port=port) as r:
        await asyncio.gather(*[r.set(f"async{n}", n) for n in range(100)])
        same(await asyncio.gather(*[r.get(f"async{n}") for n in range(100)]), [str(n).encode() for n in range(100)])


def redis_cluster(port):
    """The client that knows clusters, before a pool of one: it sees one server with all slots."""
    import redis

    r = redis.RedisCluster(host="127.0.0.1", port=port)
    for number in range(100):
        same(r.set(f"c{number}", number), True)
    same([r.get(f"c{number}") for number in range(100)], [str(number).encode() for number in range(100)])
    with r.pipeline() as pipe:
        for number in range(100):
            pipe.incr(f"c{number}")
        same(pipe.execute(), [number + 1 for number in range(100)])
    same(len(r.get_nodes()), 1)


def pymemcache(port):
    from pymemcache.client.base import Client, PooledClient

    for kind in (Client, PooledClient):
        m = kind(("127.0.0.1", port), default_noreply=False)
        same(m.set("a", b"1"), True)
        same(m.get("a"), b"1")
        same(m.get("none"), None)
        same(m.add("a", b"2"), False)
        same(m.replace("a", b"10"), True)
        same(m.incr("a", 5), 15)
        same(m.decr("a", 1), 14)
        same(m.append("a", b"!"), True)
        value, unique = m.gets("a")
        same(value, b"14!")
        same(m.cas("a", b"x", unique), True)
        same(m.cas("a", b"y", unique), False)
        same(m.touch("a", 100), True)
        same(m.set_many({f"k{n}": str(n) for n in range(100)}), [])
        same(m.get_many([f"k{n}" for n in range(100)]), {f"k{n}": str(n).encode() for n in range(100)})
        same(m.delete_many([f"k{n}" for n in range(100)]), True)
        same(m.get_many([f"k{n}" for n in range(100)]), {})
        same(m.delete("a"), True)
        assert m.version().startswith(b"1.6"), m.version()
    quiet = Client(("127.0.0.1", port))
    for number in range(100):
        quiet.set("q", str(number))
    same(quiet.get("q"), b"99")


def items(port):
    """Items before a Ferrite cluster: libmemcached in the binary protocol, and what pymemcache has beside `pymemcache` above."""
    import pylibmc
    from pymemcache.client.base import Client

    m = pylibmc.Client([f"127.0.0.1:{port}"], binary=True, behaviors={"cas": True})
    same(m.set("a", "1"), True)
    same(m.get("a"), "1")
    same(m.get("none"), None)
    same(m.add("a", "2"), False)
    same(m.replace("a", "10"), True)
    same(m.append("a", "!"), True)
    same(m.prepend("a", "?"), True)
    same(m.get("a"), "?10!")
    value, unique = m.gets("a")
    same((value, m.cas("a", "x", unique), m.cas("a", "y", unique)), ("?10!", True, False))
    same(m.set_multi({f"k{n}": {"number": n} for n in range(100)}), [])
    same(m.get_multi([f"k{n}" for n in range(100)]), {f"k{n}": {"number": n} for n in range(100)})
    same(m.set("n", 5), True)
    same((m.incr("n", 3), m.decr("n", 1)), (8, 7))
    same(m.touch("n", 100), True)
    same((m.delete("n"), m.delete("n")), (True, False))
    text = Client(("127.0.0.1", port), default_noreply=False)
    same(text.set("g", b"v"), True)
    # Not every version of pymemcache has calls for these.
    same(b"VALUE g 0 1\r\nv" in text.raw_command(b"gat 100 g", b"END\r\n"), True)
    unique = text.raw_command(b"gats 200 g", b"END\r\n").split(b"\r\n")[0].split()[-1]
    same(text.cas("g", b"w", unique), True)
    same(text.raw_command(b"gat 100 none", b"END\r\n"), b"")


def libmemcached(port, *servers):
    """What libmemcached spreads over servers by weighted ketama, the proxy finds, and the other way round."""
    import pylibmc

    # Servers as HOST:PORT:WEIGHT.
    spread = pylibmc.Client(list(servers), behaviors={"ketama_weighted": True})
    through = pylibmc.Client([f"127.0.0.1:{port}"])
    for number in range(500):
        spread.set(f"spread{number}", str(number))
        through.set(f"through{number}", str(number))
    for number in range(500):
        same(through.get(f"spread{number}"), str(number))
        same(spread.get(f"through{number}"), str(number))


def main(what, port, *rest):
    {
        "redis": redis_py,
        "redis-cluster": redis_cluster,
        "pymemcache": pymemcache,
        "items": items,
        "libmemcached": libmemcached,
    }[what](int(port), *rest)


main(*sys.argv[1:])
