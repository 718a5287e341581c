/* What the partition table says about applications. */
#ifndef BOOT_TABLE_H
#define BOOT_TABLE_H

#include "partition.h"

struct table {
    struct row apps[OTA_MAX + 1];
    unsigned app_count, slot_count;
    uint32_t otadata_offset; /* 0: none */
};

/* Copies it out of flash; "" or what is wrong with it. */
const char *table_read(struct table *table);

/* The application of this subtype, NULL when there is none. */
const struct row *table_app(const struct table *table, unsigned subtype);

#endif
