package io.ferrite.client;

import java.nio.charset.StandardCharsets;
import java.util.OptionalLong;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Many calls, 64 in flight, and transactions that are forgotten: nothing may be held afterwards, neither on the heap nor by the library.
 *
 * <pre>Leaks ENDPOINTS [CALLS]</pre>
 */
public final class Leaks {
    private static final int IN_FLIGHT = 64;
    /** What the heap may hold more at the end than after a tenth of the calls. */
    private static final long GROWTH_BYTES_MAX = 2 << 20;

    private Leaks() {}

    public static void main(String[] args) throws Exception {
        long calls = args.length > 1 ? Long.parseLong(args[1]) : 1_000_000;
        try (RawClient raw = RawClient.connect(args[0], Options.none()); TxnClient txns = TxnClient.connect(args[0], Options.none())) {
            byte[] key = "leaks".getBytes(StandardCharsets.US_ASCII);
            raw.put(key, new byte[100]);
            get(raw, key, calls / 10);
            long warm = held();
            get(raw, key, calls - calls / 10);
            long end = held();
            System.out.printf("%d calls: the heap holds %d KiB, after a tenth of them %d KiB%n", calls, end >> 10, warm >> 10);
            if (end - warm > GROWTH_BYTES_MAX || Calls.underWay() != 0) {
                throw new AssertionError("the heap grows, or " + Calls.underWay() + " calls have not ended");
            }
            closedAtOnce(txns);
            for (int at = 0; at < 1000; at++) {
                txns.begin(Options.none());
            }
            // The two clients; what was forgotten is let go when the collector finds it.
            for (int tries = 0; Native.handles() > 2; tries++) {
                if (tries == 100) {
                    throw new AssertionError(Native.handles() + " handles are held, wanted 2");
                }
                System.gc();
                Thread.sleep(50);
            }
            System.out.println("1000 forgotten transactions: their handles are gone");
        }
        if (Native.handles() != 0) {
            throw new AssertionError(Native.handles() + " handles are held at the end");
        }
    }

    /** Calls that a future started go on when what they were started on is closed right after. */
    private static void closedAtOnce(TxnClient txns) throws Exception {
        CompletableFuture<OptionalLong> committed = txns.beginAsync(Options.none()).thenCompose(txn -> {
            txn.putAsync("leaks/closed".getBytes(StandardCharsets.US_ASCII), new byte[1]);
            CompletableFuture<OptionalLong> commit = txn.commitAsync();
            txn.close();
            return commit;
        });
        if (committed.get().isEmpty()) {
            throw new AssertionError("nothing was committed");
        }
    }

    private static void get(RawClient raw, byte[] key, long calls) throws InterruptedException {
        Semaphore room = new Semaphore(IN_FLIGHT);
        AtomicLong failed = new AtomicLong();
        for (long at = 0; at < calls; at++) {
            room.acquire();
            raw.getAsync(key).whenComplete((value, error) -> {
                if (error != null || value.length != 100) {
                    failed.incrementAndGet();
                }
                room.release();
            });
        }
        room.acquire(IN_FLIGHT);
        if (failed.get() > 0) {
            throw new AssertionError(failed.get() + " calls failed");
        }
    }

    private static long held() throws InterruptedException {
        for (int at = 0; at < 3; at++) {
            System.gc();
            Thread.sleep(100);
        }
        Runtime runtime = Runtime.getRuntime();
        return runtime.totalMemory() - runtime.freeMemory();
    }
}
