/* The client of Ferrite, and of every cluster that speaks its wire, for C. Made by cbindgen out of bindings/c/src: do not edit.
 *
 * Rules for all functions:
 * - A handle (`ferrite_raw`, `ferrite_txns`, `ferrite_txn`, `ferrite_snapshot`, `ferrite_scan`, `ferrite_call`, `ferrite_result`) is valid from the
 *   function that gives it to the one that frees it, on any thread. Who allocates frees: the library's things go back to the library.
 * - Keys and values are binary. Arguments are copied before a function returns. Texts are UTF-8 and end with a zero byte.
 * - A function with `done`, `user` and `call` starts a call and returns at once. At its end `done(user, result)` is called, once, on a thread of
 *   the library, and must not block there. If `done` is NULL, `ferrite_call_wait` gives the result.
 * - `call` is NULL, or gets a handle for `ferrite_call_cancel` and `ferrite_call_wait`, which the caller frees.
 * - A call ends within its deadline whatever happens to the cluster.
 * - A process that forks must connect after the fork.
 */

#ifndef FERRITE_CLIENT_H
#define FERRITE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Kind of a failure; `FERRITE_CLASS_OK` for none.
typedef enum ferrite_class {
  FERRITE_CLASS_OK = 0,
  // The cluster could not serve the call now.
  FERRITE_CLASS_RETRYABLE = 1,
  // The time of the call is over, and it has not been done.
  FERRITE_CLASS_DEADLINE = 2,
  // Another transaction wrote a key of this one.
  FERRITE_CLASS_CONFLICT = 3,
  // Another transaction holds a lock that was not waited for.
  FERRITE_CLASS_LOCKED = 4,
  // Waiting for a lock would have closed a circle.
  FERRITE_CLASS_DEADLOCK = 5,
  // The transaction was rolled back by others.
  FERRITE_CLASS_ABORTED = 6,
  // A key that was to be inserted is there.
  FERRITE_CLASS_EXISTS = 7,
  // It is unknown whether a write was done.
  FERRITE_CLASS_UNDETERMINED = 8,
  // An entry that was named does not exist, such as a keyspace.
  FERRITE_CLASS_NOT_FOUND = 9,
  // Addresses, options, arguments or the form of keys are wrong.
  FERRITE_CLASS_CONFIGURATION = 10,
  // The cluster refuses the request as it stands.
  FERRITE_CLASS_REFUSED = 11,
  // The caller cancelled the call.
  FERRITE_CLASS_CANCELLED = 12,
  // The transaction was used after its end.
  FERRITE_CLASS_CLOSED = 13,
  // A fault of the library.
  FERRITE_CLASS_INTERNAL = 14,
} ferrite_class;

// How long a key will live.
typedef enum ferrite_ttl_kind {
  // The key is not there.
  FERRITE_TTL_KIND_MISSING = 0,
  FERRITE_TTL_KIND_FOREVER = 1,
  // For a number of seconds.
  FERRITE_TTL_KIND_SECONDS = 2,
} ferrite_ttl_kind;

// A call under way, to cancel it or to wait for it.
typedef struct ferrite_call ferrite_call;

// A client for keys without transactions; may be used from any thread.
typedef struct ferrite_raw ferrite_raw;

// How a call ended. What is read out of it is valid until it is freed.
typedef struct ferrite_result ferrite_result;

// A scan under way; may be used from any thread.
typedef struct ferrite_scan ferrite_scan;

// Reads as of one time; may be used from any thread.
typedef struct ferrite_snapshot ferrite_snapshot;

// A transaction; may be used from any thread. Freed before its end it is rolled back.
typedef struct ferrite_txn ferrite_txn;

// A client for transactions; may be used from any thread.
typedef struct ferrite_txns ferrite_txns;

// Called at the end of a call, once, on a thread of the library; must not block. `result` is the callee's, who gives it to
// `ferrite_result_free`, now or later, on any thread.
typedef void (*ferrite_done)(void *user, struct ferrite_result *result);

