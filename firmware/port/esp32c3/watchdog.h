/* The watchdogs of the chip: one of them goes on as ours. */
#ifndef ESP32C3_WATCHDOG_H
#define ESP32C3_WATCHDOG_H

void watchdog_init(void);

/* Long work calls this too, so that it does not look like a hang. */
void watchdog_feed(void);

#endif
