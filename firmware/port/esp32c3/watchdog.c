#include "watchdog.h"

#include "soc.h"

enum { WATCHDOG_MS = 3000, WDT_TICKS_PER_MS = 2 };

/* The ROM starts two watchdogs to guard the boot, and the others may be on after a warm reset. */
void watchdog_init(void) {
    RTC_WDT_PROTECT = WDT_KEY;
    RTC_WDT_CONFIG0 = 0;
    RTC_WDT_PROTECT = 0;
    RTC_SWD_PROTECT = RTC_SWD_KEY;
    RTC_SWD_CONFIG |= RTC_SWD_AUTO_FEED;
    RTC_SWD_PROTECT = 0;
    for (int group = 0; group < 2; group++) {
        TIMG_WDT_PROTECT(group) = WDT_KEY;
        TIMG_WDT_CONFIG0(group) = 0;
        if (group == 0) {
            TIMG_WDT_PRESCALE(group) = 40000 / WDT_TICKS_PER_MS << 16;
            TIMG_WDT_STAGE0(group) = WATCHDOG_MS * WDT_TICKS_PER_MS;
            TIMG_WDT_CONFIG0(group) =
                TIMG_WDT_ENABLE_SYS_RESET | TIMG_WDT_UPDATE | TIMG_WDT_USE_XTAL;
            TIMG_WDT_FEED(group) = 1;
        }
        TIMG_WDT_PROTECT(group) = 0;
    }
}

void watchdog_feed(void) {
    TIMG_WDT_PROTECT(0) = WDT_KEY;
    TIMG_WDT_FEED(0) = 1;
    TIMG_WDT_PROTECT(0) = 0;
}
