/* ESP32-C3 registers and mask ROM calls that the port and the bootloader use.
 *
 * Addresses: ESP32-C3 Technical Reference Manual; ROM calls: ESP-IDF's esp32c3.rom.ld. */
#ifndef ESP32C3_SOC_H
#define ESP32C3_SOC_H

#include <stdbool.h>
#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(address))

/* UART0; the ROM leaves it at 115200 baud, 8N1. */
#define UART_FIFO REG(0x60000000)
#define UART_INT_ENA REG(0x6000000C)
#define UART_INT_CLR REG(0x60000010)
#define UART_STATUS REG(0x6000001C) /* bits 9:0 received, 25:16 waiting to be sent */
#define UART_CONF1 REG(0x60000024)  /* bits 8:0 receive threshold, 21:18 flow control, timeout */
#define UART_FSM_STATUS REG(0x6000006C)
#define UART_RXFIFO_FULL (1u << 0)
#define UART_FIFO_SIZE 128u

static inline uint32_t uart_received(void) {
    return UART_STATUS & 0x3FF;
}

static inline uint32_t uart_unsent(void) {
    return UART_STATUS >> 16 & 0x3FF;
}

/* Sent and gone from the shift register too (transmitter state 0: idle). */
static inline void uart_drain(void) {
    while (uart_unsent() != 0 || (UART_FSM_STATUS & 0xF0) != 0) {
    }
}

static inline void uart_put(char c) {
    while (uart_unsent() >= UART_FIFO_SIZE - 1) {
    }
    UART_FIFO = (uint8_t)c;
}

/* RTC controller */
#define RTC_OPTIONS0 REG(0x60008000)
#define RTC_SW_SYS_RST (1u << 31) /* whole chip but the RTC domain */
#define RTC_SW_CPU_RST (1u << 5)  /* the CPU alone */
#define RTC_RESET_STATE REG(0x60008038)
#define RTC_WDT_CONFIG0 REG(0x60008090)
#define RTC_WDT_FEED REG(0x600080A4)
#define RTC_WDT_PROTECT REG(0x600080A8)
#define RTC_SWD_CONFIG REG(0x600080AC)
#define RTC_SWD_AUTO_FEED (1u << 31)
#define RTC_SWD_PROTECT REG(0x600080B0)
#define RTC_SWD_KEY 0x8F1D312A

/* Timer groups 0 and 1: only their watchdogs matter here. The clock runs at 40 MHz. */
#define TIMG_WDT_CONFIG0(group) REG(0x6001F048 + (group) * 0x1000)
#define TIMG_WDT_ENABLE_SYS_RESET (1u << 31 | 3u << 29) /* stage 0 resets the system */
#define TIMG_WDT_UPDATE (1u << 22)                      /* the settings take effect */
#define TIMG_WDT_USE_XTAL (1u << 21)                    /* 40 MHz, whatever the CPU does */
#define TIMG_WDT_PRESCALE(group) REG(0x6001F04C + (group) * 0x1000) /* bits 31:16 */
#define TIMG_WDT_STAGE0(group) REG(0x6001F050 + (group) * 0x1000)   /* in prescaled ticks */
#define TIMG_WDT_FEED(group) REG(0x6001F060 + (group) * 0x1000)
#define TIMG_WDT_PROTECT(group) REG(0x6001F064 + (group) * 0x1000)
#define WDT_KEY 0x50D83AA1

/* MAC address: low 32 bits, high 16 bits */
#define EFUSE_MAC0 REG(0x60008844)
#define EFUSE_MAC1 REG(0x60008848)

/* SYSTIMER unit 0 counts at 16 MHz, whatever the CPU clock is. */
#define SYSTIMER_CONF REG(0x60023000)
#define SYSTIMER_RUN (3u << 30)
#define SYSTIMER_UNIT0_OP REG(0x60023004)
#define SYSTIMER_UPDATE (1u << 30)
#define SYSTIMER_VALID (1u << 29)
#define SYSTIMER_UNIT0_HI REG(0x60023040)
#define SYSTIMER_UNIT0_LO REG(0x60023044)
#define SYSTIMER_TICKS_PER_MS 16000
#define SYSTIMER_ALARM0_RUN (1u << 24) /* in SYSTIMER_CONF */
#define SYSTIMER_ALARM0_HI REG(0x6002301C)
#define SYSTIMER_ALARM0_LO REG(0x60023020)
#define SYSTIMER_ALARM0_CONF REG(0x60023034) /* 0: once, when unit 0 gets there */
#define SYSTIMER_ALARM0_LOAD REG(0x60023050)
#define SYSTIMER_INT_ENA REG(0x60023064)
#define SYSTIMER_INT_CLR REG(0x6002306C)
#define SYSTIMER_ALARM0 (1u << 0)

