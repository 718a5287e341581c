/* The memory allocator: blocks side by side, first fit, each with the number of its owner.
 *
 * It only hands out; whether somebody *should* get memory is guard.h's question. */
#ifndef CORE_HEAP_H
#define CORE_HEAP_H

#include <stddef.h>

enum { HEAP_FREE = 0, HEAP_OWNER_MAX = 15 };

struct heap_state {
    size_t size;                    /* of all */
    size_t free;                    /* sum of the free blocks */
    size_t largest;                 /* what a single request can get at most */
    unsigned fragmentation_percent; /* share of `free` that the largest block does not cover */
};

/* Takes over `size` bytes of `memory` (aligned to 16) and forgets every block of before. */
void heap_init(void *memory, size_t size);

/* `bytes` (more than 0) for `owner` (1..HEAP_OWNER_MAX), aligned to 16; NULL when no block is large
 * enough. */
void *heap_alloc(unsigned owner, size_t bytes);

/* Gives a block back; NULL is nothing. */
void heap_free(void *block);

struct heap_state heap_state(void);

/* Bytes that `owner` holds, with what the allocator adds to each block. */
size_t heap_held(unsigned owner);

#endif
