/* What the longer examples share: flags, waiting for calls, and the end of the program when a call fails that may not be tried again. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <ferrite_client.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A flag of a program: where its text goes, or its number. */
struct flag {
    const char *name;
    const char **text;
    long *number;
};

/* What all of them are told: where the cluster is, and the files for TLS, if it has that. */
static const char *pd = "127.0.0.1:2379", *ca, *cert, *key;

static inline _Noreturn void usage(const struct flag *flags) {
    fprintf(stderr, "usage: [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE]");
    for (; flags->name != NULL; flags++) {
        fprintf(stderr, " [%s N]", flags->name);
    }
    fprintf(stderr, "\n");
    exit(2);
}

/* Reads `--name value` pairs: those of every example and those in `own`, which ends with an empty entry. */
static inline void read_flags(int count, char *arguments[], const struct flag *own) {
    const struct flag all[] = {{"--pd", &pd, NULL}, {"--ca", &ca, NULL}, {"--cert", &cert, NULL}, {"--key", &key, NULL}, {0}};
    for (int at = 1; at < count; at += 2) {
        const struct flag *flag = all;
        while (flag->name != NULL && strcmp(flag->name, arguments[at]) != 0) {
            flag++;
        }
        for (flag = flag->name == NULL ? own : flag; flag->name != NULL && strcmp(flag->name, arguments[at]) != 0;) {
            flag++;
        }
        if (flag->name == NULL || at + 1 == count) {
            usage(own);
        }
        if (flag->text != NULL) {
            *flag->text = arguments[at + 1];
        } else if ((*flag->number = strtol(arguments[at + 1], NULL, 10)) <= 0) {
            usage(own);
        }
    }
}

/* Options of a client, for the flags that were read. */
static inline const char *client_options(void) {
    static char options[1024] = "deadline=20s";
    if (ca != NULL && cert != NULL && key != NULL) {
        snprintf(options, sizeof options, "deadline=20s,ca=%s,cert=%s,key=%s", ca, cert, key);
    }
    return options;
}

static inline ferrite_bytes text(const char *text) {
    return (ferrite_bytes){(const uint8_t *)text, strlen(text)};
}

/* Starts a call and waits for its result: CALL(ferrite_txn_put, txn, key, value). */
#define CALL(function, ...) (function(__VA_ARGS__, NULL, NULL, &call_under_way), result_of(call_under_way))
static _Thread_local ferrite_call *call_under_way;

static inline ferrite_result *result_of(ferrite_call *call) {
    ferrite_result *result = ferrite_call_wait(call);
    ferrite_call_free(call);
    return result;
}

static inline _Noreturn void fail(const ferrite_result *result) {
    fprintf(stderr, "%s (%s)\n", ferrite_result_message(result), ferrite_result_hint(result));
    exit(1);
}

/* Whether the call was done. False if all of it may be tried again; any other failure ends the program. */
static inline bool is_done(const ferrite_result *result) {
    if (ferrite_result_class(result) != FERRITE_CLASS_OK && !ferrite_result_retryable(result)) {
        fail(result);
    }
    return ferrite_result_class(result) == FERRITE_CLASS_OK;
}

/* The same for a result out of which nothing is read. */
static inline bool done(ferrite_result *result) {
    bool done = is_done(result);
    ferrite_result_free(result);
    return done;
}

/* For what may not fail here. */
static inline ferrite_result *must(ferrite_result *result) {
    if (ferrite_result_class(result) != FERRITE_CLASS_OK) {
        fail(result);
    }
    return result;
}

static inline void must_do(ferrite_result *result) {
    ferrite_result_free(must(result));
}

static inline void expect(bool is_so, const char *what, long found, long wanted) {
    if (!is_so) {
        fprintf(stderr, "%ld %s, wanted %ld\n", found, what, wanted);
        exit(1);
    }
}

#endif
