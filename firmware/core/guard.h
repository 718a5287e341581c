/* Who may have memory, and who is to blame when somebody may not.
 *
 * A refusal is no accident of the one who asked last: the *cause* is who takes most of the heap,
 * the asker's request counted to the asker. The cause is marked until the refused one gets its
 * memory. */
#ifndef CORE_GUARD_H
#define CORE_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* What must stay free for everything that cannot be refused. */
#define HEAP_RESERVE 16384

/* Would a request for `bytes` leave `reserve` free? Free memory in pieces that are too small does
 * not count: the largest block is looked at, too. */
bool check_alloc(size_t bytes, size_t reserve);

/* Memory for `owner` if the reserve allows it, else NULL and a cause. A new buffer is asked for
 * before the old one is freed: who is refused still has what it had. */
void *guard_alloc(unsigned owner, size_t bytes);

/* The cause of the last refusal of `owner`, 0 when it was not refused since it last got memory. */
unsigned guard_cause(unsigned owner);

/* Is `owner` the cause of anybody's refusal? */
bool guard_at_fault(unsigned owner);

/* `owner` needs no memory any more, so a refusal of before no longer counts. */
void guard_forgive(unsigned owner);

#endif
