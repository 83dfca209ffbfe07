#!/usr/bin/env python3
"""Build cache beside nginx WebDAV: CPU per request, requests a second, p99; goals as lines, exit 1 if one is missed.

Started by `cargo xtask bench build-cache`. Needs nginx with dav-ext, wrk and zstd. CPU is the server's own (user + system, from
/proc), so that the load generator and others on the machine spoil it less than they spoil rates. Content is of two kinds: `mixed`, half
noise, half text, shrinks to about a half, as build outputs do; `packed` is noise, as archives are. Our answers are measured as nginx's
(`identity`), and for mixed content as clients get them that accept zstd. Over loopback it depends on who is awake whether the sender or
the receiver does the work of the network between them, so that GETs are told with their client's CPU too. What is asked for the first time is told apart (`first`).

All runs in a network of its own whose congestion control does not pace (`cubic`, Debian's own, or `reno`). BBR sends from timers, whose work
the system books to whom they interrupt: beside it nginx, whose answers start with a packet of their head alone, is booked less than half
of what it is with `tcp_nopush`, where the same bytes leave in full packets, and its client twice as much. `--network host` shows that.

The whole takes eleven minutes; --place, --size, --content and --part run a part of it."""
import argparse
import ctypes, hashlib, json, mmap, os, random, re, shutil, subprocess, sys, tempfile, time, threading, socket