// Bytes of somebody else; binary, may hold zeros. `data` may be NULL if `len` is 0.
typedef struct ferrite_bytes {
  const uint8_t *data;
  size_t len;
} ferrite_bytes;

// A key and its value.
typedef struct ferrite_pair {
  struct ferrite_bytes key;
  struct ferrite_bytes value;
} ferrite_pair;

// What a scan shall give.
typedef struct ferrite_range {
  // The first key.
  struct ferrite_bytes start;
  // The first key after the range; empty for no bound.
  struct ferrite_bytes end;
  // Most pairs to give; 0 for all.
  uint64_t limit;
  // From the end of the range to its start.
  bool reverse;
  // Leaves the values empty.
  bool keys_only;
} ferrite_range;

// Fingerprint of the pairs in a range.
typedef struct ferrite_checksum {
  // Exclusive or of each pair's CRC-64.
  uint64_t crc64_xor;
  uint64_t pairs;
  // Of keys and values together, as the store has them.
  uint64_t bytes;
} ferrite_checksum;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Counts additions to the ABI.
uint32_t ferrite_abi_version(void);

// Ends the call with the class `FERRITE_CLASS_CANCELLED` unless it has ended. Its callback is called as ever. What the call was to write may be
// done or not.
//
// # Safety
// `call` must be NULL or not freed yet.
void ferrite_call_cancel(const struct ferrite_call *call);

// Waits for a call that was started without callback, on a thread that is not the library's. Gives its result once; NULL after that, and for a
// call with a callback.
//
// # Safety
// `call` must be NULL or not freed yet.
struct ferrite_result *ferrite_call_wait(struct ferrite_call *call);

// Frees a handle of a call, which goes on.
//
// # Safety
// `call` must be NULL or not freed yet.
void ferrite_call_free(struct ferrite_call *call);

// Frees the handle; its calls go on.
//
// # Safety
// `raw` must be NULL or not freed yet.
void ferrite_raw_free(struct ferrite_raw *raw);

// Connects to the cluster of the placement driver's `endpoints`, parted by commas. `options` are `name=value`, parted by commas, or NULL:
// `deadline` (of each call, as `500ms`; 5s if not given), `keyspace`, `keyspace-id`, `batch-commands`, `connections`,
// `retry-undetermined`, `answer-bytes-max`; for TLS `ca`, `cert` and `key`, each the path of a PEM file or PEM text. The result gives the
// client to `ferrite_result_take_raw`.
//
// # Safety
// As the header says at its top.
void ferrite_raw_connect(const char *endpoints,
                         const char *options,
                         ferrite_done done,
                         void *user,
                         struct ferrite_call **call);

// The same client, whose calls may take so long. Is freed like the other.
//
// # Safety
// `raw` must be NULL or not freed yet.
struct ferrite_raw *ferrite_raw_with_deadline(const struct ferrite_raw *raw, uint64_t milliseconds);

// What the client has done since it was connected, as the text that Prometheus reads: `ferrite_result_value`. NULL only if `raw` is.
//
// # Safety
// `raw` must be NULL or not freed yet.
struct ferrite_result *ferrite_raw_metrics(const struct ferrite_raw *raw);

// Reads a key: `ferrite_result_value`.
//
// # Safety
// As the header says at its top.
void ferrite_raw_get(const struct ferrite_raw *raw,
                     struct ferrite_bytes key,
                     ferrite_done done,
                     void *user,
                     struct ferrite_call **call);

// Sets a key, for `ttl_ms` rounded up to seconds, or for ever if it is 0.
//
// # Safety
// As the header says at its top.
void ferrite_raw_put(const struct ferrite_raw *raw,
                     struct ferrite_bytes key,
                     struct ferrite_bytes value,
                     uint64_t ttl_ms,
                     ferrite_done done,
                     void *user,
                     struct ferrite_call **call);

// Removes a key, if it is there.
//
// # Safety
// As the header says at its top.
void ferrite_raw_delete(const struct ferrite_raw *raw,
                        struct ferrite_bytes key,
                        ferrite_done done,
                        void *user,
                        struct ferrite_call **call);

