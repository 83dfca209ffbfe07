// Loads many pairs as fast as the cluster takes them, a few batches in flight, with a bar of progress.
//
//     bulk_load [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--pairs N]
#include <algorithm>
#include <chrono>
#include <deque>
#include <vector>

#include "example.hpp"

namespace {

constexpr long batch_size = 512;
constexpr std::size_t in_flight = 8;

/// Pairs and the call that puts them.
class batch {
public:
    batch(ferrite::raw_client& client, long first, long end) : client_(client) {
        for (long number = first; number < end; number++) {
            texts_.emplace_back("bulk/" + example::digits(number, 9), "value of " + std::to_string(number));
        }
        for (const auto& [key, value] : texts_) {
            pairs_.push_back({key, value});
        }
        call_.emplace(client_.batch_put(pairs_));
    }

    /// Waits until it is put; gives how many pairs that are.
    long finish() {
        for (;;) {
            ferrite::result<ferrite::done> put = call_->get();
            if (put) {
                return static_cast<long>(pairs_.size());
            }
            // Putting the same again does no harm, so an unknown outcome may be tried again too.
            if (!put.error().retryable && put.error().kind != ferrite::kind::undetermined) {
                throw ferrite::failed(put.error());
            }
            call_.emplace(client_.batch_put(pairs_));
        }
    }

private:
    ferrite::raw_client& client_;
    std::vector<std::pair<std::string, std::string>> texts_;
    std::vector<ferrite::pair_view> pairs_;
    std::optional<ferrite::call<ferrite::done>> call_;
};

class progress {
public:
    explicit progress(long pairs) : pairs_(pairs) {}

    void add(long loaded) {
        loaded_ += loaded;
        std::string bar(static_cast<std::size_t>(40 * loaded_ / pairs_), '#');
        bar.resize(40, ' ');
        std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun_;
        std::cerr << "\r[" << bar << "] " << loaded_ << "/" << pairs_ << " pairs, "
                  << static_cast<long>(static_cast<double>(loaded_) / took.count()) << "/s" << std::flush;
    }

private:
    long pairs_, loaded_ = 0;
    std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
};

}  // namespace

int main(int count, char* arguments[]) {
    example::flags flags(count, arguments, {{"--pairs", 20000}});
    long pairs = flags.number("--pairs");
    auto client = ferrite::raw_client::connect(flags.pd(), flags.options()).get().value();
    client.remove_range("bulk/", "bulk0").get().value();
    progress progress(pairs);
    std::deque<batch> batches;
    auto finish_one = [&] {
        progress.add(batches.front().finish());
        batches.pop_front();
    };
    for (long first = 0; first < pairs; first += batch_size) {
        if (batches.size() == in_flight) {
            finish_one();
        }
        batches.emplace_back(client, first, std::min(first + batch_size, pairs));
    }
    while (!batches.empty()) {
        finish_one();
    }
    std::cerr << "\n";
    ferrite_checksum sum = client.checksum("bulk/", "bulk0").get().value();
    example::expect(static_cast<long>(sum.pairs) == pairs, "all pairs are there");
    std::cout << sum.pairs << " pairs loaded\n";
}
