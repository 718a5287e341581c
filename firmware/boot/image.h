/* Application images: check one completely, then load and start it. */
#ifndef BOOT_IMAGE_H
#define BOOT_IMAGE_H

#include <stdint.h>

/* Why the image at `offset` of flash (in a partition of `size` bytes) cannot be started; "" when
 * nothing is wrong with it. */
const char *image_fault(uint32_t offset, uint32_t size);

/* Starts an image that image_fault() found good. */
_Noreturn void image_start(uint32_t offset, uint32_t size);

#endif
