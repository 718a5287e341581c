/* Flash as memory: the one way in which this bootloader reads it. */
#ifndef BOOT_FLASH_H
#define BOOT_FLASH_H

#include <stdint.h>

/* Maps `size` bytes from `offset` of flash and returns where they can be read. The next call takes
 * the mapping away. */
const uint8_t *flash_map(uint32_t offset, uint32_t size);

/* Takes every mapping away, then points the window's page of `address` at flash. */
void flash_unmap_all(void);
void flash_map_at(uint32_t address, uint32_t offset, uint32_t size);

#endif
