/* Second-stage bootloader: chooses an application by partition table and otadata, checks it, falls
 * back to the others when it is bad, starts it. Never writes flash.
 *
 * Formats are ESP-IDF's (partition table, otadata), so its tools read and write them. */
#include "digest.h"
#include "flash.h"
#include "image.h"
#include "log.h"
#include "soc.h"

#include <stdbool.h>

enum {
    TABLE_OFFSET = 0x8000,
    TABLE_SIZE = 0xC00,
    ROW_MAGIC = 0x50AA,
    MD5_MAGIC = 0xEBEB,
    TYPE_APP = 0,
    TYPE_DATA = 1,
    SUBTYPE_FACTORY = 0,
    SUBTYPE_OTADATA = 0,
    SUBTYPE_OTA_0 = 0x10,
    OTA_MAX = 16,
    OTADATA_COPY = 0x1000,
    STATE_INVALID = 3,
    STATE_ABORTED = 4,
};

struct row {
    uint16_t magic;
    uint8_t type, subtype;
    uint32_t offset, size;
    char label[16];
    uint32_t flags;
};

struct otadata {
    uint32_t sequence;
    uint8_t label[20];
    uint32_t state;
    uint32_t crc;
};

/* What the table says; copied, because the next mapping takes the table away. */
static struct {
    struct row apps[OTA_MAX + 1];
    unsigned app_count, slot_count;
    uint32_t otadata_offset; /* 0: none */
} table;

static void log_label(const struct row *row) {
    char label[sizeof row->label + 1];
    for (unsigned i = 0; i < sizeof row->label; i++) {
        label[i] = row->label[i];
    }
    label[sizeof row->label] = '\0';
    log_text(label);
}

static _Noreturn void restart(void) {
    uart_drain();
    RTC_OPTIONS0 |= RTC_SW_SYS_RST;
    for (;;) {
    }
}

static _Noreturn void fail(const char *why) {
    log_text("boot: error: ");
    log_text(why);
    log_end();
    restart();
}

_Noreturn void boot_trap(uint32_t mcause, uint32_t mepc) {
    log_text("boot: error: trap ");
    log_decimal(mcause);
    log_text(" at ");
    log_hex(mepc);
    log_end();
    restart();
}

static void note_row(const struct row *row) {
    if (row->type == TYPE_DATA && row->subtype == SUBTYPE_OTADATA) {
        table.otadata_offset = row->offset;
    }
    bool slot = row->subtype >= SUBTYPE_OTA_0 && row->subtype < SUBTYPE_OTA_0 + OTA_MAX;
    if (row->type == TYPE_APP && (slot || row->subtype == SUBTYPE_FACTORY) &&
        table.app_count <= OTA_MAX) {
        table.slot_count += slot;
        struct row *to = &table.apps[table.app_count++];
        to->subtype = row->subtype;
        to->offset = row->offset;
        to->size = row->size;
        for (unsigned i = 0; i < sizeof row->label; i++) {
            to->label[i] = row->label[i];
        }
    }
}

static void read_table(void) {
    const uint8_t *start = flash_map(TABLE_OFFSET, TABLE_SIZE);
    const struct row *row = (const struct row *)start;
    const struct row *end = row + TABLE_SIZE / sizeof *row;
    for (; row < end && row->magic == ROW_MAGIC; row++) {
        note_row(row);
    }
    if (row < end && row->magic == MD5_MAGIC) {
        const uint8_t *md5 = (const uint8_t *)row + 16;
        if (!md5_matches(start, (uint32_t)((const uint8_t *)row - start), md5)) {
            fail("partition table: bad MD5");
        }
    }
    if (table.app_count == 0) {
        fail("partition table: no application");
    }
}

static bool valid(const struct otadata *copy) {
    return copy->sequence != 0xFFFFFFFF && copy->state != STATE_INVALID &&
           copy->state != STATE_ABORTED && copy->crc == otadata_crc(copy->sequence);
}

/* The larger sequence number of the valid copies; 0 when none is valid. */
static uint32_t read_otadata(void) {
    uint32_t sequence = 0;
    for (uint32_t i = 0; table.otadata_offset != 0 && i < 2; i++) {
        const struct otadata *copy = (const struct otadata *)flash_map(
            table.otadata_offset + i * OTADATA_COPY, sizeof(struct otadata));
        if (valid(copy) && copy->sequence > sequence) {
            sequence = copy->sequence;
        }
    }
    return sequence;
}

static const struct row *find_app(uint8_t subtype) {
    for (unsigned i = 0; i < table.app_count; i++) {
        if (table.apps[i].subtype == subtype) {
            return &table.apps[i];
        }
    }
    return &table.apps[0];
}

static const struct row *choose(void) {
    uint32_t sequence = table.slot_count > 0 ? read_otadata() : 0;
    const struct row *app;
    log_text("boot: otadata ");
    if (sequence == 0) {
        app = find_app(SUBTYPE_FACTORY);
        app = app->subtype == SUBTYPE_FACTORY ? app : find_app(SUBTYPE_OTA_0);
        log_text("has no valid entry, default is ");
    } else {
        app = find_app((uint8_t)(SUBTYPE_OTA_0 + (sequence - 1) % table.slot_count));
        log_text("seq ");
        log_decimal(sequence);
        log_text(" selects ");
    }
    log_label(app);
    log_end();
    return app;
}

/* The watchdogs that the ROM started stay on: they end a boot that hangs. */
static void feed_watchdogs(void) {
    RTC_WDT_PROTECT = WDT_KEY;
    RTC_WDT_FEED = 1u << 31;
    RTC_WDT_PROTECT = 0;
    TIMG_WDT_PROTECT(0) = WDT_KEY;
    TIMG_WDT_FEED(0) = 1;
    TIMG_WDT_PROTECT(0) = 0;
}

/* Comes back only when the image is bad. */
static void try_to_start(const struct row *app) {
    feed_watchdogs();
    const char *fault = image_fault(app->offset, app->size);
    log_text("boot: ");
    log_label(app);
    if (*fault != '\0') {
        log_text(" rejected: ");
        log_text(fault);
        log_end();
        return;
    }
    log_text(" starts from ");
    log_hex(app->offset);
    log_end();
    image_start(app->offset, app->size);
}

_Noreturn void boot_main(void) {
    flash_unmap_all();
    read_table();
    const struct row *chosen = choose();
    try_to_start(chosen);
    for (unsigned i = 0; i < table.app_count; i++) {
        if (&table.apps[i] != chosen) {
            try_to_start(&table.apps[i]);
        }
    }
    fail("no application can be started");
}
