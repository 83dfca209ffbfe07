/* An inventory with pessimistic locks: many buyers on threads, no item sold twice.
 *
 *     inventory [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--stock N] [--buyers N]
 */
#include <pthread.h>
#include <stdatomic.h>

#include "txns.h"

enum { ITEMS = 2, THREADS = 8 };
static const char *items[ITEMS] = {"inventory/apples", "inventory/pears"};
static const char *sold = "inventory/sold/", *after_sold = "inventory/sold0";

static long stock = 20, buyers = 32;
static ferrite_txns *txns;
static atomic_long next_buyer, served;

enum outcome { BOUGHT, SOLD_OUT, AGAIN };

/* One of each item, or none. */
static enum outcome try_to_buy(ferrite_txn *txn, long buyer) {
    long left[ITEMS];
    char value[24], record[64];
    /* In one order, so that buyers do not wait for each other in a circle. */
    for (int at = 0; at < ITEMS; at++) {
        ferrite_result *result = CALL(ferrite_txn_get_for_update, txn, text(items[at]));
        bool is_read = is_done(result);
        ferrite_bytes found;
        left[at] = is_read && ferrite_result_value(result, &found) ? number(found) : 0;
        ferrite_result_free(result);
        if (!is_read) {
            return AGAIN;
        }
        if (left[at] == 0) {
            return SOLD_OUT;
        }
    }
    for (int at = 0; at < ITEMS; at++) {
        snprintf(value, sizeof value, "%ld", left[at] - 1);
        if (!done(CALL(ferrite_txn_put, txn, text(items[at]), text(value)))) {
            return AGAIN;
        }
    }
    snprintf(record, sizeof record, "%s%06ld", sold, buyer);
    return done(CALL(ferrite_txn_insert, txn, text(record), text("one of each"))) ? BOUGHT : AGAIN;
}

/* Tried again while others are in the way. */
static bool buy(long buyer) {
    for (;;) {
        ferrite_txn *txn = begin(txns, "pessimistic");
        enum outcome outcome = try_to_buy(txn, buyer);
        if (outcome == BOUGHT) {
            if (commit(txn)) {
                return true;
            }
            continue;
        }
        /* Freed before its end it is rolled back. */
        ferrite_txn_free(txn);
        if (outcome == SOLD_OUT) {
            return false;
        }
    }
}

static void *serve(void *unused) {
    for (long buyer = next_buyer++; buyer < buyers; buyer = next_buyer++) {
        served += buy(buyer);
    }
    return unused;
}

/* What an earlier run sold is forgotten. */
static void fill(void) {
    char value[24];
    ferrite_txn *txn = begin(txns, NULL);
    ferrite_range old = range(sold, after_sold);
    for_each(ferrite_txn_scan(txn, &old), delete_pair, txn);
    snprintf(value, sizeof value, "%ld", stock);
    for (int at = 0; at < ITEMS; at++) {
        must_do(CALL(ferrite_txn_put, txn, text(items[at]), text(value)));
    }
    must_do(CALL(ferrite_txn_commit, txn));
    ferrite_txn_free(txn);
}

static long left_of(const char *item) {
    ferrite_snapshot *snapshot = ferrite_txns_snapshot(txns, UINT64_MAX);
    ferrite_result *result = must(CALL(ferrite_snapshot_get, snapshot, text(item)));
    ferrite_bytes value;
    long left = ferrite_result_value(result, &value) ? number(value) : -1;
    ferrite_result_free(result);
    ferrite_snapshot_free(snapshot);
    return left;
}

int main(int count, char *arguments[]) {
    read_flags(count, arguments, (const struct flag[]){{"--stock", NULL, &stock}, {"--buyers", NULL, &buyers}, {0}});
    txns = connect_txns();
    fill();
    pthread_t threads[THREADS];
    for (int at = 0; at < THREADS; at++) {
        pthread_create(&threads[at], NULL, serve, NULL);
    }
    for (int at = 0; at < THREADS; at++) {
        pthread_join(threads[at], NULL);
    }
    long records = count_of(txns, range(sold, after_sold)), wanted = stock < buyers ? stock : buyers;
    expect(served == wanted, "served", served, wanted);
    expect(records == served, "sold", records, served);
    for (int at = 0; at < ITEMS; at++) {
        expect(left_of(items[at]) == stock - records, items[at], left_of(items[at]), stock - records);
    }
    printf("%ld of %ld buyers served, %ld of each left\n", (long)served, buyers, stock - records);
    ferrite_txns_free(txns);
}
