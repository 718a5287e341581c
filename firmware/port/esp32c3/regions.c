/* What lies in flash: bootloader, partition table, otadata and every slot with a whole image, each
 * with the exact size of what was written, so that a host can compare digests with its files. */
#include "port.h"

#include "flash_map.h"

enum {
    IMAGE_MAGIC = 0xE9,
    HEADER_SIZE = 24,
    SEGMENTS_MAX = 16,
    HASH_SIZE = 32,
    BOOTLOADER_OFFSET = 0,
};

/* Length of the image at `offset` by its headers, 0 when there is none that fits `limit`. */
static uint32_t image_size(uint32_t offset, uint32_t limit) {
    uint8_t header[HEADER_SIZE];
    uint32_t segment[2], at = HEADER_SIZE;
    flash_read(offset, header, sizeof header);
    if (header[0] != IMAGE_MAGIC || header[1] == 0 || header[1] > SEGMENTS_MAX) {
        return 0;
    }
    for (int i = 0; i < header[1]; i++) {
        flash_read(offset + at, segment, sizeof segment);
        if (segment[1] > limit || at + sizeof segment > limit - segment[1]) {
            return 0;
        }
        at += sizeof segment + segment[1];
    }
    at = (at | 15) + 1; /* the checksum ends a block of 16 bytes */
    at += header[HEADER_SIZE - 1] != 0 ? HASH_SIZE : 0;
    return at <= limit ? at : 0;
}

/* Does the image end with the SHA-256 of what comes before? */
static bool is_whole(uint32_t offset, uint32_t size) {
    uint8_t computed[HASH_SIZE], stored[HASH_SIZE];
    if (size <= HASH_SIZE) {
        return false;
    }
    flash_sha256(offset, size - HASH_SIZE, computed);
    flash_read(offset + size - HASH_SIZE, stored, sizeof stored);
    for (int i = 0; i < HASH_SIZE; i++) {
        if (computed[i] != stored[i]) {
            return false;
        }
    }
    return true;
}

struct list {
    struct port_region *regions;
    size_t count, max;
};

static void add(struct list *list, const char *name, uint32_t offset, uint32_t size) {
    if (size == 0 || list->count == list->max) {
        return;
    }
    struct port_region *region = &list->regions[list->count++];
    *region = (struct port_region){.offset = offset, .size = size};
    for (size_t i = 0; i + 1 < sizeof region->name && name[i] != '\0'; i++) {
        region->name[i] = name[i];
    }
}

static void add_partition(struct list *list, const struct row *row) {
    char label[sizeof row->label + 1];
    for (size_t i = 0; i < sizeof row->label; i++) {
        label[i] = row->label[i];
    }
    label[sizeof row->label] = '\0';
    if (row->type == TYPE_DATA && row->subtype == SUBTYPE_OTADATA) {
        add(list, label, row->offset, row->size);
    } else if (row->type == TYPE_APP) {
        uint32_t size = image_size(row->offset, row->size);
        bool running = running_page() >= row->offset && running_page() - row->offset < row->size;
        if (running || is_whole(row->offset, size)) {
            size_t before = list->count;
            add(list, label, row->offset, size);
            if (list->count > before) {
                list->regions[before].running = running;
            }
        }
    }
}

size_t port_regions(struct port_region *regions, size_t max) {
    struct list list = {regions, 0, max};
    struct row row;
    add(&list, "bootloader", BOOTLOADER_OFFSET, image_size(BOOTLOADER_OFFSET, TABLE_OFFSET));
    add(&list, "partitions", TABLE_OFFSET, TABLE_SIZE);
    for (unsigned i = 0; table_row(i, &row); i++) {
        add_partition(&list, &row);
    }
    return list.count;
}

void port_sha256(const struct port_region *region, uint8_t digest[PORT_DIGEST_SIZE]) {
    flash_sha256(region->offset, region->size, digest);
}
