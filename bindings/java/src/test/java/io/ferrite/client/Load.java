package io.ferrite.client;

import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.Locale;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Load for {@code cargo xtask bench clients} and {@code cargo xtask bindings soak}; what it does is said in bindings/conformance/src/load.rs. Futures carry
 * the bench, blocking calls on threads the soak.
 *
 * <pre>Load ENDPOINTS KEYSPACE MODE IN_FLIGHT AMOUNT PREFIX</pre>
 */
public final class Load {
    private static final int KEYS = 10_000;
    private static final int SLOTS = 8;
    /** The machine compiles these classes in the first seconds, on processor time that is no call's. */
    private static final long WARM_UP_MS = 6000;
    private static final byte[] VALUE = "v".repeat(100).getBytes(StandardCharsets.US_ASCII);

    private final RawClient raw;
    private final TxnClient txns;
    private final String prefix;

    private Load(RawClient raw, TxnClient txns, String prefix) {
        this.raw = raw;
        this.txns = txns;
        this.prefix = prefix;
    }

    public static void main(String[] args) throws Exception {
        Options options = Options.none().deadline(Duration.ofSeconds(20));
        if (!args[1].equals("-")) {
            options.with("keyspace", args[1]);
        }
        int inFlight = Integer.parseInt(args[3]);
        long amount = Long.parseLong(args[4]);
        try (RawClient raw = RawClient.connect(args[0], options); TxnClient txns = TxnClient.connect(args[0], options)) {
            Load load = new Load(raw, txns, args[5]);
            System.out.println(args[2].equals("soak") ? load.soak(inFlight, amount) : load.bench(args[2], inFlight, amount));
        }
    }

    private static byte[] ascii(String text) {
        return text.getBytes(StandardCharsets.US_ASCII);
    }

    // The bench: calls as fast as they come, measured after a warm-up of half the time, or longer.

    private volatile boolean isOver;
    private volatile int epoch;

    /** One call after the other. */
    private final class Worker {
        final int worker;
        final String mode;
        final CompletableFuture<Void> end = new CompletableFuture<>();
        double[] latencies = new double[1024];
        int count;
        int failures;
        int seen;
        int number;

        Worker(int worker, String mode) {
            this.worker = worker;
            this.mode = mode;
            this.number = worker * 7919;
        }

        CompletableFuture<?> call() {
            number = (number * 1103515245 + 12345) & 0x7fffffff;
            int random = number >> 8;
            switch (mode) {
                case "get":
                    return raw.getAsync(key(random));
                case "put":
                    return raw.putAsync(key(random), VALUE);
                default:
                    String pair = prefix + "/t/" + worker + "/" + random % 100;
                    return txns.beginAsync(Options.none()).thenCompose(txn -> txn.putAsync(ascii(pair + "/a"), VALUE)
                            .thenCompose(done -> txn.putAsync(ascii(pair + "/b"), VALUE))
                            .thenCompose(done -> txn.commitAsync())
                            .whenComplete((done, error) -> txn.close()));
            }
        }

        byte[] key(int random) {
            String digits = Integer.toString(random % KEYS);
            return ascii(prefix + "/k/" + "0".repeat(6 - digits.length()) + digits);
        }

        void go() {
            if (isOver) {
                end.complete(null);
                return;
            }
            long begun = System.nanoTime();
            call().whenComplete((done, error) -> {
                note(System.nanoTime() - begun, error != null);
                go();
            });
        }

        private void note(long nanoseconds, boolean failed) {
            if (seen != epoch) {
                seen = epoch;
                count = 0;
                failures = 0;
            }
            if (count == latencies.length) {
                latencies = Arrays.copyOf(latencies, 2 * count);
            }
            latencies[count++] = nanoseconds / 1e3;
            failures += failed ? 1 : 0;
        }
    }

