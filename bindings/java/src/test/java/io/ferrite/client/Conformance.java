package io.ferrite.client;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** The runner of the conformance suite: operations come on standard input, see bindings/conformance/src/protocol.rs. */
public final class Conformance {
    private static final HexFormat HEX = HexFormat.of();
    private static final Map<String, Held> HANDLES = new ConcurrentHashMap<>();
    private static final Map<String, CompletableFuture<?>> CALLS = new ConcurrentHashMap<>();
    private static final ExecutorService SCANS = Executors.newCachedThreadPool(work -> {
        Thread thread = new Thread(work);
        thread.setDaemon(true);
        return thread;
    });

    private Conformance() {}

    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String text = lines.readLine(); text != null; text = lines.readLine()) {
            String[] words = text.split(" ");
            Map<String, String> line = new HashMap<>();
            for (int at = 2; at < words.length; at++) {
                int equals = words[at].indexOf('=');
                line.put(words[at].substring(0, equals), words[at].substring(equals + 1));
            }
            if (words[1].equals("cancel")) {
                CALLS.get(line.get("call")).cancel(true);
                say(words[0] + " ok");
                continue;
            }
            serve(words[0], words[1], line);
        }
    }

    private static void say(String text) {
        synchronized (System.out) {
            System.out.println(text.stripTrailing());
            System.out.flush();
        }
    }

    private static void serve(String id, String operation, Map<String, String> line) {
        CompletableFuture<?> call;
        try {
            call = operate(operation, line);
        } catch (Throwable error) {
            call = CompletableFuture.failedFuture(error);
        }
        CALLS.put(id, call);
        call.whenComplete((answer, error) -> {
            CALLS.remove(id);
            say(id + (error == null ? " ok " + told(answer) : " error " + told(error)));
        });
    }

    private static String told(Throwable error) {
        Throwable cause = error;
        while ((cause instanceof CompletionException || cause instanceof IllegalStateException) && cause.getCause() != null) {
            cause = cause.getCause();
        }
        if (cause instanceof CancellationException) {
            return "class=cancelled retryable=false";
        }
        if (cause instanceof FerriteException failure) {
            return "class=" + failure.kind().name().toLowerCase() + " retryable=" + failure.isRetryable() + " hint=" + hex(failure.hint())
                    + " message=" + hex(failure.getMessage());
        }
        return "class=case retryable=false message=" + hex(cause.toString());
    }

    private static String hex(String text) {
        return HEX.formatHex(bytesOf(text));
    }

    private static String told(Object answer) {
        if (answer instanceof byte[] value) {
            return "value=" + HEX.formatHex(value);
        }
        if (answer instanceof List<?> pairs) {
            return "pairs=" + pairs.stream().map(pair -> (Pair) pair)
                    .map(pair -> HEX.formatHex(pair.key()) + ":" + HEX.formatHex(pair.value())).collect(Collectors.joining(","));
        }
        if (answer instanceof Swap swap) {
            return "swapped=" + swap.done() + (swap.previous() == null ? "" : " value=" + HEX.formatHex(swap.previous()));
        }
        if (answer instanceof Checksum sum) {
            return "number=" + sum.pairs();
        }
        if (answer instanceof OptionalLong number) {
            return number.isPresent() ? "number=" + Long.toUnsignedString(number.getAsLong()) : "";
        }
        if (answer instanceof Long number) {
            return "number=" + Long.toUnsignedString(number);
        }
        return answer instanceof String text ? text : "";
    }

    private static Options options(String text) {
        Options options = Options.none();
        list(text).map(option -> option.split("=", 2)).forEach(option -> options.with(option[0], option.length == 2 ? option[1] : "true"));
        return options;
    }

    private static Stream<String> list(String text) {
        return text == null || text.isEmpty() ? Stream.of() : Stream.of(text.split(","));
    }

    private static byte[] bytes(String text) {
        return text == null ? null : HEX.parseHex(text);
    }

    private static byte[] bytesOf(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static CompletableFuture<?> operate(String operation, Map<String, String> line) throws Exception {
        byte[] key = bytes(line.get("key"));
        byte[] value = bytes(line.get("value"));
        byte[] start = bytes(line.get("start"));
        byte[] end = bytes(line.get("end"));
        List<byte[]> keys = list(line.get("keys")).map(Conformance::bytes).collect(Collectors.toList());
        List<Pair> pairs = list(line.get("pairs")).map(pair -> pair.split(":", 2))
                .map(pair -> new Pair(bytes(pair[0]), bytes(pair[1]))).collect(Collectors.toList());
        Duration ttl = line.containsKey("ttl_ms") ? Duration.ofMillis(Long.parseLong(line.get("ttl_ms"))) : null;
        Held on = line.containsKey("on") ? HANDLES.get(line.get("on")) : null;
        switch (operation) {
            case "raw.connect":
                return RawClient.connectAsync(line.get("endpoints"), options(line.get("options"))).thenApply(keep(line));
            case "txns.connect":
                return TxnClient.connectAsync(line.get("endpoints"), options(line.get("options"))).thenApply(keep(line));
            case "drop":
                HANDLES.remove(line.get("on")).close();
                return CompletableFuture.completedFuture(null);
            default:
        }
        if (operation.endsWith(".scan")) {
            return CompletableFuture.supplyAsync(() -> scan(on, line, start, end), SCANS);
        }
        if (on instanceof Reader reader && operation.endsWith(".get")) {
            return reader.getAsync(key);
        }
        if (on instanceof Reader reader && operation.endsWith(".batch_get")) {
            return reader.batchGetAsync(keys);
        }
        if (on instanceof RawClient raw) {
            switch (operation) {
                case "raw.put": return ttl == null ? raw.putAsync(key, value) : raw.putAsync(key, value, ttl);
                case "raw.delete": return raw.deleteAsync(key);
                case "raw.batch_put": return ttl == null ? raw.batchPutAsync(pairs) : raw.batchPutAsync(pairs, ttl);
                case "raw.batch_delete": return raw.batchDeleteAsync(keys);
                case "raw.delete_range": return raw.deleteRangeAsync(start, end);
                case "raw.checksum": return raw.checksumAsync(start, end);
                case "raw.compare_and_swap":
                    return raw.compareAndSwapAsync(key, bytes(line.get("expected")), bytes(line.get("new")));
                case "raw.metrics": return CompletableFuture.completedFuture(bytesOf(raw.metrics()));
                case "raw.ttl":
                    return raw.ttlAsync(key).thenApply(left -> "ttl=" + (left.isEmpty() ? "missing"
                            : left.getAsLong() == RawClient.FOREVER ? "forever" : Long.toString(left.getAsLong())));
                default:
            }
        }
        if (on instanceof TxnClient txns) {
            switch (operation) {
                case "txns.begin": return txns.beginAsync(options(line.get("options"))).thenApply(keep(line));
                case "txns.metrics": return CompletableFuture.completedFuture(bytesOf(txns.metrics()));
                case "txns.timestamp": return txns.timestampAsync();
                case "txns.snapshot":
                    return CompletableFuture.completedFuture(txns.snapshot(Long.parseUnsignedLong(line.get("ts")))).thenApply(keep(line));
                default:
            }
        }
        if (on instanceof Transaction txn) {
            switch (operation) {
                case "txn.get_for_update": return txn.getForUpdateAsync(key);
                case "txn.batch_get_for_update": return txn.batchGetForUpdateAsync(keys);
                case "txn.put": return txn.putAsync(key, value);
                case "txn.batch_put": return txn.batchPutAsync(pairs);
                case "txn.insert": return txn.insertAsync(key, value);
                case "txn.delete": return txn.deleteAsync(key);
                case "txn.lock_keys": return txn.lockKeysAsync(keys);
                case "txn.savepoint": return txn.savepointAsync();
                case "txn.rollback_to": return txn.rollbackToAsync(Long.parseLong(line.get("savepoint")));
                case "txn.commit": return txn.commitAsync();
                case "txn.rollback": return txn.rollbackAsync();
                default:
            }
        }
        throw new IllegalArgumentException("the runner does not know " + operation + " on " + on);
    }

    private static <T extends Held> java.util.function.Function<T, Void> keep(Map<String, String> line) {
        return held -> {
            HANDLES.put(line.get("as"), held);
            return null;
        };
    }

    private static List<Pair> scan(Held on, Map<String, String> line, byte[] start, byte[] end) {
        ScanOptions options = new ScanOptions(start, end, Long.parseLong(line.getOrDefault("limit", "0")),
                "true".equals(line.get("reverse")), "true".equals(line.get("keys_only")));
        long stop = Long.parseLong(line.getOrDefault("stop", "0"));
        try (Scan scan = ((Reader) on).scan(options)) {
            List<Pair> found = new ArrayList<>();
            while (scan.hasNext()) {
                found.add(scan.next());
                if (found.size() == stop) {
                    break;
                }
            }
            return found;
        } catch (FerriteException error) {
            throw new CompletionException(error);
        }
    }
}
