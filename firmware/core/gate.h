/* Lets a measured value through to the log when it has news: edges, not heartbeats. */
#ifndef CORE_GATE_H
#define CORE_GATE_H

#include <stdbool.h>
#include <stdint.h>

#define GATE_CHANGE_PERCENT 20
#define GATE_SILENCE_MS 60000

/* All zero: nothing was let through yet. */
struct gate {
    bool used;
    uint32_t value; /* the last one let through */
    uint64_t at_ms;
};

/* True for the first value, for one that differs by more than 20 % from the last one that was let
 * through, and after 60 s without any. */
bool gate_passes(struct gate *gate, uint32_t value, uint64_t now_ms);

#endif