    private String bench(String mode, int inFlight, long milliseconds) throws Exception {
        var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        Worker[] workers = new Worker[inFlight];
        for (int at = 0; at < inFlight; at++) {
            workers[at] = new Worker(at, mode);
            workers[at].go();
        }
        Thread.sleep(Math.max(milliseconds / 2, WARM_UP_MS));
        epoch = 1;
        long begun = System.nanoTime();
        long cpu = system.getProcessCpuTime();
        Thread.sleep(milliseconds);
        double seconds = (System.nanoTime() - begun) / 1e9;
        double used = (system.getProcessCpuTime() - cpu) / 1e9;
        isOver = true;
        double[] all = new double[0];
        int failures = 0;
        for (Worker worker : workers) {
            worker.end.get();
            int before = all.length;
            all = Arrays.copyOf(all, before + worker.count);
            System.arraycopy(worker.latencies, 0, all, before, worker.count);
            failures += worker.failures;
        }
        Arrays.sort(all);
        return String.format(Locale.ROOT,
                "{\"operations\":%d,\"seconds\":%f,\"cpu_seconds\":%f,\"p50_us\":%f,\"p99_us\":%f,\"failures\":%d}", all.length, seconds, used,
                all.length == 0 ? 0.0 : all[all.length / 2], all.length == 0 ? 0.0 : all[(int) (all.length * 99L / 100)], failures);
    }

    // The soak: operations whose every answer is checked against what the thread did before.

    private final AtomicLong begun = new AtomicLong();
    private final AtomicLong undetermined = new AtomicLong();
    private final AtomicLong failed = new AtomicLong();

    private String soak(int inFlight, long operations) throws Exception {
        Thread progress = new Thread(() -> {
            try {
                while (true) {
                    System.out.println("progress " + Math.min(begun.get(), operations));
                    System.out.flush();
                    Thread.sleep(1000);
                }
            } catch (InterruptedException over) {
                Thread.currentThread().interrupt();
            }
        });
        progress.start();
        CountDownLatch ended = new CountDownLatch(inFlight);
        for (int at = 0; at < inFlight; at++) {
            int worker = at;
            new Thread(() -> {
                try {
                    check(worker, operations);
                } catch (Throwable error) {
                    error.printStackTrace();
                    System.exit(1);
                }
                ended.countDown();
            }).start();
        }
        ended.await();
        progress.interrupt();
        progress.join();
        return String.format("{\"operations\":%d,\"undetermined\":%d,\"failed\":%d}", operations, undetermined.get(), failed.get());
    }

    private void check(int worker, long operations) throws FerriteException {
        int[] generations = new int[SLOTS];
        byte[][] expected = new byte[SLOTS][];
        int pair = 0;
        long count = 0;
        for (long number = begun.incrementAndGet(); number <= operations; number = begun.incrementAndGet()) {
            int slot = (int) (number % SLOTS);
            long kind = number / SLOTS % 20;
            String key = prefix + "/" + worker + "/" + slot + "/" + generations[slot];
            try {
                if (kind < 10) {
                    must(key, raw.get(ascii(key)), expected[slot]);
                } else if (kind < 17) {
                    byte[] value = ascii(worker + ":" + number + ":" + new String(VALUE, StandardCharsets.US_ASCII));
                    raw.put(ascii(key), value);
                    expected[slot] = value;
                } else {
                    countUp(prefix + "/" + worker + "/t" + pair, count);
                    count++;
                }
            } catch (FerriteException error) {
                if (error.kind() == Kind.UNDETERMINED) {
                    // A write that may still come: its keys are not looked at again.
                    undetermined.incrementAndGet();
                    if (kind < 17) {
                        generations[slot]++;
                        expected[slot] = null;
                    } else {
                        pair++;
                        count = 0;
                    }
                } else {
                    failed.incrementAndGet();
                    if (!error.isRetryable()) {
                        throw error;
                    }
                }
            }
        }
    }

    private void countUp(String pair, long count) throws FerriteException {
        try (Transaction txn = txns.begin(Options.none())) {
            for (String key : new String[] {pair + "a", pair + "b"}) {
                must(key, txn.get(ascii(key)), count == 0 ? null : ascii(Long.toString(count)));
                txn.put(ascii(key), ascii(Long.toString(count + 1)));
            }
            txn.commit();
        }
    }

    private static void must(String key, byte[] found, byte[] wanted) {
        if (!Arrays.equals(found, wanted)) {
            throw new AssertionError(key + " is " + (found == null ? "not there" : new String(found, StandardCharsets.US_ASCII)) + ", wanted "
                    + (wanted == null ? "nothing" : new String(wanted, StandardCharsets.US_ASCII)));
        }
    }
}
