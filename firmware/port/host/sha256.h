/* SHA-256 (FIPS 180-4): a host has no mask ROM that could compute it. */
#ifndef HOST_SHA256_H
#define HOST_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct sha256 {
    uint32_t state[8];
    uint64_t size; /* bytes so far */
    uint8_t block[64];
};

void sha256_begin(struct sha256 *sha);
void sha256_add(struct sha256 *sha, const uint8_t *bytes, size_t size);
void sha256_end(struct sha256 *sha, uint8_t digest[32]);

#endif
