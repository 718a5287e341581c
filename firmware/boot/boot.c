/* Second-stage bootloader: chooses an application by partition table and otadata, checks it, falls
 * back to the others when it is bad, starts it. Writes nothing but the state of an update.
 *
 * Formats and the order of the choice are ESP-IDF's, so its tools read and write them. One thing it
 * leaves out: ESP-IDF fills an erased otadata in. */
#include "flash.h"
#include "image.h"
#include "log.h"
#include "rollback.h"
#include "soc.h"
#include "table.h"

#include <stdbool.h>
#include <stddef.h>

static struct table table; /* copied, because the next mapping takes it away */

static void log_label(const struct row *row) {
    char label[sizeof row->label + 1];
    for (unsigned i = 0; i < sizeof row->label; i++) {
        label[i] = row->label[i];
    }
    label[sizeof row->label] = '\0';
    log_text(label);
}

static _Noreturn void restart(void) {
    uart_drain();
    RTC_OPTIONS0 |= RTC_SW_SYS_RST;
    for (;;) {
    }
}

static _Noreturn void fail(const char *why) {
    log_text("boot: error: ");
    log_text(why);
    log_end();
    restart();
}

_Noreturn void boot_trap(uint32_t mcause, uint32_t mepc) {
    log_text("boot: error: trap ");
    log_decimal(mcause);
    log_text(" at ");
    log_hex(mepc);
    log_end();
    restart();
}

/* The watchdogs that the ROM started stay on: they end a boot that hangs. */
static void feed_watchdogs(void) {
    RTC_WDT_PROTECT = WDT_KEY;
    RTC_WDT_FEED = 1u << 31;
    RTC_WDT_PROTECT = 0;
    TIMG_WDT_PROTECT(0) = WDT_KEY;
    TIMG_WDT_FEED(0) = 1;
    TIMG_WDT_PROTECT(0) = 0;
}

/* Comes back only when the image is bad. */
static void try_to_start(const struct row *app) {
    feed_watchdogs();
    const char *fault = image_fault(app->offset, app->size);
    log_text("boot: ");
    log_label(app);
    if (*fault != '\0') {
        log_text(" rejected: ");
        log_text(fault);
        log_end();
        return;
    }
    log_text(" starts from ");
    log_hex(app->offset);
    log_end();
    log_text("boot: Loaded app from partition at offset "); /* ESP-IDF's words, which tools know */
    log_short_hex(app->offset);
    log_end();
    image_start(app->offset, app->size);
}

/* A slot by its number, the factory application for NO_SLOT, if there is one. */
static void try_slot(int slot) {
    unsigned subtype = slot == NO_SLOT ? SUBTYPE_FACTORY : (unsigned)(SUBTYPE_OTA_0 + slot);
    const struct row *app = table_app(&table, subtype);
    if (app != NULL) {
        try_to_start(app);
    }
}

static int choose(void) {
    int slot = rollback_choose(&table);
    if (slot == NO_SLOT) {
        slot = table_app(&table, SUBTYPE_FACTORY) == NULL ? 0 : NO_SLOT;
        log_text("boot: otadata has no valid entry, default is ");
    }
    const struct row *app =
        table_app(&table, slot == NO_SLOT ? SUBTYPE_FACTORY : (unsigned)(SUBTYPE_OTA_0 + slot));
    if (app == NULL) {
        log_text("a slot that the table lacks");
    } else {
        log_label(app);
    }
    log_end();
    return slot;
}

_Noreturn void boot_main(void) {
    flash_unmap_all();
    const char *fault = table_read(&table);
    if (*fault != '\0') {
        fail(fault);
    }
    int chosen = choose();
    for (int slot = chosen; slot >= NO_SLOT; slot--) { /* backwards, to the factory application */
        try_slot(slot);
    }
    for (int slot = chosen + 1; slot < OTA_MAX; slot++) {
        try_slot(slot);
    }
    fail("no application can be started");
}
