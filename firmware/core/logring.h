/* The last 64 log entries, each with a number that no later entry has.
 *
 * Entries are taken at any time and printed by log_print() between messages, so that a log line
 * never lands inside an answer. */
#ifndef CORE_LOGRING_H
#define CORE_LOGRING_H

#include <stddef.h>
#include <stdint.h>

#define LOG_ENTRIES 64
#define LOG_TEXT_ROOM 112 /* with the terminating NUL; longer text is cut off */

struct log_entry {
    char level; /* I, W or E */
    uint64_t uptime_ms;
    char text[LOG_TEXT_ROOM];
};

void log_add(char level, const char *text);

/* The number that the next entry will get. Numbers begin with 0 and wrap at 2^32. */
uint32_t log_next(void);

/* The number of the first kept entry at or after number `since`; log_next() when there is none.
 * `*dropped` is how many entries from `since` on are no longer kept. A number that this device has
 * not reached means that it has restarted since: then everything kept counts. */
uint32_t log_first(uint32_t since, uint32_t *dropped);

/* The entry of a number from log_first() up to log_next() - 1. */
const struct log_entry *log_at(uint32_t number);

/* Prints what was added since the last call: `I (1234) text`. */
void log_print(void);

/* Forgets everything and counts from `first`. */
void log_clear(uint32_t first);

#endif
