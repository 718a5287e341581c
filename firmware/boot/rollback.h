/* Which application is to start, by otadata, and the life of an update (otadata.h) as ESP-IDF's
 * bootloader with rollback has it. */
#ifndef BOOT_ROLLBACK_H
#define BOOT_ROLLBACK_H

#include "table.h"

enum { NO_SLOT = -1 };

/* Number of the slot to start with, NO_SLOT for the default. An update that was started once and
 * never said that it works is ABORTED; one that is NEW is started as PENDING_VERIFY. */
int rollback_choose(const struct table *table);

#endif
