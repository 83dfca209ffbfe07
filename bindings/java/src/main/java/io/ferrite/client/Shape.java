package io.ferrite.client;

import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.OptionalLong;
import java.util.function.Function;

/** Makes answers what users see. */
final class Shape {
    static final Function<Object, Void> NOTHING = reply -> null;
    static final Function<Object, byte[]> VALUE = reply -> (byte[]) reply;
    static final Function<Object, String> TEXT = reply -> new String((byte[]) reply, StandardCharsets.UTF_8);
    static final Function<Object, OptionalLong> OPTIONAL = reply -> (OptionalLong) reply;
    static final Function<Object, Long> NUMBER = reply -> ((OptionalLong) reply).getAsLong();
    static final Function<Object, Swap> SWAP = reply -> (Swap) reply;
    static final Function<Object, Checksum> CHECKSUM = reply -> (Checksum) reply;

    @SuppressWarnings("unchecked") // a frame holds no list of anything else
    static final Function<Object, List<Pair>> PAIRS = reply -> (List<Pair>) reply;

    private Shape() {}

    static long handle(Object reply) {
        return ((Frame.Opened) reply).handle();
    }
}
