#include "digest.h"

#include "soc.h"

static struct rom_context context;

static bool same(const uint8_t *a, const uint8_t *b, uint32_t size) {
    uint32_t i = 0;
    while (i < size && a[i] == b[i]) {
        i++;
    }
    return i == size;
}

bool sha256_matches(const uint8_t *data, uint32_t size, const uint8_t expected[32]) {
    uint8_t digest[32];
    ROM_ets_sha_enable();
    ROM_ets_sha_init(&context, ROM_SHA2_256);
    ROM_ets_sha_starts(&context, 0);
    ROM_ets_sha_update(&context, data, size, false);
    ROM_ets_sha_finish(&context, digest);
    return same(digest, expected, sizeof digest);
}

bool md5_matches(const uint8_t *data, uint32_t size, const uint8_t expected[16]) {
    uint8_t digest[16];
    ROM_MD5Init(&context);
    ROM_MD5Update(&context, data, size);
    ROM_MD5Final(digest, &context);
    return same(digest, expected, sizeof digest);
}
