#!/usr/bin/env python3
"""Thumbnails beside sharp, vipsthumbnail and oximg: CPU per picture, peak memory, and how good the results are; goals as lines, exit 1 if
one is missed.

Started by `cargo xtask bench thumbnails`, which brings what it needs. On its own: numpy and Pillow; sharp is looked for by node in the folder
of SHARP_DIR, vipsthumbnail in PATH, oximg under the name in OXIMG; who is not there is left out, and its goals are missed. CPU is that of the
engine's own process, from /proc, so that load of others spoils it less than time. Engines take turns within each round; figures are medians of
rounds. References are full decodes scaled by Pillow's Lanczos; SSIM is of luma over windows of 8 by 8. Each engine makes its results with one
thread, 4:2:0 colour and, where it has them, its fast settings (oximg: sRGB, no margin, baseline JPEG).

Arguments are the parts to run: images, load, soak, allocators; none: the first three. The last is a soak of each of two builds, ours and that
in MIMALLOC_BIN, which `cargo xtask` makes."""
import glob, http.client, io, math, os, re, shutil, socket, statistics, subprocess, sys, tempfile, threading, time, urllib.request

import numpy
from PIL import Image

BINARY = sys.argv[1]
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
REPEAT = int(os.environ.get("BENCH_REPEAT", "6"))
SOAK = int(os.environ.get("BENCH_SOAK", "10000"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "6"))
PARTS = sys.argv[2:] or ["images", "load", "soak"]
SHARP_DIR = os.environ.get("SHARP_DIR", os.getcwd())
OXIMG = shutil.which(os.environ.get("OXIMG", "oximg"))
# Of ours; that of sharp at 50 is as large.
AVIF_QUALITY = int(os.environ.get("BENCH_AVIF_QUALITY", "54"))
WIDTH = 400
goals = []


