/* One line per decision, on UART0. */
#ifndef BOOT_LOG_H
#define BOOT_LOG_H

#include <stdint.h>

void log_text(const char *text);
void log_decimal(uint32_t value);
void log_hex(uint32_t value);
void log_short_hex(uint32_t value); /* without leading zeros */
void log_end(void);

#endif
