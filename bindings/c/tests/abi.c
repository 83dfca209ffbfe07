/* Uses every function of the header against a database whose placement driver is at argv[1]. Stops at the first answer that is not as it should be. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferrite_client.h"

#define CHECK(condition)                                                                    \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);         \
            exit(1);                                                                        \
        }                                                                                   \
    } while (0)

static ferrite_bytes text(const char *text) {
    ferrite_bytes bytes = {(const uint8_t *)text, strlen(text)};
    return bytes;
}

static bool equal(ferrite_bytes a, const char *b) {
    return a.len == strlen(b) && memcmp(a.data, b, a.len) == 0;
}

/* The result of a call, which must have been started without callback. */
static ferrite_result *wait_for(ferrite_call *call) {
    ferrite_result *result = ferrite_call_wait(call);
    CHECK(result != NULL);
    CHECK(ferrite_call_wait(call) == NULL);
    ferrite_call_free(call);
    return result;
}

#define RUN(start, ...)                          \
    ({                                           \
        ferrite_call *call_ = NULL;              \
        start(__VA_ARGS__, NULL, NULL, &call_);  \
        wait_for(call_);                         \
    })

/* The call is done without failure; its result is not wanted. */
static void done(ferrite_result *result) {
    if (ferrite_result_class(result) != FERRITE_CLASS_OK) {
        fprintf(stderr, "%s (%s)\n", ferrite_result_message(result), ferrite_result_hint(result));
        exit(1);
    }
    CHECK(ferrite_result_message(result) == NULL && ferrite_result_hint(result) == NULL);
    ferrite_result_free(result);
}

static void fails(ferrite_result *result, ferrite_class wanted) {
    if (ferrite_result_class(result) != wanted) {
        fprintf(stderr, "class %s, wanted %s: %s\n", ferrite_class_name(ferrite_result_class(result)),
                ferrite_class_name(wanted), ferrite_result_message(result));
        exit(1);
    }
    CHECK(strlen(ferrite_result_message(result)) > 0 && strlen(ferrite_result_hint(result)) > 0);
    ferrite_result_free(result);
}

static void value_is(ferrite_result *result, const char *wanted) {
    ferrite_bytes value;
    CHECK(ferrite_result_class(result) == FERRITE_CLASS_OK);
    if (wanted == NULL) {
        CHECK(!ferrite_result_value(result, &value));
    } else {
        CHECK(ferrite_result_value(result, &value) && equal(value, wanted));
    }
    ferrite_result_free(result);
}

/* The text begins one of its lines so. */
static void told(ferrite_result *result, const char *line) {
    ferrite_bytes value;
    CHECK(ferrite_result_value(result, &value));
    size_t len = strlen(line), at = 0;
    while (at + len <= value.len && memcmp(value.data + at, line, len) != 0) {
        at++;
    }
    CHECK(at + len <= value.len && value.data[at - 1] == '\n');
    ferrite_result_free(result);
}

static void pairs_are(ferrite_result *result, size_t wanted, const char *keys[], const char *values[]) {
    size_t count = 99;
    CHECK(ferrite_result_class(result) == FERRITE_CLASS_OK);
    const ferrite_pair *pairs = ferrite_result_pairs(result, &count);
    CHECK(count == wanted);
    for (size_t at = 0; at < count; at++) {
        CHECK(equal(pairs[at].key, keys[at]) && equal(pairs[at].value, values[at]));
    }
    ferrite_result_free(result);
}

static uint64_t number(ferrite_result *result) {
    uint64_t found = 0;
    CHECK(ferrite_result_number(result, &found));
    ferrite_result_free(result);
    return found;
}

/* Counts callbacks. */
struct arrivals {
    pthread_mutex_t lock;
    pthread_cond_t more;
    size_t count;
    size_t cancelled;
};

static void arrive(void *user, ferrite_result *result) {
    struct arrivals *arrivals = user;
    pthread_mutex_lock(&arrivals->lock);
    arrivals->count++;
    arrivals->cancelled += ferrite_result_class(result) == FERRITE_CLASS_CANCELLED;
    pthread_cond_signal(&arrivals->more);
    pthread_mutex_unlock(&arrivals->lock);
    ferrite_result_free(result);
}