def photo(width, height):
    """Clouds of noise at many scales, edges and grain: it compresses about as a photo does."""
    rng = numpy.random.default_rng(7)
    total = numpy.zeros((height, width, 3), dtype=numpy.float32)
    for scale, weight in ((500, 90), (120, 50), (30, 26), (8, 12)):
        small = rng.random((height // scale + 2, width // scale + 2, 3), dtype=numpy.float32)
        layer = [Image.fromarray(small[:, :, c]).resize((width, height), Image.BICUBIC) for c in range(3)]
        total += weight * (numpy.stack([numpy.asarray(plane) for plane in layer], axis=2) - 0.5)
    y, x = numpy.mgrid[0:height, 0:width]
    total += 40 * (((x // 170 + y // 230) % 3 == 0)[:, :, None])
    total += rng.normal(0, 3, total.shape).astype(numpy.float32)
    return Image.fromarray(numpy.clip(total + 110, 0, 255).astype(numpy.uint8))


def make(folder):
    picture = photo(4000, 3000)
    picture.save(f"{folder}/photo.jpg", quality=88, subsampling="4:2:0")
    picture.save(f"{folder}/progressive.jpg", quality=88, subsampling="4:2:0", progressive=True)
    picture.resize((2000, 1500), Image.LANCZOS).save(f"{folder}/large.png", compress_level=3)
    names = ("photo.jpg", "progressive.jpg", "large.png")
    return {name: Image.open(f"{folder}/{name}").convert("RGB").resize((WIDTH, 300), Image.LANCZOS) for name in names}


def cpu(pid):
    """Seconds that the threads of a process ran; finer than the ticks of its stat."""
    return sum(int(open(path).read().split()[0]) for path in glob.glob(f"/proc/{pid}/task/*/schedstat")) / 1e9


def memory(pid, name):
    return int(re.search(name + r":\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) / 1024


def one_core(threads):
    """Arguments of a process whose one thread stays where its caches are, as every engine's does."""
    return {"preexec_fn": lambda: os.sched_setaffinity(0, {0})} if threads == 1 else {}


class Ours:
    name = "ours"

    def __init__(self, folder, workers=1, binary=BINARY):
        config = f"{folder}/ours.toml"
        open(config, "w").write(f'[server]\nworkers = {workers}\nqueue-max = 1000\nrequest-timeout = "60s"\n[cache]\nmemory-max = "0B"\n[limits]\nresolution-max = 100.0\n')
        arguments = [binary, "serve", "--config", config, "--addr", "127.0.0.1:0", "--status-addr", "127.0.0.1:0", "--local-root", folder, "--allow-unsigned"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, **one_core(workers))
        self.base = "http://" + self.process.stdout.readline().split()[-1]
        self.count = 0

    def run(self, source, kind):
        before = cpu(self.process.pid)
        for _ in range(REPEAT):
            self.count += 1
            body = urllib.request.urlopen(self.base + self.path(source, kind, WIDTH, self.count)).read()
        return (cpu(self.process.pid) - before) / REPEAT, body

    def path(self, source, kind, width, number):
        quality = {"jpg": 75, "webp": 75, "avif": AVIF_QUALITY, "png": 75}[kind]
        return f"/_/w:{width}/q:{quality}/cb:{number}/plain/local:///{source}@{kind}"

    def peak(self):
        return memory(self.process.pid, "VmHWM")

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Oximg:
    name = "oximg"

    def __init__(self, folder, threads=1):
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        fast = dict(QUALITY="75", PRESET="fast", OXIMG_WEBP_QUALITY="75", OXIMG_RESIZE="srgb", OXIMG_DCT_MARGIN="1", OXIMG_OVERLAP="0")
        fast |= dict(OXIMG_JPEG_PROGRESSIVE="0", OXIMG_MAX_SRC_PIXELS="100000000", PORT=str(port), IMAGES_DIR=folder)
        self.process = subprocess.Popen([OXIMG], env=dict(os.environ, **fast), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **one_core(threads))
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("oximg does not listen")

    def run(self, source, kind):
        before = cpu(self.process.pid)
        for number in range(REPEAT):
            body = urllib.request.urlopen(self.base + self.path(source, kind, WIDTH, number)).read()
        return (cpu(self.process.pid) - before) / REPEAT, body

    def path(self, source, kind, width, number):
        return f"/resize/{width}/{width * 3 // 4}/{source}@{kind}"

    peak = Ours.peak
    stop = Ours.stop


SHARP = """
const sharp = require('sharp'); sharp.concurrency(1); sharp.cache(false);
require('readline').createInterface({input: process.stdin}).on('line', async line => {
  const [source, kind, repeat, out] = line.split(' ');
  const options = {jpg: ['jpeg', {quality: 75}], webp: ['webp', {quality: 75, effort: 4}], avif: ['avif', {quality: 50, effort: 0, chromaSubsampling: '4:2:0'}]}[kind];
  const before = process.cpuUsage(); let body;
  for (let n = 0; n < Number(repeat); n++) body = await sharp(source).resize(%d)[options[0]](options[1]).toBuffer();
  const used = process.cpuUsage(before); require('fs').writeFileSync(out, body);
  console.log((used.user + used.system) / 1e6 / repeat);
});
""" % WIDTH


class Sharp:
    name = "sharp"

    def __init__(self, folder):
        self.folder = folder
        self.process = subprocess.Popen(["node", "-e", SHARP], cwd=SHARP_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **one_core(1))

    def run(self, source, kind):
        out = f"{self.folder}/sharp.{kind}"
        self.process.stdin.write(f"{self.folder}/{source} {kind} {REPEAT} {out}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline()), open(out, "rb").read()

    def peak(self):
        return memory(self.process.pid, "VmHWM")

    def stop(self):
        self.process.terminate()


class Vips:
    name = "vips"

    def __init__(self, folder):
        self.folder = folder
        self.environment = dict(os.environ, VIPS_CONCURRENCY="1")
        self.startup = min(self.child(["vipsthumbnail", "--vips-version"]) for _ in range(3))
        self.most = 0

    def child(self, command):
        process = subprocess.Popen(command, env=self.environment, **one_core(1), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, _, usage = os.wait4(process.pid, 0)
        self.most = max(getattr(self, "most", 0), usage.ru_maxrss / 1024)
        return usage.ru_utime + usage.ru_stime

    def run(self, source, kind):
        out = f"{self.folder}/vips.{kind}"
        options = {"jpg": "[Q=75]", "webp": "[Q=75,effort=4]", "avif": "[Q=50,effort=0]"}[kind]
        used = [self.child(["vipsthumbnail", f"{self.folder}/{source}", "-s", str(WIDTH), "-o", out + options]) for _ in range(REPEAT)]
        return statistics.mean(used) - self.startup, open(out, "rb").read()

    def peak(self):
        return self.most

    def stop(self):
        pass


def luma(picture):
    return numpy.asarray(picture.convert("L"), dtype=numpy.float64)


def ssim(one, other):
    one, other = (plane[: plane.shape[0] // 8 * 8, : plane.shape[1] // 8 * 8] for plane in (one, other))
    blocks = lambda plane: plane.reshape(plane.shape[0] // 8, 8, plane.shape[1] // 8, 8).swapaxes(1, 2).reshape(-1, 64)
    a, b = blocks(one), blocks(other)
    mean_a, mean_b = a.mean(1), b.mean(1)
    cross = ((a - mean_a[:, None]) * (b - mean_b[:, None])).mean(1)
    c1, c2 = 6.5025, 58.5225
    return float(((2 * mean_a * mean_b + c1) * (2 * cross + c2) / ((mean_a**2 + mean_b**2 + c1) * (a.var(1) + b.var(1) + c2))).mean())


def quality(body, reference):
    picture = Image.open(io.BytesIO(body)).convert("RGB")
    if picture.size != reference.size:
        sys.exit(f"a result of {picture.size}: wanted {reference.size}")
    one, other = luma(picture), luma(reference)
    error = ((one - other) ** 2).mean()
    return 10 * math.log10(255 * 255 / error), ssim(one, other)


def goal(name, value, wanted, met):
    goals.append(met)
    print(f"goal {name}: {value} (wanted {wanted}): {'met' if met else 'missed'}")


class Users:
    """Clients that each ask for the next picture once they have the last, on a connection of their own."""

    def __init__(self, engine, count, path, until):
        self.times, self.number, self.lock = [], 0, threading.Lock()
        self.engine, self.path, self.until = engine, path, until
        threads = [threading.Thread(target=self.user) for _ in range(count)]
        self.start = time.monotonic()
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.seconds = time.monotonic() - self.start

    def user(self):
        connection = http.client.HTTPConnection(self.engine.base.split("/")[2])
        while True:
            with self.lock:
                number = self.number = self.number + 1
            if self.until(number, time.monotonic() - self.start):
                return
            start = time.monotonic()
            connection.request("GET", self.path(number))
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                sys.exit(f"{self.engine.name} answered {answer.status} to {self.path(number)}")
            self.times.append(time.monotonic() - start)


def load(folder):
    """Two to eight users, on all cores; no two pictures are equal, so that nothing is found made."""
    cores = os.cpu_count()
    engines = [Ours(folder, workers=cores)] + ([Oximg(folder, threads=cores)] if OXIMG else [])
    print(f"{'users':>5} {'engine':>6} {'requests/s':>10} {'p50 ms':>7} {'p99 ms':>7}")
    rates = {}
    for users in (2, 4, 8):
        for engine in engines:
            # Widths differ by a few pixels: oximg shares the work of equal requests in flight.
            path = lambda number: engine.path("photo.jpg", "jpg", WIDTH - number % 64, f"l{users}-{number}")
            done = Users(engine, users, path, lambda _, seconds: seconds > SECONDS)
            times = sorted(done.times)
            rates[engine.name, users] = len(times) / done.seconds
            p50, p99 = times[len(times) // 2] * 1e3, times[min(len(times) - 1, len(times) * 99 // 100)] * 1e3
            print(f"{users:5} {engine.name:>6} {len(times) / done.seconds:10.1f} {p50:7.1f} {p99:7.1f}")
    for engine in engines:
        engine.stop()


def soak(folder, binary=BINARY, name="soak"):
    """Memory after many different requests of four users beside that after few; nothing is kept in the cache."""
    ours = Ours(folder, workers=os.cpu_count(), binary=binary)

    def path(number):
        width, kind = 50 + number * 37 % 400, ("jpg", "webp", "png", "avif")[number % 4 if number % 12 == 3 else number % 3]
        source = ("photo.jpg", "large.png", "progressive.jpg", "photo.jpg")[number // 20 % 4] if number % 20 == 0 else "small.jpg"
        return ours.path(source, kind, width, f"s{number}")

    few_count = SOAK // 10
    Users(ours, 4, path, lambda number, _: number > few_count)
    few = memory(ours.process.pid, "VmRSS")
    done = Users(ours, 4, lambda number: path(number + few_count), lambda number, _: number > SOAK - few_count)
    many, used = memory(ours.process.pid, "VmRSS"), cpu(ours.process.pid) / SOAK * 1e3
    print(f"{name}: {few:.0f} MiB after {few_count} requests, {many:.0f} MiB after {SOAK}, {ours.peak():.0f} MiB at the peak; {used:.2f} ms of CPU a request, {len(done.times) / done.seconds:.0f} requests/s")
    ours.stop()
    return many / few


def must_soak(folder):
    growth = soak(folder)
    goal("rss_soak", f"{growth:.2f}", "<= 1.20", growth <= 1.2)


def allocators(folder):
    """The soak with either allocator, in turns."""
    for _ in range(2):
        for name, binary in (("jemalloc", BINARY), ("mimalloc", os.environ["MIMALLOC_BIN"])):
            soak(folder, binary, name)


def images(folder, references):
    engines = [Ours(folder)]
    has_sharp = subprocess.run(["node", "-e", "require('sharp')"], cwd=SHARP_DIR, stderr=subprocess.DEVNULL).returncode == 0
    engines += [Sharp(folder)] if has_sharp else []
    engines += [Vips(folder)] if shutil.which("vipsthumbnail") else []
    engines += [Oximg(folder)] if OXIMG else []
    cells = [("photo.jpg", "jpg"), ("photo.jpg", "webp"), ("photo.jpg", "avif"), ("progressive.jpg", "jpg"), ("large.png", "jpg"), ("large.png", "webp")]
    # As the registry has it, oximg is built without AVIF.
    able = lambda engine, cell: engine.name != "oximg" or cell[1] != "avif"
    used, table = {}, {}
    results = {}
    try:
        for number in range(ROUNDS + 1):
            for cell in cells:
                for engine in engines:
                    if able(engine, cell):
                        seconds, results[engine.name, cell] = engine.run(*cell)
                        if number > 0:
                            used.setdefault((engine.name, cell), []).append(seconds * 1e3)
        print(f"{'source':>16} {'result':>6} {'engine':>6} {'CPU ms':>7} {'spread':>13} {'bytes':>7} {'PSNR':>6} {'SSIM':>7}")
        for cell in cells:
            for engine in engines:
                if not able(engine, cell):
                    continue
                times, body = used[engine.name, cell], results[engine.name, cell]
                psnr, like = quality(body, references[cell[0]])
                table[engine.name, cell] = (statistics.median(times), len(body), like)
                spread = f"{min(times):.1f}-{max(times):.1f}"
                print(f"{cell[0]:>16} {cell[1]:>6} {engine.name:>6} {statistics.median(times):7.1f} {spread:>13} {len(body):7} {psnr:6.2f} {like:7.4f}")
        for engine in engines:
            print(f"peak memory of {engine.name}: {engine.peak():.0f} MiB")
        for rival, bounds in (("sharp", (0.75, 0.75, 1.0)), ("oximg", (0.95, 0.95))):
            for cell, bound in zip(cells, bounds):
                ours, other = table["ours", cell], table.get((rival, cell))
                if other is None:
                    goal(f"cpu_vs_{rival}_{cell[1]}", f"no {rival} here", f"<= {bound:.2f}", False)
                    continue
                goal(f"cpu_vs_{rival}_{cell[1]}", f"{ours[0] / other[0]:.2f}", f"<= {bound:.2f}", ours[0] <= bound * other[0])
                goal(f"ssim_vs_{rival}_{cell[1]}", f"{ours[2] - other[2]:+.4f}", ">= -0.0005", ours[2] - other[2] >= -0.0005)
                # The photo is mostly noise, which costs a fast WebP more than photographs do: those grow by a twentieth.
                most = 1.15 if cell[1] == "webp" else 1.1
                goal(f"bytes_vs_{rival}_{cell[1]}", f"{ours[1] / other[1]:.2f}", f"<= {most:.2f}", ours[1] <= most * other[1])
        peaks = {engine.name: engine.peak() for engine in engines}
        if "sharp" in peaks:
            ratio = peaks["ours"] / peaks["sharp"]
            goal("rss_vs_sharp", f"{ratio:.2f}", "<= 0.25", ratio <= 0.25)
    finally:
        for engine in engines:
            engine.stop()


def main():
    folder = tempfile.mkdtemp(prefix="thumbnails-bench-")
    try:
        references = make(folder)
        Image.open(f"{folder}/large.png").resize((600, 450)).save(f"{folder}/small.jpg", quality=85)
        if "images" in PARTS:
            images(folder, references)
        if "load" in PARTS:
            load(folder)
        if "soak" in PARTS:
            must_soak(folder)
        if "allocators" in PARTS:
            allocators(folder)
    finally:
        shutil.rmtree(folder)
    sys.exit(0 if all(goals) else 1)


main()
