/* The partition table as it lies in flash, in ESP-IDF's format, for bootloader and application. */
#ifndef ESP32C3_PARTITION_H
#define ESP32C3_PARTITION_H

#include <stdint.h>

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
};

struct row {
    uint16_t magic;
    uint8_t type, subtype;
    uint32_t offset, size;
    char label[16]; /* not terminated when all are used */
    uint32_t flags;
};

#endif
