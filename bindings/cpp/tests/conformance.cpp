// The runner of the conformance suite: operations come on standard input, see bindings/conformance/src/protocol.rs. Each is a coroutine.
#include <ferrite/client.hpp>

#include <condition_variable>
#include <functional>
#include <iostream>
#include <map>
#include <mutex>
#include <sstream>

namespace {

using line = std::map<std::string, std::string>;
using handle = std::variant<std::shared_ptr<ferrite::raw_client>, std::shared_ptr<ferrite::txn_client>,
                            std::shared_ptr<ferrite::snapshot>, std::shared_ptr<ferrite::transaction>>;

std::mutex guard;
std::map<std::string, handle> handles;
std::map<std::string, std::function<void()>> cancels;
int under_way = 0;
std::condition_variable idle;

void say(const std::string& text) {
    std::lock_guard lock(guard);
    std::cout << text << std::endl;
}

std::string hex(std::string_view bytes) {
    static const char digits[] = "0123456789abcdef";
    std::string text;
    for (unsigned char byte : bytes) {
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

std::string unhex(const std::string& text) {
    std::string bytes;
    for (std::size_t at = 0; at + 1 < text.size(); at += 2) {
        bytes += static_cast<char>(std::stoi(text.substr(at, 2), nullptr, 16));
    }
    return bytes;
}

std::vector<std::string> list(const std::string& text) {
    std::vector<std::string> items;
    std::istringstream stream(text);
    for (std::string item; std::getline(stream, item, ',');) {
        items.push_back(item);
    }
    return items;
}

std::string get(const line& line, const std::string& name) {
    auto found = line.find(name);
    return found == line.end() ? "" : found->second;
}

// The parts of a line that operations take.
struct arguments {
    std::string key, value, start, end, expected, wanted;
    bool has_expected, has_wanted;
    std::vector<std::string> key_bytes;
    std::vector<std::pair<std::string, std::string>> pair_bytes;
    std::vector<ferrite::bytes_view> keys;
    std::vector<ferrite::pair_view> pairs;
    std::chrono::milliseconds ttl{};

    explicit arguments(const line& line)
        : key(unhex(get(line, "key"))), value(unhex(get(line, "value"))), start(unhex(get(line, "start"))),
          end(unhex(get(line, "end"))), expected(unhex(get(line, "expected"))), wanted(unhex(get(line, "new"))),
          has_expected(line.contains("expected")), has_wanted(line.contains("new")) {
        for (const std::string& text : list(get(line, "keys"))) {
            key_bytes.push_back(unhex(text));
        }
        for (const std::string& text : list(get(line, "pairs"))) {
            std::size_t colon = text.find(':');
            pair_bytes.emplace_back(unhex(text.substr(0, colon)), unhex(text.substr(colon + 1)));
        }
        keys.assign(key_bytes.begin(), key_bytes.end());
        for (const auto& [key, value] : pair_bytes) {
            pairs.push_back({key, value});
        }
        if (line.contains("ttl_ms")) {
            ttl = std::chrono::milliseconds(std::stoll(get(line, "ttl_ms")));
        }
    }
};

std::string told(const ferrite::done&) { return ""; }
std::string told(const std::optional<ferrite::value>& value) { return value ? " value=" + hex(*value) : ""; }
std::string told(const ferrite::swapped& swap) {
    return std::string(" swapped=") + (swap.done ? "true" : "false") + told(swap.previous);
}
std::string told(const ferrite_checksum& sum) { return " number=" + std::to_string(sum.pairs); }
std::string told(std::uint64_t number) { return " number=" + std::to_string(number); }
std::string told(const std::optional<std::uint64_t>& number) { return number ? told(*number) : ""; }
std::string told(const ferrite::lifetime& lifetime) {
    if (!lifetime.left) {
        return " ttl=missing";
    }
    return " ttl=" + (*lifetime.left == ferrite::lifetime::forever ? "forever" : std::to_string(lifetime.left->count()));
}
std::string told(const ferrite::pairs& pairs) {
    std::string text;
    for (ferrite::pair_view pair : pairs) {
        text += (text.empty() ? "" : ",") + hex(pair.key) + ":" + hex(pair.value);
    }
    return " pairs=" + text;
}

std::string told(const ferrite::error& error) {
    return " error class=" + std::string(error.name()) + " retryable=" + (error.retryable ? "true" : "false") + " hint=" +
           hex(error.hint) + " message=" + hex(error.message);
}

// A coroutine that nobody waits for.
struct detached {
    struct promise_type {
        detached get_return_object() { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
};

// Whether the operation may be answered now; counts it.
void begun() {
    std::lock_guard lock(guard);
    under_way++;
}

void ended(const std::string& id, const std::string& text) {
    {
        std::lock_guard lock(guard);
        cancels.erase(id);
    }
    say(id + text);
    std::lock_guard lock(guard);
    under_way--;
    idle.notify_all();
}

// Answers when the call ends; `keep` is what is done with its value before.
template <class T, class F>
detached answer(std::string id, ferrite::call<T> call, F keep) {
    begun();
    {
        std::lock_guard lock(guard);
        cancels[id] = [&call] { call.cancel(); };
    }
    ferrite::result<T> result = co_await call;
    {
        // The call lives until the coroutine ends.
        std::lock_guard lock(guard);
        cancels.erase(id);
    }
    ended(id, result ? " ok" + keep(*result) : told(result.error()));
}

template <class T>
void answer(const std::string& id, ferrite::call<T> call) {
    answer(id, std::move(call), [](const T& value) { return told(value); });
}

template <class T>
auto keeping(const std::string& name) {
    return [name](T& opened) {
        std::lock_guard lock(guard);
        handles[name] = std::make_shared<T>(std::move(opened));
        return std::string();
    };
}

detached answer_scan(std::string id, ferrite::scan scan, std::size_t stop) {
    begun();
    std::string text;
    std::size_t count = 0;
    for (;;) {
        ferrite::result<ferrite::pairs> page = co_await scan.next();
        if (!page) {
            ended(id, told(page.error()));
            co_return;
        }
        for (ferrite::pair_view pair : *page) {
            text += (text.empty() ? "" : ",") + hex(pair.key) + ":" + hex(pair.value);
            if (++count == stop) {
                break;
            }
        }
        if (page->empty() || count == stop) {
            break;
        }
    }
    ended(id, " ok pairs=" + text);
}

bool operate(const std::string& id, const std::string& operation, const line& line) {
    arguments with(line);
    if (operation == "raw.connect") {
        answer(id, ferrite::raw_client::connect(get(line, "endpoints"), get(line, "options")),
               keeping<ferrite::raw_client>(get(line, "as")));
        return true;
    }
    if (operation == "txns.connect") {
        answer(id, ferrite::txn_client::connect(get(line, "endpoints"), get(line, "options")),
               keeping<ferrite::txn_client>(get(line, "as")));
        return true;
    }
    handle on;
    {
        std::lock_guard lock(guard);
        on = handles.at(get(line, "on"));
        if (operation == "drop") {
            handles.erase(get(line, "on"));
        }
    }
    if (operation == "drop") {
        on = handle();
        say(id + " ok");
        return true;
    }
    std::string verb = operation.substr(operation.find('.') + 1);
    if (verb == "scan") {
        ferrite::range range{with.start, with.end, 0, get(line, "reverse") == "true", get(line, "keys_only") == "true"};
        range.limit = line.contains("limit") ? std::stoull(get(line, "limit")) : 0;
        std::size_t stop = line.contains("stop") ? std::stoull(get(line, "stop")) : 0;
        std::visit(
            [&](auto& on) {
                if constexpr (requires { on->scan(range); }) {
                    answer_scan(id, on->scan(range), stop);
                }
            },
            on);
        return true;
    }
    if (auto* raw = std::get_if<std::shared_ptr<ferrite::raw_client>>(&on)) {
        auto& client = **raw;
        using maybe = std::optional<ferrite::bytes_view>;
        if (verb == "get") return answer(id, client.get(with.key)), true;
        if (verb == "put") return answer(id, client.put(with.key, with.value, with.ttl)), true;
        if (verb == "delete") return answer(id, client.remove(with.key)), true;
        if (verb == "batch_get") return answer(id, client.batch_get(with.keys)), true;
        if (verb == "batch_put") return answer(id, client.batch_put(with.pairs, with.ttl)), true;
        if (verb == "batch_delete") return answer(id, client.batch_remove(with.keys)), true;
        if (verb == "delete_range") return answer(id, client.remove_range(with.start, with.end)), true;
        if (verb == "checksum") return answer(id, client.checksum(with.start, with.end)), true;
        if (verb == "ttl") return answer(id, client.ttl(with.key)), true;
        if (verb == "metrics") return say(id + " ok value=" + hex(client.metrics())), true;
        if (verb == "compare_and_swap") {
            return answer(id, client.compare_and_swap(with.key, with.has_expected ? maybe(with.expected) : maybe(),
                                                      with.has_wanted ? maybe(with.wanted) : maybe())),
                   true;
        }
    } else if (auto* txns = std::get_if<std::shared_ptr<ferrite::txn_client>>(&on)) {
        auto& client = **txns;
        if (verb == "metrics") return say(id + " ok value=" + hex(client.metrics())), true;
        if (verb == "timestamp") return answer(id, client.timestamp()), true;
        if (verb == "begin") {
            return answer(id, client.begin(get(line, "options")), keeping<ferrite::transaction>(get(line, "as"))), true;
        }
        if (verb == "snapshot") {
            ferrite::snapshot snapshot = client.snapshot(std::stoull(get(line, "ts")));
            keeping<ferrite::snapshot>(get(line, "as"))(snapshot);
            return say(id + " ok"), true;
        }
    } else if (auto* snapshot = std::get_if<std::shared_ptr<ferrite::snapshot>>(&on)) {
        if (verb == "get") return answer(id, (*snapshot)->get(with.key)), true;
        if (verb == "batch_get") return answer(id, (*snapshot)->batch_get(with.keys)), true;
    } else if (auto* open = std::get_if<std::shared_ptr<ferrite::transaction>>(&on)) {
        auto& txn = **open;
        if (verb == "get") return answer(id, txn.get(with.key)), true;
        if (verb == "get_for_update") return answer(id, txn.get_for_update(with.key)), true;
        if (verb == "batch_get") return answer(id, txn.batch_get(with.keys)), true;
        if (verb == "batch_get_for_update") return answer(id, txn.batch_get_for_update(with.keys)), true;
        if (verb == "put") return answer(id, txn.put(with.key, with.value)), true;
        if (verb == "batch_put") return answer(id, txn.batch_put(with.pairs)), true;
        if (verb == "insert") return answer(id, txn.insert(with.key, with.value)), true;
        if (verb == "delete") return answer(id, txn.remove(with.key)), true;
        if (verb == "lock_keys") return answer(id, txn.lock_keys(with.keys)), true;
        if (verb == "savepoint") return answer(id, txn.savepoint()), true;
        if (verb == "rollback_to") return answer(id, txn.rollback_to(std::stoull(get(line, "savepoint")))), true;
        if (verb == "commit") return answer(id, txn.commit()), true;
        if (verb == "rollback") return answer(id, txn.rollback()), true;
    }
    return false;
}

}  // namespace

int main() {
    for (std::string text; std::getline(std::cin, text);) {
        std::istringstream words(text);
        std::string id, operation;
        words >> id >> operation;
        line line;
        for (std::string word; words >> word;) {
            std::size_t equals = word.find('=');
            line[word.substr(0, equals)] = word.substr(equals + 1);
        }
        if (operation == "cancel") {
            {
                std::lock_guard lock(guard);
                if (auto found = cancels.find(get(line, "call")); found != cancels.end()) {
                    found->second();
                }
            }
            say(id + " ok");
        } else if (!operate(id, operation, line)) {
            say(id + " error class=case retryable=false message=" + hex("the runner does not know " + operation));
        }
    }
    std::unique_lock lock(guard);
    idle.wait(lock, [] { return under_way == 0; });
    handles.clear();
}
