/* The application descriptor of ESP-IDF images (esp_app_desc_t), first in the image. */
#ifndef ESP32C3_APP_DESC_H
#define ESP32C3_APP_DESC_H

#include <stdint.h>

struct app_desc {
    uint32_t magic;
    uint32_t secure_version;
    uint32_t reserved1[2];
    char version[32];
    char project[32];
    char time[16];
    char date[16];
    char idf_version[32];
    uint8_t app_elf_sha256[32]; /* zero in the ELF; written when the image is made */
    uint16_t min_efuse_block;
    uint16_t max_efuse_block;
    uint8_t mmu_page_log2;
    uint8_t spi_mode;
    uint8_t reserved2[2];
    uint32_t reserved3[18];
};

_Static_assert(sizeof(struct app_desc) == 256, "fixed by the image format");

/* Defined in a file of its own, so that no compiler can take the zeros in it for the truth. */
extern const struct app_desc app_desc;

#endif
