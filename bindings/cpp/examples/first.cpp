// The first program: `first [ENDPOINTS]`.
#include <ferrite/client.hpp>
#include <iostream>

int main(int count, char* arguments[]) {
    auto client = ferrite::raw_client::connect(count > 1 ? arguments[1] : "127.0.0.1:2379", "deadline=10s").get().value();
    client.put("greeting", "hello").get().value();
    auto found = client.get("greeting").get().value();
    if (found) {
        std::cout << found->view().text() << "\n";
    }
    client
        .scan({.start = "a", .end = "z"})
        .for_each([](ferrite::pair_view pair) {
            std::cout << pair.key.text() << "\n";
            return true;
        })
        .value();
}
