import io.ferrite.client.FerriteException;
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
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * An inventory with pessimistic locks: many buyers, no item sold twice.
 *
 * <pre>java -cp ferrite-client.jar Inventory.java [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--stock N] [--buyers N]</pre>
 */
public final class Inventory {
    private static final List<byte[]> ITEMS = List.of(bytes("inventory/apples"), bytes("inventory/pears"));
    private static final ScanOptions SOLD = ScanOptions.range(bytes("inventory/sold/"), bytes("inventory/sold0"));

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static int number(byte[] value) {
        return value == null ? 0 : Integer.parseInt(new String(value, StandardCharsets.UTF_8));
    }

    /** What an earlier run sold is forgotten. */
    private static void fill(TxnClient txns, int stock) throws Exception {
        txns.transaction(Options.none(), txn -> {
            try (Scan sold = txn.scan(SOLD)) {
                while (sold.hasNext()) {
                    txn.delete(sold.next().key());
                }
            }
            for (byte[] item : ITEMS) {
                txn.put(item, bytes(Integer.toString(stock)));
            }
            return null;
        });
    }

    /** One of each item, or none; tried again when others were in the way. */
    private static boolean buy(TxnClient txns, int buyer) throws Exception {
        while (true) {
            try {
                return txns.transaction(Options.pessimistic(), txn -> buy(txn, buyer));
            } catch (FerriteException error) {
                if (!error.isRetryable()) {
                    throw error;
                }
            }
        }
    }

    private static boolean buy(Transaction txn, int buyer) throws FerriteException {
        List<Integer> stock = new ArrayList<>();
        // In one order, so that buyers do not wait for each other in a circle.
        for (byte[] item : ITEMS) {
            stock.add(number(txn.getForUpdate(item)));
        }
        if (stock.contains(0)) {
            return false;
        }
        for (int at = 0; at < ITEMS.size(); at++) {
            txn.put(ITEMS.get(at), bytes(Integer.toString(stock.get(at) - 1)));
        }
        txn.insert(bytes(String.format("inventory/sold/%06d", buyer)), bytes("one of each"));
        return true;
    }

    /** How many are sold, after a look at what is left. */
    private static int check(TxnClient txns, int stock) throws FerriteException {
        int sold = 0;
        try (Snapshot snapshot = txns.snapshot(TxnClient.LATEST); Scan scan = snapshot.scan(SOLD)) {
            for (; scan.hasNext(); scan.next()) {
                sold++;
            }
            for (Pair left : snapshot.batchGet(ITEMS)) {
                if (number(left.value()) != stock - sold) {
                    throw new AssertionError(number(left.value()) + " left of " + new String(left.key(), StandardCharsets.UTF_8));
                }
            }
        }
        return sold;
    }

    public static void main(String[] args) throws Exception {
        Map<String, String> flags = flags(args, List.of("--pd", "--ca", "--cert", "--key", "--stock", "--buyers"));
        int stock = Integer.parseInt(flags.getOrDefault("--stock", "20"));
        int buyers = Integer.parseInt(flags.getOrDefault("--buyers", "32"));
        ExecutorService threads = Executors.newFixedThreadPool(8);
        try (TxnClient txns = TxnClient.connect(flags.getOrDefault("--pd", "127.0.0.1:2379"), options(flags))) {
            fill(txns, stock);
            List<Future<Boolean>> bought = new ArrayList<>();
            for (int at = 0; at < buyers; at++) {
                int buyer = at;
                bought.add(threads.submit(() -> buy(txns, buyer)));
            }
            int served = 0;
            for (Future<Boolean> one : bought) {
                served += one.get() ? 1 : 0;
            }
            int sold = check(txns, stock);
            if (sold != served || served != Math.min(stock, buyers)) {
                throw new AssertionError(sold + " sold, " + served + " served");
            }
            System.out.println(served + " of " + buyers + " buyers served, " + (stock - sold) + " of each left");
        } finally {
            threads.shutdown();
        }
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