static void wait_until(struct arrivals *arrivals, size_t count) {
    pthread_mutex_lock(&arrivals->lock);
    while (arrivals->count < count) {
        pthread_cond_wait(&arrivals->more, &arrivals->lock);
    }
    pthread_mutex_unlock(&arrivals->lock);
}

static void raw_calls(ferrite_raw *raw) {
    const uint8_t binary[] = {0, 255, 0, 'k'};
    ferrite_bytes key = {binary, sizeof binary};
    value_is(RUN(ferrite_raw_get, raw, key), NULL);
    done(RUN(ferrite_raw_put, raw, key, text("value"), 0));
    value_is(RUN(ferrite_raw_get, raw, key), "value");
    done(RUN(ferrite_raw_put, raw, text("a"), text(""), 0));
    value_is(RUN(ferrite_raw_get, raw, text("a")), "");
    done(RUN(ferrite_raw_delete, raw, key));
    done(RUN(ferrite_raw_delete, raw, text("a")));
    value_is(RUN(ferrite_raw_get, raw, key), NULL);

    ferrite_pair pairs[] = {{text("k3"), text("3")}, {text("k1"), text("1")}, {text("k2"), text("2")}};
    done(RUN(ferrite_raw_batch_put, raw, pairs, 3, 0));
    ferrite_bytes keys[] = {text("k2"), text("none"), text("k1")};
    pairs_are(RUN(ferrite_raw_batch_get, raw, keys, 3), 2, (const char *[]){"k1", "k2"}, (const char *[]){"1", "2"});

    ferrite_range range = {text("k"), text("l"), 0, false, false};
    ferrite_scan *scan = ferrite_raw_scan(raw, &range);
    pairs_are(RUN(ferrite_scan_next, scan, 2), 2, (const char *[]){"k1", "k2"}, (const char *[]){"1", "2"});
    pairs_are(RUN(ferrite_scan_next, scan, 0), 1, (const char *[]){"k3"}, (const char *[]){"3"});
    pairs_are(RUN(ferrite_scan_next, scan, 0), 0, NULL, NULL);
    ferrite_scan_free(scan);
    range.limit = 2;
    range.reverse = range.keys_only = true;
    scan = ferrite_raw_scan(raw, &range);
    pairs_are(RUN(ferrite_scan_next, scan, 0), 2, (const char *[]){"k3", "k2"}, (const char *[]){"", ""});
    ferrite_scan_free(scan);

    ferrite_bytes one = text("1"), other = text("other");
    ferrite_result *swap = RUN(ferrite_raw_compare_and_swap, raw, text("k1"), &one, &other);
    CHECK(ferrite_result_swapped(swap));
    value_is(swap, "1");
    swap = RUN(ferrite_raw_compare_and_swap, raw, text("k1"), NULL, &one);
    CHECK(!ferrite_result_swapped(swap));
    value_is(swap, "other");

    uint64_t seconds = 0;
    ferrite_result *ttl = RUN(ferrite_raw_ttl, raw, text("k1"));
    CHECK(ferrite_result_ttl(ttl, &seconds) == FERRITE_TTL_KIND_FOREVER);
    ferrite_result_free(ttl);
    done(RUN(ferrite_raw_put, raw, text("k1"), text("1"), 100000));
    ttl = RUN(ferrite_raw_ttl, raw, text("k1"));
    CHECK(ferrite_result_ttl(ttl, &seconds) == FERRITE_TTL_KIND_SECONDS && seconds > 90 && seconds <= 100);
    ferrite_result_free(ttl);
    ttl = RUN(ferrite_raw_ttl, raw, text("none"));
    CHECK(ferrite_result_ttl(ttl, &seconds) == FERRITE_TTL_KIND_MISSING);
    ferrite_result_free(ttl);

    ferrite_checksum checksum;
    ferrite_result *sum = RUN(ferrite_raw_checksum, raw, text("k"), text("l"));
    CHECK(ferrite_result_checksum(sum, &checksum) && checksum.pairs == 3);
    ferrite_result_free(sum);
    done(RUN(ferrite_raw_batch_delete, raw, keys, 3));
    done(RUN(ferrite_raw_delete_range, raw, text("k"), text("l")));
    value_is(RUN(ferrite_raw_get, raw, text("k3")), NULL);
}

