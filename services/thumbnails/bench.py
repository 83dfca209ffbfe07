#!/usr/bin/env python3
"""Thumbnails beside sharp, vipsthumbnail and oximg: CPU per picture, peak memory, and how good the results are; goals as lines, exit 1 if
one is missed.

Started by `cargo xtask bench thumbnails`. Needs numpy and Pillow; sharp is looked for by node in the folder of SHARP_DIR, vipsthumbnail and
oximg in PATH; who is not there is left out, and so are its goals. CPU is user + system of the engine's own process, from /proc, so that load
of others spoils it less than time. Engines take turns within each round; figures are medians of rounds. References are full decodes scaled by
Pillow's Lanczos; SSIM is of luma over windows of 8 by 8. Results are what each engine makes with one thread and 4:2:0 colour."""
import io, json, math, os, re, shutil, statistics, subprocess, sys, tempfile, time, urllib.request

import numpy
from PIL import Image

BINARY = sys.argv[1]
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
REPEAT = int(os.environ.get("BENCH_REPEAT", "6"))
SOAK = int(os.environ.get("BENCH_SOAK", "0"))
SHARP_DIR = os.environ.get("SHARP_DIR", os.getcwd())
TICK = os.sysconf("SC_CLK_TCK")
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
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid, name):
    return int(re.search(name + r":\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) / 1024


class Ours:
    name = "ours"

    def __init__(self, folder):
        config = f"{folder}/ours.toml"
        open(config, "w").write('[server]\nworkers = 1\nrequest-timeout = "60s"\n[cache]\nmemory-max = "0B"\n[limits]\nresolution-max = 100.0\n')
        arguments = [BINARY, "serve", "--config", config, "--addr", "127.0.0.1:0", "--status-addr", "127.0.0.1:0", "--local-root", folder, "--allow-unsigned"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self.base = "http://" + self.process.stdout.readline().split()[-1]
        self.count = 0

    def run(self, source, kind):
        before = cpu(self.process.pid)
        for _ in range(REPEAT):
            self.count += 1
            quality = {"jpg": 75, "webp": 75, "avif": 50}[kind]
            body = urllib.request.urlopen(f"{self.base}/_/w:{WIDTH}/q:{quality}/cb:{self.count}/plain/local:///{source}@{kind}").read()
        return (cpu(self.process.pid) - before) / REPEAT, body

    def peak(self):
        return memory(self.process.pid, "VmHWM")

    def stop(self):
        self.process.terminate()


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
        self.process = subprocess.Popen(["node", "-e", SHARP], cwd=SHARP_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

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
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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


def soak(ours):
    """Memory after many different requests beside that after few."""
    sizes = {}
    for number in range(1, SOAK + 1):
        width, kind = 50 + number * 37 % 400, ("jpg", "webp", "png")[number % 3]
        source = ("photo.jpg", "large.png", "progressive.jpg", "photo.jpg")[number % 4] if number % 10 == 0 else "small.jpg"
        urllib.request.urlopen(f"{ours.base}/_/w:{width}/cb:s{number}/plain/local:///{source}@{kind}").read()
        if number in (SOAK // 10, SOAK):
            sizes[number] = memory(ours.process.pid, "VmRSS")
    few, many = sizes[SOAK // 10], sizes[SOAK]
    print(f"soak: {few:.0f} MiB after {SOAK // 10} requests, {many:.0f} MiB after {SOAK}")
    goal("rss_soak", f"{many / few:.2f}", "<= 1.20", many <= 1.2 * few)


def main():
    folder = tempfile.mkdtemp(prefix="thumbnails-bench-")
    references = make(folder)
    Image.open(f"{folder}/large.png").resize((600, 450)).save(f"{folder}/small.jpg", quality=85)
    engines = [Ours(folder)]
    has_sharp = subprocess.run(["node", "-e", "require('sharp')"], cwd=SHARP_DIR, stderr=subprocess.DEVNULL).returncode == 0
    engines += [Sharp(folder)] if has_sharp else []
    engines += [Vips(folder)] if shutil.which("vipsthumbnail") else []
    cells = [("photo.jpg", "jpg"), ("photo.jpg", "webp"), ("photo.jpg", "avif"), ("progressive.jpg", "jpg"), ("large.png", "jpg"), ("large.png", "webp")]
    used, results = {}, {}
    try:
        for number in range(ROUNDS + 1):
            for cell in cells:
                for engine in engines:
                    seconds, body = engine.run(*cell)
                    results[engine.name, cell] = body
                    if number > 0:
                        used.setdefault((engine.name, cell), []).append(seconds * 1e3)
        print(f"{'source':>16} {'result':>6} {'engine':>6} {'CPU ms':>7} {'spread':>13} {'bytes':>7} {'PSNR':>6} {'SSIM':>7}")
        table = {}
        for cell in cells:
            for engine in engines:
                times = used[engine.name, cell]
                body = results[engine.name, cell]
                psnr, like = quality(body, references[cell[0]])
                table[engine.name, cell] = (statistics.median(times), len(body), like)
                spread = f"{min(times):.1f}-{max(times):.1f}"
                print(f"{cell[0]:>16} {cell[1]:>6} {engine.name:>6} {statistics.median(times):7.1f} {spread:>13} {len(body):7} {psnr:6.2f} {like:7.4f}")
        for engine in engines:
            print(f"peak memory of {engine.name}: {engine.peak():.0f} MiB")
        if has_sharp:
            for cell, bound in zip(cells[:3], (0.75, 0.75, 1.0)):
                ours, sharp = table["ours", cell], table["sharp", cell]
                goal(f"cpu_vs_sharp_{cell[1]}", f"{ours[0] / sharp[0]:.2f}", f"<= {bound:.2f}", ours[0] <= bound * sharp[0])
                goal(f"ssim_vs_sharp_{cell[1]}", f"{ours[2] - sharp[2]:+.4f}", ">= -0.0005", ours[2] - sharp[2] >= -0.0005)
            ratio = engines[0].peak() / engines[1].peak()
            goal("rss_vs_sharp", f"{ratio:.2f}", "<= 0.25", ratio <= 0.25)
        if SOAK:
            soak(engines[0])
    finally:
        for engine in engines:
            engine.stop()
        shutil.rmtree(folder)
    sys.exit(0 if all(goals) else 1)


main()