// Reads keys; those that are there come by `ferrite_result_pairs`.
//
// # Safety
// As the header says at its top.
void ferrite_raw_batch_get(const struct ferrite_raw *raw,
                           const struct ferrite_bytes *keys,
                           size_t count,
                           ferrite_done done,
                           void *user,
                           struct ferrite_call **call);

// Sets many keys, which is not one step; `ttl_ms` as with `ferrite_raw_put`.
//
// # Safety
// As the header says at its top.
void ferrite_raw_batch_put(const struct ferrite_raw *raw,
                           const struct ferrite_pair *pairs,
                           size_t count,
                           uint64_t ttl_ms,
                           ferrite_done done,
                           void *user,
                           struct ferrite_call **call);

// Removes many keys.
//
// # Safety
// As the header says at its top.
void ferrite_raw_batch_delete(const struct ferrite_raw *raw,
                              const struct ferrite_bytes *keys,
                              size_t count,
                              ferrite_done done,
                              void *user,
                              struct ferrite_call **call);

// Removes all keys from `start` to before `end` (empty: no bound).
//
// # Safety
// As the header says at its top.
void ferrite_raw_delete_range(const struct ferrite_raw *raw,
                              struct ferrite_bytes start,
                              struct ferrite_bytes end,
                              ferrite_done done,
                              void *user,
                              struct ferrite_call **call);

// Sets a key to `new` (NULL removes it) if its value is `expected` (NULL: if it is not there): `ferrite_result_swapped`, and what was
// there before by `ferrite_result_value`. Never repeated if it is unknown whether it was done.
//
// # Safety
// As the header says at its top.
void ferrite_raw_compare_and_swap(const struct ferrite_raw *raw,
                                  struct ferrite_bytes key,
                                  const struct ferrite_bytes *expected,
                                  const struct ferrite_bytes *new_value,
                                  ferrite_done done,
                                  void *user,
                                  struct ferrite_call **call);

// How long a key will live: `ferrite_result_ttl`.
//
// # Safety
// As the header says at its top.
void ferrite_raw_ttl(const struct ferrite_raw *raw,
                     struct ferrite_bytes key,
                     ferrite_done done,
                     void *user,
                     struct ferrite_call **call);

// Fingerprint of a range: `ferrite_result_checksum`.
//
// # Safety
// As the header says at its top.
void ferrite_raw_checksum(const struct ferrite_raw *raw,
                          struct ferrite_bytes start,
                          struct ferrite_bytes end,
                          ferrite_done done,
                          void *user,
                          struct ferrite_call **call);

// A scan over the pairs of a range, which begins with its first page; not a snapshot. NULL only if an argument is.
//
// # Safety
// As the header says at its top.
struct ferrite_scan *ferrite_raw_scan(const struct ferrite_raw *raw,
                                      const struct ferrite_range *range);

// `FERRITE_CLASS_OK`, or the kind of the failure.
//
// # Safety
// `result` must be NULL or not freed yet.
enum ferrite_class ferrite_result_class(const struct ferrite_result *result);

// What happened, in one line of UTF-8; NULL if the call did not fail.
//
// # Safety
// `result` must be NULL or not freed yet.
const char *ferrite_result_message(const struct ferrite_result *result);

// What to do about the failure; NULL if the call did not fail.
//
// # Safety
// `result` must be NULL or not freed yet.
const char *ferrite_result_hint(const struct ferrite_result *result);

// Whether a failed call, for a transaction all of it, may be tried again.
//
// # Safety
// `result` must be NULL or not freed yet.
bool ferrite_result_retryable(const struct ferrite_result *result);

// The key that a failure is about, if it is about one.
//
// # Safety
// `result` must be NULL or not freed yet; `key` NULL or writable.
bool ferrite_result_key(const struct ferrite_result *result, struct ferrite_bytes *key);

// The value of a get, what was there before a compare-and-swap, or a text; false if there is none.
//
// # Safety
// `result` must be NULL or not freed yet; `value` NULL or writable.
bool ferrite_result_value(const struct ferrite_result *result, struct ferrite_bytes *value);

