#!/usr/bin/env python3
"""Cache proxy beside nutcracker and no proxy at all: CPU per request, requests a second, p50 and p99, system calls, memory; goals as lines,
exit 1 if one is missed.

Started by `cargo xtask bench cache-proxy`. Needs redis-server, redis-tools, nutcracker, and strace for the count of system calls. CPU is the
proxy's own (user + system, from /proc), medians of rounds that take turns, so that the load generator and others on the machine spoil it less
than they spoil rates. Ours runs on one thread, as nutcracker does."""
import os, re, shutil, socket, statistics, subprocess, sys, tempfile, time

BINARY = sys.argv[1]
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SCALE = float(os.environ.get("BENCH_SCALE", "1"))
TICK = os.sysconf("SC_CLK_TCK")
BACKENDS = [17001, 17002, 17003, 17004]
OURS, TWEM = 17100, 17101
goals, procs = [], []


def goal(name, value, wanted, unit=""):
    met = value <= wanted
    goals.append(met)
    print(f"goal {name}: {value:.3f}{unit} (wanted <= {wanted}{unit}): {'met' if met else 'missed'}", flush=True)


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) / 1024


def wait_port(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on {port}")


def spawn(*command):
    procs.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return procs[-1].pid


def start(base):
    for port in BACKENDS:
        spawn("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", base)
    servers = [f"127.0.0.1:{port}" for port in BACKENDS]
    listed = ", ".join(f'"{server}"' for server in servers)
    open(f"{base}/ours.toml", "w").write(f'[server]\nthreads = 1\n[[pools]]\nname = "bench"\nlisten = "127.0.0.1:{OURS}"\nservers = [{listed}]\n')
    lines = "".join(f"   - {server}:1\n" for server in servers)
    open(f"{base}/twem.yml", "w").write(
        f"bench:\n  listen: 127.0.0.1:{TWEM}\n  hash: fnv1a_64\n  distribution: ketama\n  redis: true\n  backlog: 1024\n  servers:\n{lines}"
    )
    ours = spawn(BINARY, "serve", "--config", f"{base}/ours.toml")
    nutcracker = shutil.which("nutcracker") or "/usr/sbin/nutcracker"
    twem = spawn(nutcracker, "-c", f"{base}/twem.yml", "-o", f"{base}/twem.log", "-p", f"{base}/twem.pid", "-s", "17190", "-a", "127.0.0.1")
    for port in BACKENDS + [OURS, TWEM]:
        wait_port(port)
    return {"ours": (OURS, ours), "nutcracker": (TWEM, twem), "direct": (BACKENDS[0], None)}


def load(port, size, depth, requests, command=None, clients=50):
    """redis-benchmark: requests a second, p50, p99 in milliseconds."""
    what = ["-t", "get"] if command is None else []
    args = ["redis-benchmark", "-p", str(port), "-c", str(clients), "-n", str(requests), "-P", str(depth), "-d", str(size), "-r", "10000", "--csv"]
    text = subprocess.run(args + what + (command or []), capture_output=True, text=True).stdout
    row = text.strip().splitlines()[-1]
    fields = [field.strip(chr(34)) for field in row.rsplit(",", 7)]
    return float(fields[1]), float(fields[4]), float(fields[6])


def seed(port):
    link = socket.create_connection(("127.0.0.1", port))
    for size in (64, 1024):
        for base in range(0, 10000, 500):
            batch = b"".join(
                b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$%d\r\n%s\r\n" % (number, size, b"x" * size) for number in range(base, base + 500)
            )
            link.sendall(batch)
            got = b""
            while got.count(b"\r\n") < 500:
                got += link.recv(65536)
    link.close()


def measure(targets, name, size, depth, requests, command=None):
    rows = {target: [] for target in targets}
    for _ in range(ROUNDS):
        for target, (port, pid) in targets.items():
            if pid is None and command is not None:
                continue
            before = cpu(pid) if pid else 0
            rate, p50, p99 = load(port, size, depth, requests, command)
            used = (cpu(pid) - before) * 1e6 / requests if pid else 0
            rows[target].append((used, rate, p50, p99))
    medians = {}
    for target, row in rows.items():
        if row:
            medians[target] = [statistics.median(column) for column in zip(*row)]
            used, rate, p50, p99 = medians[target]
            print(f"{name:24} {target:11} cpu {used:7.2f} us  {rate / 1000:8.1f} k/s  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms", flush=True)
    return medians


def syscalls(pid, port, depth, requests):
    if not shutil.which("strace"):
        return None
    with tempfile.NamedTemporaryFile() as out:
        trace = subprocess.Popen(["strace", "-f", "-c", "-o", out.name, "-p", str(pid)], stderr=subprocess.DEVNULL)
        time.sleep(0.7)
        load(port, 64, depth, requests)
        trace.send_signal(2)
        trace.wait()
        total = [line for line in open(out.name).read().splitlines() if line.endswith("total")]
        return int(total[-1].split()[3 if len(total[-1].split()) > 4 else 2]) / requests


def burst(pid, port):
    """A thousand connections at pipeline 64, then silence."""
    subprocess.run(["redis-benchmark", "-p", str(port), "-c", "1000", "-n", "300000", "-P", "64", "-d", "64", "-r", "10000", "-t", "get", "-q"],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(12)
    return rss(pid)


def main():
    base = tempfile.mkdtemp()
    targets = start(base)
    ours, twem = targets["ours"][1], targets["nutcracker"][1]
    print(f"memory before: ours {rss(ours):.1f} MB, nutcracker {rss(twem):.1f} MB")
    # Through the proxy the keys come to their servers; the one asked directly gets all.
    seed(OURS), seed(BACKENDS[0])
    wanted = {1: 0.75, 16: 0.20, 64: 0.15}
    counts = {1: 60_000, 16: 300_000, 64: 500_000}
    for depth in (1, 16, 64):
        for size in (64, 1024):
            get = measure(targets, f"GET {size} B, pipeline {depth}", size, depth, int(counts[depth] * SCALE))
            ratio = get["ours"][0] / max(get["nutcracker"][0], 0.01)
            if size == 64:
                goal(f"cpu_get_pipeline_{depth}_vs_nutcracker", ratio, wanted[depth])
    for keys in (10, 100):
        command = ["mget"] + ["key:__rand_int__"] * keys
        mget = measure(targets, f"MGET {keys}, 4 servers", 64, 1, int(30_000 * SCALE / (keys / 10)), command)
        if keys == 100:
            goal("cpu_mget_100_vs_nutcracker", mget["ours"][0] / max(mget["nutcracker"][0], 0.01), 1.0)
    for depth, limit, count in ((1, 2.3, 20_000), (16, 0.2, 100_000), (64, 0.09, 200_000)):
        calls = syscalls(ours, OURS, depth, count)
        if calls is None:
            print("strace is missing: apt-get install strace; system calls were not counted")
            break
        goal(f"system_calls_pipeline_{depth}", calls, limit)
    after = burst(ours, OURS)
    burst_twem = burst(twem, TWEM)
    print(f"memory after a burst: ours {after:.1f} MB, nutcracker {burst_twem:.1f} MB")
    goal("rss_after_burst", after, 15, " MB")
    shutil.rmtree(base, ignore_errors=True)


try:
    main()
finally:
    for process in procs:
        process.kill()
        process.wait()
sys.exit(0 if all(goals) else 1)
