import io.ferrite.client.FerriteException;
import io.ferrite.client.Options;
import io.ferrite.client.Pair;
import io.ferrite.client.Scan;
import io.ferrite.client.ScanOptions;
import io.ferrite.client.Snapshot;
import io.ferrite.client.TxnClient;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * An inventory with pessimistic locks: many buyers, no item sold twice.
 *
 * <pre>java -cp ferrite-client.jar Inventory.java [ENDPOINTS [STOCK [BUYERS]]]</pre>
 */
public final class Inventory {
    private static final List<byte[]> ITEMS = List.of(bytes("inventory/apples"), bytes("inventory/pears"));

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static int number(byte[] value) {
        return value == null ? 0 : Integer.parseInt(new String(value, StandardCharsets.UTF_8));
    }

    /** One of each item, or none; tried again when others were in the way. */
    private static boolean buy(TxnClient txns, int buyer) throws Exception {
        while (true) {
            try {
                return txns.transaction(Options.pessimistic(), txn -> {
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
                });
            } catch (FerriteException error) {
                if (!error.isRetryable()) {
                    throw error;
                }
            }
        }
    }

    public static void main(String[] args) throws Exception {
        int stock = args.length > 1 ? Integer.parseInt(args[1]) : 20;
        int buyers = args.length > 2 ? Integer.parseInt(args[2]) : 32;
        Options options = Options.none().deadline(Duration.ofSeconds(20));
        ExecutorService threads = Executors.newFixedThreadPool(8);
        try (TxnClient txns = TxnClient.connect(args.length > 0 ? args[0] : "127.0.0.1:2379", options)) {
            txns.transaction(Options.none(), txn -> {
                for (byte[] item : ITEMS) {
                    txn.put(item, bytes(Integer.toString(stock)));
                }
                return null;
            });
            List<Future<Boolean>> bought = new ArrayList<>();
            for (int at = 0; at < buyers; at++) {
                int buyer = at;
                bought.add(threads.submit(() -> buy(txns, buyer)));
            }
            int served = 0;
            for (Future<Boolean> one : bought) {
                served += one.get() ? 1 : 0;
            }
            int sold = 0;
            try (Snapshot snapshot = txns.snapshot(TxnClient.LATEST);
                    Scan scan = snapshot.scan(ScanOptions.range(bytes("inventory/sold/"), bytes("inventory/sold0")))) {
                for (; scan.hasNext(); scan.next()) {
                    sold++;
                }
                for (Pair left : snapshot.batchGet(ITEMS)) {
                    if (number(left.value()) != stock - sold) {
                        throw new AssertionError(number(left.value()) + " left of " + new String(left.key(), StandardCharsets.UTF_8));
                    }
                }
            }
            if (sold != served || served != Math.min(stock, buyers)) {
                throw new AssertionError(sold + " sold, " + served + " served");
            }
            System.out.println(served + " of " + buyers + " buyers served, " + (stock - sold) + " of each left");
        } finally {
            threads.shutdown();
        }
    }
}
