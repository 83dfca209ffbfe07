/* Load for `cargo xtask bench clients` and `cargo xtask bindings soak`; what it does is said in bindings/conformance/src/load.rs. Callbacks carry the
 * bench, waiting threads the soak.
 *
 *   load ENDPOINTS KEYSPACE MODE IN_FLIGHT AMOUNT PREFIX
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ferrite_client.h"

enum { KEYS = 10000, SLOTS = 8, VALUE_BYTES = 100, KEY_MAX = 128, VALUE_MAX = 192 };

static ferrite_raw *raw;
static ferrite_txns *txns;
static const char *prefix;
static char filling[VALUE_BYTES + 1];

static ferrite_bytes text(const char *text) {
    return (ferrite_bytes){(const uint8_t *)text, strlen(text)};
}

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void nap(double seconds) {
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
}

static void die(const char *what, ferrite_result *result) {
    fprintf(stderr, "%s: %s\n", what, result == NULL ? "wrong" : ferrite_result_message(result));
    exit(1);
}

static ferrite_result *wait_for(ferrite_call *call) {
    ferrite_result *result = ferrite_call_wait(call);
    ferrite_call_free(call);
    return result;
}

/* ---- The bench: calls as fast as they come, measured after a warm-up of half the time. */

static atomic_bool is_over;
static atomic_int epoch;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static int working;

/* One call after the other. */
struct worker {
    int number, worker, seen, step;
    char mode;
    ferrite_txn *txn;
    double begun;
    double *latencies;
    size_t count, room, failures;
};

static void step_on(void *user, ferrite_result *result);

static void next(struct worker *worker) {
    char key[KEY_MAX];
    if (atomic_load(&is_over)) {
        pthread_mutex_lock(&guard);
        working--;
        pthread_cond_signal(&ended);
        pthread_mutex_unlock(&guard);
        return;
    }
    worker->number = (int)(((unsigned)worker->number * 1103515245u + 12345u) & 0x7fffffff);
    worker->begun = now(CLOCK_MONOTONIC);
    snprintf(key, sizeof key, "%s/k/%06d", prefix, (worker->number >> 8) % KEYS);
    switch (worker->mode) {
        case 'g': ferrite_raw_get(raw, text(key), step_on, worker, NULL); break;
        case 'p': ferrite_raw_put(raw, text(key), text(filling), 0, step_on, worker, NULL); break;
        default: worker->step = 0; ferrite_txns_begin(txns, NULL, step_on, worker, NULL);
    }
}

/* The rest of a transaction, call by call; false if it is over. */
static bool transact(struct worker *worker, ferrite_result *result) {
    char key[KEY_MAX];
    if (ferrite_result_class(result) != FERRITE_CLASS_OK) {
        return false;
    }
    if (worker->step == 0) {
        worker->txn = ferrite_result_take_txn(result);
    }
    snprintf(key, sizeof key, "%s/t/%d/%d/%c", prefix, worker->worker, (worker->number >> 8) % 100, worker->step == 0 ? 'a' : 'b');
    switch (worker->step++) {
        case 0:
        case 1: ferrite_txn_put(worker->txn, text(key), text(filling), step_on, worker, NULL); return true;
        case 2: ferrite_txn_commit(worker->txn, step_on, worker, NULL); return true;
        default: return false;
    }
}

