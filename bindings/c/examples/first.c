/* The first program: `first [ENDPOINTS]`. */
#include <ferrite_client.h>
#include <stdio.h>
#include <string.h>

static ferrite_bytes text(const char *text) {
    return (ferrite_bytes){(const uint8_t *)text, strlen(text)};
}

/* Waits for a call; tells why if it failed. */
static ferrite_result *wait_for(ferrite_call *call) {
    ferrite_result *result = ferrite_call_wait(call);
    ferrite_call_free(call);
    if (ferrite_result_class(result) != FERRITE_CLASS_OK) {
        fprintf(stderr, "%s (%s)\n", ferrite_result_message(result), ferrite_result_hint(result));
        ferrite_result_free(result);
        return NULL;
    }
    return result;
}

int main(int count, char *arguments[]) {
    ferrite_call *call;
    ferrite_raw_connect(count > 1 ? arguments[1] : "127.0.0.1:2379", "deadline=10s", NULL, NULL, &call);
    ferrite_result *result = wait_for(call);
    if (result == NULL) {
        return 1;
    }
    ferrite_raw *raw = ferrite_result_take_raw(result);
    ferrite_result_free(result);

    ferrite_raw_put(raw, text("greeting"), text("hello"), 0, NULL, NULL, &call);
    ferrite_result_free(wait_for(call));
    ferrite_raw_get(raw, text("greeting"), NULL, NULL, &call);
    result = wait_for(call);
    ferrite_bytes value;
    if (ferrite_result_value(result, &value)) {
        printf("%.*s\n", (int)value.len, (const char *)value.data);
    }
    ferrite_result_free(result);
    ferrite_raw_free(raw);
}
