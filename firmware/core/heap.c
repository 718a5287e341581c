#include "heap.h"

#include <stdbool.h>
#include <stdint.h>

/* Begins each block; the next block begins `size` bytes further on. */
struct block {
    _Alignas(16) size_t size; /* with this header; a multiple of 16 */
    size_t owner;
};

static uint8_t *heap_begin, *heap_end;

static struct block *first(void) {
    return (struct block *)heap_begin;
}

static struct block *next(const struct block *block) {
    return (struct block *)((uint8_t *)block + block->size);
}

static bool inside(const struct block *block) {
    return (const uint8_t *)block < heap_end;
}

void heap_init(void *memory, size_t size) {
    heap_begin = memory;
    heap_end = heap_begin + size / sizeof(struct block) * sizeof(struct block);
    *first() = (struct block){(size_t)(heap_end - heap_begin), HEAP_FREE};
}

/* Two free blocks side by side are one: freeing leaves that to whoever walks past. */
static void join_next(struct block *block) {
    while (inside(next(block)) && next(block)->owner == HEAP_FREE) {
        block->size += next(block)->size;
    }
}

void *heap_alloc(unsigned owner, size_t bytes) {
    if (bytes > (size_t)(heap_end - heap_begin)) {
        return NULL;
    }
    size_t needed = (bytes + 2 * sizeof(struct block) - 1) & ~(sizeof(struct block) - 1);
    for (struct block *block = first(); inside(block); block = next(block)) {
        if (block->owner != HEAP_FREE) {
            continue;
        }
        join_next(block);
        if (block->size < needed) {
            continue;
        }
        size_t rest = block->size - needed;
        if (rest >= 2 * sizeof(struct block)) {
            block->size = needed;
            *next(block) = (struct block){rest, HEAP_FREE};
        }
        block->owner = owner;
        return block + 1;
    }
    return NULL;
}

void heap_free(void *block) {
    if (block != NULL) {
        ((struct block *)block - 1)->owner = HEAP_FREE;
    }
}

struct heap_state heap_state(void) {
    struct heap_state state = {.size = (size_t)(heap_end - heap_begin)};
    for (struct block *block = first(); inside(block); block = next(block)) {
        if (block->owner == HEAP_FREE) {
            join_next(block);
            size_t usable = block->size - sizeof(struct block);
            state.free += usable;
            state.largest = usable > state.largest ? usable : state.largest;
        }
    }
    if (state.free > 0) {
        uint64_t covered = (uint64_t)state.largest * 100 / state.free;
        state.fragmentation_percent = 100 - (unsigned)covered;
    }
    return state;
}

size_t heap_held(unsigned owner) {
    size_t held = 0;
    for (struct block *block = first(); inside(block); block = next(block)) {
        held += block->owner == owner ? block->size : 0;
    }
    return held;
}
