package io.ferrite.client;

import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.Collectors;

/**
 * Options of a client or of a transaction. The library knows their names and tells faults: {@link Kind#CONFIGURATION}.
 *
 * <p>Of clients: {@code deadline} (of each call, 5 s if not given), {@code keyspace}, {@code keyspace-id}, {@code batch-commands}, {@code connections},
 * {@code retry-undetermined}, {@code answer-bytes-max}; for TLS {@code ca}, {@code cert} and {@code key}, each the path of a PEM file or PEM text. Of transactions: {@code pessimistic}, {@code lock-wait}, {@code async-commit},
 * {@code one-phase}, {@code causal}, {@code deadline}.
 */
public final class Options {
    private final Map<String, String> named = new LinkedHashMap<>();

    /** None given. */
    public static Options none() {
        return new Options();
    }

    /** A transaction that locks keys when they are written or read for update. */
    public static Options pessimistic() {
        return new Options().with("pessimistic", true);
    }

    public Options with(String name, Object value) {
        named.put(name, value instanceof Duration time ? time.toMillis() + "ms" : value.toString());
        return this;
    }

    public Options deadline(Duration deadline) {
        return with("deadline", deadline);
    }

    /** TLS to a cluster whose certificates are of {@code ca}; each the path of a PEM file, read again when it changes, or PEM text. */
    public Options tls(String ca, String cert, String key) {
        return with("ca", ca).with("cert", cert).with("key", key);
    }

    /** How long a pessimistic transaction waits for others' locks; zero not at all. */
    public Options lockWait(Duration wait) {
        return wait.isZero() ? with("lock-wait", "no") : with("lock-wait", wait);
    }

    String text() {
        return named.entrySet().stream().map(option -> option.getKey() + "=" + option.getValue()).collect(Collectors.joining(","));
    }
}
