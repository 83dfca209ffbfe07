#!/usr/bin/env python3
"""Cache proxy beside nutcracker and no proxy at all: CPU per request, requests a second, p50 and p99, system calls, memory; goals as lines,
exit 1 if one is missed.

Started by `cargo xtask bench cache-proxy [SECTION...]`; the sections are pipeline-1, pipeline-16, pipeline-64, mget, memcached, calls and
memory, all of them where none is named. Needs redis-server, redis-tools, memcached, nutcracker and strace.

CPU is the proxy's own (user and system time, from /proc), and the servers' beside it: medians of rounds in which the targets take turns, so
that the load generator and others on the machine spoil it less than they spoil rates. Ours runs on one thread, as nutcracker does."""
import json, os, re, selectors, shutil, socket, statistics, subprocess, sys, tempfile, time

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SCALE = float(os.environ.get("BENCH_SCALE", "1"))
TICK = os.sysconf("SC_CLK_TCK")
REDIS, MEMCACHED = [17001, 17002, 17003, 17004], [17005, 17006, 17007, 17008]
OURS, TWEM, OURS_MC, TWEM_MC = 17100, 17101, 17102, 17103
KEYS = 10_000
goals, procs = [], {}


def goal(name, value, wanted, unit=""):
    met = value <= wanted
    goals.append(met)
    print(f"goal {name}: {value:.3f}{unit} (wanted <= {wanted}{unit}): {'met' if met else 'missed'}", flush=True)


def cpu(names):
    """Seconds of user and system time of these processes together."""
    total = 0
    for name in names:
        fields = open(f"/proc/{procs[name].pid}/stat").read().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def rss(name):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{procs[name].pid}/status").read())[1]) / 1024


