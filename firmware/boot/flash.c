#include "flash.h"

#include "soc.h"

static uint32_t pages(uint32_t offset, uint32_t size) {
    return (offset % MMU_PAGE + size + MMU_PAGE - 1) / MMU_PAGE;
}

void flash_unmap_all(void) {
    mmu_map(0, MMU_INVALID, MMU_ENTRIES);
    CACHE_BUS_GATES &= ~3u;
}

void flash_map_at(uint32_t address, uint32_t offset, uint32_t size) {
    mmu_map(MMU_INDEX(address), offset / MMU_PAGE, pages(offset, size));
}

const uint8_t *flash_map(uint32_t offset, uint32_t size) {
    mmu_map(0, offset / MMU_PAGE, pages(offset, size));
    return (const uint8_t *)(DROM_BASE + offset % MMU_PAGE);
}

bool flash_rewrite(uint32_t offset, const void *from, uint32_t size) {
    return flash_rewrite_sector(offset, from, size);
}
