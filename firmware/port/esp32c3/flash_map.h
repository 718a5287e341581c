/* Flash as the running application sees it: read and digest any part of it, find its partitions. */
#ifndef ESP32C3_FLASH_MAP_H
#define ESP32C3_FLASH_MAP_H

#include "partition.h"

#include <stdint.h>

/* Copies flash to memory. */
void flash_read(uint32_t offset, void *to, uint32_t size);

/* Erases the sector at `offset` and writes `size` bytes, a multiple of 4, of RAM to its beginning.
 */
void flash_rewrite(uint32_t offset, const void *from, uint32_t size);

void flash_sha256(uint32_t offset, uint32_t size, uint8_t digest[32]);

/* The row `index` of the partition table; 0 behind the last one. */
int table_row(unsigned index, struct row *row);

/* Offset in flash of the page that the running code comes from. */
uint32_t running_page(void);

/* Label of the partition that holds it; empty when the table has none there. */
const char *running_partition(void);

#endif
