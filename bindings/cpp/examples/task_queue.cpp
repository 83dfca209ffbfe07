// A queue of tasks for many workers, in transactions: each task is done once, also if a worker dies in the middle. Workers are coroutines.
//
//     task_queue [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--tasks N] [--workers N]
//
// Tasks lie under `queue/todo/`; who takes one moves it to `queue/done/` in the transaction in which its result is written, so that nobody else can.
#include <set>
#include <vector>

#include "example.hpp"

namespace {

const ferrite::range todo = {.start = "queue/todo/", .end = "queue/todo0"};
const ferrite::range finished = {.start = "queue/done/", .end = "queue/done0"};

/// Does the first task that nobody else holds; false if none is left.
ferrite::task<bool> take_one(ferrite::txn_client& txns, long worker) {
    auto txn = (co_await txns.begin("pessimistic,lock-wait=no")).value();
    auto scan = txn.scan({.start = todo.start, .end = todo.end, .limit = 32});
    auto page = (co_await scan.next()).value();
    for (ferrite::pair_view pair : page) {
        auto locked = co_await txn.get_for_update(pair.key);
        if (!locked && (locked.error().kind == ferrite::kind::locked || locked.error().kind == ferrite::kind::conflict)) {
            // Somebody else is at it.
            continue;
        }
        auto task = std::move(locked).value();
        if (!task) {
            continue;
        }
        long input = example::number(*task);
        std::string record = finished.start.str() + std::string(pair.key.text().substr(todo.start.size()));
        (co_await txn.put(record, std::to_string(input * input) + " by worker " + std::to_string(worker))).value();
        (co_await txn.remove(pair.key)).value();
        (co_await txn.commit()).value();
        co_return true;
    }
    co_return !page.empty();
}

ferrite::task<ferrite::done> work(ferrite::txn_client& txns, long worker) {
    for (bool is_left = true; is_left;) {
        try {
            is_left = co_await take_one(txns, worker);
        } catch (const ferrite::failed& failed) {
            if (!failed.error().retryable) {
                throw;
            }
        }
    }
    co_return {};
}

/// Tasks are added all at once; what an earlier run left is forgotten.
void add(ferrite::txn_client& txns, long tasks) {
    auto txn = txns.begin().get().value();
    example::remove_all(txn, todo);
    example::remove_all(txn, finished);
    for (long task = 0; task < tasks; task++) {
        txn.put(todo.start.str() + example::digits(task, 6), std::to_string(task)).get().value();
    }
    txn.commit().get().value();
}

}  // namespace

int main(int count, char* arguments[]) {
    example::flags flags(count, arguments, {{"--tasks", 100}, {"--workers", 8}});
    auto txns = ferrite::txn_client::connect(flags.pd(), flags.options()).get().value();
    add(txns, flags.number("--tasks"));
    std::vector<ferrite::task<ferrite::done>> workers;
    for (long worker = 0; worker < flags.number("--workers"); worker++) {
        workers.push_back(work(txns, worker));
    }
    for (auto& worker : workers) {
        worker.get();
    }
    long records = 0, left = 0;
    std::set<std::string> by;
    ferrite::snapshot snapshot = txns.snapshot();
    snapshot.scan(finished)
        .for_each([&](ferrite::pair_view pair) {
            by.insert(std::string(pair.value.text().substr(pair.value.text().rfind(' '))));
            return ++records;
        })
        .value();
    snapshot.scan(todo).for_each([&](ferrite::pair_view) { return ++left; }).value();
    example::expect(records == flags.number("--tasks") && left == 0, "each task is done and none is left");
    std::cout << records << " tasks done once each, by " << by.size() << " workers\n";
}
