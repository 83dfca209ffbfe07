// An inventory with pessimistic locks: many buyers on threads, no item sold twice.
//
//     inventory [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--stock N] [--buyers N]
#include <algorithm>
#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "example.hpp"

namespace {

constexpr std::array<const char*, 2> items = {"inventory/apples", "inventory/pears"};
const ferrite::range sold = {.start = "inventory/sold/", .end = "inventory/sold0"};

/// One of each item, or none.
bool try_to_buy(ferrite::txn_client& txns, long buyer) {
    ferrite::transaction txn = txns.begin("pessimistic").get().value();
    std::array<long, items.size()> stock{};
    // In one order, so that buyers do not wait for each other in a circle.
    for (std::size_t at = 0; at < items.size(); at++) {
        auto found = txn.get_for_update(items[at]).get().value();
        stock[at] = found ? example::number(*found) : 0;
    }
    if (*std::min_element(stock.begin(), stock.end()) == 0) {
        // Destroyed before its end it is rolled back.
        return false;
    }
    for (std::size_t at = 0; at < items.size(); at++) {
        txn.put(items[at], std::to_string(stock[at] - 1)).get().value();
    }
    txn.insert(sold.start.str() + example::digits(buyer, 6), "one of each").get().value();
    txn.commit().get().value();
    return true;
}

/// Tried again while others are in the way.
bool buy(ferrite::txn_client& txns, long buyer) {
    for (;;) {
        try {
            return try_to_buy(txns, buyer);
        } catch (const ferrite::failed& failed) {
            if (!failed.error().retryable) {
                throw;
            }
        }
    }
}

/// What an earlier run sold is forgotten.
void fill(ferrite::txn_client& txns, long stock) {
    ferrite::transaction txn = txns.begin().get().value();
    example::remove_all(txn, sold);
    for (const char* item : items) {
        txn.put(item, std::to_string(stock)).get().value();
    }
    txn.commit().get().value();
}

}  // namespace

int main(int count, char* arguments[]) {
    example::flags flags(count, arguments, {{"--stock", 20}, {"--buyers", 32}});
    long stock = flags.number("--stock"), buyers = flags.number("--buyers");
    auto txns = ferrite::txn_client::connect(flags.pd(), flags.options()).get().value();
    fill(txns, stock);

    std::atomic<long> next = 0, served = 0;
    {
        std::vector<std::jthread> threads;
        for (int at = 0; at < 8; at++) {
            threads.emplace_back([&] {
                for (long buyer = next++; buyer < buyers; buyer = next++) {
                    served += buy(txns, buyer);
                }
            });
        }
    }
    long records = 0;
    ferrite::snapshot snapshot = txns.snapshot();
    snapshot.scan(sold).for_each([&](ferrite::pair_view) { return ++records; }).value();
    example::expect(served == std::min(stock, buyers) && records == served, "as many are sold as there were, each to one buyer");
    for (const char* item : items) {
        auto left = snapshot.get(item).get().value();
        example::expect(left && example::number(*left) == stock - records, "what is left and what is sold is what there was");
    }
    std::cout << served << " of " << buyers << " buyers served, " << stock - records << " of each left\n";
}