// Whether a compare-and-swap was done.
//
// # Safety
// `result` must be NULL or not freed yet.
bool ferrite_result_swapped(const struct ferrite_result *result);

// The pairs of a batch or of a scan's page, by key; their number goes to `count`. A scan is at its end when a page is empty.
//
// # Safety
// `result` must be NULL or not freed yet; `count` NULL or writable.
const struct ferrite_pair *ferrite_result_pairs(const struct ferrite_result *result,
                                                size_t *count);

// The answer of `ferrite_raw_ttl`; seconds go to `seconds`.
//
// # Safety
// `result` must be NULL or not freed yet; `seconds` NULL or writable.
enum ferrite_ttl_kind ferrite_result_ttl(const struct ferrite_result *result, uint64_t *seconds);

// A timestamp or a count; false if there is none, as for the commit of a transaction that wrote nothing.
//
// # Safety
// `result` must be NULL or not freed yet; `number` NULL or writable.
bool ferrite_result_number(const struct ferrite_result *result,
                           uint64_t *number);

// The answer of `ferrite_raw_checksum`.
//
// # Safety
// `result` must be NULL or not freed yet; `checksum` NULL or writable.
bool ferrite_result_checksum(const struct ferrite_result *result,
                             struct ferrite_checksum *checksum);

// The client of `ferrite_raw_connect`, once; NULL after that and for other results. Is freed by `ferrite_raw_free`.
//
// # Safety
// `result` must be NULL or not freed yet.
struct ferrite_raw *ferrite_result_take_raw(struct ferrite_result *result);

// The client of `ferrite_txns_connect`, once; NULL after that and for other results. Is freed by `ferrite_txns_free`.
//
// # Safety
// `result` must be NULL or not freed yet.
struct ferrite_txns *ferrite_result_take_txns(struct ferrite_result *result);

// The transaction of `ferrite_txns_begin`, once; NULL after that and for other results. Is freed by `ferrite_txn_free`.
//
// # Safety
// `result` must be NULL or not freed yet.
struct ferrite_txn *ferrite_result_take_txn(struct ferrite_result *result);

// Frees a result and all that was read out of it, but not what was taken.
//
// # Safety
// `result` must be NULL or not freed yet.
void ferrite_result_free(struct ferrite_result *result);

// The word for a class, such as `conflict`; `ok` for `FERRITE_CLASS_OK`, `unknown` for a number without meaning.
const char *ferrite_class_name(uint32_t class_);

// The next pairs, at most `pairs_max` or for 0 about a MiB: `ferrite_result_pairs`, none at the end. A cancelled call loses no pair.
//
// # Safety
// As the header says at its top.
void ferrite_scan_next(const struct ferrite_scan *scan,
                       size_t pairs_max,
                       ferrite_done done,
                       void *user,
                       struct ferrite_call **call);

// Frees the scan; a page that is being read goes on.
//
// # Safety
// `scan` must be NULL or not freed yet.
void ferrite_scan_free(struct ferrite_scan *scan);

// Frees the handle; its calls go on.
//
// # Safety
// `txns` must be NULL or not freed yet.
void ferrite_txns_free(struct ferrite_txns *txns);

// Frees the handle; its calls go on.
//
// # Safety
// `snapshot` must be NULL or not freed yet.
void ferrite_snapshot_free(struct ferrite_snapshot *snapshot);

// Frees the handle; its calls go on.
//
// # Safety
// `txn` must be NULL or not freed yet.
void ferrite_txn_free(struct ferrite_txn *txn);

// Connects to the cluster of the placement driver's `endpoints`, parted by commas. `options` are `name=value`, parted by commas, or NULL:
// `deadline` (of each call, as `500ms`; 5s if not given), `keyspace`, `keyspace-id`, `batch-commands`, `connections`,
// `retry-undetermined`, `answer-bytes-max`; for TLS `ca`, `cert` and `key`, each the path of a PEM file or PEM text. The result gives the
// client to `ferrite_result_take_txns`.
//
// # Safety
// As the header says at its top.
void ferrite_txns_connect(const char *endpoints,
                          const char *options,
                          ferrite_done done,
                          void *user,
                          struct ferrite_call **call);

