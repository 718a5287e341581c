/* heap.c and guard.c: blocks never overlap, everything comes back, and the right one is blamed. */
#include "check.h"
#include "guard.h"
#include "heap.h"

#include <stdint.h>
#include <string.h>

enum { SIZE = 65536, BLOCKS = 64, STEPS = 20000, HEADER = 16 };

static _Alignas(16) unsigned char memory[SIZE];

static uint32_t random_number(void) {
    static uint32_t state = 1; /* the same every time */
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static void test_empty(void) {
    heap_init(memory, SIZE);
    struct heap_state heap = heap_state();
    CHECK(heap.size == SIZE && heap.free == SIZE - HEADER && heap.largest == heap.free);
    CHECK(heap.fragmentation_percent == 0);
    heap_free(NULL);
    CHECK(heap_state().free == SIZE - HEADER);
}

static void test_limits(void) {
    heap_init(memory, SIZE);
    CHECK(heap_alloc(1, SIZE) == NULL);
    CHECK(heap_alloc(1, SIZE_MAX) == NULL);
    CHECK(heap_alloc(1, SIZE_MAX - 15) == NULL);
    CHECK(heap_alloc(1, SIZE - HEADER + 1) == NULL);
    void *all = heap_alloc(1, SIZE - HEADER);
    CHECK(all != NULL && (uintptr_t)all % 16 == 0);
    CHECK(heap_state().free == 0 && heap_state().fragmentation_percent == 0);
    CHECK(heap_alloc(1, 1) == NULL);
    CHECK(heap_held(1) == SIZE && heap_held(2) == 0);
    heap_free(all);
    CHECK(heap_state().largest == SIZE - HEADER);
}

static void test_an_odd_size_is_rounded_down(void) {
    heap_init(memory, 1000);
    CHECK(heap_state().size == 992);
}

/* Four blocks; every other one freed: half of the memory is free, in pieces. */
static void test_fragmentation(void) {
    void *blocks[4];
    heap_init(memory, 4 * 1024);
    for (int i = 0; i < 4; i++) {
        blocks[i] = heap_alloc(1, 1024 - HEADER);
        CHECK(blocks[i] != NULL);
    }
    heap_free(blocks[0]);
    heap_free(blocks[2]);
    struct heap_state heap = heap_state();
    CHECK(heap.free == 2 * (1024 - HEADER) && heap.largest == 1024 - HEADER);
    CHECK(heap.fragmentation_percent == 50);
    CHECK(!check_alloc(1024, 0)); /* free, but not in one piece */
    CHECK(check_alloc(1024 - HEADER, 1024 - HEADER));
    CHECK(!check_alloc(1024 - HEADER, 1024 - HEADER + 1)); /* in one piece, but not to spare */
    CHECK(!check_alloc(1, SIZE_MAX));
    heap_free(blocks[1]);
    CHECK(heap_state().largest == 3 * 1024 - HEADER && heap_state().fragmentation_percent == 0);
}

/* Random work against a shadow: each block keeps its own pattern until it is freed. */
static void test_random_work(void) {
    struct {
        unsigned char *at;
        size_t size;
        unsigned char pattern;
    } blocks[BLOCKS] = {0};
    unsigned granted = 0, refused = 0;
    heap_init(memory, SIZE);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = random_number() % BLOCKS;
        if (blocks[i].at != NULL) {
            size_t good = 0;
            while (good < blocks[i].size && blocks[i].at[good] == blocks[i].pattern) {
                good++;
            }
            CHECK(good == blocks[i].size);
            heap_free(blocks[i].at);
            blocks[i].at = NULL;
            continue;
        }
        size_t size = 1 + random_number() % 4000;
        bool promised = check_alloc(size, 0);
        blocks[i].at = heap_alloc(1 + i % HEAP_OWNER_MAX, size);
        CHECK(promised == (blocks[i].at != NULL));
        if (blocks[i].at != NULL) {
            blocks[i].size = size;
            blocks[i].pattern = (unsigned char)step;
            memset(blocks[i].at, blocks[i].pattern, size);
            granted++;
        } else {
            refused++;
        }
    }
    CHECK(granted > 1000 && refused > 100);
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(blocks[i].at);
    }
    CHECK(heap_state().free == SIZE - HEADER && heap_state().fragmentation_percent == 0);
}

static void test_the_cause_is_who_takes_most(void) {
    heap_init(memory, SIZE);
    void *small = guard_alloc(1, 1000), *large = guard_alloc(2, 40000);
    CHECK(small != NULL && large != NULL && !guard_at_fault(1) && !guard_at_fault(2));
    CHECK(guard_alloc(3, 9000) == NULL); /* what is left is the reserve */
    CHECK(guard_cause(3) == 2 && guard_at_fault(2) && !guard_at_fault(1) && !guard_at_fault(3));
    CHECK(guard_alloc(1, 60000) == NULL); /* more than anybody holds: its own fault */
    CHECK(guard_cause(1) == 1 && guard_at_fault(1));
    CHECK(heap_held(1) == 1008 + HEADER);
    guard_forgive(1);
    CHECK(!guard_at_fault(1) && guard_at_fault(2));
    heap_free(large);
    CHECK(guard_at_fault(2)); /* until the refused one has been served */
    large = guard_alloc(3, 9000);
    CHECK(large != NULL && guard_cause(3) == 0 && !guard_at_fault(2));
}

static void test_the_reserve_stays(void) {
    heap_init(memory, SIZE);
    size_t all = heap_state().free;
    CHECK(guard_alloc(1, all - HEAP_RESERVE + 1) == NULL);
    CHECK(guard_alloc(1, all - HEAP_RESERVE) != NULL);
    CHECK(guard_alloc(1, 1) == NULL);
    CHECK(heap_alloc(1, 1) != NULL); /* for those who cannot be refused */
}

void run_tests(void) {
    test_empty();
    test_limits();
    test_an_odd_size_is_rounded_down();
    test_fragmentation();
    test_random_work();
    test_the_cause_is_who_takes_most();
    test_the_reserve_stays();
}
