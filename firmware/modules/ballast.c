#include "guard.h"
#include "heap.h"
#include "modules.h"

enum { IDLE_MS = 60000 };

static void *held;
static uint32_t held_bytes;

bool ballast_set(unsigned self, uint32_t bytes) {
    void *block = NULL;
    if (bytes == 0) {
        guard_forgive(self);
    } else if ((block = guard_alloc(self, bytes)) == NULL) {
        return false;
    }
    heap_free(held);
    held = block;
    held_bytes = bytes;
    return true;
}

bool ballast_setup(unsigned self) {
    return ballast_set(self, 0);
}

uint32_t ballast_loop(void) {
    return IDLE_MS;
}

void ballast_health(struct text *text) {
    text_number(text, held_bytes);
    text_add(text, " bytes held");
}
