#include "module.h"

#include "guard.h"
#include "heap.h"
#include "logring.h"
#include "memlog.h"
#include "port.h"

enum { WATCH_MS = 1000 };

static struct {
    bool known, setup_ok;
    uint64_t due_ms;
} states[HEAP_OWNER_MAX];
static uint64_t watch_due_ms;

static unsigned owner_of(size_t index) {
    return (unsigned)index + 1;
}

void module_health(size_t index, struct text *text) {
    unsigned cause = guard_cause(owner_of(index));
    if (cause != 0) {
        text_add(text, "refused memory: ");
        text_add(text, modules[cause - 1].name);
        text_add(text, cause == owner_of(index) ? " asked for too much; " : " holds the most; ");
    }
    modules[index].health(text);
}

/* An edge is worth a log line; to be as before is not. */
static void set_state(size_t index, bool ok) {
    char buffer[LOG_TEXT_ROOM];
    struct text line = TEXT_IN(buffer);
    if (states[index].known && states[index].setup_ok == ok) {
        return;
    }
    states[index].known = true;
    states[index].setup_ok = ok;
    states[index].due_ms = 0;
    text_add(&line, modules[index].name);
    text_add(&line, ok ? " enabled: " : " disabled: ");
    module_health(index, &line);
    log_add(ok ? 'I' : 'W', buffer);
}

void modules_setup(void) {
    size_t size;
    void *memory = port_heap(&size);
    heap_init(memory, size);
    memlog_boot("start");
    for (size_t i = 0; i < module_count; i++) {
        set_state(i, modules[i].setup(owner_of(i)));
        memlog_boot(modules[i].name);
    }
}

uint64_t modules_loop(uint64_t now_ms) {
    uint64_t next_ms = watch_due_ms;
    if (now_ms >= watch_due_ms) {
        memlog_watch(now_ms);
        next_ms = watch_due_ms = now_ms + WATCH_MS;
    }
    for (size_t i = 0; i < module_count; i++) {
        if (!states[i].setup_ok) {
            continue;
        }
        if (now_ms >= states[i].due_ms) {
            states[i].due_ms = now_ms + modules[i].loop();
        }
        next_ms = states[i].due_ms < next_ms ? states[i].due_ms : next_ms;
    }
    return next_ms;
}

void module_set(size_t index, uint32_t value) {
    set_state(index, modules[index].set(owner_of(index), value));
}

bool module_setup_ok(size_t index) {
    return states[index].setup_ok;
}

bool module_at_fault(size_t index) {
    return guard_at_fault(owner_of(index));
}

size_t module_held(size_t index) {
    return heap_held(owner_of(index));
}
