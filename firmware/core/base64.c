#include "base64.h"

static int value_of(char c) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int base64_decode(struct slice string, uint8_t *to, size_t room) {
    if (string.size < 2 || json_kind(string) != '"' || string.size % 4 != 2) {
        return -1;
    }
    const char *at = string.at + 1;
    size_t size = string.size - 2, done = 0;
    for (size_t i = 0; i < size; i += 4) {
        uint32_t bits = 0;
        int padding = 0;
        for (size_t c = 0; c < 4; c++) {
            bool pads = at[i + c] == '=' && i + 4 == size && c >= 2;
            int value = pads ? 0 : value_of(at[i + c]);
            if (value < 0 || (padding > 0 && !pads)) {
                return -1;
            }
            padding += pads;
            bits = bits << 6 | (uint32_t)value;
        }
        size_t bytes = 3 - (size_t)padding;
        if (bytes > room - done) {
            return -1;
        }
        for (size_t b = 0; b < bytes; b++) {
            to[done++] = (uint8_t)(bits >> (16 - 8 * b));
        }
    }
    return (int)done;
}
