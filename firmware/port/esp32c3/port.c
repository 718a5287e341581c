/* core/port.h on the ESP32-C3: UART0, SYSTIMER, efuse, watchdogs, the partition table. */
#include "port.h"

#include "app_desc.h"
#include "soc.h"

#include <stdbool.h>

enum { UART_LINE = 1 }; /* CPU interrupt line that UART0 is routed to */

static struct port_identity identity;
static char partition_label[17];
static uint64_t started_at; /* the timer runs on through a reset of the CPU alone */

/* The ROM starts two watchdogs to guard the boot, and the others may be on after a warm reset. */
static void stop_watchdogs(void) {
    RTC_WDT_PROTECT = WDT_KEY;
    RTC_WDT_CONFIG0 = 0;
    RTC_WDT_PROTECT = 0;
    RTC_SWD_PROTECT = RTC_SWD_KEY;
    RTC_SWD_CONFIG |= RTC_SWD_AUTO_FEED;
    RTC_SWD_PROTECT = 0;
    for (int group = 0; group < 2; group++) {
        TIMG_WDT_PROTECT(group) = WDT_KEY;
        TIMG_WDT_CONFIG0(group) = 0;
        TIMG_WDT_PROTECT(group) = 0;
    }
}

/* A received byte has to end `wfi`. mstatus.MIE stays clear: it wakes the CPU and traps nothing. */
static void arm_wake_up(void) {
    UART_CONF1 = (UART_CONF1 & ~0x1FFu) | 1;
    UART_INT_ENA = UART_RXFIFO_FULL;
    INT_MAP_UART0 = UART_LINE;
    INT_TYPE &= ~(1u << UART_LINE);
    INT_PRIORITY(UART_LINE) = 1;
    INT_THRESHOLD = 1;
    INT_ENABLE |= 1u << UART_LINE;
}

/* ROM reset codes; names as in the boot log's `rst:` field. */
static const char *reset_reason(uint32_t code) {
    switch (code) {
    case 0x01:
        return "power_on";
    case 0x03: /* RTC_SW_SYS_RST: reboot asks for this one */
        return "software";
    case 0x0C: /* RTC_SW_CPU_RST: only panic asks for this one */
        return "panic";
    case 0x07: /* TG0WDT_SYS_RST, TG1WDT_SYS_RST, RTCWDT_SYS_RST */
    case 0x08:
    case 0x09:
    case 0x0B: /* the same three, CPU alone */
    case 0x0D:
    case 0x11:
    case 0x10: /* RTCWDT_RTC_RST */
    case 0x12: /* SUPER_WDT_RST */
        return "watchdog";
    case 0x0F:
        return "brownout";
    default:
        return "unknown";
    }
}

/* Partition table row; the table is at 0x8000 of flash. */
struct row {
    uint16_t magic;
    uint8_t type, subtype;
    uint32_t offset, size;
    char label[16];
    uint32_t flags;
};

enum { TABLE_OFFSET = 0x8000, TABLE_ROWS = 0xC00 / sizeof(struct row), ROW_MAGIC = 0x50AA };

__attribute__((section(".iram.text"), noinline)) static void map_page(uint32_t index,
                                                                      uint32_t flash_page) {
    mmu_map(index, flash_page, 1);
}

/* Where does this code come from? Its own page's entry in the MMU table says so; the row of the
 * partition table that holds this flash address is the running partition. */
static const char *find_partition(void) {
    uint32_t here = MMU_ENTRY(MMU_INDEX(find_partition)) * MMU_PAGE;
    uint32_t window = MMU_ENTRIES - 1; /* the last page of the window: an image never gets there */
    map_page(window, 0);
    const struct row *row = (const struct row *)(DROM_BASE + window * MMU_PAGE + TABLE_OFFSET);
    for (unsigned i = 0; i < TABLE_ROWS && row[i].magic == ROW_MAGIC; i++) {
        if (row[i].type == 0 && here >= row[i].offset && here - row[i].offset < row[i].size) {
            for (unsigned c = 0; c < sizeof row[i].label; c++) {
                partition_label[c] = row[i].label[c];
            }
            break;
        }
    }
    map_page(window, MMU_INVALID);
    return partition_label;
}

static void read_mac(uint8_t mac[6]) {
    uint32_t low = EFUSE_MAC0, high = EFUSE_MAC1;
    for (int i = 0; i < 6; i++) {
        mac[i] = (uint8_t)(i < 2 ? high >> (1 - i) * 8 : low >> (5 - i) * 8);
    }
}

static uint64_t systimer_ticks(void) {
    SYSTIMER_UNIT0_OP = SYSTIMER_UPDATE;
    while ((SYSTIMER_UNIT0_OP & SYSTIMER_VALID) == 0) {
    }
    return (uint64_t)SYSTIMER_UNIT0_HI << 32 | SYSTIMER_UNIT0_LO;
}

void port_init(void) {
    stop_watchdogs();
    SYSTIMER_CONF |= SYSTIMER_RUN;
    started_at = systimer_ticks();
    arm_wake_up();
    identity.project = app_desc.project;
    identity.version = app_desc.version;
    identity.chip = "esp32c3";
    identity.partition = find_partition();
    identity.reset_reason = reset_reason(RTC_RESET_STATE & 0x3F);
    read_mac(identity.mac);
    for (unsigned i = 0; i < sizeof identity.app_elf_sha256; i++) {
        identity.app_elf_sha256[i] = app_desc.app_elf_sha256[i];
    }
}

const struct port_identity *port_identity(void) {
    return &identity;
}

uint64_t port_uptime_ms(void) {
    return (systimer_ticks() - started_at) / SYSTIMER_TICKS_PER_MS;
}

void port_write(const char *bytes, size_t size) {
    while (size > 0) {
        uint32_t room = UART_FIFO_SIZE - 1 - uart_unsent();
        for (; room > 0 && size > 0; room--, size--) {
            UART_FIFO = (uint8_t)*bytes++;
        }
    }
}

int port_read(void) {
    static uint32_t known; /* bytes that are certainly in the FIFO */
    if (known == 0) {
        known = uart_received();
    }
    if (known == 0) {
        return -1;
    }
    known--;
    return (int)(UART_FIFO & 0xFF);
}

void port_wait(void) {
    UART_INT_CLR = UART_RXFIFO_FULL;
    __asm__ volatile("wfi");
}

_Noreturn void port_reboot(void) {
    uart_drain();
    RTC_OPTIONS0 |= RTC_SW_SYS_RST;
    for (;;) {
    }
}
