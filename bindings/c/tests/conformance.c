/* The runner of the conformance suite: operations come on standard input, see bindings/conformance/src/protocol.rs. Calls end by callbacks. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferrite_client.h"

enum { PARTS_MAX = 32 };

/* A line in parts. */
struct line {
    char *id, *operation;
    char *names[PARTS_MAX], *values[PARTS_MAX];
    size_t count;
};

/* What a name of the case stands for; one of the pointers is set. */
struct held {
    struct held *next;
    char *name;
    ferrite_raw *raw;
    ferrite_txns *txns;
    ferrite_txn *txn;
    ferrite_snapshot *snapshot;
};

/* An operation under way. */
struct operation {
    struct operation *next;
    char *id;
    ferrite_call *call;
    /* The name under which what it opens is kept. */
    char *as;
    bool is_swap, is_ttl;
    /* A scan: pairs so far, and after how many it is given up. */
    ferrite_scan *scan;
    size_t stop, found;
    char *pairs;
    size_t pairs_len;
};

/* All that callbacks and the reader of lines share. Held while a call is started, so that no end can come before the call is listed. */
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER;
static struct held *handles;
static struct operation *under_way;

static void *must(void *memory) {
    if (memory == NULL) {
        abort();
    }
    return memory;
}

static const char *get(const struct line *line, const char *name) {
    for (size_t at = 0; at < line->count; at++) {
        if (strcmp(line->names[at], name) == 0) {
            return line->values[at];
        }
    }
    return NULL;
}

static uint64_t number(const struct line *line, const char *name) {
    const char *text = get(line, name);
    return text == NULL ? 0 : strtoull(text, NULL, 10);
}

static bool flag(const struct line *line, const char *name) {
    const char *text = get(line, name);
    return text != NULL && strcmp(text, "true") == 0;
}

