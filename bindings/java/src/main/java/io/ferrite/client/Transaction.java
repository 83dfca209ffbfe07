package io.ferrite.client;

import java.util.Collection;
import java.util.List;
import java.util.OptionalLong;
import java.util.concurrent.CompletableFuture;

/** A transaction; may be used from any thread. Closed before its end it is rolled back. */
public final class Transaction extends Reader {
    private final long startTs;

    Transaction(Frame.Opened opened) {
        super(opened.handle());
        this.startTs = opened.startTs();
    }

    @Override
    boolean isQuick(int operation) {
        return switch (operation) {
            case Op.PUT, Op.DELETE, Op.BATCH_PUT, Op.INSERT, Op.LOCK_KEYS, Op.SAVEPOINT, Op.ROLLBACK_TO -> true;
            default -> false;
        };
    }

    /** The timestamp at which it reads. */
    public long startTs() {
        return startTs;
    }

    /** Locks a key and reads it, its latest value in a pessimistic transaction. */
    public byte[] getForUpdate(byte[] key) throws FerriteException {
        return run(Op.GET_FOR_UPDATE, Args.begin().bytes(key), Shape.VALUE);
    }

    /** Locks a key and reads it, its latest value in a pessimistic transaction. */
    public CompletableFuture<byte[]> getForUpdateAsync(byte[] key) {
        return start(Op.GET_FOR_UPDATE, Args.begin().bytes(key), Shape.VALUE);
    }

    /** Locks keys and reads those that are there. */
    public List<Pair> batchGetForUpdate(Collection<byte[]> keys) throws FerriteException {
        return run(Op.BATCH_GET_FOR_UPDATE, Args.begin().keys(keys), Shape.PAIRS);
    }

    /** Locks keys and reads those that are there. */
    public CompletableFuture<List<Pair>> batchGetForUpdateAsync(Collection<byte[]> keys) {
        return start(Op.BATCH_GET_FOR_UPDATE, Args.begin().keys(keys), Shape.PAIRS);
    }

    /** Sets a key. A pessimistic transaction locks it now, as with all writes. */
    public void put(byte[] key, byte[] value) throws FerriteException {
        run(Op.PUT, Args.begin().bytes(key).bytes(value), Shape.NOTHING);
    }

    /** Sets a key. A pessimistic transaction locks it now, as with all writes. */
    public CompletableFuture<Void> putAsync(byte[] key, byte[] value) {
        return start(Op.PUT, Args.begin().bytes(key).bytes(value), Shape.NOTHING);
    }

    /** Sets all pairs. */
    public void batchPut(Collection<Pair> pairs) throws FerriteException {
        run(Op.BATCH_PUT, Args.begin().pairs(pairs), Shape.NOTHING);
    }

    /** Sets all pairs. */
    public CompletableFuture<Void> batchPutAsync(Collection<Pair> pairs) {
        return start(Op.BATCH_PUT, Args.begin().pairs(pairs), Shape.NOTHING);
    }

    /** Sets a key that must not be there: {@link Kind#EXISTS}, now or at commit. */
    public void insert(byte[] key, byte[] value) throws FerriteException {
        run(Op.INSERT, Args.begin().bytes(key).bytes(value), Shape.NOTHING);
    }

    /** Sets a key that must not be there: {@link Kind#EXISTS}, now or at commit. */
    public CompletableFuture<Void> insertAsync(byte[] key, byte[] value) {
        return start(Op.INSERT, Args.begin().bytes(key).bytes(value), Shape.NOTHING);
    }

    /** Removes a key, if it is there. */
    public void delete(byte[] key) throws FerriteException {
        run(Op.DELETE, Args.begin().bytes(key), Shape.NOTHING);
    }

    /** Removes a key, if it is there. */
    public CompletableFuture<Void> deleteAsync(byte[] key) {
        return start(Op.DELETE, Args.begin().bytes(key), Shape.NOTHING);
    }

    /** Keeps others from writing keys while the transaction is under way. */
    public void lockKeys(Collection<byte[]> keys) throws FerriteException {
        run(Op.LOCK_KEYS, Args.begin().keys(keys), Shape.NOTHING);
    }

    /** Keeps others from writing keys while the transaction is under way. */
    public CompletableFuture<Void> lockKeysAsync(Collection<byte[]> keys) {
        return start(Op.LOCK_KEYS, Args.begin().keys(keys), Shape.NOTHING);
    }

    /** Remembers the writes so far. */
    public long savepoint() throws FerriteException {
        return run(Op.SAVEPOINT, Args.begin(), Shape.NUMBER);
    }

    /** Remembers the writes so far. */
    public CompletableFuture<Long> savepointAsync() {
        return start(Op.SAVEPOINT, Args.begin(), Shape.NUMBER);
    }

    /** Undoes the writes since a savepoint; locks stay. */
    public void rollbackTo(long savepoint) throws FerriteException {
        run(Op.ROLLBACK_TO, Args.begin().u64(savepoint), Shape.NOTHING);
    }

    /** Undoes the writes since a savepoint; locks stay. */
    public CompletableFuture<Void> rollbackToAsync(long savepoint) {
        return start(Op.ROLLBACK_TO, Args.begin().u64(savepoint), Shape.NOTHING);
    }

    /** Commits; gives the commit timestamp, if there was something to write. Goes on if it is cancelled. */
    public OptionalLong commit() throws FerriteException {
        return run(Op.COMMIT, Args.begin(), Shape.OPTIONAL);
    }

    /** Commits; gives the commit timestamp, if there was something to write. Goes on if it is cancelled. */
    public CompletableFuture<OptionalLong> commitAsync() {
        return start(Op.COMMIT, Args.begin(), Shape.OPTIONAL);
    }

    /** Gives up what was written. */
    public void rollback() throws FerriteException {
        run(Op.ROLLBACK, Args.begin(), Shape.NOTHING);
    }

    /** Gives up what was written. */
    public CompletableFuture<Void> rollbackAsync() {
        return start(Op.ROLLBACK, Args.begin(), Shape.NOTHING);
    }
}
