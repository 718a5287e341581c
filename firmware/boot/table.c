#include "table.h"

#include "digest.h"
#include "flash.h"

#include <stdbool.h>
#include <stddef.h>

/* Byte by byte: the compiler would call memcpy() for a whole row. */
static void copy_row(struct row *to, const struct row *from) {
    to->subtype = from->subtype;
    to->offset = from->offset;
    to->size = from->size;
    for (unsigned i = 0; i < sizeof to->label; i++) {
        to->label[i] = from->label[i];
    }
}

static void note_row(struct table *table, const struct row *row) {
    if (row->type == TYPE_DATA && row->subtype == SUBTYPE_OTADATA) {
        table->otadata_offset = row->offset;
    }
    bool slot = row->subtype >= SUBTYPE_OTA_0 && row->subtype < SUBTYPE_OTA_0 + OTA_MAX;
    if (row->type == TYPE_APP && (slot || row->subtype == SUBTYPE_FACTORY) &&
        table->app_count <= OTA_MAX) {
        table->slot_count += slot;
        copy_row(&table->apps[table->app_count++], row);
    }
}

const char *table_read(struct table *table) {
    const uint8_t *start = flash_map(TABLE_OFFSET, TABLE_SIZE);
    const struct row *row = (const struct row *)start;
    const struct row *end = row + TABLE_SIZE / sizeof *row;
    for (; row < end && row->magic == ROW_MAGIC; row++) {
        note_row(table, row);
    }
    if (row < end && row->magic == MD5_MAGIC) {
        const uint8_t *md5 = (const uint8_t *)row + 16;
        if (!md5_matches(start, (uint32_t)((const uint8_t *)row - start), md5)) {
            return "partition table: bad MD5";
        }
    }
    return table->app_count == 0 ? "partition table: no application" : "";
}

const struct row *table_app(const struct table *table, unsigned subtype) {
    for (unsigned i = 0; i < table->app_count; i++) {
        if (table->apps[i].subtype == subtype) {
            return &table->apps[i];
        }
    }
    return NULL;
}
