#include "out.h"

#include "port.h"
#include "text.h"

static bool is_muted;

static const char digits[] = "0123456789abcdef";

void out_mute(bool muted) {
    is_muted = muted;
}

void out_slice(struct slice text) {
    if (!is_muted) {
        port_write(text.at, text.size);
    }
}

void out_text(const char *text) {
    size_t size = 0;
    while (text[size] != '\0') {
        size++;
    }
    out_slice((struct slice){text, size});
}

void out_string(const char *text) {
    out_text("\"");
    for (; *text != '\0'; text++) {
        uint8_t c = (uint8_t)*text;
        if (c < 0x20) {
            char escape[] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15], '\0'};
            out_text(escape);
            continue;
        }
        if (c == '"' || c == '\\') {
            out_text("\\");
        }
        out_slice((struct slice){text, 1});
    }
    out_text("\"");
}

void out_number(uint64_t number) {
    char text[NUMBER_DIGITS_MAX], *end = text + sizeof text;
    char *begin = format_number(end, number);
    out_slice((struct slice){begin, (size_t)(end - begin)});
}

void out_bool(bool value) {
    out_text(value ? "true" : "false");
}

void out_hex(const uint8_t *bytes, size_t size, const char *separator) {
    out_text("\"");
    for (size_t i = 0; i < size; i++) {
        char pair[] = {digits[bytes[i] >> 4], digits[bytes[i] & 15], '\0'};
        out_text(i == 0 ? "" : separator);
        out_text(pair);
    }
    out_text("\"");
}
