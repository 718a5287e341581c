#include "logring.h"

#include "out.h"
#include "port.h"
#include "text.h"

static struct log_entry entries[LOG_ENTRIES]; /* number n is at n % 64, and 64 divides 2^32 */
static uint32_t oldest, next, printed;

void log_clear(uint32_t first) {
    oldest = next = printed = first;
}

void log_add(char level, const char *text) {
    struct log_entry *entry = &entries[next % LOG_ENTRIES];
    struct text copy = TEXT_IN(entry->text);
    entry->level = level;
    entry->uptime_ms = port_uptime_ms();
    text_add(&copy, text);
    next++;
    if (next - oldest > LOG_ENTRIES) {
        oldest++;
    }
}

uint32_t log_next(void) {
    return next;
}

/* Numbers wrap, so "before" means: less than half of all numbers away. */
static int before(uint32_t a, uint32_t b) {
    return (int32_t)(a - b) < 0;
}

uint32_t log_first(uint32_t since, uint32_t *dropped) {
    *dropped = 0;
    if (before(next, since)) {
        return oldest;
    }
    if (before(since, oldest)) {
        *dropped = oldest - since;
        return oldest;
    }
    return since;
}

const struct log_entry *log_at(uint32_t number) {
    return &entries[number % LOG_ENTRIES];
}

void log_print(void) {
    uint32_t dropped;
    for (printed = log_first(printed, &dropped); printed != next; printed++) {
        const struct log_entry *entry = log_at(printed);
        char level[] = {entry->level, ' ', '(', '\0'};
        out_text(level);
        out_number(entry->uptime_ms);
        out_text(") ");
        out_text(entry->text);
        out_text("\n");
    }
}
