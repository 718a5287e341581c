/* Flash as memory, which is how this bootloader reads it, and the one way in which it writes. */
#ifndef BOOT_FLASH_H
#define BOOT_FLASH_H

#include <stdbool.h>
#include <stdint.h>

/* Maps `size` bytes from `offset` of flash and returns where they can be read. The next call takes
 * the mapping away. */
const uint8_t *flash_map(uint32_t offset, uint32_t size);

/* Takes every mapping away, then points the window's page of `address` at flash. */
void flash_unmap_all(void);
void flash_map_at(uint32_t address, uint32_t offset, uint32_t size);

/* Erases the sector at `offset` and writes `size` bytes, a multiple of 4, of RAM to its beginning.
 */
bool flash_rewrite(uint32_t offset, const void *from, uint32_t size);

#endif
