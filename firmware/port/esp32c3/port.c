/* core/port.h on the ESP32-C3: UART0, SYSTIMER, efuse, GPIO, and what its neighbours do. */
#include "port.h"

#include "app_desc.h"
#include "flash_map.h"
#include "ota.h"
#include "soc.h"
#include "watchdog.h"

enum { UART_LINE = 1, TIMER_LINE = 2 }; /* CPU interrupt lines that the two are routed to */
enum { LED_PIN = 8 };                   /* as on most boards with this chip */
enum { WAIT_MAX_MS = 1000 };

static struct port_identity identity;
static uint64_t started_at; /* the timer runs on through a reset of the CPU alone */

extern char __heap_start[], __heap_end[];

/* A received byte and the alarm have to end `wfi`, and nothing else may: interrupts stay off
 * (start.S), so what wakes the CPU traps nothing. Each register is set whole, because the ROM and
 * the bootloader leave what they like. */
static void arm_wake_up(void) {
    INT_ENABLE = 0;
    for (int source = 0; source < INT_SOURCES; source++) {
        INT_MAP(source) = 0;
    }
    UART_CONF1 = 1;
    UART_INT_ENA = UART_RXFIFO_FULL;
    INT_MAP(INT_SOURCE_UART0) = UART_LINE;
    SYSTIMER_ALARM0_CONF = 0;
    SYSTIMER_CONF = SYSTIMER_RUN | SYSTIMER_ALARM0_RUN;
    SYSTIMER_INT_ENA = SYSTIMER_ALARM0;
    INT_MAP(INT_SOURCE_SYSTIMER0) = TIMER_LINE;
    INT_TYPE = 0;
    INT_PRIORITY(UART_LINE) = 1;
    INT_PRIORITY(TIMER_LINE) = 1;
    INT_THRESHOLD = 1;
    INT_ENABLE = 1u << UART_LINE | 1u << TIMER_LINE;
}

static void connect_led(void) {
    IO_MUX_GPIO(LED_PIN) = IO_MUX_FUNCTION_GPIO | IO_MUX_DRIVE_DEFAULT;
    GPIO_PIN(LED_PIN) = 0;
    GPIO_OUT_SEL(LED_PIN) = GPIO_OUT_SEL_GPIO;
    GPIO_ENABLE_SET = 1u << LED_PIN;
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
    watchdog_init();
    arm_wake_up();
    started_at = systimer_ticks();
    connect_led();
    identity.project = app_desc.project;
    identity.version = app_desc.version;
    identity.chip = "esp32c3";
    identity.partition = running_partition();
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

/* An update has proven itself when everything is set up and the program rests for the first time.
 * Built with -DHOTPLATE_CONFIRM_UPDATE=0 it never does, as one that fails on its way here. */
#ifndef HOTPLATE_CONFIRM_UPDATE
#define HOTPLATE_CONFIRM_UPDATE 1
#endif

static void confirm_once(void) {
    static bool confirmed = !HOTPLATE_CONFIRM_UPDATE;
    if (!confirmed) {
        confirmed = true;
        ota_confirm();
    }
}

/* An alarm whose time has come before it is set goes off at once, so no wake-up is lost. */
void port_wait(uint64_t until_ms) {
    confirm_once();
    uint64_t now = systimer_ticks() - started_at;
    uint64_t until = now + WAIT_MAX_MS * SYSTIMER_TICKS_PER_MS;
    if (until_ms * SYSTIMER_TICKS_PER_MS < until) {
        until = until_ms * SYSTIMER_TICKS_PER_MS;
    }
    watchdog_feed();
    if (until <= now) {
        return;
    }
    until += started_at;
    SYSTIMER_ALARM0_HI = (uint32_t)(until >> 32);
    SYSTIMER_ALARM0_LO = (uint32_t)until;
    SYSTIMER_ALARM0_LOAD = 1;
    SYSTIMER_INT_CLR = SYSTIMER_ALARM0;
    UART_INT_CLR = UART_RXFIFO_FULL;
    __asm__ volatile("wfi");
    watchdog_feed();
}

void *port_heap(size_t *size) {
    *size = (size_t)(__heap_end - __heap_start);
    return __heap_start;
}

void port_led(bool on) {
    if (on) {
        GPIO_OUT_SET = 1u << LED_PIN;
    } else {
        GPIO_OUT_CLEAR = 1u << LED_PIN;
    }
}

_Noreturn void port_reboot(void) {
    uart_drain();
    RTC_OPTIONS0 |= RTC_SW_SYS_RST;
    for (;;) {
    }
}

_Noreturn void port_panic(void) {
    uint32_t *volatile nowhere = (uint32_t *)8; /* no memory there: the CPU traps */
    *nowhere = 0;
    for (;;) {
    }
}
