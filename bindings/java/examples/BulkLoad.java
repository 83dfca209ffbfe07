import io.ferrite.client.FerriteException;
import io.ferrite.client.Kind;
import io.ferrite.client.Options;
import io.ferrite.client.Pair;
import io.ferrite.client.RawClient;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;

/**
 * Loads many pairs as fast as the cluster takes them, a few batches in flight with futures, with a bar of progress.
 *
 * <pre>java -cp ferrite-client.jar BulkLoad.java [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--pairs N]</pre>
 */
public final class BulkLoad {
    private static final int BATCH = 512;
    private static final int IN_FLIGHT = 8;

    private final RawClient client;
    private final int pairs;
    private final long begun = System.nanoTime();
    private int done;

    private BulkLoad(RawClient client, int pairs) {
        this.client = client;
        this.pairs = pairs;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static List<Pair> batch(int first, int end) {
        List<Pair> batch = new ArrayList<>(end - first);
        for (int number = first; number < end; number++) {
            String digits = Integer.toString(number);
            batch.add(new Pair(bytes("bulk/" + "0".repeat(9 - digits.length()) + digits), bytes("value of " + digits)));
        }
        return batch;
    }

    /** Puts a batch, again and again while that may help. */
    private CompletableFuture<Void> put(List<Pair> batch) {
        return client.batchPutAsync(batch).exceptionallyCompose(error -> {
            // Putting the same again does no harm, so an unknown outcome may be tried again too.
            boolean again = error instanceof FerriteException failed && (failed.isRetryable() || failed.kind() == Kind.UNDETERMINED);
            return again ? put(batch) : CompletableFuture.failedFuture(error);
        });
    }

    private void load() throws InterruptedException {
        Semaphore room = new Semaphore(IN_FLIGHT);
        List<CompletableFuture<Void>> puts = new ArrayList<>();
        for (int first = 0; first < pairs; first += BATCH) {
            List<Pair> batch = batch(first, Math.min(first + BATCH, pairs));
            room.acquire();
            puts.add(put(batch).whenComplete((put, error) -> room.release()).thenRun(() -> show(batch.size())));
        }
        // Fails as the first of them that failed.
        CompletableFuture.allOf(puts.toArray(CompletableFuture[]::new)).join();
        System.err.println();
    }

    private synchronized void show(int more) {
        done += more;
        String bar = "#".repeat((int) (40L * done / pairs));
        System.err.printf("\r[%-40s] %d/%d pairs, %.0f/s", bar, done, pairs, done / ((System.nanoTime() - begun) / 1e9));
    }

    public static void main(String[] args) throws Exception {
        Map<String, String> flags = flags(args, List.of("--pd", "--ca", "--cert", "--key", "--pairs"));
        int pairs = Integer.parseInt(flags.getOrDefault("--pairs", "20000"));
        try (RawClient client = RawClient.connect(flags.getOrDefault("--pd", "127.0.0.1:2379"), options(flags))) {
            client.deleteRange(bytes("bulk/"), bytes("bulk0"));
            new BulkLoad(client, pairs).load();
            long found = client.checksum(bytes("bulk/"), bytes("bulk0")).pairs();
            if (found != pairs) {
                throw new AssertionError(found + " pairs are there, wanted " + pairs);
            }
            System.out.println(found + " pairs loaded");
        }
    }

    private static Options options(Map<String, String> flags) {
        Options options = Options.none().deadline(Duration.ofSeconds(30));
        return flags.containsKey("--ca") ? options.tls(flags.get("--ca"), flags.get("--cert"), flags.get("--key")) : options;
    }

    private static Map<String, String> flags(String[] args, List<String> known) {
        Map<String, String> flags = new HashMap<>();
        for (int at = 0; at < args.length; at += 2) {
            if (!known.contains(args[at]) || at + 1 == args.length) {
                System.err.println(args[at] + ": wanted " + String.join(" VALUE, ", known) + " VALUE");
                System.exit(2);
            }
            flags.put(args[at], args[at + 1]);
        }
        return flags;
    }
}
