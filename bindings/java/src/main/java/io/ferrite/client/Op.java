package io.ferrite.client;

/** Numbers of operations; see bindings/core/src/packed/op.rs. */
final class Op {
    static final int RAW_CONNECT = 1;
    static final int TXNS_CONNECT = 2;
    static final int WITH_DEADLINE = 3;
    static final int GET = 4;
    static final int PUT = 5;
    static final int DELETE = 6;
    static final int BATCH_GET = 7;
    static final int BATCH_PUT = 8;
    static final int BATCH_DELETE = 9;
    static final int DELETE_RANGE = 10;
    static final int COMPARE_AND_SWAP = 11;
    static final int TTL = 12;
    static final int CHECKSUM = 13;
    static final int SCAN = 14;
    static final int NEXT = 15;
    static final int BEGIN = 16;
    static final int TIMESTAMP = 17;
    static final int SNAPSHOT = 18;
    static final int GC = 19;
    static final int RESOLVE_LOCKS = 20;
    static final int GET_FOR_UPDATE = 21;
    static final int BATCH_GET_FOR_UPDATE = 22;
    static final int INSERT = 23;
    static final int LOCK_KEYS = 24;
    static final int SAVEPOINT = 25;
    static final int ROLLBACK_TO = 26;
    static final int COMMIT = 27;
    static final int ROLLBACK = 28;
    static final int METRICS = 29;

    private Op() {}
}