static void step_on(void *user, ferrite_result *result) {
    struct worker *worker = user;
    if (worker->mode == 't' && transact(worker, result)) {
        ferrite_result_free(result);
        return;
    }
    bool failed = ferrite_result_class(result) != FERRITE_CLASS_OK;
    ferrite_result_free(result);
    ferrite_txn_free(worker->txn);
    worker->txn = NULL;
    if (worker->seen != atomic_load(&epoch)) {
        worker->seen = atomic_load(&epoch);
        worker->count = worker->failures = 0;
    }
    if (worker->count == worker->room) {
        worker->room = worker->room * 2 + 1024;
        worker->latencies = realloc(worker->latencies, worker->room * sizeof *worker->latencies);
    }
    worker->latencies[worker->count++] = (now(CLOCK_MONOTONIC) - worker->begun) * 1e6;
    worker->failures += failed;
    next(worker);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench(char mode, int in_flight, double seconds) {
    struct worker *workers = calloc((size_t)in_flight, sizeof *workers);
    working = in_flight;
    for (int at = 0; at < in_flight; at++) {
        workers[at].worker = at;
        workers[at].number = at * 7919;
        workers[at].mode = mode;
        next(&workers[at]);
    }
    nap(seconds / 2);
    atomic_store(&epoch, 1);
    double begun = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    nap(seconds);
    double took = now(CLOCK_MONOTONIC) - begun, used = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    atomic_store(&is_over, true);
    pthread_mutex_lock(&guard);
    while (working > 0) {
        pthread_cond_wait(&ended, &guard);
    }
    pthread_mutex_unlock(&guard);
    size_t count = 0, failures = 0;
    double *all = NULL;
    for (int at = 0; at < in_flight; at++) {
        all = realloc(all, (count + workers[at].count + 1) * sizeof *all);
        if (workers[at].count > 0) {
            memcpy(all + count, workers[at].latencies, workers[at].count * sizeof *all);
        }
        count += workers[at].count;
        failures += workers[at].failures;
        free(workers[at].latencies);
    }
    free(workers);
    qsort(all, count, sizeof *all, by_size);
    printf("{\"operations\":%zu,\"seconds\":%f,\"cpu_seconds\":%f,\"p50_us\":%f,\"p99_us\":%f,\"failures\":%zu}\n", count, took, used,
           count == 0 ? 0 : all[count / 2], count == 0 ? 0 : all[count * 99 / 100], failures);
    free(all);
}

/* ---- The soak: operations whose every answer is checked against what the thread did before. */

static atomic_ulong begun_operations, undetermined, failed_operations;
static unsigned long operations;

static void must_be(const char *key, ferrite_result *result, const char *wanted) {
    ferrite_bytes found = {NULL, 0};
    bool is_there = ferrite_result_value(result, &found);
    if (is_there != (wanted != NULL) || (is_there && (found.len != strlen(wanted) || memcmp(found.data, wanted, found.len) != 0))) {
        fprintf(stderr, "%s is %.*s, wanted %s\n", key, (int)found.len, found.data == NULL ? "" : (const char *)found.data,
                wanted == NULL ? "nothing" : wanted);
        exit(1);
    }
}

/* Adds one to both keys of a pair in a transaction; gives its class. */
static ferrite_class count_up(const char *pair, unsigned long count) {
    ferrite_call *call;
    ferrite_txns_begin(txns, NULL, NULL, NULL, &call);
    ferrite_result *result = wait_for(call);
    ferrite_txn *txn = ferrite_result_take_txn(result);
    for (int half = 0; half < 4 && ferrite_result_class(result) == FERRITE_CLASS_OK; half++) {
        char key[KEY_MAX + 1], counted[32];
        ferrite_result_free(result);
        snprintf(key, sizeof key, "%s%c", pair, half < 2 ? 'a' : 'b');
        snprintf(counted, sizeof counted, "%lu", count + (unsigned long)(half % 2));
        if (half % 2 == 0) {
            ferrite_txn_get(txn, text(key), NULL, NULL, &call);
            result = wait_for(call);
            if (ferrite_result_class(result) == FERRITE_CLASS_OK) {
                must_be(key, result, count == 0 ? NULL : counted);
            }
        } else {
            ferrite_txn_put(txn, text(key), text(counted), NULL, NULL, &call);
            result = wait_for(call);
        }
    }
    if (ferrite_result_class(result) == FERRITE_CLASS_OK) {
        ferrite_result_free(result);
        ferrite_txn_commit(txn, NULL, NULL, &call);
        result = wait_for(call);
    }
    ferrite_class class = ferrite_result_class(result);
    if (class != FERRITE_CLASS_OK && class != FERRITE_CLASS_UNDETERMINED && !ferrite_result_retryable(result)) {
        die("transaction", result);
    }
    ferrite_result_free(result);
    ferrite_txn_free(txn);
    return class;
}

static ferrite_class touch(unsigned long kind, const char *key, const char *value, char *expected, bool *is_there) {
    ferrite_call *call;
    if (kind < 10) {
        ferrite_raw_get(raw, text(key), NULL, NULL, &call);
    } else {
        ferrite_raw_put(raw, text(key), text(value), 0, NULL, NULL, &call);
    }
    ferrite_result *result = wait_for(call);
    ferrite_class class = ferrite_result_class(result);
    if (class == FERRITE_CLASS_OK && kind < 10) {
        must_be(key, result, *is_there ? expected : NULL);
    } else if (class == FERRITE_CLASS_OK) {
        strcpy(expected, value);
        *is_there = true;
    } else if (class != FERRITE_CLASS_UNDETERMINED && !ferrite_result_retryable(result)) {
        die("call", result);
    }
    ferrite_result_free(result);
    return class;
}

static void *soak_worker(void *argument) {
    int worker = (int)(intptr_t)argument;
    int generations[SLOTS] = {0};
    bool there[SLOTS] = {false};
    char expected[SLOTS][VALUE_MAX];
    unsigned long pair = 0, count = 0;
    for (unsigned long number = atomic_fetch_add(&begun_operations, 1) + 1; number <= operations;
         number = atomic_fetch_add(&begun_operations, 1) + 1) {
        unsigned long slot = number % SLOTS, kind = number / SLOTS % 20;
        char key[KEY_MAX], value[VALUE_MAX];
        ferrite_class class;
        if (kind < 17) {
            snprintf(key, sizeof key, "%s/%d/%lu/%d", prefix, worker, slot, generations[slot]);
            snprintf(value, sizeof value, "%d:%lu:%s", worker, number, filling);
            class = touch(kind, key, value, expected[slot], &there[slot]);
        } else {
            snprintf(key, sizeof key, "%s/%d/t%lu", prefix, worker, pair);
            class = count_up(key, count);
            count += class == FERRITE_CLASS_OK;
        }
        if (class == FERRITE_CLASS_UNDETERMINED) {
            /* A write that may still come: its keys are not looked at again. */
            atomic_fetch_add(&undetermined, 1);
            if (kind < 17) {
                generations[slot]++;
                there[slot] = false;
            } else {
                pair++;
                count = 0;
            }
        } else if (class != FERRITE_CLASS_OK) {
            atomic_fetch_add(&failed_operations, 1);
        }
    }
    return NULL;
}

static void *progress(void *unused) {
    for (;;) {
        unsigned long begun = atomic_load(&begun_operations);
        printf("progress %lu\n", begun < operations ? begun : operations);
        fflush(stdout);
        nap(1);
    }
    return unused;
}

static void soak(int in_flight) {
    pthread_t *threads = calloc((size_t)in_flight, sizeof *threads), talker;
    pthread_create(&talker, NULL, progress, NULL);
    for (int at = 0; at < in_flight; at++) {
        pthread_create(&threads[at], NULL, soak_worker, (void *)(intptr_t)at);
    }
    for (int at = 0; at < in_flight; at++) {
        pthread_join(threads[at], NULL);
    }
    pthread_cancel(talker);
    pthread_join(talker, NULL);
    free(threads);
    printf("{\"operations\":%lu,\"undetermined\":%lu,\"failed\":%lu}\n", operations, atomic_load(&undetermined),
           atomic_load(&failed_operations));
}

int main(int count, char *arguments[]) {
    if (count != 7) {
        fprintf(stderr, "usage: load ENDPOINTS KEYSPACE MODE IN_FLIGHT AMOUNT PREFIX\n");
        return 2;
    }
    char options[KEY_MAX] = "deadline=20s";
    if (strcmp(arguments[2], "-") != 0) {
        snprintf(options, sizeof options, "deadline=20s,keyspace=%s", arguments[2]);
    }
    memset(filling, 'v', VALUE_BYTES);
    prefix = arguments[6];
    int in_flight = atoi(arguments[4]);
    ferrite_call *call;
    ferrite_raw_connect(arguments[1], options, NULL, NULL, &call);
    ferrite_result *result = wait_for(call);
    if ((raw = ferrite_result_take_raw(result)) == NULL) {
        die("connect", result);
    }
    ferrite_result_free(result);
    ferrite_txns_connect(arguments[1], options, NULL, NULL, &call);
    result = wait_for(call);
    if ((txns = ferrite_result_take_txns(result)) == NULL) {
        die("connect", result);
    }
    ferrite_result_free(result);
    if (strcmp(arguments[3], "soak") == 0) {
        operations = strtoul(arguments[5], NULL, 10);
        soak(in_flight);
    } else {
        bench(arguments[3][0], in_flight, strtod(arguments[5], NULL) / 1000);
    }
    ferrite_raw_free(raw);
    ferrite_txns_free(txns);
}
