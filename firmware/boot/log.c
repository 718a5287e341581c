#include "log.h"

#include "soc.h"

void log_text(const char *text) {
    while (*text != '\0') {
        uart_put(*text++);
    }
}

void log_decimal(uint32_t value) {
    if (value >= 10) {
        log_decimal(value / 10);
    }
    uart_put((char)('0' + value % 10));
}

void log_hex(uint32_t value) {
    log_text("0x");
    for (int shift = 28; shift >= 0; shift -= 4) {
        uart_put("0123456789abcdef"[value >> shift & 15]);
    }
}

void log_short_hex(uint32_t value) {
    int shift = 28;
    while (shift > 0 && value >> shift == 0) {
        shift -= 4;
    }
    log_text("0x");
    for (; shift >= 0; shift -= 4) {
        uart_put("0123456789abcdef"[value >> shift & 15]);
    }
}

void log_end(void) {
    log_text("\r\n");
}
