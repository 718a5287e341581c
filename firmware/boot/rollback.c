#include "rollback.h"

#include "flash.h"
#include "log.h"
#include "otadata.h"

static void copy_words(struct otadata *to, const struct otadata *from) {
    volatile uint32_t *word = (volatile uint32_t *)to;
    for (unsigned i = 0; i < sizeof *to / 4; i++) {
        word[i] = ((const uint32_t *)from)[i];
    }
}

static void set_state(const struct table *table, struct otadata *copies, int index, uint32_t state,
                      const char *what) {
    copies[index].state = state;
    uint32_t offset = table->otadata_offset + (uint32_t)index * OTADATA_COPY;
    bool done = flash_rewrite(offset, &copies[index], sizeof copies[index]);
    log_text("boot: otadata[");
    log_decimal((uint32_t)index);
    log_text(what);
    log_text(done ? "" : ", which could not be written");
    log_end();
}

int rollback_choose(const struct table *table) {
    static struct otadata copies[OTADATA_COPIES];
    if (table->otadata_offset == 0 || table->slot_count == 0) {
        return NO_SLOT;
    }
    for (int i = 0; i < OTADATA_COPIES; i++) {
        uint32_t offset = table->otadata_offset + (uint32_t)i * OTADATA_COPY;
        copy_words(&copies[i], (const struct otadata *)flash_map(offset, sizeof copies[i]));
    }
    for (int i = 0; i < OTADATA_COPIES; i++) {
        if (copies[i].state == STATE_PENDING_VERIFY) {
            set_state(table, copies, i, STATE_ABORTED, "] was never confirmed: aborted");
        }
    }
    int active = otadata_active(copies);
    if (active < 0) {
        return NO_SLOT;
    }
    if (copies[active].state == STATE_NEW) {
        set_state(table, copies, active, STATE_PENDING_VERIFY, "] is new: pending verify");
    }
    log_text("boot: otadata seq ");
    log_decimal(copies[active].sequence);
    log_text(" selects ");
    return (int)((copies[active].sequence - 1) % table->slot_count);
}
