package io.ferrite.client;

import java.util.Collection;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** What can be read from. Each call is there twice: blocking, and with a future whose cancellation reaches the request. */
public abstract sealed class Reader extends Held permits RawClient, Snapshot, Transaction {
    Reader(long handle) {
        super(handle);
    }

    /** Value of a key; null if there is none. */
    public byte[] get(byte[] key) throws FerriteException {
        return run(Op.GET, Args.begin().bytes(key), Shape.VALUE);
    }

    /** Value of a key; null if there is none. */
    public CompletableFuture<byte[]> getAsync(byte[] key) {
        return start(Op.GET, Args.begin().bytes(key), Shape.VALUE);
    }

    /** The pairs of those keys that are there, by key. */
    public List<Pair> batchGet(Collection<byte[]> keys) throws FerriteException {
        return run(Op.BATCH_GET, Args.begin().keys(keys), Shape.PAIRS);
    }

    /** The pairs of those keys that are there, by key. */
    public CompletableFuture<List<Pair>> batchGetAsync(Collection<byte[]> keys) {
        return start(Op.BATCH_GET, Args.begin().keys(keys), Shape.PAIRS);
    }

    /** Pairs of a range, page by page. Begins with its first page. */
    public Scan scan(ScanOptions options) throws FerriteException {
        return new Scan(run(Op.SCAN, options.args(), Shape.NUMBER));
    }
}