static void callbacks_and_cancellation(ferrite_raw *raw) {
    struct arrivals arrivals = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    for (int at = 0; at < 1000; at++) {
        ferrite_raw_put(raw, text("many"), text("value"), 0, arrive, &arrivals, NULL);
    }
    wait_until(&arrivals, 1000);
    CHECK(arrivals.cancelled == 0);
    for (int at = 0; at < 100; at++) {
        ferrite_call *call = NULL;
        ferrite_raw_get(raw, text("many"), arrive, &arrivals, &call);
        ferrite_call_cancel(call);
        ferrite_call_cancel(call);
        CHECK(ferrite_call_wait(call) == NULL);
        ferrite_call_free(call);
    }
    wait_until(&arrivals, 1100);
    CHECK(arrivals.cancelled > 0);
}

static ferrite_txn *begin(ferrite_txns *txns, const char *options) {
    ferrite_result *result = RUN(ferrite_txns_begin, txns, options);
    ferrite_txn *txn = ferrite_result_take_txn(result);
    CHECK(txn != NULL && ferrite_result_take_txn(result) == NULL);
    ferrite_result_free(result);
    return txn;
}

static void transactions(ferrite_txns *txns) {
    ferrite_bytes keys[] = {text("t1"), text("t2")};
    ferrite_pair pairs[] = {{text("t2"), text("2")}, {text("t3"), text("3")}};
    ferrite_txn *txn = begin(txns, NULL);
    CHECK(ferrite_txn_start_ts(txn) > 0);
    done(RUN(ferrite_txn_insert, txn, text("t1"), text("1")));
    done(RUN(ferrite_txn_batch_put, txn, pairs, 2));
    uint64_t savepoint = number(RUN(ferrite_txn_savepoint, txn));
    done(RUN(ferrite_txn_put, txn, text("t3"), text("changed")));
    done(RUN(ferrite_txn_delete, txn, text("t2")));
    value_is(RUN(ferrite_txn_get, txn, text("t2")), NULL);
    done(RUN(ferrite_txn_rollback_to, txn, savepoint));
    fails(RUN(ferrite_txn_rollback_to, txn, savepoint + 1), FERRITE_CLASS_CONFIGURATION);
    value_is(RUN(ferrite_txn_get, txn, text("t2")), "2");
    uint64_t committed = number(RUN(ferrite_txn_commit, txn));
    fails(RUN(ferrite_txn_get, txn, text("t1")), FERRITE_CLASS_CLOSED);
    ferrite_txn_free(txn);

    ferrite_snapshot *now = ferrite_txns_snapshot(txns, number(RUN(ferrite_txns_timestamp, txns)));
    ferrite_snapshot *before = ferrite_txns_snapshot(txns, committed - 1);
    value_is(RUN(ferrite_snapshot_get, now, text("t3")), "3");
    value_is(RUN(ferrite_snapshot_get, before, text("t3")), NULL);
    pairs_are(RUN(ferrite_snapshot_batch_get, now, keys, 2), 2, (const char *[]){"t1", "t2"}, (const char *[]){"1", "2"});
    ferrite_range range = {text("t2"), text("t9"), 0, false, false};
    ferrite_scan *scan = ferrite_snapshot_scan(now, &range);
    pairs_are(RUN(ferrite_scan_next, scan, 0), 2, (const char *[]){"t2", "t3"}, (const char *[]){"2", "3"});
    ferrite_scan_free(scan);
    ferrite_snapshot_free(before);
    ferrite_snapshot_free(now);

    ferrite_txn *first = begin(txns, NULL), *second = begin(txns, NULL);
    done(RUN(ferrite_txn_put, first, text("t1"), text("first")));
    done(RUN(ferrite_txn_put, second, text("t1"), text("second")));
    number(RUN(ferrite_txn_commit, first));
    ferrite_result *conflict = RUN(ferrite_txn_commit, second);
    ferrite_bytes key;
    CHECK(ferrite_result_retryable(conflict) && ferrite_result_key(conflict, &key) && equal(key, "t1"));
    fails(conflict, FERRITE_CLASS_CONFLICT);
    ferrite_txn_free(first);
    ferrite_txn_free(second);

    ferrite_txn *holder = begin(txns, "pessimistic"), *waiter = begin(txns, "pessimistic,lock-wait=no");
    value_is(RUN(ferrite_txn_get_for_update, holder, text("t1")), "first");
    pairs_are(RUN(ferrite_txn_batch_get_for_update, holder, keys, 2), 2, (const char *[]){"t1", "t2"},
              (const char *[]){"first", "2"});
    done(RUN(ferrite_txn_lock_keys, holder, keys, 2));
    fails(RUN(ferrite_txn_put, waiter, text("t1"), text("waiter")), FERRITE_CLASS_LOCKED);
    fails(RUN(ferrite_txn_insert, holder, text("t3"), text("there")), FERRITE_CLASS_EXISTS);
    scan = ferrite_txn_scan(holder, &range);
    pairs_are(RUN(ferrite_scan_next, scan, 0), 2, (const char *[]){"t2", "t3"}, (const char *[]){"2", "3"});
    ferrite_scan_free(scan);
    pairs_are(RUN(ferrite_txn_batch_get, holder, keys, 1), 1, (const char *[]){"t1"}, (const char *[]){"first"});
    done(RUN(ferrite_txn_rollback, holder));
    done(RUN(ferrite_txn_put, waiter, text("t1"), text("waiter")));
    ferrite_txn_free(holder);
    ferrite_txn_free(waiter);

    uint64_t ts = number(RUN(ferrite_txns_timestamp, txns));
    number(RUN(ferrite_txns_resolve_locks, txns, text("t"), text("u"), ts));
    CHECK(number(RUN(ferrite_txns_gc, txns, committed)) >= committed);
}

