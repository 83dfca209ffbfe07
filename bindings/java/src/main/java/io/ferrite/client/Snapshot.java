package io.ferrite.client;

/** What was committed at or before a timestamp; may be used from any thread. */
public final class Snapshot extends Reader {
    private final long ts;

    Snapshot(long handle, long ts) {
        super(handle);
        this.ts = ts;
    }

    public long ts() {
        return ts;
    }
}