parser = argparse.ArgumentParser(description="The build cache beside nginx WebDAV.")
parser.add_argument("binary", help="ferrite-build-cache, optimised")
parser.add_argument("--place", choices=("tmpfs", "disk"), action="append", help="where both keep their files; default: both places")
parser.add_argument("--size", choices=("16KiB", "1MiB"), action="append", help="sizes of blobs; default: both")
parser.add_argument("--content", choices=("mixed", "packed"), action="append", help="kinds of content; default: both")
parser.add_argument("--part", choices=("requests", "uploads"), action="append", help="requests beside nginx, memory of 1,000 uploads; default: both")
parser.add_argument("--network", choices=("own", "host"), default="own", help="a network of its own that does not pace, or the machine's")
ARGS = parser.parse_args()
BINARY = ARGS.binary
SECONDS = int(os.environ.get("BENCH_SECONDS", "5"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
TICK = os.sysconf("SC_CLK_TCK")
SIZES = {"16KiB": (16 << 10, 2000), "1MiB": (1 << 20, 100)}
OURS, NGINX, NOPUSH = 18980, 18981, 18982
# What the bench touches before a round of uploads, and before what is read for the first time: its files, and as much again twice.
WARM = 384 << 20
CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"
goals = []


def own_network():
    """Leaves the machine's network for one with a loopback alone, whose sockets do not pace."""
    clone_newnet = 0x40000000
    if ctypes.CDLL(None).unshare(clone_newnet) != 0:
        sys.exit("a network of its own takes root; --network host does without")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name in ("cubic", "reno"):
        try:
            with open(CONGESTION, "w") as control:
                control.write(name)
            return
        except OSError:
            continue  # not for name spaces on this machine
    sys.exit("neither cubic nor reno is there; --network host does without")


def content(n, size, kind="mixed"):
    rng = random.Random(n)
    if kind == "packed":
        return rng.randbytes(size)
    text = rng.randbytes(size // 2).translate(bytes(97 + byte % 8 for byte in range(256)))
    noise = rng.randbytes(size // 2)
    # By turns, so that the start is like the rest: it decides whether a blob is compressed.
    return b"".join(part[at : at + 512] for at in range(0, size // 2, 512) for part in (text, noise))


def cpu(pids):
    total = 0
    for pid in pids:
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def children(pid):
    text = open(f"/proc/{pid}/task/{pid}/children").read()
    return [int(word) for word in text.split()] or [pid]


def wait_port(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on {port}")


def start(base):
    ours = subprocess.Popen([BINARY, "serve", "--addr", f"127.0.0.1:{OURS}", "--data-dir", f"{base}/ours", "--size-max", "8GiB"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.makedirs(f"{base}/nginx/root"), os.makedirs(f"{base}/nginx/tmp")
    module = "/usr/lib/nginx/modules/ngx_http_dav_ext_module.so"
    if not os.path.exists(module):
        sys.exit(f"{module} is missing: apt-get install libnginx-mod-http-dav-ext")
    dav = f"root {base}/nginx/root; location / {{ dav_methods PUT DELETE; create_full_put_path on; }}"
    conf = f"""load_module {module};
worker_processes 2; daemon off; pid {base}/nginx/pid; error_log /dev/null; user root;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {base}/nginx/tmp; client_max_body_size 0; sendfile on; tcp_nodelay on; keepalive_requests 100000000;
server {{ listen 127.0.0.1:{NGINX}; {dav} }}
server {{ listen 127.0.0.1:{NOPUSH}; tcp_nopush on; {dav} }} }}"""
    open(f"{base}/nginx/conf", "w").write(conf)
    nginx = subprocess.Popen(["nginx", "-c", f"{base}/nginx/conf"], stderr=subprocess.DEVNULL)
    wait_port(OURS), wait_port(NGINX), time.sleep(0.3)
    return ours, nginx


def warm():
    """Touches free memory. A virtual machine may have given it back to its host, and whoever uses it first waits for it: 10 us a page."""
    pages = mmap.mmap(-1, WARM)
    for at in range(0, WARM, mmap.PAGESIZE):
        pages[at] = 1
    pages.close()


def upload(url, files, log):
    """Uploads each file once, eight at a time; seconds of each."""
    with open(log + ".cfg", "w") as config:
        for path, name in files:
            config.write(f'url = "{url}/{name}"\nupload-file = "{path}"\noutput = "/dev/null"\n')
    start = time.time()
    out = subprocess.run(["curl", "-sS", "--no-progress-meter", "-Z", "--parallel-max", "8", "-w", "%{http_code} %{time_total}\n", "-K", log + ".cfg"],
                         capture_output=True, text=True)
    rows = [line.split() for line in out.stdout.splitlines() if re.match(r"\d{3} ", line)]
    bad = [row for row in rows if row[0] not in ("200", "201", "204")]
    if bad or len(rows) != len(files):
        sys.exit(f"{len(bad)} uploads failed, {len(rows)} of {len(files)} answered: {bad[:1]} {out.stderr[:200]}")
    return time.time() - start, sorted(float(row[1]) for row in rows)


def p99(values):
    return values[min(len(values) - 1, len(values) * 99 // 100)] * 1000


def get(port, names, log, header=""):
    lua = "local names = {" + ",".join(f'"{name}"' for name in names) + "}\nlocal n = 0\n"
    lua += f"request = function() n = n % #names + 1; return wrk.format('GET', '/' .. names[n], {{{header}}}) end\n"
    open(log + ".lua", "w").write(lua)
    before = os.times()
    out = subprocess.run(["wrk", "-t1", "-c8", f"-d{SECONDS}s", "--latency", "-s", log + ".lua", f"http://127.0.0.1:{port}"],
                         capture_output=True, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        sys.exit(f"gets failed:\n{out}")
    after = os.times()
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", out).groups()
    client = after.children_user + after.children_system - before.children_user - before.children_system
    return int(re.search(r"(\d+) requests in", out)[1]), float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit], client


def median(values):
    return sorted(values)[len(values) // 2]


def codec_micros(files):
    """sha256 and zstd -1 of these bytes, one core, microseconds each file."""
    blobs = [open(path, "rb").read() for path, _ in files]
    start = time.process_time()
    for blob in blobs:
        hashlib.sha256(blob).digest()
    sha = (time.process_time() - start) / len(blobs) * 1e6
    joined = files[0][0] + ".all"
    open(joined, "wb").write(b"".join(blobs))
    # One stream over all of them, which is less work than one of each; CPU time, since others are on the machine.
    before = os.times()
    subprocess.run(["zstd", "-q", "-1", "--single-thread", "-c", joined], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    zstd = (after.children_user + after.children_system - before.children_user - before.children_system) / len(blobs) * 1e6
    os.remove(joined)
    return sha, zstd


def goal(name, value, most):
    goals.append(value <= most)
    print(f"goal {name}: {value:.2f} (wanted <= {most}): {'met' if value <= most else 'missed'}", flush=True)


def fetch_once(port, names, log):
    """Fetches each file once, eight at a time."""
    with open(log + ".cfg", "w") as config:
        for name in names:
            config.write(f'url = "http://127.0.0.1:{port}/{name}"\noutput = "/dev/null"\n')
    subprocess.run(["curl", "-sSf", "--no-progress-meter", "-Z", "--parallel-max", "8", "-K", log + ".cfg"], check=True)


def tell(place, what, kind, who, row):
    print(f"{place:6} {what:9} {kind:7} {who:14} {row[0]:8.1f} CPU us/request {row[1]:9.0f} /s  p99 {row[2]:7.2f} ms", flush=True)


def middle(rows):
    return [median([row[i] for row in rows]) for i in range(3)]


def puts(place, base, pids, label, kind):
    """The names of each round."""
    size, count = SIZES[label]
    os.makedirs(f"{base}/in", exist_ok=True)
    costs, names = {"nginx": [], "ours": []}, []
    for round_ in range(ROUNDS):
        files = []
        for n in range(count):
            blob = content(round_ * 1_000_003 + n + size, size, kind)
            path = f"{base}/in/{n}"
            open(path, "wb").write(blob)
            files.append((path, "cas/" + hashlib.sha256(blob).hexdigest()))
        sha, zstd = codec_micros(files)
        for who, port in (("nginx", NGINX), ("ours", OURS)):
            warm()
            before = cpu(pids[who])
            seconds, times = upload(f"http://127.0.0.1:{port}", files, f"{base}/log")
            costs[who].append(((cpu(pids[who]) - before) / count * 1e6, count / seconds, p99(times)))
        names.append([name for _, name in files])
    rows = {who: middle(costs[who]) for who in costs}
    for who, row in rows.items():
        tell(place, f"PUT {label}", kind, who, row)
    print(f"{place:6} PUT {label} {kind}: sha256 {sha:.1f} us, zstd -1 {zstd:.1f} us of the same bytes")
    goal(f"put_{label}_{kind}_{place}_vs_nginx_sha_zstd", rows["ours"][0] / (rows["nginx"][0] + sha + zstd), 1.3)
    return names


def gets(place, base, pids, label, kind, names):
    asked = [("nginx", NGINX, ""), ("ours", OURS, "")]
    if label == "1MiB":
        asked.append(("nginx nopush", NOPUSH, ""))
    if kind == "mixed":
        asked.append(("ours zstd", OURS, '["accept-encoding"]="zstd"'))
    unread = [name for round_ in names[:-1] for name in round_]
    for who, port, _ in asked[:2]:
        warm()  # what we keep decompressed lies in pages that are new now, as nginx's were when it was sent them
        before = cpu(pids[who])
        fetch_once(port, unread, f"{base}/log")
        print(f"{place:6} GET {label} {kind}: {who}, the first time: {(cpu(pids[who]) - before) / len(unread) * 1e6:.0f} CPU us/request")
    rows = {who: [] for who, _, _ in asked}
    for _ in range(ROUNDS):
        for who, port, header in asked:
            pid = pids[who.split()[0]]
            before = cpu(pid)
            requests, tail, client = get(port, names[-1], f"{base}/log", header)
            own = cpu(pid) - before
            rows[who].append((own / requests * 1e6, requests / SECONDS, tail, (own + client) / requests * 1e6))
    both = {who: median([row[3] for row in rows[who]]) for who in rows}
    rows = {who: middle(rows[who]) for who in rows}
    for who, row in rows.items():
        tell(place, f"GET {label}", kind, who, row)
        print(f"{place:6} GET {label} {kind}: {who}, with its client: {both[who]:.1f} CPU us/request")
    for who in [who for who in rows if who.startswith("ours")]:
        name = "identity" if who == "ours" else "zstd"
        goal(f"get_{label}_{kind}_{place}_{name}_vs_nginx", rows[who][0] / rows["nginx"][0], 1.2)
        goal(f"get_{label}_{kind}_{place}_{name}_with_client_vs_nginx", both[who] / both["nginx"], 1.2)
        if label == "16KiB" and place == "disk":
            goal(f"cores_for_5000_get_16KiB_{kind}_{name}", rows[who][0] * 5000 / 1e6, 1.0)


def measure(place, base):
    ours, nginx = start(base)
    try:
        pids = {"ours": [ours.pid], "nginx": children(nginx.pid)}
        if "requests" in (ARGS.part or ["requests"]):
            for label in ARGS.size or SIZES:
                for kind in ARGS.content or ("mixed", "packed"):
                    gets(place, base, pids, label, kind, puts(place, base, pids, label, kind))
        if "uploads" in (ARGS.part or ["uploads"]) and place == "disk":
            goal("rss_mb_less_index_1000_uploads", parallel_uploads(ours.pid), 200)
    finally:
        ours.terminate(), nginx.terminate(), ours.wait(), nginx.wait()


def parallel_uploads(pid):
    """1,000 uploads of 1 MiB at once, each stopped three quarters in, so that all are in flight together."""
    blob = content(7, 1 << 20)
    sockets = []
    for n in range(1000):
        body = n.to_bytes(8, "little") + blob[8:]
        s = socket.create_connection(("127.0.0.1", OURS))
        s.sendall(f"PUT /cas/{hashlib.sha256(body).hexdigest()} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        sockets.append((s, body))
    senders = [threading.Thread(target=lambda part: [s.sendall(body[: 3 << 18]) for s, body in part], args=(sockets[k::8],)) for k in range(8)]
    [t.start() for t in senders], [t.join() for t in senders], time.sleep(1)
    rss = lambda: int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) / 1024
    status = json.loads(subprocess.run(["curl", "-s", f"http://127.0.0.1:{OURS}/status"], capture_output=True).stdout)
    flight, index, held = status["uploads"], status["store"]["index_bytes"] / 1e6, rss()
    answered = 0
    for s, body in sockets:
        s.sendall(body[3 << 18:])
    for s, _ in sockets:
        answered += s.recv(12) == b"HTTP/1.1 200"
        s.close()
    print(f"{flight} uploads in flight, RSS {held:.0f} MB, index {index:.1f} MB; {answered} of 1000 stored", flush=True)
    if answered != 1000:
        sys.exit("not every upload was stored")
    return held - index


if ARGS.network == "own":
    own_network()
model = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())[1]
print(f"{os.cpu_count()} cores of {model}; load average at start: {os.getloadavg()}; rounds {ROUNDS} of {SECONDS} s, medians; "
      f"congestion control {open(CONGESTION).read().strip()}", flush=True)
for place in ARGS.place or ("tmpfs", "disk"):
    parent = "/dev/shm" if place == "tmpfs" else os.environ.get("BENCH_DISK", "/var/tmp")
    base = tempfile.mkdtemp(prefix="ferrite-bench-", dir=parent)
    try:
        measure(place, base)
    finally:
        shutil.rmtree(base)
print(f"load average at end: {os.getloadavg()}")
sys.exit(0 if all(goals) else 1)
