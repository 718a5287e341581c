/* How much memory is left, in log lines of one form that a host can parse:
 *
 *   [MemBoot] sampler: -1KB = 262KB (frag=0%, largest=262KB)
 *   [MemLive] heap: -96KB = 166KB (frag=0%, largest=166KB)
 *
 * tag, who, change since the line before, free, fragmentation, largest block. */
#ifndef CORE_MEMLOG_H
#define CORE_MEMLOG_H

#include <stdint.h>

/* One line per step of the start-up. */
void memlog_boot(const char *step);

/* Looks at the heap; a line when it changed by 20 % or was silent for 60 s, and one each time the
 * largest block falls below the reserve (a warning) or rises above it again. */
void memlog_watch(uint64_t now_ms);

#endif