// The same client, whose calls, and those of its transactions, may take so long. Is freed like the other.
//
// # Safety
// `txns` must be NULL or not freed yet.
struct ferrite_txns *ferrite_txns_with_deadline(const struct ferrite_txns *txns,
                                                uint64_t milliseconds);

// Begins a transaction, which `ferrite_result_take_txn` gives. `options` are `name=value`, parted by commas, or NULL: `pessimistic`,
// `lock-wait` (`no`, `deadline`, or a time as `50ms`), `async-commit`, `one-phase`, `causal`, `deadline`.
//
// # Safety
// As the header says at its top.
void ferrite_txns_begin(const struct ferrite_txns *txns,
                        const char *options,
                        ferrite_done done,
                        void *user,
                        struct ferrite_call **call);

// A timestamp greater than every one before: `ferrite_result_number`.
//
// # Safety
// As the header says at its top.
void ferrite_txns_timestamp(const struct ferrite_txns *txns,
                            ferrite_done done,
                            void *user,
                            struct ferrite_call **call);

// Ends what dead clients left, and lets stores drop versions that no snapshot from `safe_point` on sees: `ferrite_result_number` tells
// the safe point as it is then.
//
// # Safety
// As the header says at its top.
void ferrite_txns_gc(const struct ferrite_txns *txns,
                     uint64_t safe_point,
                     ferrite_done done,
                     void *user,
                     struct ferrite_call **call);

// Ends transactions that began up to `ts` and left locks from `start` to before `end`: `ferrite_result_number` tells how many locks.
//
// # Safety
// As the header says at its top.
void ferrite_txns_resolve_locks(const struct ferrite_txns *txns,
                                struct ferrite_bytes start,
                                struct ferrite_bytes end,
                                uint64_t ts,
                                ferrite_done done,
                                void *user,
                                struct ferrite_call **call);

// What the client has done since it was connected, as the text that Prometheus reads: `ferrite_result_value`. NULL only if `txns` is.
//
// # Safety
// `txns` must be NULL or not freed yet.
struct ferrite_result *ferrite_txns_metrics(const struct ferrite_txns *txns);

// Reads as of `ts`, or the latest of each key for `UINT64_MAX`.
//
// # Safety
// `txns` must be NULL or not freed yet.
struct ferrite_snapshot *ferrite_txns_snapshot(const struct ferrite_txns *txns, uint64_t ts);

// Reads a key: `ferrite_result_value`.
//
// # Safety
// As the header says at its top.
void ferrite_snapshot_get(const struct ferrite_snapshot *snapshot,
                          struct ferrite_bytes key,
                          ferrite_done done,
                          void *user,
                          struct ferrite_call **call);

// Reads keys; those that are there come by `ferrite_result_pairs`.
//
// # Safety
// As the header says at its top.
void ferrite_snapshot_batch_get(const struct ferrite_snapshot *snapshot,
                                const struct ferrite_bytes *keys,
                                size_t count,
                                ferrite_done done,
                                void *user,
                                struct ferrite_call **call);

// A scan over the pairs of a range. NULL only if an argument is.
//
// # Safety
// As the header says at its top.
struct ferrite_scan *ferrite_snapshot_scan(const struct ferrite_snapshot *snapshot,
                                           const struct ferrite_range *range);

// The timestamp at which the transaction reads; 0 for NULL.
//
// # Safety
// `txn` must be NULL or not freed yet.
uint64_t ferrite_txn_start_ts(const struct ferrite_txn *txn);

// Reads a key: `ferrite_result_value`.
//
// # Safety
// As the header says at its top.
void ferrite_txn_get(const struct ferrite_txn *txn,
                     struct ferrite_bytes key,
                     ferrite_done done,
                     void *user,
                     struct ferrite_call **call);

