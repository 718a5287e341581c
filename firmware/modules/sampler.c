#include "guard.h"
#include "heap.h"
#include "modules.h"

enum { PERIOD_MS = 250, SAMPLES_AT_START = 64 };

static uint32_t *buffer; /* the newest sample is at (taken - 1) % capacity */
static uint32_t capacity, taken;

static uint32_t kept(void) {
    return taken < capacity ? taken : capacity;
}

/* Allocates before it frees: when it is refused, the old buffer is still whole. */
bool sampler_set(unsigned self, uint32_t samples) {
    size_t limit = SIZE_MAX / sizeof *buffer;
    size_t bytes = samples < limit ? samples * sizeof *buffer : SIZE_MAX;
    uint32_t *bigger = samples > 0 ? guard_alloc(self, bytes) : NULL;
    if (bigger == NULL) {
        return false;
    }
    uint32_t move = kept() < samples ? kept() : samples;
    for (uint32_t i = 0; i < move; i++) {
        bigger[i] = buffer[(taken - move + i) % capacity];
    }
    heap_free(buffer);
    buffer = bigger;
    capacity = samples;
    taken = move;
    return true;
}

bool sampler_setup(unsigned self) {
    return sampler_set(self, SAMPLES_AT_START);
}

uint32_t sampler_loop(void) {
    buffer[taken++ % capacity] = (uint32_t)heap_state().free;
    return PERIOD_MS;
}

void sampler_health(struct text *text) {
    uint32_t lowest = UINT32_MAX;
    for (uint32_t i = 0; i < kept(); i++) {
        lowest = buffer[i] < lowest ? buffer[i] : lowest;
    }
    text_number(text, kept());
    text_add(text, " of ");
    text_number(text, capacity);
    text_add(text, " samples");
    if (kept() > 0) {
        text_add(text, ", at least ");
        text_number(text, lowest);
        text_add(text, " bytes free");
    }
}
