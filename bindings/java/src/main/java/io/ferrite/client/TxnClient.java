package io.ferrite.client;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;

/** A client for transactions; may be used from any thread. */
public final class TxnClient extends Held {
    /** The timestamp of a snapshot that reads the latest of each key. */
    public static final long LATEST = -1;

    private TxnClient(long handle) {
        super(handle);
    }

    /** Connects through any of the placement driver's endpoints, {@code host:port} parted by commas. */
    public static TxnClient connect(String endpoints, Options options) throws FerriteException {
        return Calls.run(0, Op.TXNS_CONNECT, Args.begin().text(endpoints).text(options.text()), reply -> new TxnClient(Shape.handle(reply)));
    }

    /** Connects through any of the placement driver's endpoints, {@code host:port} parted by commas. */
    public static CompletableFuture<TxnClient> connectAsync(String endpoints, Options options) {
        return Calls.start(Op.TXNS_CONNECT, Args.begin().text(endpoints).text(options.text()), reply -> new TxnClient(Shape.handle(reply)));
    }

    /** The same client, whose calls, and those of its transactions, may take so long. */
    public TxnClient withDeadline(Duration deadline) throws FerriteException {
        return run(Op.WITH_DEADLINE, Args.begin().u64(deadline.toMillis()), reply -> new TxnClient(Shape.handle(reply)));
    }

    /** What the client has done since it was connected, as the text that Prometheus reads. */
    public String metrics() throws FerriteException {
        return run(Op.METRICS, Args.begin(), Shape.TEXT);
    }

    /** Reads as of {@code ts}, one that {@link #timestamp} gave, or {@link #LATEST}. */
    public Snapshot snapshot(long ts) throws FerriteException {
        return run(Op.SNAPSHOT, Args.begin().u64(ts), reply -> new Snapshot(Shape.NUMBER.apply(reply), ts));
    }

    /** Runs {@code work} in a transaction, which is committed when it is done and rolled back if it throws. */
    public <T> T transaction(Options options, Work<T> work) throws Exception {
        try (Transaction txn = begin(options)) {
            T done = work.apply(txn);
            txn.commit();
            return done;
        }
    }

    /** What is done in a transaction. */
    public interface Work<T> {
        T apply(Transaction txn) throws Exception;
    }

    /** Begins a transaction. */
    public Transaction begin(Options options) throws FerriteException {
        return run(Op.BEGIN, Args.begin().text(options.text()), reply -> new Transaction((Frame.Opened) reply));
    }

    /** Begins a transaction. */
    public CompletableFuture<Transaction> beginAsync(Options options) {
        return start(Op.BEGIN, Args.begin().text(options.text()), reply -> new Transaction((Frame.Opened) reply));
    }

    /** A timestamp greater than every one before. */
    public long timestamp() throws FerriteException {
        return run(Op.TIMESTAMP, Args.begin(), Shape.NUMBER);
    }

    /** A timestamp greater than every one before. */
    public CompletableFuture<Long> timestampAsync() {
        return start(Op.TIMESTAMP, Args.begin(), Shape.NUMBER);
    }

    /** Ends what dead clients left and lets stores drop old versions; gives the safe point as it is then. */
    public long gc(long safePoint) throws FerriteException {
        return run(Op.GC, Args.begin().u64(safePoint), Shape.NUMBER);
    }

    /** Ends what dead clients left and lets stores drop old versions; gives the safe point as it is then. */
    public CompletableFuture<Long> gcAsync(long safePoint) {
        return start(Op.GC, Args.begin().u64(safePoint), Shape.NUMBER);
    }

    /** Ends transactions that began up to {@code ts} and left locks in the range; gives how many locks. */
    public long resolveLocks(byte[] start, byte[] end, long ts) throws FerriteException {
        return run(Op.RESOLVE_LOCKS, Args.begin().range(start, end).u64(ts), Shape.NUMBER);
    }

    /** Ends transactions that began up to {@code ts} and left locks in the range; gives how many locks. */
    public CompletableFuture<Long> resolveLocksAsync(byte[] start, byte[] end, long ts) {
        return start(Op.RESOLVE_LOCKS, Args.begin().range(start, end).u64(ts), Shape.NUMBER);
    }
}
