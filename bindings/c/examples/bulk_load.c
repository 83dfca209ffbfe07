/* Loads many pairs as fast as the cluster takes them, a few batches in flight by callbacks, with a bar of progress.
 *
 *     bulk_load [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--pairs N]
 */
#include <pthread.h>
#include <time.h>

#include "example.h"

enum { BATCH = 512, IN_FLIGHT = 8, BAR = 40, KEY_MAX = 32, VALUE_MAX = 32 };

static long pairs = 20000;
static ferrite_raw *raw;

/* One batch, used again once it is loaded. */
struct batch {
    char keys[BATCH][KEY_MAX], values[BATCH][VALUE_MAX];
    ferrite_pair pairs[BATCH];
    long count;
    bool in_flight;
};

/* What callbacks tell the main thread. */
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static struct batch batches[IN_FLIGHT];
static long loaded;

static void put(struct batch *batch);

/* The end of a batch, on a thread of the library, which must not block. */
static void on_put(void *user, ferrite_result *result) {
    struct batch *batch = user;
    /* Putting the same again does no harm, so an unknown outcome may be tried again too. */
    bool is_put = ferrite_result_class(result) == FERRITE_CLASS_UNDETERMINED ? false : is_done(result);
    ferrite_result_free(result);
    if (!is_put) {
        put(batch);
        return;
    }
    pthread_mutex_lock(&guard);
    loaded += batch->count;
    batch->in_flight = false;
    pthread_cond_signal(&ended);
    pthread_mutex_unlock(&guard);
}

static void put(struct batch *batch) {
    ferrite_raw_batch_put(raw, batch->pairs, (size_t)batch->count, 0, on_put, batch, NULL);
}

static void fill(struct batch *batch, long first) {
    batch->count = pairs - first < BATCH ? pairs - first : BATCH;
    for (long at = 0; at < batch->count; at++) {
        snprintf(batch->keys[at], KEY_MAX, "bulk/%09ld", first + at);
        snprintf(batch->values[at], VALUE_MAX, "value of %ld", first + at);
        batch->pairs[at] = (ferrite_pair){text(batch->keys[at]), text(batch->values[at])};
    }
}

static double seconds_since(const struct timespec *begun) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)(now.tv_sec - begun->tv_sec) + (double)(now.tv_nsec - begun->tv_nsec) / 1e9;
}

static void show(const struct timespec *begun) {
    static const char full[BAR + 1] = "########################################";
    int filled = (int)(BAR * loaded / pairs);
    fprintf(stderr, "\r[%-*.*s] %ld/%ld pairs, %.0f/s", BAR, filled, full, loaded, pairs, (double)loaded / seconds_since(begun));
    fflush(stderr);
}

/* One that is not in flight; waits for it, and draws the bar meanwhile. The lock is held. */
static struct batch *free_batch(const struct timespec *begun) {
    for (;;) {
        for (int at = 0; at < IN_FLIGHT; at++) {
            if (!batches[at].in_flight) {
                return &batches[at];
            }
        }
        pthread_cond_wait(&ended, &guard);
        show(begun);
    }
}

int main(int count, char *arguments[]) {
    read_flags(count, arguments, (const struct flag[]){{"--pairs", NULL, &pairs}, {0}});
    ferrite_result *connected = must(CALL(ferrite_raw_connect, pd, client_options()));
    raw = ferrite_result_take_raw(connected);
    ferrite_result_free(connected);
    must_do(CALL(ferrite_raw_delete_range, raw, text("bulk/"), text("bulk0")));

    struct timespec begun;
    timespec_get(&begun, TIME_UTC);
    pthread_mutex_lock(&guard);
    for (long first = 0; first < pairs; first += BATCH) {
        struct batch *batch = free_batch(&begun);
        batch->in_flight = true;
        pthread_mutex_unlock(&guard);
        fill(batch, first);
        put(batch);
        pthread_mutex_lock(&guard);
    }
    while (loaded < pairs) {
        pthread_cond_wait(&ended, &guard);
        show(&begun);
    }
    pthread_mutex_unlock(&guard);
    fprintf(stderr, "\n");

    ferrite_checksum sum = {0};
    ferrite_result *checked = must(CALL(ferrite_raw_checksum, raw, text("bulk/"), text("bulk0")));
    ferrite_result_checksum(checked, &sum);
    ferrite_result_free(checked);
    expect((long)sum.pairs == pairs, "pairs are there", (long)sum.pairs, pairs);
    printf("%ld pairs loaded\n", (long)sum.pairs);
    ferrite_raw_free(raw);
}
