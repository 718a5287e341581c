#include "ota.h"

#include "flash_map.h"
#include "otadata.h"
#include "port.h"

#include <stdbool.h>

struct slots {
    uint32_t otadata_offset; /* 0: none */
    uint32_t count;
    int running;             /* number of the slot that this code comes from, -1 for none */
    uint32_t running_offset; /* of it, or of the factory application */
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
        if (row.type == TYPE_APP && here >= row.offset && here - row.offset < row.size) {
            slots.running_offset = row.offset;
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

/* --- core/port.h: an update ---------------------------------------------------------------------
 */

bool port_update_slot(struct port_slot *slot) {
    struct slots slots = read_slots();
    struct row row;
    if (slots.otadata_offset == 0 || slots.count == 0 || (slots.count == 1 && slots.running == 0)) {
        return false;
    }
    *slot = (struct port_slot){.running_offset = slots.running_offset};
    slot->number = slots.running < 0 ? 0 : (uint32_t)(slots.running + 1) % slots.count;
    for (unsigned i = 0; table_row(i, &row); i++) {
        if (row.type == TYPE_APP && row.subtype == SUBTYPE_OTA_0 + slot->number) {
            slot->offset = row.offset;
            slot->size = row.size;
            for (unsigned c = 0; c < sizeof row.label; c++) {
                slot->name[c] = row.label[c];
            }
            return true;
        }
    }
    return false;
}

void port_update_read(const struct port_slot *slot, uint32_t at, uint8_t *block, uint32_t size) {
    flash_read(slot->running_offset + at, block, size);
}

bool port_update_write(const struct port_slot *slot, uint32_t at, const uint8_t *block,
                       uint32_t size) {
    static uint8_t back[PORT_BLOCK];
    /* The ROM writes whole words; what follows the image stays erased. */
    flash_rewrite(slot->offset + at, block, (size + 3) & ~3u);
    flash_read(slot->offset + at, back, size);
    for (uint32_t i = 0; i < size; i++) {
        if (back[i] != block[i]) {
            return false;
        }
    }
    return true;
}

bool port_update_select(const struct port_slot *slot) {
    struct otadata copies[OTADATA_COPIES];
    struct slots slots = read_slots();
    for (uint32_t i = 0; i < OTADATA_COPIES; i++) {
        flash_read(slots.otadata_offset + i * OTADATA_COPY, &copies[i], sizeof copies[i]);
    }
    int active = otadata_active(copies);
    uint32_t sequence = active < 0 ? 0 : copies[active].sequence;
    /* The next number that means this slot; into the copy that does not count, so that a power cut
     * leaves the other. */
    do {
        sequence++;
    } while ((sequence - 1) % slots.count != slot->number);
    uint32_t index = active < 0 ? 0 : 1 - (uint32_t)active;
    struct otadata chosen = {
        .sequence = sequence, .state = STATE_NEW, .crc = otadata_crc(sequence)};
    for (unsigned c = 0; c < sizeof chosen.label; c++) {
        chosen.label[c] = 0xFF;
    }
    uint32_t at = slots.otadata_offset + index * OTADATA_COPY;
    flash_rewrite(at, &chosen, sizeof chosen);
    flash_read(at, &copies[0], sizeof copies[0]);
    return otadata_valid(&copies[0]) && copies[0].sequence == sequence;
}
