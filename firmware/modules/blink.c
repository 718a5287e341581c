#include "modules.h"

#include "port.h"

enum { ON_MS = 50, OFF_MS = 950 };

static bool is_on;
static uint32_t flashes;

bool blink_setup(unsigned self) {
    (void)self;
    return true;
}

uint32_t blink_loop(void) {
    is_on = !is_on;
    flashes += is_on;
    port_led(is_on);
    return is_on ? ON_MS : OFF_MS;
}

void blink_health(struct text *text) {
    text_number(text, flashes);
    text_add(text, " flashes");
}
