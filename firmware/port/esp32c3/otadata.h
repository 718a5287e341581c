/* Which slot starts, and how far its update is, in ESP-IDF's format: two copies, a sector each, of
 * which the valid one with the larger sequence number counts. */
#ifndef ESP32C3_OTADATA_H
#define ESP32C3_OTADATA_H

#include <stdbool.h>
#include <stdint.h>

enum { OTADATA_COPIES = 2, OTADATA_COPY = 0x1000 };
#define SEQUENCE_NONE 0xFFFFFFFFu

/* Life of an update: written NEW, PENDING_VERIFY while it runs for the first time, then VALID when
 * it says so, INVALID when it says not, ABORTED when it came to neither. */
enum {
    STATE_NEW = 0,
    STATE_PENDING_VERIFY = 1,
    STATE_VALID = 2,
    STATE_INVALID = 3,
    STATE_ABORTED = 4,
};
#define STATE_UNDEFINED 0xFFFFFFFFu /* started without any of this */

struct otadata {
    uint32_t sequence; /* slot: (sequence - 1) % number of slots */
    uint8_t label[20];
    uint32_t state;
    uint32_t crc;
};

/* CRC-32 with zlib's polynomial over the sequence number alone. */
static inline uint32_t otadata_crc(uint32_t sequence) {
    uint32_t crc = 0;
    for (int bit = 0; bit < 32; bit++) {
        crc = crc >> 1 ^ ((crc ^ sequence >> bit) & 1 ? 0xEDB88320 : 0);
    }
    return ~crc;
}

static inline bool otadata_valid(const struct otadata *copy) {
    return copy->sequence != SEQUENCE_NONE && copy->state != STATE_INVALID &&
           copy->state != STATE_ABORTED && copy->crc == otadata_crc(copy->sequence);
}

/* Index of the copy that counts, -1 when none does. */
static inline int otadata_active(const struct otadata copies[OTADATA_COPIES]) {
    bool first = otadata_valid(&copies[0]), second = otadata_valid(&copies[1]);
    if (first && second) {
        return copies[1].sequence > copies[0].sequence;
    }
    return first ? 0 : second ? 1 : -1;
}

#endif
