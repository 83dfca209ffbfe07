package io.ferrite.client;

/** A call failed. Futures give it as the cause. */
public final class FerriteException extends Exception {
    private static final long serialVersionUID = 1;

    private final Kind kind;
    private final String hint;
    private final boolean retryable;
    private final transient byte[] key;

    FerriteException(Kind kind, String message, String hint, boolean retryable, byte[] key) {
        super(message + " (hint: " + hint + ")");
        this.kind = kind;
        this.hint = hint;
        this.retryable = retryable;
        this.key = key;
    }

    public Kind kind() {
        return kind;
    }

    /** What to do about it. */
    public String hint() {
        return hint;
    }

    /** Whether all of it, for a transaction from its begin, may be tried again. */
    public boolean isRetryable() {
        return retryable;
    }

    /** The key it is about; null if it is about none. */
    public byte[] key() {
        return key == null ? null : key.clone();
    }
}
