#include "flash_map.h"

#include "soc.h"
#include "watchdog.h"

enum { TABLE_ROWS = TABLE_SIZE / sizeof(struct row) };

static const uint32_t WINDOW = MMU_ENTRIES - 1; /* the last page: an image never gets there */

__attribute__((section(".iram.text"), noinline)) static void map_page(uint32_t index,
                                                                      uint32_t flash_page) {
    mmu_map(index, flash_page, 1);
}

/* Shows the page of `offset` in the window; `*size` becomes what of it lies there. */
static const uint8_t *show(uint32_t offset, uint32_t *size) {
    uint32_t in_page = offset % MMU_PAGE, room = MMU_PAGE - in_page;
    *size = *size < room ? *size : room;
    map_page(WINDOW, offset / MMU_PAGE);
    return (const uint8_t *)(DROM_BASE + WINDOW * MMU_PAGE + in_page);
}

void flash_read(uint32_t offset, void *to, uint32_t size) {
    uint8_t *at = to;
    while (size > 0) {
        uint32_t part = size;
        const uint8_t *from = show(offset, &part);
        for (uint32_t i = 0; i < part; i++) {
            *at++ = from[i];
        }
        offset += part;
        size -= part;
    }
    map_page(WINDOW, MMU_INVALID);
}

__attribute__((section(".iram.text"), noinline)) void
flash_rewrite(uint32_t offset, const void *from, uint32_t size) {
    flash_rewrite_sector(offset, from, size);
}

void flash_sha256(uint32_t offset, uint32_t size, uint8_t digest[32]) {
    static struct rom_context context;
    ROM_ets_sha_enable();
    ROM_ets_sha_init(&context, ROM_SHA2_256);
    ROM_ets_sha_starts(&context, 0);
    while (size > 0) {
        uint32_t part = size;
        const uint8_t *from = show(offset, &part);
        ROM_ets_sha_update(&context, from, part, false);
        offset += part;
        size -= part;
        watchdog_feed();
    }
    ROM_ets_sha_finish(&context, digest);
    map_page(WINDOW, MMU_INVALID);
}

int table_row(unsigned index, struct row *row) {
    if (index >= TABLE_ROWS) {
        return 0;
    }
    flash_read(TABLE_OFFSET + index * sizeof *row, row, sizeof *row);
    return row->magic == ROW_MAGIC;
}

/* The MMU entry of this code's own page says where it comes from. */
uint32_t running_page(void) {
    return MMU_ENTRY(MMU_INDEX(running_page)) * MMU_PAGE;
}

const char *running_partition(void) {
    static char label[sizeof((struct row *)0)->label + 1];
    uint32_t here = running_page();
    struct row row;
    for (unsigned i = 0; table_row(i, &row); i++) {
        if (row.type == TYPE_APP && here >= row.offset && here - row.offset < row.size) {
            for (unsigned c = 0; c < sizeof row.label; c++) {
                label[c] = row.label[c];
            }
            break;
        }
    }
    return label;
}
