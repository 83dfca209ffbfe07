/* What the examples with transactions share. */
#ifndef TXNS_H
#define TXNS_H

#include "example.h"

static inline ferrite_txns *connect_txns(void) {
    ferrite_result *result = must(CALL(ferrite_txns_connect, pd, client_options()));
    ferrite_txns *txns = ferrite_result_take_txns(result);
    ferrite_result_free(result);
    return txns;
}

static inline ferrite_txn *begin(const ferrite_txns *txns, const char *options) {
    ferrite_result *result = must(CALL(ferrite_txns_begin, txns, options));
    ferrite_txn *txn = ferrite_result_take_txn(result);
    ferrite_result_free(result);
    return txn;
}

/* Commits and frees a transaction. False if all of it may be tried again. */
static inline bool commit(ferrite_txn *txn) {
    bool committed = done(CALL(ferrite_txn_commit, txn));
    ferrite_txn_free(txn);
    return committed;
}

/* Calls `take` with each pair of a scan, and frees the scan. */
static inline void for_each(ferrite_scan *scan, void (*take)(void *user, const ferrite_pair *pair), void *user) {
    size_t count;
    do {
        ferrite_result *page = must(CALL(ferrite_scan_next, scan, 0));
        const ferrite_pair *pairs = ferrite_result_pairs(page, &count);
        for (size_t at = 0; at < count; at++) {
            take(user, &pairs[at]);
        }
        ferrite_result_free(page);
    } while (count > 0);
    ferrite_scan_free(scan);
}

static inline ferrite_range range(const char *start, const char *end) {
    return (ferrite_range){.start = text(start), .end = text(end)};
}

/* A number in decimal digits; 0 if there is none. */
static inline long number(ferrite_bytes value) {
    char digits[24] = "";
    memcpy(digits, value.data, value.len < sizeof digits - 1 ? value.len : sizeof digits - 1);
    return strtol(digits, NULL, 10);
}

static inline void delete_pair(void *txn, const ferrite_pair *pair) {
    must_do(CALL(ferrite_txn_delete, txn, pair->key));
}

static inline void count_pair(void *count, const ferrite_pair *pair) {
    (void)pair;
    ++*(long *)count;
}

/* How many keys were committed in a range. */
static inline long count_of(const ferrite_txns *txns, ferrite_range range) {
    long count = 0;
    ferrite_snapshot *snapshot = ferrite_txns_snapshot(txns, UINT64_MAX);
    for_each(ferrite_snapshot_scan(snapshot, &range), count_pair, &count);
    ferrite_snapshot_free(snapshot);
    return count;
}

#endif
