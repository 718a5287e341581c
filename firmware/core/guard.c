#include "guard.h"

#include "heap.h"

static unsigned char cause_of[HEAP_OWNER_MAX + 1];

bool check_alloc(size_t bytes, size_t reserve) {
    struct heap_state heap = heap_state();
    return heap.largest >= bytes && heap.free >= reserve && heap.free - reserve >= bytes;
}

static unsigned find_cause(unsigned asker, size_t bytes) {
    unsigned cause = asker;
    size_t most = bytes; /* what the asker holds already is the old buffer, which would go */
    for (unsigned owner = 1; owner <= HEAP_OWNER_MAX; owner++) {
        if (owner != asker && heap_held(owner) > most) {
            cause = owner;
            most = heap_held(owner);
        }
    }
    return cause;
}

void *guard_alloc(unsigned owner, size_t bytes) {
    void *block = check_alloc(bytes, HEAP_RESERVE) ? heap_alloc(owner, bytes) : NULL;
    cause_of[owner] = block == NULL ? (unsigned char)find_cause(owner, bytes) : 0;
    return block;
}

unsigned guard_cause(unsigned owner) {
    return cause_of[owner];
}

bool guard_at_fault(unsigned owner) {
    for (unsigned victim = 1; victim <= HEAP_OWNER_MAX; victim++) {
        if (cause_of[victim] == owner) {
            return true;
        }
    }
    return false;
}

void guard_forgive(unsigned owner) {
    cause_of[owner] = 0;
}
