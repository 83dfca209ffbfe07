package io.ferrite.client;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;

/** Reads the ends of calls; see bindings/core/src/packed/codec.rs. */
final class Frame {
    private final ByteBuffer bytes;

    Frame(byte[] bytes) {
        this.bytes = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    }

    boolean hasMore() {
        return bytes.hasRemaining();
    }

    /** Enters the next frame; gives its id. */
    long enter() {
        bytes.getInt();
        return bytes.getLong();
    }

    /** The answer of the frame that was entered: one of the records of this package, or a value, a list of pairs, a number or null. */
    Object reply() throws FerriteException {
        int status = bytes.get();
        if (status != 0) {
            String message = text();
            String hint = text();
            boolean retryable = bytes.get() != 0;
            throw new FerriteException(Kind.of(status), message, hint, retryable, optional());
        }
        int kind = bytes.get();
        switch (kind) {
            case 0:
                return null;
            case 1:
                return optional();
            case 2: {
                int count = bytes.getInt();
                List<Pair> pairs = new ArrayList<>(count);
                for (int at = 0; at < count; at++) {
                    pairs.add(new Pair(take(), take()));
                }
                return pairs;
            }
            case 3:
                return new Swap(bytes.get() != 0, optional());
            case 4: {
                int there = bytes.get();
                long seconds = bytes.getLong();
                return there == 0 ? OptionalLong.empty() : OptionalLong.of(there == 1 ? RawClient.FOREVER : seconds);
            }
            case 5:
                return new Checksum(bytes.getLong(), bytes.getLong(), bytes.getLong());
            case 6: {
                boolean there = bytes.get() != 0;
                long number = bytes.getLong();
                return there ? OptionalLong.of(number) : OptionalLong.empty();
            }
            case 7:
                return new Opened(bytes.getLong(), bytes.getLong());
            default:
                throw new IllegalStateException("an answer that these classes do not know: do library and jar have one version?");
        }
    }

    private byte[] take() {
        byte[] taken = new byte[bytes.getInt()];
        bytes.get(taken);
        return taken;
    }

    private byte[] optional() {
        return bytes.get() == 0 ? null : take();
    }

    private String text() {
        return new String(take(), StandardCharsets.UTF_8);
    }

    /** A handle, and when a transaction reads. */
    record Opened(long handle, long startTs) {}
}
