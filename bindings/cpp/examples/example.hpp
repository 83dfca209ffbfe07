// What the longer examples share: flags, and trying again what may be tried again.
#pragma once

#include <ferrite/client.hpp>

#include <charconv>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>
#include <string_view>

namespace example {

/// Flags as `--name value`: where the cluster is, the files for TLS if it has that, and the numbers of the program.
class flags {
public:
    flags(int count, char* arguments[], std::map<std::string, long> numbers) : numbers_(std::move(numbers)) {
        for (int at = 1; at < count; at += 2) {
            std::string name = arguments[at];
            std::string_view given = at + 1 < count ? arguments[at + 1] : "";
            if (auto text = texts_.find(name); text != texts_.end() && !given.empty()) {
                text->second = given;
            } else if (auto number = numbers_.find(name); number != numbers_.end()) {
                auto [end, fault] = std::from_chars(given.data(), given.data() + given.size(), number->second);
                if (fault != std::errc{} || end != given.data() + given.size() || number->second <= 0) {
                    usage();
                }
            } else {
                usage();
            }
        }
    }

    const std::string& pd() const { return texts_.at("--pd"); }
    long number(const std::string& name) const { return numbers_.at(name); }

    /// Options of a client.
    std::string options() const {
        std::string options = "deadline=20s";
        for (const char* file : {"ca", "cert", "key"}) {
            if (const std::string& path = texts_.at(std::string("--") + file); !path.empty()) {
                options += std::string(",") + file + "=" + path;
            }
        }
        return options;
    }

private:
    [[noreturn]] void usage() const {
        std::cerr << "usage: [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE]";
        for (const auto& [name, standard] : numbers_) {
            std::cerr << " [" << name << " N]";
        }
        std::cerr << "\n";
        std::exit(2);
    }

    std::map<std::string, std::string> texts_{{"--pd", "127.0.0.1:2379"}, {"--ca", ""}, {"--cert", ""}, {"--key", ""}};
    std::map<std::string, long> numbers_;
};

/// A number in decimal digits; 0 if there is none.
inline long number(std::string_view digits) {
    long number = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), number);
    return number;
}

/// A number with zeros before it, so that keys lie in the order of their numbers.
inline std::string digits(long number, std::size_t width) {
    std::string digits = std::to_string(number);
    return std::string(width - std::min(width, digits.size()), '0') + digits;
}

/// Removes a range in a transaction.
inline void remove_all(ferrite::transaction& txn, const ferrite::range& range) {
    txn.scan(range)
        .for_each([&](ferrite::pair_view pair) {
            txn.remove(pair.key).get().value();
            return true;
        })
        .value();
}

inline void expect(bool is_so, const std::string& what) {
    if (!is_so) {
        std::cerr << "not so: " << what << "\n";
        std::exit(1);
    }
}

}  // namespace example
