package io.ferrite.client;

import java.time.Duration;
import java.util.Collection;
import java.util.OptionalLong;
import java.util.concurrent.CompletableFuture;

/**
 * Keys without transactions; may be used from any thread. Each call is there twice: blocking, and with a future whose cancellation reaches the request.
 */
public final class RawClient extends Reader {
    /** What {@link #ttl} gives for a key that lives for ever. */
    public static final long FOREVER = Long.MAX_VALUE;

    private RawClient(long handle) {
        super(handle);
    }

    /** Connects through any of the placement driver's endpoints, {@code host:port} parted by commas. */
    public static RawClient connect(String endpoints, Options options) throws FerriteException {
        return Calls.run(0, Op.RAW_CONNECT, Args.begin().text(endpoints).text(options.text()), reply -> new RawClient(Shape.handle(reply)));
    }

    /** Connects through any of the placement driver's endpoints, {@code host:port} parted by commas. */
    public static CompletableFuture<RawClient> connectAsync(String endpoints, Options options) {
        return Calls.start(Op.RAW_CONNECT, Args.begin().text(endpoints).text(options.text()), reply -> new RawClient(Shape.handle(reply)));
    }

    /** The same client, whose calls may take so long. */
    public RawClient withDeadline(Duration deadline) throws FerriteException {
        return run(Op.WITH_DEADLINE, Args.begin().u64(deadline.toMillis()), reply -> new RawClient(Shape.handle(reply)));
    }

    /** What the client has done since it was connected, as the text that Prometheus reads. */
    public String metrics() throws FerriteException {
        return run(Op.METRICS, Args.begin(), Shape.TEXT);
    }

    /** Sets a key. */
    public void put(byte[] key, byte[] value) throws FerriteException {
        run(Op.PUT, Args.begin().bytes(key).bytes(value).u64(0), Shape.NOTHING);
    }

    /** Sets a key. */
    public CompletableFuture<Void> putAsync(byte[] key, byte[] value) {
        return start(Op.PUT, Args.begin().bytes(key).bytes(value).u64(0), Shape.NOTHING);
    }

    /** Sets a key for a time, rounded up to seconds. */
    public void put(byte[] key, byte[] value, Duration ttl) throws FerriteException {
        run(Op.PUT, Args.begin().bytes(key).bytes(value).u64(Math.max(1, ttl.toMillis())), Shape.NOTHING);
    }

    /** Sets a key for a time, rounded up to seconds. */
    public CompletableFuture<Void> putAsync(byte[] key, byte[] value, Duration ttl) {
        return start(Op.PUT, Args.begin().bytes(key).bytes(value).u64(Math.max(1, ttl.toMillis())), Shape.NOTHING);
    }

    /** Removes a key, if it is there. */
    public void delete(byte[] key) throws FerriteException {
        run(Op.DELETE, Args.begin().bytes(key), Shape.NOTHING);
    }

    /** Removes a key, if it is there. */
    public CompletableFuture<Void> deleteAsync(byte[] key) {
        return start(Op.DELETE, Args.begin().bytes(key), Shape.NOTHING);
    }

    /** Sets all pairs, which is not one step. */
    public void batchPut(Collection<Pair> pairs) throws FerriteException {
        run(Op.BATCH_PUT, Args.begin().pairs(pairs).u64(0), Shape.NOTHING);
    }

    /** Sets all pairs, which is not one step. */
    public CompletableFuture<Void> batchPutAsync(Collection<Pair> pairs) {
        return start(Op.BATCH_PUT, Args.begin().pairs(pairs).u64(0), Shape.NOTHING);
    }

    /** Sets all pairs for a time, rounded up to seconds. */
    public void batchPut(Collection<Pair> pairs, Duration ttl) throws FerriteException {
        run(Op.BATCH_PUT, Args.begin().pairs(pairs).u64(Math.max(1, ttl.toMillis())), Shape.NOTHING);
    }

    /** Sets all pairs for a time, rounded up to seconds. */
    public CompletableFuture<Void> batchPutAsync(Collection<Pair> pairs, Duration ttl) {
        return start(Op.BATCH_PUT, Args.begin().pairs(pairs).u64(Math.max(1, ttl.toMillis())), Shape.NOTHING);
    }

    /** Removes all keys that are there. */
    public void batchDelete(Collection<byte[]> keys) throws FerriteException {
        run(Op.BATCH_DELETE, Args.begin().keys(keys), Shape.NOTHING);
    }

    /** Removes all keys that are there. */
    public CompletableFuture<Void> batchDeleteAsync(Collection<byte[]> keys) {
        return start(Op.BATCH_DELETE, Args.begin().keys(keys), Shape.NOTHING);
    }

    /** Removes all keys from {@code start} to before {@code end} (null: no bound). */
    public void deleteRange(byte[] start, byte[] end) throws FerriteException {
        run(Op.DELETE_RANGE, Args.begin().range(start, end), Shape.NOTHING);
    }

    /** Removes all keys from {@code start} to before {@code end} (null: no bound). */
    public CompletableFuture<Void> deleteRangeAsync(byte[] start, byte[] end) {
        return start(Op.DELETE_RANGE, Args.begin().range(start, end), Shape.NOTHING);
    }

    /** Sets a key to {@code value} (null removes it) if its value is {@code expected} (null: if it is not there). Never repeated on an unknown outcome. */
    public Swap compareAndSwap(byte[] key, byte[] expected, byte[] value) throws FerriteException {
        return run(Op.COMPARE_AND_SWAP, Args.begin().bytes(key).optional(expected).optional(value), Shape.SWAP);
    }

    /** Sets a key to {@code value} (null removes it) if its value is {@code expected} (null: if it is not there). Never repeated on an unknown outcome. */
    public CompletableFuture<Swap> compareAndSwapAsync(byte[] key, byte[] expected, byte[] value) {
        return start(Op.COMPARE_AND_SWAP, Args.begin().bytes(key).optional(expected).optional(value), Shape.SWAP);
    }

    /** Seconds that a key will live, {@link #FOREVER}, or empty if it is not there. */
    public OptionalLong ttl(byte[] key) throws FerriteException {
        return run(Op.TTL, Args.begin().bytes(key), Shape.OPTIONAL);
    }

    /** Seconds that a key will live, {@link #FOREVER}, or empty if it is not there. */
    public CompletableFuture<OptionalLong> ttlAsync(byte[] key) {
        return start(Op.TTL, Args.begin().bytes(key), Shape.OPTIONAL);
    }

    /** Fingerprint of the pairs in a range. */
    public Checksum checksum(byte[] start, byte[] end) throws FerriteException {
        return run(Op.CHECKSUM, Args.begin().range(start, end), Shape.CHECKSUM);
    }

    /** Fingerprint of the pairs in a range. */
    public CompletableFuture<Checksum> checksumAsync(byte[] start, byte[] end) {
        return start(Op.CHECKSUM, Args.begin().range(start, end), Shape.CHECKSUM);
    }
}
