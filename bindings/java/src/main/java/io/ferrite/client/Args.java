package io.ferrite.client;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Collection;

/**
 * Arguments of a call as bytes, in a direct buffer of the thread's own: they are handed to the library without another copy on the heap. Must be used up
 * before the next ones are begun.
 */
final class Args {
    private static final int KEPT_BYTES = 1 << 20;
    private static final ThreadLocal<Args> OWN = ThreadLocal.withInitial(Args::new);

    private ByteBuffer buffer = direct(4096);

    private static ByteBuffer direct(int bytes) {
        return ByteBuffer.allocateDirect(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    /** Empty ones of this thread. */
    static Args begin() {
        return OWN.get().clear();
    }

    /** Empties these. */
    Args clear() {
        if (buffer.capacity() > KEPT_BYTES) {
            buffer = direct(4096);
        }
        buffer.clear();
        return this;
    }

    private void room(int bytes) {
        if (buffer.remaining() < bytes) {
            ByteBuffer larger = direct(Math.max(2 * buffer.capacity(), Math.addExact(buffer.position(), bytes)));
            larger.put(buffer.flip());
            buffer = larger;
        }
    }

    Args bytes(byte[] bytes) {
        room(Math.addExact(4, bytes.length));
        buffer.putInt(bytes.length).put(bytes);
        return this;
    }

    Args optional(byte[] bytes) {
        return bytes == null ? flag(false) : flag(true).bytes(bytes);
    }

    Args text(String text) {
        return bytes(text.getBytes(StandardCharsets.UTF_8));
    }

    Args flag(boolean flag) {
        room(1);
        buffer.put((byte) (flag ? 1 : 0));
        return this;
    }

    Args u32(int number) {
        room(4);
        buffer.putInt(number);
        return this;
    }

    Args u64(long number) {
        room(8);
        buffer.putLong(number);
        return this;
    }

    Args keys(Collection<byte[]> keys) {
        u32(keys.size());
        keys.forEach(this::bytes);
        return this;
    }

    Args pairs(Collection<Pair> pairs) {
        u32(pairs.size());
        pairs.forEach(pair -> bytes(pair.key()).bytes(pair.value()));
        return this;
    }

    /** An end of null has no bound. */
    Args range(byte[] start, byte[] end) {
        return bytes(start == null ? new byte[0] : start).bytes(end == null ? new byte[0] : end);
    }

    /** An operation among others, with its arguments. */
    Args operation(long handle, int operation, long id, Args args) {
        u64(handle);
        room(1);
        buffer.put((byte) operation);
        u64(id).u32(args.length());
        room(args.length());
        buffer.put(args.buffer.duplicate().flip());
        return this;
    }

    ByteBuffer buffer() {
        return buffer;
    }

    int length() {
        return buffer.position();
    }
}
