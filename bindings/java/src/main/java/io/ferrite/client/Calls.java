package io.ferrite.client;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;

/**
 * Starts calls and completes their futures. One daemon thread fetches all ends that have come at once, so no thread of the library enters Java and no
 * reference to a Java object is held outside of it. Calls that futures start on that thread, one at the end of another, are handed to the library
 * together.
 */
final class Calls {
    private static final ConcurrentHashMap<Long, Call<?>> UNDER_WAY = new ConcurrentHashMap<>();
    private static final AtomicLong LAST = new AtomicLong();
    private static final Thread ENDS = new Thread(Calls::complete, "ferrite-ends");

    static {
        ENDS.setDaemon(true);
        ENDS.start();
    }

    private Calls() {}

    /** Starts an operation without handle; {@code shape} makes its answer what users see. */
    static <T> CompletableFuture<T> start(int operation, Args args, Function<Object, T> shape) {
        return start(null, 0, operation, false, args, shape);
    }

    /** Starts an operation on the handle that {@code owner} holds. A quick one has mostly nothing to wait for. */
    static <T> CompletableFuture<T> start(Held owner, long handle, int operation, boolean isQuick, Args args, Function<Object, T> shape) {
        long id = LAST.incrementAndGet();
        Call<T> call = new Call<>(id, owner, shape);
        UNDER_WAY.put(id, call);
        if (Thread.currentThread() == ENDS && !isQuick) {
            Together.add(handle, operation, args, call);
            return call;
        }
        byte[] ended = Native.submit(handle, (byte) operation, id, args.buffer(), args.length(), true);
        if (ended != null) {
            finish(new Frame(ended));
        }
        return call;
    }

    /** Runs an operation to its end on this thread. */
    static <T> T run(long handle, int operation, Args args, Function<Object, T> shape) throws FerriteException {
        // What was started before may be what this one waits for.
        handOver();
        Frame frame = new Frame(Native.call(handle, (byte) operation, args.buffer(), args.length()));
        frame.enter();
        return shape.apply(frame.reply());
    }

    private static void complete() {
        while (true) {
            finish(new Frame(Native.poll()));
            Together.submit();
        }
    }

    /** Completes the futures of calls that ended. */
    private static void finish(Frame frame) {
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

    /** Lets calls that this thread has started begin now. */
    static void handOver() {
        if (Thread.currentThread() == ENDS) {
            Together.submit();
        }
    }

    /** Calls that have not ended. */
    static int underWay() {
        return UNDER_WAY.size();
    }

    /** Calls that wait to be handed over; of the thread of ends alone. */
    private static final class Together {
        private static final int MOST = 256;
        private static final Args OPERATIONS = new Args();
        private static final List<Call<?>> CALLS = new ArrayList<>();

        static void add(long handle, int operation, Args args, Call<?> call) {
            OPERATIONS.operation(handle, operation, call.id, args);
            CALLS.add(call);
            if (CALLS.size() == MOST) {
                submit();
            }
        }

        static void submit() {
            if (CALLS.isEmpty()) {
                return;
            }
            Native.submitAll(OPERATIONS.buffer(), OPERATIONS.length());
            OPERATIONS.clear();
            // The library did not know of those that were cancelled before.
            CALLS.stream().filter(Call::isCancelled).forEach(call -> Native.cancel(call.id));
            CALLS.clear();
        }
    }

    /** A future whose cancellation reaches the request. */
    private static final class Call<T> extends CompletableFuture<T> {
        private final long id;
        /** Kept, so that its handle is not freed with it before the call has begun. */
        private final Held owner;
        private final Function<Object, T> shape;

        Call(long id, Held owner, Function<Object, T> shape) {
            this.id = id;
            this.owner = owner;
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
