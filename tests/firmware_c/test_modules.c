/* The modules' own memory: what the sampler keeps when it gets another buffer. */
#include "check.h"
#include "heap.h"
#include "modules.h"

#include <stdlib.h>
#include <string.h>

enum { SAMPLER = 1, BALLAST = 2 };

static _Alignas(16) unsigned char memory[65536];

static const char *health(void) {
    static char buffer[128];
    struct text text = TEXT_IN(buffer);
    buffer[0] = '\0';
    sampler_health(&text);
    return buffer;
}

/* Does the smallest kept sample say that the ballast was there? */
static bool remembers_ballast(void) {
    const char *least = strstr(health(), "at least ");
    return least != NULL && strtoul(least + strlen("at least "), NULL, 10) < 40000;
}

void run_tests(void) {
    heap_init(memory, sizeof memory);
    CHECK(sampler_set(SAMPLER, 4) && strcmp(health(), "0 of 4 samples") == 0);
    sampler_loop();
    sampler_loop();
    CHECK(!remembers_ballast());
    CHECK(ballast_set(BALLAST, 30000));
    sampler_loop();
    CHECK(ballast_set(BALLAST, 0));
    for (int i = 0; i < 3; i++) {
        sampler_loop(); /* the third one takes the place of the second sample */
    }
    CHECK(strncmp(health(), "4 of 4 samples", 14) == 0 && remembers_ballast());
    CHECK(sampler_set(SAMPLER, 8));
    CHECK(strncmp(health(), "4 of 8 samples", 14) == 0 && remembers_ballast());
    CHECK(!sampler_set(SAMPLER, 1u << 30) && remembers_ballast());
    CHECK(sampler_set(SAMPLER, 3)); /* the newest three, which are from after it */
    CHECK(strncmp(health(), "3 of 3 samples", 14) == 0 && !remembers_ballast());
    sampler_loop();
    CHECK(strncmp(health(), "3 of 3 samples", 14) == 0);
    CHECK(heap_held(SAMPLER) == 32 && heap_held(BALLAST) == 0);
}
