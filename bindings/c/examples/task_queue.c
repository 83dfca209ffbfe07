/* A queue of tasks for many workers, in transactions: each task is done once, also if a worker dies in the middle.
 *
 *     task_queue [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--tasks N] [--workers N]
 *
 * Tasks lie under `queue/todo/`; who takes one moves it to `queue/done/` in the transaction in which its result is written, so that nobody else can.
 */
#include <pthread.h>

#include "txns.h"

/* Tasks that a worker looks at for one that nobody holds. */
enum { LOOK_AT = 32, WORKERS_MAX = 64 };
static const char *todo = "queue/todo/", *after_todo = "queue/todo0";
static const char *finished = "queue/done/", *after_finished = "queue/done0";

static long tasks = 100, workers = 8;
static ferrite_txns *txns;

enum outcome { TOOK_ONE, NONE_FREE, NONE_LEFT, AGAIN };

struct worker {
    pthread_t thread;
    long number, done;
};

/* Does the task under a key, which is locked, in its transaction. */
static enum outcome do_task(ferrite_txn *txn, ferrite_bytes task, long input, long worker) {
    char record[64], value[64];
    size_t prefix = strlen(todo);
    snprintf(record, sizeof record, "%s%.*s", finished, (int)(task.len - prefix), (const char *)task.data + prefix);
    snprintf(value, sizeof value, "%ld by worker %ld", input * input, worker);
    bool is_moved = done(CALL(ferrite_txn_put, txn, text(record), text(value))) && done(CALL(ferrite_txn_delete, txn, task));
    return is_moved ? TOOK_ONE : AGAIN;
}

/* Does the first task that nobody else holds. */
static enum outcome take_one(ferrite_txn *txn, const ferrite_pair *pairs, size_t count, long worker) {
    for (size_t at = 0; at < count; at++) {
        ferrite_result *result = CALL(ferrite_txn_get_for_update, txn, pairs[at].key);
        ferrite_class class = ferrite_result_class(result);
        ferrite_bytes task;
        bool is_there = ferrite_result_value(result, &task);
        long input = is_there ? number(task) : 0;
        bool is_taken = class == FERRITE_CLASS_LOCKED || class == FERRITE_CLASS_CONFLICT;
        bool is_read = is_taken || is_done(result);
        ferrite_result_free(result);
        if (!is_read) {
            return AGAIN;
        }
        /* Somebody else is at it, or was. */
        if (is_there && !is_taken) {
            return do_task(txn, pairs[at].key, input, worker);
        }
    }
    return count == 0 ? NONE_LEFT : NONE_FREE;
}

static void *work(void *user) {
    struct worker *worker = user;
    ferrite_range look = range(todo, after_todo);
    look.limit = LOOK_AT;
    for (;;) {
        ferrite_txn *txn = begin(txns, "pessimistic,lock-wait=no");
        ferrite_scan *scan = ferrite_txn_scan(txn, &look);
        ferrite_result *page = CALL(ferrite_scan_next, scan, LOOK_AT);
        size_t count;
        const ferrite_pair *pairs = ferrite_result_pairs(page, &count);
        enum outcome outcome = is_done(page) ? take_one(txn, pairs, count, worker->number) : AGAIN;
        ferrite_result_free(page);
        ferrite_scan_free(scan);
        if (outcome == TOOK_ONE) {
            worker->done += commit(txn);
        } else {
            /* Freed before its end it is rolled back. */
            ferrite_txn_free(txn);
        }
        if (outcome == NONE_LEFT) {
            return NULL;
        }
    }
}

/* Tasks are added all at once; what an earlier run left is forgotten. */
static void add(void) {
    char name[64], input[24];
    ferrite_txn *txn = begin(txns, NULL);
    ferrite_range old[] = {range(todo, after_todo), range(finished, after_finished)};
    for (int at = 0; at < 2; at++) {
        for_each(ferrite_txn_scan(txn, &old[at]), delete_pair, txn);
    }
    for (long task = 0; task < tasks; task++) {
        snprintf(name, sizeof name, "%s%06ld", todo, task);
        snprintf(input, sizeof input, "%ld", task);
        must_do(CALL(ferrite_txn_put, txn, text(name), text(input)));
    }
    must_do(CALL(ferrite_txn_commit, txn));
    ferrite_txn_free(txn);
}

int main(int count, char *arguments[]) {
    read_flags(count, arguments, (const struct flag[]){{"--tasks", NULL, &tasks}, {"--workers", NULL, &workers}, {0}});
    workers = workers < WORKERS_MAX ? workers : WORKERS_MAX;
    txns = connect_txns();
    add();
    struct worker all[WORKERS_MAX] = {0};
    for (long at = 0; at < workers; at++) {
        all[at].number = at;
        pthread_create(&all[at].thread, NULL, work, &all[at]);
    }
    long by = 0, done = 0;
    for (long at = 0; at < workers; at++) {
        pthread_join(all[at].thread, NULL);
        by += all[at].done > 0;
        done += all[at].done;
    }
    long records = count_of(txns, range(finished, after_finished)), left = count_of(txns, range(todo, after_todo));
    expect(done == tasks, "done", done, tasks);
    expect(records == tasks, "results", records, tasks);
    expect(left == 0, "left", left, 0);
    printf("%ld tasks done once each, by %ld workers\n", records, by);
    ferrite_txns_free(txns);
}