static void faults(const char *endpoint) {
    fails(RUN(ferrite_raw_connect, "not an address", NULL), FERRITE_CLASS_CONFIGURATION);
    fails(RUN(ferrite_raw_connect, NULL, NULL), FERRITE_CLASS_CONFIGURATION);
    fails(RUN(ferrite_raw_connect, endpoint, "speed=high"), FERRITE_CLASS_CONFIGURATION);
    fails(RUN(ferrite_txns_connect, endpoint, "deadline=\xff"), FERRITE_CLASS_CONFIGURATION);
    /* NULL where a handle is wanted is told, not a crash. */
    fails(RUN(ferrite_raw_get, NULL, text("k")), FERRITE_CLASS_INTERNAL);
    CHECK(ferrite_raw_scan(NULL, NULL) == NULL && ferrite_txns_snapshot(NULL, 1) == NULL);
    CHECK(ferrite_txn_start_ts(NULL) == 0 && ferrite_raw_metrics(NULL) == NULL && ferrite_raw_with_deadline(NULL, 1) == NULL);
    ferrite_raw_free(NULL);
    ferrite_result_free(NULL);
    ferrite_call_free(NULL);
    ferrite_call_cancel(NULL);
    CHECK(strcmp(ferrite_class_name(FERRITE_CLASS_CONFLICT), "conflict") == 0);
    CHECK(strcmp(ferrite_class_name(99), "unknown") == 0);
    CHECK(ferrite_abi_version() == 2);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    /* A panic's text would go to standard error; only the one for NULL is expected. */
    ferrite_result *connected = RUN(ferrite_raw_connect, argv[1], "deadline=10s,keyspace=DEFAULT");
    ferrite_raw *raw = ferrite_result_take_raw(connected);
    CHECK(raw != NULL);
    done(connected);
    ferrite_raw *hurried = ferrite_raw_with_deadline(raw, 0);
    fails(RUN(ferrite_raw_get, hurried, text("k")), FERRITE_CLASS_DEADLINE);
    ferrite_raw_free(hurried);
    raw_calls(raw);
    told(ferrite_raw_metrics(raw), "ferrite_client_requests_total{command=\"raw_put\",outcome=\"ok\"} ");
    callbacks_and_cancellation(raw);
    ferrite_raw_free(raw);

    connected = RUN(ferrite_txns_connect, argv[1], "deadline=10s,keyspace=DEFAULT");
    ferrite_txns *txns = ferrite_result_take_txns(connected);
    CHECK(txns != NULL);
    done(connected);
    ferrite_txns *same = ferrite_txns_with_deadline(txns, 10000);
    transactions(same);
    ferrite_txns_free(same);
    told(ferrite_txns_metrics(txns), "ferrite_client_requests_total{command=\"kv_prewrite\",outcome=\"ok\"} ");
    ferrite_txns_free(txns);
    faults(argv[1]);
    puts("all as it should be");
    return 0;
}
