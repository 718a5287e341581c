/* A program in the form of ESP-IDF firmware: it calls the mask ROM for everything that it can,
 * protects memory with PMP, lets the system timer tick through the interrupt matrix, yields with an
 * interrupt that the CPU raises itself, hashes, reads and writes its flash through SPI1, looks at
 * flash through the MMU, and restarts. Own work, for the tests. ROM functions: addresses of
 * ESP-IDF's esp32c3.rom.ld. */
#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(address))
#define ROM(type, address) ((type)(address))

#define ets_printf ROM(int (*)(const char *, ...), 0x40000040)
#define ets_install_uart_printf ROM(void (*)(void), 0x40000048)
#define ets_delay_us ROM(void (*)(uint32_t), 0x40000050)
#define ets_get_cpu_frequency ROM(uint32_t (*)(void), 0x40000584)
#define ets_update_cpu_frequency ROM(void (*)(uint32_t), 0x40000588)
#define rtc_get_reset_reason ROM(int (*)(int), 0x40000018)
#define software_reset ROM(void (*)(void), 0x40000090)
#define disable_default_watchdog ROM(void (*)(void), 0x400000a4)
#define rom_memset ROM(void *(*)(void *, int, uint32_t), 0x40000354)
#define rom_strlen ROM(uint32_t (*)(const char *), 0x40000374)
#define rom_strcmp ROM(int (*)(const char *, const char *), 0x4000036c)
#define rom_udivdi3 ROM(uint64_t (*)(uint64_t, uint64_t), 0x400008ac)
#define crc32_le ROM(uint32_t (*)(uint32_t, const void *, uint32_t), 0x40000628)
#define intr_matrix_set ROM(void (*)(int, uint32_t, uint32_t), 0x400005f4)
#define esprv_set_priority ROM(void (*)(int, int), 0x400005e0)
#define esprv_set_threshold ROM(void (*)(int), 0x400005e4)
#define esprv_enable ROM(void (*)(uint32_t), 0x400005e8)
#define Cache_Disable_ICache ROM(uint32_t (*)(void), 0x4000051c)
#define Cache_Enable_ICache ROM(void (*)(uint32_t), 0x40000520)
#define Cache_MMU_Init ROM(void (*)(void), 0x4000055c)
#define Cache_Dbus_MMU_Set                                                                         \
    ROM(int (*)(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t), 0x40000564)
#define Cache_Invalidate_All ROM(void (*)(void), 0x400004d8)

#define SPI1 0x60002000
#define SYSTIMER 0x60023000
#define SHA 0x6003b000
#define FROM_CPU_0 0x600c0028
#define CACHE_GATES 0x600c4004
#define TICK_LINE 2
#define YIELD_LINE 3

static volatile uint32_t ticks, yields;
static const char kNote[] = "flash through SPI1";

__attribute__((interrupt("machine"), aligned(4), used)) static void on_tick(void) {
    REG(SYSTIMER + 0x6c) = 1;
    ticks++;
    REG(FROM_CPU_0) = 1; /* as FreeRTOS asks for a switch of tasks */
}

__attribute__((interrupt("machine"), aligned(4), used)) static void on_yield(void) {
    REG(FROM_CPU_0) = 0;
    yields++;
}

__attribute__((interrupt("machine"), aligned(4), used)) static void on_trap(void) {
    uint32_t cause, pc;
    __asm__ volatile("csrr %0, mcause\n csrr %1, mepc" : "=r"(cause), "=r"(pc));
    ets_printf("trap %d at %08x\n", cause, pc);
    for (;;) {
    }
}

__attribute__((naked, aligned(256))) static void vectors(void) {
    __asm__ volatile(".option push\n .option norvc\n"
                     "j on_trap\n j on_trap\n j on_tick\n j on_yield\n"
                     ".rept 28\n j on_trap\n .endr\n .option pop\n");
}

static void protect(void) {
    /* Two of the entries that ESP-IDF sets: all of the ROM and the SRAM, locked. */
    __asm__ volatile("csrw pmpaddr0, %0\n csrw pmpaddr1, %1\n csrw pmpcfg0, %2"
                     :
                     : "r"((0x40000000u >> 2) | 0xffff), "r"((0x40380000u >> 2) | 0xffff),
                       "r"(0x9d | 0x9f << 8));
}

