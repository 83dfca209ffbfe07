package io.ferrite.client;

/**
 * What a scan gives: from {@code start} to before {@code end} (null: no bound), at most {@code limit} pairs (0: all).
 */
public record ScanOptions(byte[] start, byte[] end, long limit, boolean reverse, boolean keysOnly) {
    /** All pairs from {@code start} to before {@code end}, forward. */
    public static ScanOptions range(byte[] start, byte[] end) {
        return new ScanOptions(start, end, 0, false, false);
    }

    public ScanOptions withLimit(long limit) {
        return new ScanOptions(start, end, limit, reverse, keysOnly);
    }

    public ScanOptions reversed() {
        return new ScanOptions(start, end, limit, !reverse, keysOnly);
    }

    /** Leaves the values empty. */
    public ScanOptions withKeysOnly() {
        return new ScanOptions(start, end, limit, reverse, true);
    }

    Args args() {
        return Args.begin().range(start, end).u64(limit).flag(reverse).flag(keysOnly);
    }
}
