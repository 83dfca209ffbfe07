// A client of Ferrite, and of every cluster that speaks its wire, for C++20. Header-only, over the C interface (ferrite_client.h).
//
// Every function that asks the cluster begins at once and gives a call<T>: get() blocks for its result<T>, co_await suspends until it is there.
// A coroutine is resumed on a thread of the library and must not block there. Arguments are copied before the function returns, so views may end
// right after. What is read stays in the library's memory and is seen through views, without a copy.
#ifndef FERRITE_CLIENT_HPP
#define FERRITE_CLIENT_HPP

#include <ferrite_client.h>

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace ferrite {

/// Bytes that somebody else owns. Made from a string_view, a string or a span of bytes; they may hold zeros.
class bytes_view {
public:
    bytes_view() = default;
    bytes_view(std::string_view text) : data_(text.data()), size_(text.size()) {}
    bytes_view(const std::string& text) : bytes_view(std::string_view(text)) {}
    bytes_view(const char* text) : bytes_view(std::string_view(text)) {}
    bytes_view(std::span<const std::byte> bytes)
        : data_(reinterpret_cast<const char*>(bytes.data())), size_(bytes.size()) {}
    explicit bytes_view(ferrite_bytes bytes) : data_(reinterpret_cast<const char*>(bytes.data)), size_(bytes.len) {}

    std::string_view text() const { return {data_, size_}; }
    std::span<const std::byte> bytes() const { return {reinterpret_cast<const std::byte*>(data_), size_}; }
    operator std::string_view() const { return text(); }
    std::size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    std::string str() const { return std::string(text()); }
    ferrite_bytes raw() const { return {reinterpret_cast<const std::uint8_t*>(data_), size_}; }

    friend bool operator==(bytes_view a, bytes_view b) { return a.text() == b.text(); }

private:
    const char* data_ = nullptr;
    std::size_t size_ = 0;
};

/// Kinds of failures; the same words in every language.
enum class kind : std::uint8_t {
    retryable = FERRITE_CLASS_RETRYABLE,
    deadline = FERRITE_CLASS_DEADLINE,
    conflict = FERRITE_CLASS_CONFLICT,
    locked = FERRITE_CLASS_LOCKED,
    deadlock = FERRITE_CLASS_DEADLOCK,
    aborted = FERRITE_CLASS_ABORTED,
    exists = FERRITE_CLASS_EXISTS,
    undetermined = FERRITE_CLASS_UNDETERMINED,
    not_found = FERRITE_CLASS_NOT_FOUND,
    configuration = FERRITE_CLASS_CONFIGURATION,
    refused = FERRITE_CLASS_REFUSED,
    cancelled = FERRITE_CLASS_CANCELLED,
    closed = FERRITE_CLASS_CLOSED,
    internal = FERRITE_CLASS_INTERNAL,
};

/// Why a call failed.
struct error {
    ferrite::kind kind = ferrite::kind::internal;
    std::string message;
    /// What to do about it.
    std::string hint;
    /// Whether all of it, for a transaction from its begin, may be tried again.
    bool retryable = false;
    /// The key it is about, if it is about one.
    std::optional<std::string> key;

    std::string_view name() const { return ferrite_class_name(static_cast<std::uint32_t>(kind)); }
};

/// What result<T>::value() throws.
class failed : public std::runtime_error {
public:
    explicit failed(ferrite::error error)
        : std::runtime_error(error.message + " (hint: " + error.hint + ")"), error_(std::move(error)) {}
    const ferrite::error& error() const { return error_; }

private:
    ferrite::error error_;
};

/// A value or an error, as std::expected of C++23.
template <class T>
class [[nodiscard]] result {
public:
    result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
    result(ferrite::error error) : content_(std::in_place_index<1>, std::move(error)) {}

    bool has_value() const { return content_.index() == 0; }
    explicit operator bool() const { return has_value(); }

    /// Throws `failed` if there is none.
    T& value() & { return check(), std::get<0>(content_); }
    const T& value() const& { return check(), std::get<0>(content_); }
    T&& value() && { return check(), std::get<0>(std::move(content_)); }
    /// Must have a value.
    T& operator*() { return std::get<0>(content_); }
    T* operator->() { return &std::get<0>(content_); }
    /// Must have none.
    const ferrite::error& error() const { return std::get<1>(content_); }

private:
    void check() const {
        if (!has_value()) {
            throw failed(std::get<1>(content_));
        }
    }

    std::variant<T, ferrite::error> content_;
};

/// Nothing, as the value of calls that only do something.
using done = std::monostate;

namespace detail {

struct free_result {
    void operator()(ferrite_result* result) const { ferrite_result_free(result); }
};
using result_ptr = std::unique_ptr<ferrite_result, free_result>;

/// A unique_ptr that frees by a function of the library.
template <class H, void (*F)(H*)>
struct freed {
    void operator()(H* handle) const { F(handle); }
};
template <class H, void (*F)(H*)>
using unique = std::unique_ptr<H, freed<H, F>>;

inline ferrite::error error_of(const ferrite_result* result) {
    ferrite::error error;
    error.kind = static_cast<ferrite::kind>(ferrite_result_class(result));
    error.message = ferrite_result_message(result);
    error.hint = ferrite_result_hint(result);
    error.retryable = ferrite_result_retryable(result);
    if (ferrite_bytes key; ferrite_result_key(result, &key)) {
        error.key = bytes_view(key).str();
    }
    return error;
}

/// What the library's callback and the caller share. `word` is null while the call is under way, then `this`, or before that the coroutine that waits.
struct state {
    std::atomic<void*> word{nullptr};
    std::atomic<int> owners{2};
    ferrite_result* result = nullptr;
    ferrite_call* call = nullptr;

    void release() {
        if (owners.fetch_sub(1, std::memory_order_acq_rel) == 1) {
            ferrite_result_free(result);
            ferrite_call_free(call);
            delete this;
        }
    }

    static void end(void* user, ferrite_result* result) {
        auto* self = static_cast<state*>(user);
        self->result = result;
        void* waiting = self->word.exchange(self, std::memory_order_acq_rel);
        self->word.notify_all();
        if (waiting != nullptr) {
            std::coroutine_handle<>::from_address(waiting).resume();
        }
        self->release();
    }
};

}  // namespace detail

/// A call under way. Dropped, it goes on and nobody hears of it.
template <class T>
class [[nodiscard]] call {
public:
    using shape = T (*)(detail::result_ptr);

    call(call&& other) noexcept : state_(std::exchange(other.state_, nullptr)), shape_(other.shape_) {}
    call& operator=(call&& other) noexcept {
        std::swap(state_, other.state_);
        std::swap(shape_, other.shape_);
        return *this;
    }
    ~call() {
        if (state_ != nullptr) {
            state_->release();
        }
    }

    /// Ends it with kind::cancelled, unless it has ended. What was to be written may be done or not.
    void cancel() const { ferrite_call_cancel(state_->call); }

    /// Blocks until it has ended. Not on a thread of the library. Once.
    result<T> get() {
        state_->word.wait(nullptr, std::memory_order_acquire);
        return take();
    }

    bool await_ready() const noexcept { return state_->word.load(std::memory_order_acquire) != nullptr; }
    bool await_suspend(std::coroutine_handle<> waiting) noexcept {
        void* none = nullptr;
        return state_->word.compare_exchange_strong(none, waiting.address(), std::memory_order_acq_rel);
    }
    result<T> await_resume() { return take(); }

    /// Begins; `start(done, user, call)` hands them to a function of the C interface.
    template <class F>
    static call begin(shape shape, F&& start) {
        auto* state = new detail::state;
        start(&detail::state::end, state, &state->call);
        return call(state, shape);
    }

private:
    call(detail::state* state, shape shape) : state_(state), shape_(shape) {}

    result<T> take() {
        detail::result_ptr ended(std::exchange(state_->result, nullptr));
        if (ferrite_result_class(ended.get()) != FERRITE_CLASS_OK) {
            return detail::error_of(ended.get());
        }
        return shape_(std::move(ended));
    }

    detail::state* state_;
    shape shape_;
};

/// A value that was read, in the library's memory.
class value {
public:
    value(detail::result_ptr result, ferrite_bytes bytes) : result_(std::move(result)), bytes_(bytes) {}

    bytes_view view() const { return bytes_; }
    operator std::string_view() const { return bytes_.text(); }
    std::string str() const { return bytes_.str(); }

private:
    detail::result_ptr result_;
    bytes_view bytes_;
};

/// A key and its value, within pairs.
struct pair_view {
    bytes_view key;
    bytes_view value;
};

/// Pairs that were read, by key, in the library's memory.
class pairs {
public:
    explicit pairs(detail::result_ptr result) : result_(std::move(result)) {
        std::size_t count = 0;
        const ferrite_pair* first = ferrite_result_pairs(result_.get(), &count);
        pairs_ = {first, count};
    }

    std::size_t size() const { return pairs_.size(); }
    bool empty() const { return pairs_.empty(); }
    pair_view operator[](std::size_t at) const { return {bytes_view(pairs_[at].key), bytes_view(pairs_[at].value)}; }

    class iterator {
    public:
        using value_type = pair_view;
        using difference_type = std::ptrdiff_t;
        iterator() = default;
        explicit iterator(const ferrite_pair* at) : at_(at) {}
        pair_view operator*() const { return {bytes_view(at_->key), bytes_view(at_->value)}; }
        iterator& operator++() { return ++at_, *this; }
        iterator operator++(int) { return iterator(at_++); }
        bool operator==(const iterator&) const = default;

    private:
        const ferrite_pair* at_ = nullptr;
    };
    iterator begin() const { return iterator(pairs_.data()); }
    iterator end() const { return iterator(pairs_.data() + pairs_.size()); }

private:
    detail::result_ptr result_;
    std::span<const ferrite_pair> pairs_;
};

/// Outcome of a compare-and-swap.
struct swapped {
    bool done;
    /// What was there before, done or not.
    std::optional<ferrite::value> previous;
};

/// How long a key will live.
struct lifetime {
    static constexpr std::chrono::seconds forever = std::chrono::seconds::max();
    /// None if the key is not there.
    std::optional<std::chrono::seconds> left;
};

namespace detail {

inline done nothing(result_ptr) { return {}; }

inline std::optional<value> optional_value(result_ptr result) {
    if (ferrite_bytes bytes; ferrite_result_value(result.get(), &bytes)) {
        return value(std::move(result), bytes);
    }
    return std::nullopt;
}

inline std::string text(ferrite_result* result) { return optional_value(result_ptr(result)).value().str(); }

inline pairs all_pairs(result_ptr result) { return pairs(std::move(result)); }

inline swapped swap(result_ptr result) {
    bool done = ferrite_result_swapped(result.get());
    return {done, optional_value(std::move(result))};
}

inline lifetime ttl(result_ptr result) {
    std::uint64_t seconds = 0;
    switch (ferrite_result_ttl(result.get(), &seconds)) {
        case FERRITE_TTL_KIND_MISSING:
            return {std::nullopt};
        case FERRITE_TTL_KIND_FOREVER:
            return {lifetime::forever};
        default:
            return {std::chrono::seconds(seconds)};
    }
}

inline ferrite_checksum checksum(result_ptr result) {
    ferrite_checksum sum{};
    ferrite_result_checksum(result.get(), &sum);
    return sum;
}

inline std::optional<std::uint64_t> optional_number(result_ptr result) {
    if (std::uint64_t number; ferrite_result_number(result.get(), &number)) {
        return number;
    }
    return std::nullopt;
}

inline std::uint64_t number(result_ptr result) { return optional_number(std::move(result)).value_or(0); }

inline std::vector<ferrite_bytes> raw(std::span<const bytes_view> keys) {
    std::vector<ferrite_bytes> raw;
    raw.reserve(keys.size());
    for (const bytes_view& key : keys) {
        raw.push_back(key.raw());
    }
    return raw;
}

inline std::vector<ferrite_pair> raw(std::span<const pair_view> pairs) {
    std::vector<ferrite_pair> raw;
    raw.reserve(pairs.size());
    for (const pair_view& pair : pairs) {
        raw.push_back({pair.key.raw(), pair.value.raw()});
    }
    return raw;
}

}  // namespace detail

/// What a scan gives: from `start` to before `end` (empty: no bound).
struct range {
    bytes_view start{};
    bytes_view end{};
    /// Most pairs to give; 0 for all.
    std::uint64_t limit = 0;
    bool reverse = false;
    /// Leaves the values empty.
    bool keys_only = false;

    ferrite_range raw() const { return {start.raw(), end.raw(), limit, reverse, keys_only}; }
};

/// A scan under way, page by page.
class scan {
public:
    explicit scan(ferrite_scan* handle) : handle_(handle) {}

    /// The next pairs, at most `pairs_max` or for 0 about a MiB; empty at the end. A cancelled call loses no pair.
    call<pairs> next(std::size_t pairs_max = 0) {
        return call<pairs>::begin(detail::all_pairs, [&](auto... to) { ferrite_scan_next(handle_.get(), pairs_max, to...); });
    }

    /// Blocks and hands every pair to `take`, until that returns false.
    template <class F>
    result<done> for_each(F&& take) {
        for (;;) {
            result<pairs> page = next().get();
            if (!page) {
                return page.error();
            }
            for (pair_view pair : *page) {
                if (!take(pair)) {
                    return done{};
                }
            }
            if (page->empty()) {
                return done{};
            }
        }
    }

private:
    detail::unique<ferrite_scan, ferrite_scan_free> handle_;
};

/// Keys without transactions. May be used from any thread.
class raw_client {
public:
    /// Connects through any of the placement driver's endpoints, parted by commas. Options are `name=value`, parted by commas; see ferrite_client.h.
    static call<raw_client> connect(const std::string& endpoints, const std::string& options = {}) {
        return call<raw_client>::begin(
            [](detail::result_ptr result) { return raw_client(ferrite_result_take_raw(result.get())); },
            [&](auto... to) { ferrite_raw_connect(endpoints.c_str(), options.c_str(), to...); });
    }

    /// The same client, whose calls may take so long.
    raw_client with_deadline(std::chrono::milliseconds deadline) const {
        return raw_client(ferrite_raw_with_deadline(handle_.get(), static_cast<std::uint64_t>(deadline.count())));
    }

    /// What the client has done since it was connected, as the text that Prometheus reads.
    std::string metrics() const { return detail::text(ferrite_raw_metrics(handle_.get())); }

    /// Value of a key, if there is one.
    call<std::optional<value>> get(bytes_view key) const {
        return begin<std::optional<value>>(detail::optional_value, ferrite_raw_get, key.raw());
    }
    /// Sets a key, for `ttl` rounded up to seconds, or for ever if it is zero.
    call<done> put(bytes_view key, bytes_view value, std::chrono::milliseconds ttl = {}) const {
        return begin<done>(detail::nothing, ferrite_raw_put, key.raw(), value.raw(), static_cast<std::uint64_t>(ttl.count()));
    }
    call<done> remove(bytes_view key) const { return begin<done>(detail::nothing, ferrite_raw_delete, key.raw()); }
    /// The pairs of those keys that are there, by key.
    call<pairs> batch_get(std::span<const bytes_view> keys) const {
        auto raw = detail::raw(keys);
        return begin<pairs>(detail::all_pairs, ferrite_raw_batch_get, raw.data(), raw.size());
    }
    /// Sets all pairs, which is not one step.
    call<done> batch_put(std::span<const pair_view> pairs, std::chrono::milliseconds ttl = {}) const {
        auto raw = detail::raw(pairs);
        return begin<done>(detail::nothing, ferrite_raw_batch_put, raw.data(), raw.size(), static_cast<std::uint64_t>(ttl.count()));
    }
    call<done> batch_remove(std::span<const bytes_view> keys) const {
        auto raw = detail::raw(keys);
        return begin<done>(detail::nothing, ferrite_raw_batch_delete, raw.data(), raw.size());
    }
    /// Removes all keys from `start` to before `end` (empty: no bound).
    call<done> remove_range(bytes_view start, bytes_view end) const {
        return begin<done>(detail::nothing, ferrite_raw_delete_range, start.raw(), end.raw());
    }
    /// Sets a key to `wanted` (none removes it) if its value is `expected` (none: if it is not there). Never repeated on an unknown outcome.
    call<swapped> compare_and_swap(bytes_view key, std::optional<bytes_view> expected, std::optional<bytes_view> wanted) const {
        ferrite_bytes before = expected.value_or(bytes_view{}).raw(), after = wanted.value_or(bytes_view{}).raw();
        return begin<swapped>(detail::swap, ferrite_raw_compare_and_swap, key.raw(), expected ? &before : nullptr,
                              wanted ? &after : nullptr);
    }
    call<lifetime> ttl(bytes_view key) const { return begin<lifetime>(detail::ttl, ferrite_raw_ttl, key.raw()); }
    /// Fingerprint of the pairs in a range.
    call<ferrite_checksum> checksum(bytes_view start, bytes_view end) const {
        return begin<ferrite_checksum>(detail::checksum, ferrite_raw_checksum, start.raw(), end.raw());
    }
    /// Not a snapshot; begins with its first page.
    ferrite::scan scan(const range& range) const {
        ferrite_range raw = range.raw();
        return ferrite::scan(ferrite_raw_scan(handle_.get(), &raw));
    }

private:
    explicit raw_client(ferrite_raw* handle) : handle_(handle) {}

    template <class T, class F, class... A>
    call<T> begin(typename call<T>::shape shape, F function, A... arguments) const {
        return call<T>::begin(shape, [&](auto... to) { function(handle_.get(), arguments..., to...); });
    }

    detail::unique<ferrite_raw, ferrite_raw_free> handle_;
};

/// What was committed at or before a timestamp. May be used from any thread.
class snapshot {
public:
    explicit snapshot(ferrite_snapshot* handle) : handle_(handle) {}

    call<std::optional<value>> get(bytes_view key) const {
        return call<std::optional<value>>::begin(detail::optional_value,
                                                 [&](auto... to) { ferrite_snapshot_get(handle_.get(), key.raw(), to...); });
    }
    call<pairs> batch_get(std::span<const bytes_view> keys) const {
        auto raw = detail::raw(keys);
        return call<pairs>::begin(detail::all_pairs, [&](auto... to) {
            ferrite_snapshot_batch_get(handle_.get(), raw.data(), raw.size(), to...);
        });
    }
    ferrite::scan scan(const range& range) const {
        ferrite_range raw = range.raw();
        return ferrite::scan(ferrite_snapshot_scan(handle_.get(), &raw));
    }

private:
    detail::unique<ferrite_snapshot, ferrite_snapshot_free> handle_;
};

/// A transaction. Destroyed before its end it is rolled back.
class transaction {
public:
    explicit transaction(ferrite_txn* handle) : handle_(handle) {}

    /// The timestamp at which it reads.
    std::uint64_t start_ts() const { return ferrite_txn_start_ts(handle_.get()); }

    call<std::optional<value>> get(bytes_view key) const { return read(ferrite_txn_get, key); }
    /// Locks a key and reads it, its latest value in a pessimistic transaction.
    call<std::optional<value>> get_for_update(bytes_view key) { return read(ferrite_txn_get_for_update, key); }
    call<pairs> batch_get(std::span<const bytes_view> keys) const { return read(ferrite_txn_batch_get, keys); }
    call<pairs> batch_get_for_update(std::span<const bytes_view> keys) { return read(ferrite_txn_batch_get_for_update, keys); }
    /// Sets a key. A pessimistic transaction locks it now, as with all writes.
    call<done> put(bytes_view key, bytes_view value) { return write(ferrite_txn_put, key.raw(), value.raw()); }
    call<done> batch_put(std::span<const pair_view> pairs) {
        auto raw = detail::raw(pairs);
        return write(ferrite_txn_batch_put, raw.data(), raw.size());
    }
    /// Sets a key that must not be there: kind::exists, now or at commit.
    call<done> insert(bytes_view key, bytes_view value) { return write(ferrite_txn_insert, key.raw(), value.raw()); }
    call<done> remove(bytes_view key) { return write(ferrite_txn_delete, key.raw()); }
    /// Keeps others from writing keys while the transaction is under way.
    call<done> lock_keys(std::span<const bytes_view> keys) {
        auto raw = detail::raw(keys);
        return write(ferrite_txn_lock_keys, raw.data(), raw.size());
    }
    /// With its own writes as they are at the first page.
    ferrite::scan scan(const range& range) const {
        ferrite_range raw = range.raw();
        return ferrite::scan(ferrite_txn_scan(handle_.get(), &raw));
    }
    /// Remembers the writes so far.
    call<std::uint64_t> savepoint() {
        return call<std::uint64_t>::begin(detail::number, [&](auto... to) { ferrite_txn_savepoint(handle_.get(), to...); });
    }
    /// Undoes the writes since a savepoint; locks stay.
    call<done> rollback_to(std::uint64_t savepoint) { return write(ferrite_txn_rollback_to, savepoint); }
    /// Gives the commit timestamp, if there was something to write. Goes on if it is cancelled.
    call<std::optional<std::uint64_t>> commit() {
        return call<std::optional<std::uint64_t>>::begin(detail::optional_number,
                                                         [&](auto... to) { ferrite_txn_commit(handle_.get(), to...); });
    }
    call<done> rollback() { return write(ferrite_txn_rollback); }

private:
    template <class F>
    call<std::optional<value>> read(F function, bytes_view key) const {
        return call<std::optional<value>>::begin(detail::optional_value,
                                                 [&](auto... to) { function(handle_.get(), key.raw(), to...); });
    }
    template <class F>
    call<pairs> read(F function, std::span<const bytes_view> keys) const {
        auto raw = detail::raw(keys);
        return call<pairs>::begin(detail::all_pairs,
                                  [&](auto... to) { function(handle_.get(), raw.data(), raw.size(), to...); });
    }
    template <class F, class... A>
    call<done> write(F function, A... arguments) {
        return call<done>::begin(detail::nothing, [&](auto... to) { function(handle_.get(), arguments..., to...); });
    }

    detail::unique<ferrite_txn, ferrite_txn_free> handle_;
};

/// A client for transactions. May be used from any thread.
class txn_client {
public:
    /// The timestamp of a snapshot that reads the latest of each key.
    static constexpr std::uint64_t latest = std::numeric_limits<std::uint64_t>::max();

    /// Connects; see raw_client::connect.
    static call<txn_client> connect(const std::string& endpoints, const std::string& options = {}) {
        return call<txn_client>::begin(
            [](detail::result_ptr result) { return txn_client(ferrite_result_take_txns(result.get())); },
            [&](auto... to) { ferrite_txns_connect(endpoints.c_str(), options.c_str(), to...); });
    }

    /// The same client, whose calls, and those of its transactions, may take so long.
    txn_client with_deadline(std::chrono::milliseconds deadline) const {
        return txn_client(ferrite_txns_with_deadline(handle_.get(), static_cast<std::uint64_t>(deadline.count())));
    }

    /// What the client has done since it was connected, as the text that Prometheus reads.
    std::string metrics() const { return detail::text(ferrite_txns_metrics(handle_.get())); }

    /// Begins a transaction. Options are `name=value`, parted by commas: `pessimistic`, `lock-wait=50ms`; see ferrite_client.h.
    call<transaction> begin(const std::string& options = {}) const {
        return call<transaction>::begin(
            [](detail::result_ptr result) { return transaction(ferrite_result_take_txn(result.get())); },
            [&](auto... to) { ferrite_txns_begin(handle_.get(), options.c_str(), to...); });
    }
    /// A timestamp greater than every one before.
    call<std::uint64_t> timestamp() const {
        return call<std::uint64_t>::begin(detail::number, [&](auto... to) { ferrite_txns_timestamp(handle_.get(), to...); });
    }
    ferrite::snapshot snapshot(std::uint64_t ts = latest) const {
        return ferrite::snapshot(ferrite_txns_snapshot(handle_.get(), ts));
    }
    /// Ends what dead clients left and lets stores drop old versions; gives the safe point as it is then.
    call<std::uint64_t> gc(std::uint64_t safe_point) const {
        return call<std::uint64_t>::begin(detail::number, [&](auto... to) { ferrite_txns_gc(handle_.get(), safe_point, to...); });
    }
    /// Ends transactions that began up to `ts` and left locks in the range; gives how many locks.
    call<std::uint64_t> resolve_locks(bytes_view start, bytes_view end, std::uint64_t ts) const {
        return call<std::uint64_t>::begin(detail::number, [&](auto... to) {
            ferrite_txns_resolve_locks(handle_.get(), start.raw(), end.raw(), ts, to...);
        });
    }

private:
    explicit txn_client(ferrite_txns* handle) : handle_(handle) {}

    detail::unique<ferrite_txns, ferrite_txns_free> handle_;
};

/// A coroutine that begins at once and whose end can be waited for: `get()` blocks, `co_await` suspends.
template <class T>
class [[nodiscard]] task {
public:
    struct promise_type {
        std::optional<T> value;
        std::exception_ptr thrown;
        /// Null while it is under way, then `this`, or before that the coroutine that waits.
        std::atomic<void*> word{nullptr};
        std::atomic<int> owners{2};

        task get_return_object() { return task(std::coroutine_handle<promise_type>::from_promise(*this)); }
        std::suspend_never initial_suspend() noexcept { return {}; }
        auto final_suspend() noexcept {
            struct last {
                bool await_ready() noexcept { return false; }
                void await_suspend(std::coroutine_handle<promise_type> self) noexcept { self.promise().end(); }
                void await_resume() noexcept {}
            };
            return last{};
        }
        void return_value(T returned) { value.emplace(std::move(returned)); }
        void unhandled_exception() { thrown = std::current_exception(); }

        void end() noexcept {
            void* waiting = word.exchange(this, std::memory_order_acq_rel);
            word.notify_all();
            if (waiting != nullptr) {
                std::coroutine_handle<>::from_address(waiting).resume();
            }
            release();
        }
        void release() noexcept {
            if (owners.fetch_sub(1, std::memory_order_acq_rel) == 1) {
                std::coroutine_handle<promise_type>::from_promise(*this).destroy();
            }
        }
    };

    task(task&& other) noexcept : self_(std::exchange(other.self_, {})) {}
    task& operator=(task&& other) noexcept { return std::swap(self_, other.self_), *this; }
    ~task() {
        if (self_) {
            self_.promise().release();
        }
    }

    /// Blocks until the coroutine has ended; throws what it threw. Once, and not on a thread of the library.
    T get() {
        self_.promise().word.wait(nullptr, std::memory_order_acquire);
        return take();
    }

    bool await_ready() const noexcept { return self_.promise().word.load(std::memory_order_acquire) != nullptr; }
    bool await_suspend(std::coroutine_handle<> waiting) noexcept {
        void* none = nullptr;
        return self_.promise().word.compare_exchange_strong(none, waiting.address(), std::memory_order_acq_rel);
    }
    T await_resume() { return take(); }

private:
    explicit task(std::coroutine_handle<promise_type> self) : self_(self) {}

    T take() {
        if (self_.promise().thrown) {
            std::rethrow_exception(self_.promise().thrown);
        }
        return std::move(*self_.promise().value);
    }

    std::coroutine_handle<promise_type> self_;
};

}  // namespace ferrite

#endif
