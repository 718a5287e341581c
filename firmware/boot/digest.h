/* Digests by the mask ROM's own code, as ESP-IDF's bootloader does: nothing to carry along. */
#ifndef BOOT_DIGEST_H
#define BOOT_DIGEST_H

#include <stdbool.h>
#include <stdint.h>

bool sha256_matches(const uint8_t *data, uint32_t size, const uint8_t expected[32]);
bool md5_matches(const uint8_t *data, uint32_t size, const uint8_t expected[16]);

#endif
