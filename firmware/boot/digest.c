#include "digest.h"

/* ESP-IDF: esp32c3.rom.ld, rom/sha.h, rom/md5_hash.h. The contexts are opaque here; theirs take 216
 * and 88 bytes. */
struct rom_context {
    uint32_t opaque[64];
};
#define ROM_SHA2_256 2
#define ROM_ets_sha_enable ((void (*)(void))0x40000644)
#define ROM_ets_sha_init ((int (*)(struct rom_context *, int type))0x40000650)
#define ROM_ets_sha_starts ((int (*)(struct rom_context *, uint16_t))0x40000658)
#define ROM_ets_sha_update                                                                         \
    ((void (*)(struct rom_context *, const uint8_t *, uint32_t size, bool keep))0x4000065C)
#define ROM_ets_sha_finish ((int (*)(struct rom_context *, uint8_t *digest))0x40000660)
#define ROM_MD5Init ((void (*)(struct rom_context *))0x40000614)
#define ROM_MD5Update ((void (*)(struct rom_context *, const uint8_t *, uint32_t size))0x40000618)
#define ROM_MD5Final ((void (*)(uint8_t *digest, struct rom_context *))0x4000061C)

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

uint32_t otadata_crc(uint32_t sequence) {
    uint32_t crc = 0;
    for (int bit = 0; bit < 32; bit++) {
        crc = crc >> 1 ^ ((crc ^ sequence >> bit) & 1 ? 0xEDB88320 : 0);
    }
    return ~crc;
}
