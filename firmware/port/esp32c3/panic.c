/* Says what went wrong in the form that ESP-IDF's decoders read, then restarts the CPU.
 *
 * Talks to the UART registers directly: after a trap nothing else can be trusted. */
#include "app_desc.h"
#include "soc.h"

#include <stdbool.h>
#include <stddef.h>

/* As on_trap in start.S stores it: registers x0..x31 with mepc in place of x0. */
struct trap_frame {
    uint32_t x[32];
    uint32_t mstatus, mtvec, mcause, mtval;
};

enum { SP = 2, STACK_BYTES_SHOWN = 256 };

extern char __stack_top[], __heap_end[];

static const char *const register_names[32] = {
    "MEPC", "RA", "SP", "GP", "TP",  "T0",  "T1", "T2", "S0/FP", "S1", "A0",
    "A1",   "A2", "A3", "A4", "A5",  "A6",  "A7", "S2", "S3",    "S4", "S5",
    "S6",   "S7", "S8", "S9", "S10", "S11", "T3", "T4", "T5",    "T6",
};

static const char *cause_text(uint32_t mcause) {
    static const char *const texts[12] = {
        "Instruction address misaligned",
        "Instruction access fault",
        "Illegal instruction",
        "Breakpoint",
        "Load address misaligned",
        "Load access fault",
        "Store address misaligned",
        "Store access fault",
        "Environment call from U-mode",
        NULL,
        NULL,
        "Environment call from M-mode",
    };
    const char *text = mcause < 12 ? texts[mcause] : NULL;
    return text != NULL ? text : "Unexpected interrupt";
}

static void put(const char *text) {
    while (*text != '\0') {
        uart_put(*text++);
    }
}

static void put_hex(uint32_t value, int digits) {
    while (digits-- > 0) {
        uart_put("0123456789abcdef"[value >> digits * 4 & 15]);
    }
}

static void put_register(const char *name, uint32_t value, bool last) {
    int width = 8;
    for (const char *c = name; *c != '\0'; c++) {
        uart_put(*c);
        width--;
    }
    while (width-- > 0) {
        uart_put(' ');
    }
    put(": 0x");
    put_hex(value, 8);
    put(last ? "  \r\n" : "  ");
}

static void put_stack(uint32_t sp) {
    uint32_t top = (uint32_t)__stack_top;
    put("\r\nStack memory:\r\n");
    if (sp % 4 != 0 || sp < (uint32_t)__heap_end || sp >= top) {
        return; /* not our stack: reading there could trap again */
    }
    uint32_t end = top - sp < STACK_BYTES_SHOWN ? top : sp + STACK_BYTES_SHOWN;
    for (uint32_t at = sp; at < end; at += 4) {
        if ((at - sp) % 32 == 0) {
            put_hex(at, 8);
            put(":");
        }
        put(" 0x");
        put_hex(*(uint32_t *)at, 8);
        if ((at - sp) % 32 == 28 || at + 4 == end) {
            put("\r\n");
        }
    }
}

static _Noreturn void restart_cpu(void) {
    uart_drain();
    RTC_OPTIONS0 |= RTC_SW_CPU_RST;
    for (;;) {
    }
}

_Noreturn void panic(const struct trap_frame *frame) {
    static bool entered;
    if (entered) {
        restart_cpu(); /* the report itself trapped */
    }
    entered = true;
    put("\r\nGuru Meditation Error: Core  0 panic'ed (");
    put(cause_text(frame->mcause));
    put("). Exception was unhandled.\r\n\r\nCore  0 register dump:\r\n");
    for (int i = 0; i < 32; i++) {
        put_register(register_names[i], frame->x[i], i % 4 == 3);
    }
    put_register("MSTATUS", frame->mstatus, false);
    put_register("MTVEC", frame->mtvec, false);
    put_register("MCAUSE", frame->mcause, false);
    put_register("MTVAL", frame->mtval, true);
    put_stack(frame->x[SP]);
    put("\r\nELF file SHA256: ");
    for (size_t i = 0; i < sizeof app_desc.app_elf_sha256; i++) {
        put_hex(app_desc.app_elf_sha256[i], 2);
    }
    put("\r\n\r\nRebooting...\r\n");
    restart_cpu();
}