// Reads keys; those that are there come by `ferrite_result_pairs`.
//
// # Safety
// As the header says at its top.
void ferrite_txn_batch_get(const struct ferrite_txn *txn,
                           const struct ferrite_bytes *keys,
                           size_t count,
                           ferrite_done done,
                           void *user,
                           struct ferrite_call **call);

// Locks a key and reads it, its latest value in a pessimistic transaction.
//
// # Safety
// As the header says at its top.
void ferrite_txn_get_for_update(const struct ferrite_txn *txn,
                                struct ferrite_bytes key,
                                ferrite_done done,
                                void *user,
                                struct ferrite_call **call);

// Locks keys and reads them.
//
// # Safety
// As the header says at its top.
void ferrite_txn_batch_get_for_update(const struct ferrite_txn *txn,
                                      const struct ferrite_bytes *keys,
                                      size_t count,
                                      ferrite_done done,
                                      void *user,
                                      struct ferrite_call **call);

// Sets a key. A pessimistic transaction locks it now, as with all writes.
//
// # Safety
// As the header says at its top.
void ferrite_txn_put(const struct ferrite_txn *txn,
                     struct ferrite_bytes key,
                     struct ferrite_bytes value,
                     ferrite_done done,
                     void *user,
                     struct ferrite_call **call);

// Sets many keys.
//
// # Safety
// As the header says at its top.
void ferrite_txn_batch_put(const struct ferrite_txn *txn,
                           const struct ferrite_pair *pairs,
                           size_t count,
                           ferrite_done done,
                           void *user,
                           struct ferrite_call **call);

// Sets a key that must not be there: else `FERRITE_CLASS_EXISTS`, now or at commit.
//
// # Safety
// As the header says at its top.
void ferrite_txn_insert(const struct ferrite_txn *txn,
                        struct ferrite_bytes key,
                        struct ferrite_bytes value,
                        ferrite_done done,
                        void *user,
                        struct ferrite_call **call);

// Removes a key, if it is there.
//
// # Safety
// As the header says at its top.
void ferrite_txn_delete(const struct ferrite_txn *txn,
                        struct ferrite_bytes key,
                        ferrite_done done,
                        void *user,
                        struct ferrite_call **call);

// Keeps others from writing keys while the transaction is under way.
//
// # Safety
// As the header says at its top.
void ferrite_txn_lock_keys(const struct ferrite_txn *txn,
                           const struct ferrite_bytes *keys,
                           size_t count,
                           ferrite_done done,
                           void *user,
                           struct ferrite_call **call);

// A scan over the pairs of a range, with the writes of the transaction as they are at its first page. NULL only if an argument is.
//
// # Safety
// As the header says at its top.
struct ferrite_scan *ferrite_txn_scan(const struct ferrite_txn *txn,
                                      const struct ferrite_range *range);

// Remembers the writes so far; `ferrite_result_number` tells the number for `ferrite_txn_rollback_to`.
//
// # Safety
// As the header says at its top.
void ferrite_txn_savepoint(const struct ferrite_txn *txn,
                           ferrite_done done,
                           void *user,
                           struct ferrite_call **call);

// Undoes the writes since a savepoint; locks stay.
//
// # Safety
// As the header says at its top.
void ferrite_txn_rollback_to(const struct ferrite_txn *txn,
                             uint64_t savepoint,
                             ferrite_done done,
                             void *user,
                             struct ferrite_call **call);

// Commits: `ferrite_result_number` tells the timestamp, if there was something to write. Goes on if it is cancelled. After `FERRITE_CLASS_UNDETERMINED`
// it may be committed or not; after any other failure it is not.
//
// # Safety
// As the header says at its top.
void ferrite_txn_commit(const struct ferrite_txn *txn,
                        ferrite_done done,
                        void *user,
                        struct ferrite_call **call);

// Gives up what was written.
//
// # Safety
// As the header says at its top.
void ferrite_txn_rollback(const struct ferrite_txn *txn,
                          ferrite_done done,
                          void *user,
                          struct ferrite_call **call);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FERRITE_CLIENT_H */
