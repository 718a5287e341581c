#include "image.h"

#include "digest.h"
#include "flash.h"
#include "soc.h"

#include <stdbool.h>

struct header {
    uint8_t magic, segments, spi_mode, spi_speed_size;
    uint32_t entry;
    uint8_t wp_pin, drive[3];
    uint16_t chip_id;
    uint8_t min_revision_old;
    uint16_t min_revision, max_revision;
    uint8_t reserved[4];
    uint8_t hash_appended;
} __attribute__((packed));

struct segment {
    uint32_t address, size;
};

_Static_assert(sizeof(struct header) == 24, "fixed by the image format");

enum { MAGIC = 0xE9, SEGMENTS_MAX = 16, CHIP_ESP32C3 = 5, HASH_SIZE = 32, CHECKSUM_SEED = 0xEF };

/* RAM that an application may load to: what its linker script has, without this bootloader. */
static bool in_app_ram(uint32_t address, uint32_t size) {
    uint32_t start = address >= 0x40000000 ? address - 0x700000 : address;
    return start >= 0x3FC80000 && start < 0x3FCCAE00 && size <= 0x3FCCAE00 - start;
}

static bool in_flash_window(uint32_t address, uint32_t size) {
    uint32_t window = address & 0xFF800000;
    return (window == DROM_BASE || window == IROM_BASE) && size <= window + 0x800000 - address;
}

static uint32_t xor_words(const uint8_t *data, uint32_t size) {
    uint32_t sum = 0;
    for (const uint32_t *word = (const uint32_t *)data; size > 0; size -= 4) {
        sum ^= *word++;
    }
    return sum;
}

static const char *segment_fault(const struct segment *segment, uint32_t flash_offset) {
    if (segment->address == 0) {
        return ""; /* padding */
    }
    if (in_flash_window(segment->address, segment->size)) {
        bool aligned = segment->address % MMU_PAGE == flash_offset % MMU_PAGE;
        return aligned ? "" : "segment not aligned to flash pages";
    }
    return in_app_ram(segment->address, segment->size) ? "" : "segment outside memory";
}

const char *image_fault(uint32_t offset, uint32_t size) {
    const uint8_t *image = flash_map(offset, size);
    const struct header *header = (const struct header *)image;
    if (header->magic != MAGIC) {
        return "no image";
    }
    if (header->segments == 0 || header->segments > SEGMENTS_MAX) {
        return "bad segment count";
    }
    if (header->chip_id != CHIP_ESP32C3) {
        return "image for another chip";
    }
    uint32_t at = sizeof *header, sum = CHECKSUM_SEED;
    for (int i = 0; i < header->segments; i++) {
        const struct segment *segment = (const struct segment *)(image + at);
        if (size - at < sizeof *segment || segment->size % 4 != 0 ||
            segment->size > size - at - sizeof *segment) {
            return "segment beyond its partition";
        }
        at += sizeof *segment;
        const char *fault = segment_fault(segment, offset + at);
        if (*fault != '\0') {
            return fault;
        }
        sum ^= xor_words(image + at, segment->size);
        at += segment->size;
    }
    at |= 15; /* the checksum is the last byte of a 16-byte block */
    if (at + 1 > size - (header->hash_appended ? HASH_SIZE : 0)) {
        return "checksum beyond its partition";
    }
    sum ^= sum >> 16;
    if (((sum ^ sum >> 8) & 0xFF) != image[at]) {
        return "bad checksum";
    }
    if (header->hash_appended && !sha256_matches(image, at + 1, image + at + 1)) {
        return "bad SHA-256";
    }
    return "";
}

static void copy_words(uint32_t address, const uint8_t *data, uint32_t size) {
    volatile uint32_t *to = (volatile uint32_t *)address;
    for (const uint32_t *from = (const uint32_t *)data; size > 0; size -= 4) {
        *to++ = *from++;
    }
}

_Noreturn void image_start(uint32_t offset, uint32_t size) {
    const uint8_t *image = flash_map(offset, size);
    const struct header *header = (const struct header *)image;
    struct segment
        mapped[SEGMENTS_MAX]; /* with the offset in flash, known before the window moves */
    uint32_t mapped_at[SEGMENTS_MAX];
    int mapped_count = 0;
    uint32_t entry = header->entry, at = sizeof *header;
    for (int i = 0; i < header->segments; i++) {
        const struct segment *segment = (const struct segment *)(image + at);
        at += sizeof *segment;
        if (in_flash_window(segment->address, segment->size)) {
            mapped[mapped_count].address = segment->address;
            mapped[mapped_count].size = segment->size;
            mapped_at[mapped_count++] = offset + at;
        } else if (segment->address != 0) {
            copy_words(segment->address, image + at, segment->size);
        }
        at += segment->size;
    }
    flash_unmap_all();
    for (int i = 0; i < mapped_count; i++) {
        flash_map_at(mapped[i].address, mapped_at[i], mapped[i].size);
    }
    /* binutils 2.38 and newer take it only as an extension of its own */
    __asm__ volatile(".option push\n.option arch, +zifencei\nfence.i\n.option pop");
    ((void (*)(void))entry)();
    for (;;) {
    }
}
