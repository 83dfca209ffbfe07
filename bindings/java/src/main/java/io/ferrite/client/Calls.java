package io.ferrite.client;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;

/**
 * Starts calls and completes their futures. One daemon thread fetches all ends that have come at once, so no thread of the library enters Java and no
 * reference to a Java object is held outside of it.
 */
final class Calls {
    private static final ConcurrentHashMap<Long, Call<?>> UNDER_WAY = new ConcurrentHashMap<>();
    private static final AtomicLong LAST = new AtomicLong();

    static {
        Thread ends = new Thread(Calls::complete, "ferrite-ends");
        ends.setDaemon(true);
        ends.start();
    }

    private Calls() {}

    /** Starts an operation; {@code shape} makes its answer what users see. */
    static <T> CompletableFuture<T> start(long handle, int operation, Args args, Function<Object, T> shape) {
        long id = LAST.incrementAndGet();
        Call<T> call = new Call<>(id, shape);
        UNDER_WAY.put(id, call);
        Native.submit(handle, (byte) operation, id, args.buffer(), args.length(), true);
        return call;
    }

    /** Runs an operation to its end on this thread. */
    static <T> T run(long handle, int operation, Args args, Function<Object, T> shape) throws FerriteException {
        Frame frame = new Frame(Native.call(handle, (byte) operation, args.buffer(), args.length()));
        frame.enter();
        return shape.apply(frame.reply());
    }

    private static void complete() {
        while (true) {
            Frame frame = new Frame(Native.poll());
            while (frame.hasMore()) {
                Call<?> call = UNDER_WAY.remove(frame.enter());
                try {
                    Object reply = frame.reply();
                    call.end(reply);
                } catch (Throwable error) {
                    call.completeExceptionally(error);
                }
            }
        }
    }

    /** Calls that have not ended. */
    static int underWay() {
        return UNDER_WAY.size();
    }

    /** A future whose cancellation reaches the request. */
    private static final class Call<T> extends CompletableFuture<T> {
        private final long id;
        private final Function<Object, T> shape;

        Call(long id, Function<Object, T> shape) {
            this.id = id;
            this.shape = shape;
        }

        void end(Object reply) {
            complete(shape.apply(reply));
        }

        @Override
        public boolean cancel(boolean mayInterrupt) {
            boolean cancelled = super.cancel(mayInterrupt);
            if (cancelled) {
                Native.cancel(id);
            }
            return cancelled;
        }
    }
}