static uint8_t digit(char digit) {
    return (uint8_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

/* Bytes of the first `len` digits; the caller frees them. */
static ferrite_bytes unhex(const char *text, size_t len) {
    uint8_t *data = must(malloc(len / 2 + 1));
    for (size_t at = 0; at + 1 < len; at += 2) {
        data[at / 2] = (uint8_t)(digit(text[at]) << 4 | digit(text[at + 1]));
    }
    return (ferrite_bytes){data, len / 2};
}

static ferrite_bytes bytes(const struct line *line, const char *name) {
    const char *text = get(line, name);
    return text == NULL ? unhex("", 0) : unhex(text, strlen(text));
}

static void drop(ferrite_bytes bytes) {
    free((void *)bytes.data);
}

static void hex(FILE *to, ferrite_bytes bytes) {
    for (size_t at = 0; at < bytes.len; at++) {
        fprintf(to, "%02x", bytes.data[at]);
    }
}

/* Items of a list parted by commas. */
static size_t items(const char *text) {
    size_t count = text != NULL && *text != '\0';
    for (; text != NULL && *text != '\0'; text++) {
        count += *text == ',';
    }
    return count;
}

static ferrite_bytes *keys(const struct line *line, size_t *count) {
    const char *text = get(line, "keys");
    *count = items(text);
    ferrite_bytes *keys = must(calloc(*count + 1, sizeof *keys));
    for (size_t at = 0; at < *count; at++) {
        size_t len = strcspn(text, ",");
        keys[at] = unhex(text, len);
        text += len + 1;
    }
    return keys;
}

static ferrite_pair *pairs(const struct line *line, size_t *count) {
    const char *text = get(line, "pairs");
    *count = items(text);
    ferrite_pair *pairs = must(calloc(*count + 1, sizeof *pairs));
    for (size_t at = 0; at < *count; at++) {
        size_t len = strcspn(text, ","), key = strcspn(text, ":");
        pairs[at].key = unhex(text, key);
        pairs[at].value = unhex(text + key + 1, len - key - 1);
        text += len + 1;
    }
    return pairs;
}

/* One answer; the lock is held. */
static void say(const char *id, const char *format, ...) {
    va_list arguments;
    printf("%s ", id);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
}

static void let_go(struct held *held) {
    ferrite_raw_free(held->raw);
    ferrite_txns_free(held->txns);
    ferrite_txn_free(held->txn);
    ferrite_snapshot_free(held->snapshot);
    free(held->name);
    free(held);
}

static struct held *find(const char *name) {
    struct held *held = handles;
    while (held != NULL && (name == NULL || strcmp(held->name, name) != 0)) {
        held = held->next;
    }
    return held;
}

static void forget(const char *name) {
    for (struct held **at = &handles; *at != NULL; at = &(*at)->next) {
        if (strcmp((*at)->name, name) == 0) {
            struct held *held = *at;
            *at = held->next;
            let_go(held);
            return;
        }
    }
}

/* A new thing under a name, in the place of the old. */
static struct held *keep(const char *name) {
    forget(name);
    struct held *held = must(calloc(1, sizeof *held));
    held->name = must(strdup(name));
    held->next = handles;
    handles = held;
    return held;
}

static void end(struct operation *operation) {
    struct operation **at = &under_way;
    while (*at != operation) {
        at = &(*at)->next;
    }
    *at = operation->next;
    ferrite_call_free(operation->call);
    ferrite_scan_free(operation->scan);
    free(operation->id);
    free(operation->as);
    free(operation->pairs);
    free(operation);
    pthread_cond_broadcast(&idle);
}

static void tell_failure(struct operation *operation, ferrite_result *result) {
    const char *message = ferrite_result_message(result), *hint = ferrite_result_hint(result);
    printf("%s error class=%s retryable=%s hint=", operation->id, ferrite_class_name(ferrite_result_class(result)),
           ferrite_result_retryable(result) ? "true" : "false");
    hex(stdout, (ferrite_bytes){(const uint8_t *)hint, strlen(hint)});
    printf(" message=");
    hex(stdout, (ferrite_bytes){(const uint8_t *)message, strlen(message)});
    printf("\n");
    fflush(stdout);
}

/* `before` is how many were told before. */
static void tell_pairs(FILE *to, const ferrite_pair *pairs, size_t count, size_t before) {
    for (size_t at = 0; at < count; at++) {
        fputs(before + at == 0 ? "" : ",", to);
        hex(to, pairs[at].key);
        fputs(":", to);
        hex(to, pairs[at].value);
    }
}

static void tell(struct operation *operation, ferrite_result *result) {
    ferrite_bytes value;
    ferrite_checksum checksum;
    uint64_t told;
    size_t count;
    printf("%s ok", operation->id);
    if (operation->is_swap) {
        printf(" swapped=%s", ferrite_result_swapped(result) ? "true" : "false");
    }
    if (ferrite_result_value(result, &value)) {
        printf(" value=");
        hex(stdout, value);
    } else if (ferrite_result_checksum(result, &checksum)) {
        printf(" number=%llu", (unsigned long long)checksum.pairs);
    } else if (operation->is_ttl) {
        switch (ferrite_result_ttl(result, &told)) {
            case FERRITE_TTL_KIND_MISSING: printf(" ttl=missing"); break;
            case FERRITE_TTL_KIND_FOREVER: printf(" ttl=forever"); break;
            case FERRITE_TTL_KIND_SECONDS: printf(" ttl=%llu", (unsigned long long)told); break;
        }
    } else if (ferrite_result_number(result, &told)) {
        printf(" number=%llu", (unsigned long long)told);
    } else {
        const ferrite_pair *pairs = ferrite_result_pairs(result, &count);
        if (count > 0) {
            printf(" pairs=");
            tell_pairs(stdout, pairs, count, 0);
        }
    }
    printf("\n");
    fflush(stdout);
}

static void done(void *user, ferrite_result *result);

/* Remembers a page as text. */
static bool add_page(struct operation *operation, ferrite_result *result) {
    size_t count, len;
    char *text;
    const ferrite_pair *pairs = ferrite_result_pairs(result, &count);
    bool is_end = count == 0;
    if (operation->stop > 0 && operation->found + count >= operation->stop) {
        count = operation->stop - operation->found;
        is_end = true;
    }
    FILE *page = must(open_memstream(&text, &len));
    tell_pairs(page, pairs, count, operation->found);
    fclose(page);
    operation->pairs = must(realloc(operation->pairs, operation->pairs_len + len + 1));
    memcpy(operation->pairs + operation->pairs_len, text, len + 1);
    operation->pairs_len += len;
    operation->found += count;
    free(text);
    return is_end;
}

/* The end of every call. */
static void done(void *user, ferrite_result *result) {
    struct operation *operation = user;
    pthread_mutex_lock(&guard);
    bool has_ended = true;
    if (ferrite_result_class(result) != FERRITE_CLASS_OK) {
        tell_failure(operation, result);
    } else if (operation->scan != NULL) {
        has_ended = add_page(operation, result);
        if (has_ended) {
            say(operation->id, "ok pairs=%s", operation->pairs);
        } else {
            ferrite_call_free(operation->call);
            ferrite_scan_next(operation->scan, 0, done, operation, &operation->call);
        }
    } else if (operation->as != NULL) {
        struct held *held = keep(operation->as);
        held->raw = ferrite_result_take_raw(result);
        held->txns = ferrite_result_take_txns(result);
        held->txn = ferrite_result_take_txn(result);
        say(operation->id, "ok");
    } else {
        tell(operation, result);
    }
    if (has_ended) {
        end(operation);
    }
    pthread_mutex_unlock(&guard);
    ferrite_result_free(result);
}

/* The parts of a line that operations take. */
struct arguments {
    ferrite_bytes key, value, start, end, expected, wanted;
    ferrite_bytes *keys;
    ferrite_pair *pairs;
    size_t key_count, pair_count;
};

static struct arguments arguments_of(const struct line *line) {
    struct arguments with = {.key = bytes(line, "key"), .value = bytes(line, "value"), .start = bytes(line, "start"), .end = bytes(line, "end"),
                             .expected = bytes(line, "expected"), .wanted = bytes(line, "new")};
    with.keys = keys(line, &with.key_count);
    with.pairs = pairs(line, &with.pair_count);
    return with;
}

static void drop_all(struct arguments *with) {
    drop(with->key), drop(with->value), drop(with->start), drop(with->end), drop(with->expected), drop(with->wanted);
    for (size_t at = 0; at < with->key_count; at++) {
        drop(with->keys[at]);
    }
    for (size_t at = 0; at < with->pair_count; at++) {
        drop(with->pairs[at].key), drop(with->pairs[at].value);
    }
    free(with->keys), free(with->pairs);
}

/* Starts a call of a raw client; false if there is none of that name. */
static bool start_raw(struct operation *o, const ferrite_raw *raw, const char *verb, const struct line *line, const struct arguments *with) {
    uint64_t ttl = number(line, "ttl_ms");
    if (strcmp(verb, "get") == 0) {
        ferrite_raw_get(raw, with->key, done, o, &o->call);
    } else if (strcmp(verb, "put") == 0) {
        ferrite_raw_put(raw, with->key, with->value, ttl, done, o, &o->call);
    } else if (strcmp(verb, "delete") == 0) {
        ferrite_raw_delete(raw, with->key, done, o, &o->call);
    } else if (strcmp(verb, "batch_get") == 0) {
        ferrite_raw_batch_get(raw, with->keys, with->key_count, done, o, &o->call);
    } else if (strcmp(verb, "batch_put") == 0) {
        ferrite_raw_batch_put(raw, with->pairs, with->pair_count, ttl, done, o, &o->call);
    } else if (strcmp(verb, "batch_delete") == 0) {
        ferrite_raw_batch_delete(raw, with->keys, with->key_count, done, o, &o->call);
    } else if (strcmp(verb, "delete_range") == 0) {
        ferrite_raw_delete_range(raw, with->start, with->end, done, o, &o->call);
    } else if (strcmp(verb, "checksum") == 0) {
        ferrite_raw_checksum(raw, with->start, with->end, done, o, &o->call);
    } else if (strcmp(verb, "ttl") == 0) {
        o->is_ttl = true;
        ferrite_raw_ttl(raw, with->key, done, o, &o->call);
    } else if (strcmp(verb, "compare_and_swap") == 0) {
        o->is_swap = true;
        ferrite_raw_compare_and_swap(raw, with->key, get(line, "expected") ? &with->expected : NULL, get(line, "new") ? &with->wanted : NULL,
                                     done, o, &o->call);
    } else {
        return false;
    }
    return true;
}

static bool start_snapshot(struct operation *o, const ferrite_snapshot *snapshot, const char *verb, const struct arguments *with) {
    if (strcmp(verb, "get") == 0) {
        ferrite_snapshot_get(snapshot, with->key, done, o, &o->call);
    } else if (strcmp(verb, "batch_get") == 0) {
        ferrite_snapshot_batch_get(snapshot, with->keys, with->key_count, done, o, &o->call);
    } else {
        return false;
    }
    return true;
}

static bool start_txn(struct operation *o, const ferrite_txn *txn, const char *verb, const struct line *line, const struct arguments *with) {
    if (strcmp(verb, "get") == 0) {
        ferrite_txn_get(txn, with->key, done, o, &o->call);
    } else if (strcmp(verb, "batch_get") == 0) {
        ferrite_txn_batch_get(txn, with->keys, with->key_count, done, o, &o->call);
    } else if (strcmp(verb, "get_for_update") == 0) {
        ferrite_txn_get_for_update(txn, with->key, done, o, &o->call);
    } else if (strcmp(verb, "batch_get_for_update") == 0) {
        ferrite_txn_batch_get_for_update(txn, with->keys, with->key_count, done, o, &o->call);
    } else if (strcmp(verb, "put") == 0) {
        ferrite_txn_put(txn, with->key, with->value, done, o, &o->call);
    } else if (strcmp(verb, "batch_put") == 0) {
        ferrite_txn_batch_put(txn, with->pairs, with->pair_count, done, o, &o->call);
    } else if (strcmp(verb, "insert") == 0) {
        ferrite_txn_insert(txn, with->key, with->value, done, o, &o->call);
    } else if (strcmp(verb, "delete") == 0) {
        ferrite_txn_delete(txn, with->key, done, o, &o->call);
    } else if (strcmp(verb, "lock_keys") == 0) {
        ferrite_txn_lock_keys(txn, with->keys, with->key_count, done, o, &o->call);
    } else if (strcmp(verb, "savepoint") == 0) {
        ferrite_txn_savepoint(txn, done, o, &o->call);
    } else if (strcmp(verb, "rollback_to") == 0) {
        ferrite_txn_rollback_to(txn, number(line, "savepoint"), done, o, &o->call);
    } else if (strcmp(verb, "commit") == 0) {
        ferrite_txn_commit(txn, done, o, &o->call);
    } else if (strcmp(verb, "rollback") == 0) {
        ferrite_txn_rollback(txn, done, o, &o->call);
    } else {
        return false;
    }
    return true;
}

/* Starts a call of what the name of the case stands for. */
static bool start_on(struct operation *operation, const struct held *on, const char *verb, const struct line *line) {
    struct arguments with = arguments_of(line);
    bool known = on->raw        ? start_raw(operation, on->raw, verb, line, &with)
                 : on->snapshot ? start_snapshot(operation, on->snapshot, verb, &with)
                                : start_txn(operation, on->txn, verb, line, &with);
    drop_all(&with);
    return known;
}

static void start_scan(struct operation *operation, const struct held *on, const struct line *line) {
    ferrite_range range = {bytes(line, "start"), bytes(line, "end"), number(line, "limit"), flag(line, "reverse"), flag(line, "keys_only")};
    operation->scan = on->raw        ? ferrite_raw_scan(on->raw, &range)
                      : on->snapshot ? ferrite_snapshot_scan(on->snapshot, &range)
                                     : ferrite_txn_scan(on->txn, &range);
    operation->stop = number(line, "stop");
    ferrite_scan_next(operation->scan, 0, done, operation, &operation->call);
    drop(range.start), drop(range.end);
}

/* Starts what the line wants; false if the runner does not know it. The lock is held. */
static bool start(struct operation *operation, const struct line *line) {
    const char *as = get(line, "as"), *dot = strchr(line->operation, '.');
    const struct held *on = find(get(line, "on"));
    if (dot == NULL) {
        return false;
    }
    if (as != NULL) {
        operation->as = must(strdup(as));
    }
    if (strcmp(line->operation, "raw.connect") == 0) {
        ferrite_raw_connect(get(line, "endpoints"), get(line, "options"), done, operation, &operation->call);
    } else if (strcmp(line->operation, "txns.connect") == 0) {
        ferrite_txns_connect(get(line, "endpoints"), get(line, "options"), done, operation, &operation->call);
    } else if (on == NULL) {
        return false;
    } else if (strcmp(dot, ".scan") == 0) {
        start_scan(operation, on, line);
    } else if (on->txns == NULL) {
        return start_on(operation, on, dot + 1, line);
    } else if (strcmp(dot, ".begin") == 0) {
        ferrite_txns_begin(on->txns, get(line, "options"), done, operation, &operation->call);
    } else if (strcmp(dot, ".timestamp") == 0) {
        ferrite_txns_timestamp(on->txns, done, operation, &operation->call);
    } else {
        return false;
    }
    return true;
}

/* The text is there at once. */
static void tell_metrics(const char *id, const struct held *on) {
    ferrite_bytes text;
    ferrite_result *result = on->raw != NULL ? ferrite_raw_metrics(on->raw) : ferrite_txns_metrics(on->txns);
    printf("%s ok", id);
    if (ferrite_result_value(result, &text)) {
        printf(" value=");
        hex(stdout, text);
    }
    printf("\n");
    fflush(stdout);
    ferrite_result_free(result);
}

static void serve(const struct line *line) {
    const char *call = get(line, "call");
    const struct held *on = find(get(line, "on"));
    if (strcmp(line->operation, "cancel") == 0) {
        for (struct operation *at = under_way; at != NULL; at = at->next) {
            if (strcmp(at->id, call) == 0) {
                ferrite_call_cancel(at->call);
            }
        }
        say(line->id, "ok");
    } else if (strcmp(line->operation, "drop") == 0) {
        forget(get(line, "on"));
        say(line->id, "ok");
    } else if (strcmp(line->operation, "txns.snapshot") == 0 && on != NULL) {
        ferrite_snapshot *snapshot = ferrite_txns_snapshot(on->txns, number(line, "ts"));
        keep(get(line, "as"))->snapshot = snapshot;
        say(line->id, "ok");
    } else if (on != NULL && strstr(line->operation, ".metrics") != NULL) {
        tell_metrics(line->id, on);
    } else {
        struct operation *operation = must(calloc(1, sizeof *operation));
        operation->id = must(strdup(line->id));
        operation->next = under_way;
        under_way = operation;
        if (!start(operation, line)) {
            say(line->id, "error class=case retryable=false");
            end(operation);
        }
    }
}

int main(void) {
    char *text = NULL;
    size_t room = 0;
    while (getline(&text, &room, stdin) > 0) {
        struct line line = {0};
        char *rest;
        line.id = strtok_r(text, " \n", &rest);
        line.operation = strtok_r(NULL, " \n", &rest);
        for (char *part = strtok_r(NULL, " \n", &rest); part != NULL && line.count < PARTS_MAX; part = strtok_r(NULL, " \n", &rest)) {
            char *equals = strchr(part, '=');
            *equals = '\0';
            line.names[line.count] = part;
            line.values[line.count++] = equals + 1;
        }
        pthread_mutex_lock(&guard);
        serve(&line);
        pthread_mutex_unlock(&guard);
    }
    free(text);
    pthread_mutex_lock(&guard);
    while (under_way != NULL) {
        pthread_cond_wait(&idle, &guard);
    }
    while (handles != NULL) {
        forget(handles->name);
    }
    pthread_mutex_unlock(&guard);
}
