package io.ferrite.client;

import java.lang.ref.Cleaner;
import java.util.concurrent.CompletableFuture;
import java.util.function.Function;

/** What holds a handle of the library; let go by {@link #close}, or with the object. */
abstract class Held implements AutoCloseable {
    private static final Cleaner CLEANER = Cleaner.create();

    final long handle;
    private final Cleaner.Cleanable cleanable;

    Held(long handle) {
        this.handle = handle;
        this.cleanable = CLEANER.register(this, () -> Native.free(handle));
    }

    <T> T run(int operation, Args args, Function<Object, T> shape) throws FerriteException {
        try {
            return Calls.run(handle, operation, args, shape);
        } finally {
            java.lang.ref.Reference.reachabilityFence(this);
        }
    }

    <T> CompletableFuture<T> start(int operation, Args args, Function<Object, T> shape) {
        try {
            return Calls.start(this, handle, operation, isQuick(operation), args, shape);
        } finally {
            java.lang.ref.Reference.reachabilityFence(this);
        }
    }

    /** Whether an operation has mostly nothing to wait for. */
    boolean isQuick(int operation) {
        return false;
    }

    /** Lets it go; later calls fail with {@link Kind#CLOSED}. */
    @Override
    public void close() {
        // Calls that were started before go on.
        Calls.handOver();
        cleanable.clean();
    }
}