static void spi(uint32_t command, uint32_t address, uint32_t user, uint32_t in_bits,
                uint32_t out_bits) {
    REG(SPI1 + 0x04) = address;
    REG(SPI1 + 0x18) = 1u << 31 | user;
    REG(SPI1 + 0x1c) = 23u << 26;
    REG(SPI1 + 0x20) = 7u << 28 | command;
    REG(SPI1 + 0x24) = out_bits - 1;
    REG(SPI1 + 0x28) = in_bits - 1;
    REG(SPI1) = 1u << 18;
    while (REG(SPI1) & 1u << 18) {
    }
}

static void flash(void) {
    const uint32_t has_address = 1u << 30, in = 1u << 28, out = 1u << 27;
    spi(0x9f, 0, in, 24, 1);
    ets_printf("id %06x\n", REG(SPI1 + 0x58) & 0xffffff);
    spi(0x06, 0, 0, 1, 1);
    spi(0x20, 0x30000, has_address, 1, 1);
    for (uint32_t i = 0; i < 5; i++) {
        uint32_t word = 0;
        for (uint32_t j = 0; j < 4; j++) {
            word |= (uint32_t)(uint8_t)kNote[4 * i + j > 18 ? 18 : 4 * i + j] << 8 * j;
        }
        REG(SPI1 + 0x58 + 4 * i) = word;
    }
    spi(0x06, 0, 0, 1, 1);
    spi(0x02, 0x30000, has_address | out, 1, 8 * 20);
    uint32_t autoload = Cache_Disable_ICache();
    Cache_Invalidate_All();
    Cache_MMU_Init();
    int result = Cache_Dbus_MMU_Set(0, 0x3c000000, 0x30000, 64, 1, 0);
    Cache_Enable_ICache(autoload);
    REG(CACHE_GATES) = 0;
    const char *seen = (const char *)0x3c000000;
    ets_printf("mmu %d '%s' %d\n", result, seen, rom_strcmp(seen, kNote));
}

static void hash(void) {
    /* "abc", padded: one block. */
    for (uint32_t i = 0; i < 16; i++) {
        REG(SHA + 0x80 + 4 * i) = i == 0 ? 0x80636261 : i == 15 ? 0x18000000 : 0;
    }
    REG(SHA) = 2;
    REG(SHA + 0x10) = 1;
    while (REG(SHA + 0x18)) {
    }
    ets_printf("sha %08x\n", REG(SHA + 0x40));
}

static void tick(void) {
    REG(SYSTIMER + 0x64) = 1;
    REG(SYSTIMER + 0x34) = 1u << 31 | 1u << 30 | 160000; /* unit 1, 100 Hz */
    REG(SYSTIMER + 0x50) = 1;
    REG(SYSTIMER) |= 1u << 29 | 1u << 24;
    intr_matrix_set(0, 37, TICK_LINE);
    intr_matrix_set(0, 50, YIELD_LINE);
    esprv_set_priority(TICK_LINE, 1);
    esprv_set_priority(YIELD_LINE, 1);
    esprv_set_threshold(1);
    esprv_enable(1u << TICK_LINE | 1u << YIELD_LINE);
    __asm__ volatile("csrw mtvec, %0\n csrsi mstatus, 8" : : "r"((uintptr_t)vectors | 1));
    while (ticks < 5) {
        __asm__ volatile("wfi");
    }
    __asm__ volatile("csrci mstatus, 8");
    ets_printf("ticks %d yields %d\n", ticks, yields);
}

void program(void) {
    uint32_t before, after;
    char buffer[16];
    ets_install_uart_printf();
    disable_default_watchdog();
    protect();
    __asm__ volatile("csrr %0, 0x7e2" : "=r"(before));
    ets_delay_us(1000);
    __asm__ volatile("csrr %0, 0x7e2" : "=r"(after));
    rom_memset(buffer, 'x', sizeof buffer);
    buffer[5] = 0;
    ets_update_cpu_frequency(160);
    ets_printf("hello %s %d|%5d|%08x %c%%\n", buffer, rom_strlen(buffer), -7, 0xbeef, 'C');
    ets_printf("waited %s, cpu %d\n", after - before > 100 ? "yes" : "no", ets_get_cpu_frequency());
    ets_printf("crc %08x div %d\n", crc32_le(0, "123456789", 9),
               (int)rom_udivdi3(10000000000ull, 7000000));
    flash();
    hash();
    tick();
    ets_printf("reset reason %d\n", rtc_get_reset_reason(0));
    software_reset();
    for (;;) {
    }
}

__attribute__((naked, section(".text.start"))) void start(void) {
    __asm__ volatile("csrci mstatus, 8\n li sp, 0x3fcc0000\n j program");
}
