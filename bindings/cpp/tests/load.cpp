// Load for `cargo xtask bench clients` and `cargo xtask bindings soak`; what it does is said in bindings/conformance/src/load.rs. Coroutines carry both.
//
//   load ENDPOINTS KEYSPACE MODE IN_FLIGHT AMOUNT PREFIX
#include <ferrite/client.hpp>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <thread>
#include <vector>

namespace {

constexpr int keys = 10'000;
constexpr std::size_t slots = 8;
const std::string filling(100, 'v');

double now(clockid_t clock) {
    timespec time{};
    clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

void nap(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

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

struct clients {
    ferrite::raw_client raw;
    ferrite::txn_client txns;
    std::string prefix;
};

// The bench: calls as fast as they come, measured after a warm-up of half the time.

struct bench_state {
    std::atomic<bool> is_over{false};
    std::atomic<int> epoch{0};
    std::atomic<int> working{0};
};

struct samples {
    std::vector<double> latencies;
    std::size_t failures = 0;
    int seen = 0;
};

std::string key_of(const clients& with, int number) {
    std::string digits = std::to_string(number % keys);
    return with.prefix + "/k/" + std::string(6 - digits.size(), '0') + digits;
}

detached work(const clients& with, bench_state& state, char mode, int worker, samples& into) {
    unsigned number = static_cast<unsigned>(worker) * 7919;
    while (!state.is_over.load(std::memory_order_relaxed)) {
        number = (number * 1103515245u + 12345u) & 0x7fffffffu;
        int random = static_cast<int>(number >> 8);
        double begun = now(CLOCK_MONOTONIC);
        bool failed;
        if (mode == 'g') {
            failed = !(co_await with.raw.get(key_of(with, random)));
        } else if (mode == 'p') {
            failed = !(co_await with.raw.put(key_of(with, random), filling));
        } else {
            std::string pair = with.prefix + "/t/" + std::to_string(worker) + "/" + std::to_string(random % 100);
            auto txn = co_await with.txns.begin();
            failed = !txn || !(co_await txn->put(pair + "/a", filling)) || !(co_await txn->put(pair + "/b", filling)) ||
                     !(co_await txn->commit());
        }
        if (into.seen != state.epoch.load(std::memory_order_relaxed)) {
            into.seen = state.epoch.load(std::memory_order_relaxed);
            into.latencies.clear();
            into.failures = 0;
        }
        into.latencies.push_back((now(CLOCK_MONOTONIC) - begun) * 1e6);
        into.failures += failed;
    }
    state.working.fetch_sub(1);
    state.working.notify_all();
}

void bench(const clients& with, char mode, int in_flight, double seconds) {
    bench_state state;
    state.working = in_flight;
    std::vector<samples> found(static_cast<std::size_t>(in_flight));
    for (int worker = 0; worker < in_flight; worker++) {
        work(with, state, mode, worker, found[static_cast<std::size_t>(worker)]);
    }
    nap(seconds / 2);
    state.epoch = 1;
    double begun = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    nap(seconds);
    double took = now(CLOCK_MONOTONIC) - begun, used = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    state.is_over = true;
    for (int left = state.working; left > 0; left = state.working) {
        state.working.wait(left);
    }
    std::vector<double> all;
    std::size_t failures = 0;
    for (const samples& one : found) {
        all.insert(all.end(), one.latencies.begin(), one.latencies.end());
        failures += one.failures;
    }
    std::sort(all.begin(), all.end());
    std::printf("{\"operations\":%zu,\"seconds\":%f,\"cpu_seconds\":%f,\"p50_us\":%f,\"p99_us\":%f,\"failures\":%zu}\n", all.size(), took,
                used, all.empty() ? 0 : all[all.size() / 2], all.empty() ? 0 : all[all.size() * 99 / 100], failures);
}

// The soak: operations whose every answer is checked against what the coroutine did before.

struct soak_state {
    unsigned long operations;
    std::atomic<unsigned long> begun{0}, undetermined{0}, failed{0};
    std::atomic<int> working{0};
};

void must_be(const std::string& key, const std::optional<ferrite::value>& found, const std::optional<std::string>& wanted) {
    if (found.has_value() != wanted.has_value() || (found && found->str() != *wanted)) {
        std::cerr << key << " is " << (found ? found->str() : "not there") << ", wanted " << wanted.value_or("nothing") << "\n";
        std::_Exit(1);
    }
}

// Adds one to both keys of a pair in a transaction.
ferrite::task<std::optional<ferrite::error>> count_up(const clients& with, std::string pair, unsigned long count) {
    auto txn = co_await with.txns.begin();
    if (!txn) {
        co_return txn.error();
    }
    for (char half : {'a', 'b'}) {
        std::string key = pair + half;
        auto found = co_await txn->get(key);
        if (!found) {
            co_return found.error();
        }
        must_be(key, *found, count == 0 ? std::nullopt : std::optional(std::to_string(count)));
        if (auto put = co_await txn->put(key, std::to_string(count + 1)); !put) {
            co_return put.error();
        }
    }
    auto committed = co_await txn->commit();
    co_return committed ? std::nullopt : std::optional(committed.error());
}

detached soak_worker(const clients& with, soak_state& state, int worker) {
    int generations[slots] = {};
    std::optional<std::string> expected[slots];
    unsigned long pair = 0, count = 0;
    for (unsigned long number = ++state.begun; number <= state.operations; number = ++state.begun) {
        std::size_t slot = number % slots;
        unsigned long kind = number / slots % 20;
        std::string own = with.prefix + "/" + std::to_string(worker) + "/";
        std::string key = own + std::to_string(slot) + "/" + std::to_string(generations[slot]);
        std::optional<ferrite::error> error;
        if (kind < 10) {
            auto found = co_await with.raw.get(key);
            if (found) {
                must_be(key, *found, expected[slot]);
            } else {
                error = found.error();
            }
        } else if (kind < 17) {
            std::string value = std::to_string(worker) + ":" + std::to_string(number) + ":" + filling;
            auto put = co_await with.raw.put(key, value);
            if (put) {
                expected[slot] = value;
            } else {
                error = put.error();
            }
        } else {
            error = co_await count_up(with, own + "t" + std::to_string(pair), count);
            count += !error;
        }
        if (error && error->kind == ferrite::kind::undetermined) {
            // A write that may still come: its keys are not looked at again.
            state.undetermined++;
            if (kind < 17) {
                generations[slot]++;
                expected[slot].reset();
            } else {
                pair++;
                count = 0;
            }
        } else if (error) {
            state.failed++;
            if (!error->retryable) {
                std::cerr << error->message << "\n";
                std::_Exit(1);
            }
        }
    }
    state.working.fetch_sub(1);
}

void soak(const clients& with, int in_flight, unsigned long operations) {
    soak_state state{.operations = operations};
    state.working = in_flight;
    for (int worker = 0; worker < in_flight; worker++) {
        soak_worker(with, state, worker);
    }
    for (int ticks = 0; state.working > 0; ticks++) {
        if (ticks % 10 == 0) {
            std::cout << "progress " << std::min(state.begun.load(), operations) << std::endl;
        }
        nap(0.1);
    }
    std::printf("{\"operations\":%lu,\"undetermined\":%lu,\"failed\":%lu}\n", operations, state.undetermined.load(), state.failed.load());
}

}  // namespace

int main(int count, char* arguments[]) {
    if (count != 7) {
        std::cerr << "usage: load ENDPOINTS KEYSPACE MODE IN_FLIGHT AMOUNT PREFIX\n";
        return 2;
    }
    std::string endpoints = arguments[1], keyspace = arguments[2], mode = arguments[3];
    std::string options = keyspace == "-" ? "deadline=20s" : "deadline=20s,keyspace=" + keyspace;
    clients with{ferrite::raw_client::connect(endpoints, options).get().value(),
                 ferrite::txn_client::connect(endpoints, options).get().value(), arguments[6]};
    if (mode == "soak") {
        soak(with, std::atoi(arguments[4]), std::strtoul(arguments[5], nullptr, 10));
    } else {
        bench(with, mode[0], std::atoi(arguments[4]), std::strtod(arguments[5], nullptr) / 1000);
    }
}