/* GPIO; pads choose between GPIO and other functions in the I/O multiplexer. */
#define GPIO_OUT_SET REG(0x60004008)
#define GPIO_OUT_CLEAR REG(0x6000400C)
#define GPIO_ENABLE_SET REG(0x60004024)
#define GPIO_PIN(pin) REG(0x60004074 + (pin) * 4)     /* bit 2: open drain */
#define GPIO_OUT_SEL(pin) REG(0x60004554 + (pin) * 4) /* what drives the pin */
#define GPIO_OUT_SEL_GPIO 128u                        /* GPIO_OUT itself */
#define IO_MUX_GPIO(pin) REG(0x60009004 + (pin) * 4)
#define IO_MUX_FUNCTION_GPIO (1u << 12)
#define IO_MUX_DRIVE_DEFAULT (2u << 10)

/* Interrupt matrix: sources to lines of the CPU, 0 for none. A line interrupts, or ends `wfi`, with
 * a priority of at least the threshold. */
#define INT_MAP(source) REG(0x600C2000 + (source) * 4)
#define INT_SOURCES 62
#define INT_SOURCE_UART0 21
#define INT_SOURCE_SYSTIMER0 37
#define INT_ENABLE REG(0x600C2104)
#define INT_TYPE REG(0x600C2108) /* 0: level */
#define INT_PRIORITY(line) REG(0x600C2114 + (line) * 4)
#define INT_THRESHOLD REG(0x600C2194)

/* Flash mapping: both windows share one table of 64 KiB pages. */
#define MMU_ENTRY(index) REG(0x600C5000 + (index) * 4)
#define MMU_ENTRIES 128u
#define MMU_INVALID (1u << 8)
#define MMU_PAGE 0x10000u
#define CACHE_BUS_GATES REG(0x600C4004) /* bit 0 shuts the instruction bus, bit 1 the data bus */
#define DROM_BASE 0x3C000000u
#define IROM_BASE 0x42000000u
#define MMU_INDEX(address) (((uint32_t)(address) & 0x7FFFFF) / MMU_PAGE)

#define ROM_Cache_Invalidate_ICache_All ((void (*)(void))0x400004D8)
#define ROM_Cache_Disable_ICache ((uint32_t (*)(void))0x4000051C)
#define ROM_Cache_Enable_ICache ((void (*)(uint32_t autoload))0x40000520)

/* SHA-256 by the mask ROM's own code. ESP-IDF: rom/sha.h; the context is opaque here, theirs takes
 * 216 bytes. */
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

/* MD5, likewise (rom/md5_hash.h; 88 bytes). */
#define ROM_MD5Init ((void (*)(struct rom_context *))0x40000614)
#define ROM_MD5Update ((void (*)(struct rom_context *, const uint8_t *, uint32_t size))0x40000618)
#define ROM_MD5Final ((void (*)(uint8_t *digest, struct rom_context *))0x4000061C)

/* Flash through SPI1, by the ROM; 0 when done. */
#define ROM_spiflash_unlock ((int (*)(void))0x40000140)
#define ROM_spiflash_erase_sector ((int (*)(uint32_t sector))0x40000128)
#define ROM_spiflash_write                                                                         \
    ((int (*)(uint32_t offset, const uint32_t *from, int32_t size))0x4000012C)
#define FLASH_SECTOR 0x1000u

/* Erases a sector and writes the beginning of it, from RAM. The cache reads flash over the same
 * pins, so it must be off, and this be inlined into code that runs from RAM. */
static inline __attribute__((always_inline)) bool
flash_rewrite_sector(uint32_t offset, const void *from, uint32_t size) {
    uint32_t autoload = ROM_Cache_Disable_ICache();
    bool done = ROM_spiflash_unlock() == 0 &&
                ROM_spiflash_erase_sector(offset / FLASH_SECTOR) == 0 &&
                ROM_spiflash_write(offset, (const uint32_t *)from, (int32_t)size) == 0;
    ROM_Cache_Invalidate_ICache_All();
    ROM_Cache_Enable_ICache(autoload);
    return done;
}

/* Points `count` pages of the windows at flash, or nowhere (MMU_INVALID). The cache must be off
 * while the table changes, so this has to be inlined into code that runs from RAM. */
static inline __attribute__((always_inline)) void mmu_map(uint32_t index, uint32_t flash_page,
                                                          uint32_t count) {
    uint32_t autoload = ROM_Cache_Disable_ICache();
    for (uint32_t i = 0; i < count; i++) {
        MMU_ENTRY(index + i) = flash_page + i;
    }
    ROM_Cache_Invalidate_ICache_All();
    ROM_Cache_Enable_ICache(autoload);
}

#endif
