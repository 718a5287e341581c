#include "ota.h"

#include "flash_map.h"
#include "otadata.h"

#include <stdbool.h>

struct slots {
    uint32_t otadata_offset; /* 0: none */
    uint32_t count;
    int running; /* number of the slot that this code comes from, -1 for none */
};

static struct slots read_slots(void) {
    struct slots slots = {.running = -1};
    struct row row;
    uint32_t here = running_page();
    for (unsigned i = 0; table_row(i, &row); i++) {
        if (row.type == TYPE_DATA && row.subtype == SUBTYPE_OTADATA) {
            slots.otadata_offset = row.offset;
        } else if (row.type == TYPE_APP && row.subtype >= SUBTYPE_OTA_0 &&
                   row.subtype < SUBTYPE_OTA_0 + OTA_MAX) {
            slots.count++;
            if (here >= row.offset && here - row.offset < row.size) {
                slots.running = row.subtype - SUBTYPE_OTA_0;
            }
        }
    }
    return slots;
}

/* Is it this application whose update waits? After a bad image another one runs. */
static bool waits(const struct otadata *active, const struct slots *slots) {
    return active->state == STATE_PENDING_VERIFY && slots->count > 0 &&
           (active->sequence - 1) % slots->count == (uint32_t)slots->running;
}

void ota_confirm(void) {
    struct otadata copies[OTADATA_COPIES];
    struct slots slots = read_slots();
    if (slots.otadata_offset == 0) {
        return;
    }
    for (uint32_t i = 0; i < OTADATA_COPIES; i++) {
        flash_read(slots.otadata_offset + i * OTADATA_COPY, &copies[i], sizeof copies[i]);
    }
    int active = otadata_active(copies);
    if (active >= 0 && waits(&copies[active], &slots)) {
        copies[active].state = STATE_VALID;
        flash_rewrite(slots.otadata_offset + (uint32_t)active * OTADATA_COPY, &copies[active],
                      sizeof copies[active]);
    }
}
