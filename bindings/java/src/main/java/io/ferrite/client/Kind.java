package io.ferrite.client;

/** Kinds of failures; the same words in every language. */
public enum Kind {
    /** The cluster could not serve the call now. */
    RETRYABLE,
    /** The time of the call is over, and it has not been done. */
    DEADLINE,
    /** Another transaction wrote a key of this one. */
    CONFLICT,
    /** Another transaction holds a lock that was not waited for. */
    LOCKED,
    /** Waiting for a lock would have closed a circle. */
    DEADLOCK,
    /** The transaction was rolled back by others. */
    ABORTED,
    /** A key that was to be inserted is there. */
    EXISTS,
    /** It is unknown whether a write was done. */
    UNDETERMINED,
    /** An entry that was named does not exist, such as a keyspace. */
    NOT_FOUND,
    /** Addresses, options or the form of keys are wrong. */
    CONFIGURATION,
    /** The cluster refuses the request as it stands. */
    REFUSED,
    /** The caller cancelled the call. */
    CANCELLED,
    /** The transaction was used after its end. */
    CLOSED,
    /** A fault of the library. */
    INTERNAL;

    private static final Kind[] ALL = values();

    static Kind of(int number) {
        return number >= 1 && number <= ALL.length ? ALL[number - 1] : INTERNAL;
    }
}