def wait_port(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on {port}")


def program(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin") or sys.exit(f"{name} is missing")


def spawn(name, *command):
    procs[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start(binary, base):
    for port in REDIS:
        spawn(f"redis{port}", program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", base)
    for port in MEMCACHED:
        spawn(f"memcached{port}", program("memcached"), "-u", "nobody", "-t", "1", "-l", "127.0.0.1", "-p", str(port))
    toml, yml = "[server]\nthreads = 1\n", ""
    for name, ours, twem, ports, is_redis in (("bench", OURS, TWEM, REDIS, True), ("mc", OURS_MC, TWEM_MC, MEMCACHED, False)):
        listed = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        toml += f'[[pools]]\nname = "{name}"\nlisten = "127.0.0.1:{ours}"\nservers = [{listed}]\n'
        toml += "" if is_redis else 'protocol = "memcached"\n'
        lines = "".join(f"   - 127.0.0.1:{port}:1\n" for port in ports)
        yml += f"{name}:\n  listen: 127.0.0.1:{twem}\n  hash: fnv1a_64\n  distribution: ketama\n  redis: {str(is_redis).lower()}\n"
        yml += f"  backlog: 1024\n  servers:\n{lines}"
    open(f"{base}/ours.toml", "w").write(toml)
    open(f"{base}/twem.yml", "w").write(yml)
    spawn("ours", binary, "serve", "--config", f"{base}/ours.toml")
    log = ["-o", f"{base}/twem.log", "-p", f"{base}/twem.pid", "-s", "17190", "-a", "127.0.0.1"]
    spawn("nutcracker", program("nutcracker"), "-c", f"{base}/twem.yml", *log)
    for port in REDIS + MEMCACHED + [OURS, TWEM, OURS_MC, TWEM_MC]:
        wait_port(port)


def key(number):
    return b"key:%012d" % number


def seed(port, size, is_redis=True):
    """Every key, with a value of this size."""
    link = socket.create_connection(("127.0.0.1", port))
    value = b"x" * size
    for base in range(0, KEYS, 500):
        keys = [key(number) for number in range(base, base + 500)]
        if is_redis:
            link.sendall(b"".join(b"*3\r\n$3\r\nSET\r\n$16\r\n%s\r\n$%d\r\n%s\r\n" % (name, size, value) for name in keys))
        else:
            link.sendall(b"".join(b"set %s 0 0 %d\r\n%s\r\n" % (name, size, value) for name in keys))
        got = 0
        while got < 500:
            got += link.recv(65536).count(b"\n")
    link.close()


def redis_load(port, size, depth, requests, command, clients=50):
    """redis-benchmark: requests a second, p50 and p99 in milliseconds."""
    args = ["-p", str(port), "-c", str(clients), "-n", str(requests), "-P", str(depth), "-d", str(size), "-r", str(KEYS), "--csv"]
    text = subprocess.run([program("redis-benchmark"), *args, *command], capture_output=True, text=True).stdout
    fields = [field.strip('"') for field in text.strip().splitlines()[-1].rsplit(",", 7)]
    return float(fields[1]), float(fields[4]), float(fields[6])


def memcached_client(port, size, depth, requests, clients=50):
    """The load of memcached, in a process of its own: `get` of keys in turn, each client with so many in flight. All replies are of one length."""
    reply = len(b"VALUE %s 0 %d\r\n" % (key(0), size)) + size + len("\r\nEND\r\n")
    batches = [b"".join(b"get %s\r\n" % key((first + number) % KEYS) for number in range(depth)) for first in range(0, KEYS, 97)]
    waiting = selectors.DefaultSelector()
    begun, times = time.perf_counter(), []
    sent = done = 0
    for _ in range(clients):
        link = socket.create_connection(("127.0.0.1", port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(batches[sent % len(batches)])
        sent += 1
        waiting.register(link, selectors.EVENT_READ, [depth * reply, time.perf_counter()])
    while done * depth < requests:
        for ready, _ in waiting.select():
            state = ready.data
            state[0] -= len(ready.fileobj.recv(1 << 20))
            if state[0] == 0:
                now = time.perf_counter()
                times.append(now - state[1])
                done += 1
                ready.fileobj.sendall(batches[sent % len(batches)])
                sent += 1
                state[:] = [depth * reply, now]
    took = time.perf_counter() - begun
    times.sort()
    print(json.dumps([done * depth / took, times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3]))


def memcached_load(port, size, depth, requests, _command):
    text = subprocess.run([sys.executable, __file__, "--load", str(port), str(size), str(depth), str(requests)], capture_output=True, text=True)
    return json.loads(text.stdout)


def measure(name, size, depth, requests, command=(), ports=(OURS, TWEM, REDIS[0]), load=redis_load):
    """Rounds in which ours, nutcracker and a server alone take turns. Gives the median CPU of a request in microseconds, by target."""
    servers = [server for server in procs if server.startswith("redis" if load is redis_load else "memcached")]
    rows = {target: [] for target in ("ours", "nutcracker", "direct")}
    requests = int(requests * SCALE)
    for _ in range(ROUNDS):
        for target, port in zip(rows, ports):
            own = [] if target == "direct" else [target]
            before, before_servers = cpu(own), cpu(servers)
            rate, p50, p99 = load(port, size, depth, requests, command)
            each = 1e6 / requests
            rows[target].append(((cpu(own) - before) * each, (cpu(servers) - before_servers) * each, rate, p50, p99))
    used = {}
    for target, row in rows.items():
        used[target], at_servers, rate, p50, p99 = (statistics.median(column) for column in zip(*row))
        print(
            f"{name:26} {target:11} cpu {used[target]:6.2f} us  servers {at_servers:6.2f} us  {rate / 1000:7.1f} k/s  "
            f"p50 {p50:6.2f} ms  p99 {p99:6.2f} ms",
            flush=True,
        )
    return used["ours"] / max(used["nutcracker"], 0.01)


def pipeline(depth, requests, wanted):
    # One after the other: what `SET` leaves behind is what `GET` finds.
    for size in (64, 1024):
        seed(OURS, size), seed(REDIS[0], size)
        for verb in ("GET", "SET"):
            ratio = measure(f"{verb} {size} B, pipeline {depth}", size, depth, requests, ["-t", verb.lower()])
            if size == 64:
                goal(f"cpu_{verb.lower()}_pipeline_{depth}_vs_nutcracker", ratio, wanted)


def mget():
    seed(OURS, 64), seed(REDIS[0], 64)
    for keys, requests in ((10, 30_000), (100, 6_000)):
        ratio = measure(f"MGET {keys}, 4 servers", 64, 1, requests, ["mget"] + ["key:__rand_int__"] * keys)
        if keys == 100:
            goal("cpu_mget_100_vs_nutcracker", ratio, 1.0)


def memcached():
    seed(OURS_MC, 64, False), seed(MEMCACHED[0], 64, False)
    for depth, requests in ((1, 40_000), (16, 150_000)):
        ratio = measure(f"memcached get, pipeline {depth}", 64, depth, requests, (), (OURS_MC, TWEM_MC, MEMCACHED[0]), memcached_load)
        print(f"memcached get, pipeline {depth}: CPU {ratio:.2f} of nutcracker's", flush=True)


def calls():
    seed(OURS, 64)
    for depth, limit, requests in ((1, 2.3, 20_000), (16, 0.2, 100_000), (64, 0.09, 200_000)):
        counts = {}
        for target, port in (("ours", OURS), ("nutcracker", TWEM)):
            with tempfile.NamedTemporaryFile() as out:
                strace = [program("strace"), "-f", "-c", "-o", out.name, "-p", str(procs[target].pid)]
                trace = subprocess.Popen(strace, stderr=subprocess.DEVNULL)
                time.sleep(0.7)
                redis_load(port, 64, depth, requests, ["-t", "get"])
                trace.send_signal(2)
                trace.wait()
                total = [line.split() for line in open(out.name) if line.rstrip().endswith("total")][-1]
                counts[target] = int(total[3 if len(total) > 4 else 2]) / requests
        print(f"system calls per request, pipeline {depth}: ours {counts['ours']:.3f}, nutcracker {counts['nutcracker']:.3f}", flush=True)
        goal(f"system_calls_pipeline_{depth}", counts["ours"], limit)


def memory():
    """A thousand connections at pipeline 64, then silence."""
    for target, port in (("ours", OURS), ("nutcracker", TWEM)):
        before = rss(target)
        redis_load(port, 64, 64, 300_000, ["-t", "get"], clients=1000)
        time.sleep(12)
        after = rss(target)
        print(f"memory: {target} {before:.1f} MB before a burst, {after:.1f} MB after it", flush=True)
        if target == "ours":
            goal("rss_after_burst", after, 15, " MB")


SECTIONS = {
    "pipeline-1": lambda: pipeline(1, 50_000, 0.75),
    "pipeline-16": lambda: pipeline(16, 300_000, 0.20),
    "pipeline-64": lambda: pipeline(64, 500_000, 0.15),
    "mget": mget,
    "memcached": memcached,
    "calls": calls,
    "memory": memory,
}


def main(binary, *wanted):
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        sys.exit(f"no section {unknown[0]!r}: there are {', '.join(SECTIONS)}")
    base = tempfile.mkdtemp()
    os.chmod(base, 0o755)
    try:
        start(binary, base)
        for name, section in SECTIONS.items():
            if not wanted or name in wanted:
                section()
    finally:
        for process in procs.values():
            process.kill()
            process.wait()
        shutil.rmtree(base, ignore_errors=True)
    sys.exit(0 if all(goals) else 1)


if sys.argv[1] == "--load":
    memcached_client(*map(int, sys.argv[2:]))
else:
    main(*sys.argv[1:])
