import io.ferrite.client.FerriteException;
import io.ferrite.client.Kind;
import io.ferrite.client.Options;
import io.ferrite.client.Pair;
import io.ferrite.client.Scan;
import io.ferrite.client.ScanOptions;
import io.ferrite.client.Snapshot;
import io.ferrite.client.Transaction;
import io.ferrite.client.TxnClient;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * A queue of tasks for many workers, in transactions: each task is done once, also if a worker dies in the middle.
 *
 * <pre>java -cp ferrite-client.jar TaskQueue.java [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--tasks N] [--workers N]</pre>
 *
 * Tasks lie under {@code queue/todo/}; who takes one moves it to {@code queue/done/} in the transaction in which its result is written, so that nobody
 * else can.
 */
public final class TaskQueue {
    private static final String TODO = "queue/todo/";
    private static final String DONE = "queue/done/";
    private static final Options TAKING = Options.pessimistic().lockWait(Duration.ZERO);

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    /** All keys that begin so. */
    private static ScanOptions under(String prefix) {
        int last = prefix.length() - 1;
        return ScanOptions.range(bytes(prefix), bytes(prefix.substring(0, last) + (char) (prefix.charAt(last) + 1)));
    }

    /** Tasks are added all at once; what an earlier run left is forgotten. */
    private static void add(TxnClient txns, int tasks) throws Exception {
        txns.transaction(Options.none(), txn -> {
            for (String prefix : List.of(TODO, DONE)) {
                try (Scan old = txn.scan(under(prefix))) {
                    while (old.hasNext()) {
                        txn.delete(old.next().key());
                    }
                }
            }
            List<Pair> pairs = new ArrayList<>();
            for (int task = 0; task < tasks; task++) {
                pairs.add(new Pair(bytes(String.format("%s%06d", TODO, task)), bytes(Integer.toString(task))));
            }
            txn.batchPut(pairs);
            return null;
        });
    }

    /** Does the first task that nobody else holds; false if none is left. */
    private static boolean takeOne(Transaction txn, int worker) throws FerriteException {
        boolean isEmpty = true;
        try (Scan scan = txn.scan(under(TODO).withLimit(32))) {
            while (scan.hasNext()) {
                isEmpty = false;
                byte[] key = scan.next().key();
                byte[] task = lock(txn, key);
                if (task != null) {
                    long input = Long.parseLong(text(task));
                    txn.put(bytes(DONE + text(key).substring(TODO.length())), bytes(input * input + " by worker " + worker));
                    txn.delete(key);
                    return true;
                }
            }
        }
        return !isEmpty;
    }

    /** A task that is now ours; null if somebody else is at it, or was. */
    private static byte[] lock(Transaction txn, byte[] key) throws FerriteException {
        try {
            return txn.getForUpdate(key);
        } catch (FerriteException error) {
            if (error.kind() != Kind.LOCKED && error.kind() != Kind.CONFLICT) {
                throw error;
            }
            return null;
        }
    }

    private static Void work(TxnClient txns, int worker) throws Exception {
        boolean isLeft = true;
        while (isLeft) {
            try {
                isLeft = txns.transaction(TAKING, txn -> takeOne(txn, worker));
            } catch (FerriteException error) {
                if (!error.isRetryable()) {
                    throw error;
                }
            }
        }
        return null;
    }

    public static void main(String[] args) throws Exception {
        Map<String, String> flags = flags(args, List.of("--pd", "--ca", "--cert", "--key", "--tasks", "--workers"));
        int tasks = Integer.parseInt(flags.getOrDefault("--tasks", "100"));
        int workers = Integer.parseInt(flags.getOrDefault("--workers", "8"));
        ExecutorService threads = Executors.newFixedThreadPool(workers);
        try (TxnClient txns = TxnClient.connect(flags.getOrDefault("--pd", "127.0.0.1:2379"), options(flags))) {
            add(txns, tasks);
            List<Future<Void>> working = new ArrayList<>();
            for (int at = 0; at < workers; at++) {
                int worker = at;
                working.add(threads.submit(() -> work(txns, worker)));
            }
            for (Future<Void> one : working) {
                one.get();
            }
            check(txns, tasks);
        } finally {
            threads.shutdown();
        }
    }

    private static void check(TxnClient txns, int tasks) throws FerriteException {
        int done = 0;
        Set<String> by = new HashSet<>();
        try (Snapshot snapshot = txns.snapshot(TxnClient.LATEST);
                Scan results = snapshot.scan(under(DONE));
                Scan left = snapshot.scan(under(TODO))) {
            for (; results.hasNext(); done++) {
                String result = text(results.next().value());
                by.add(result.substring(result.lastIndexOf(' ')));
            }
            if (done != tasks || left.hasNext()) {
                throw new AssertionError(done + " done of " + tasks + (left.hasNext() ? ", and some are left" : ""));
            }
        }
        System.out.println(done + " tasks done once each, by " + by.size() + " workers");
    }

    private static Options options(Map<String, String> flags) {
        Options options = Options.none().deadline(Duration.ofSeconds(20));
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
