/* Which modules this firmware has, in the order in which they start. */
#include "modules.h"

const struct module modules[] = {
    {"blink", blink_setup, blink_loop, blink_health, NULL},
    {"sampler", sampler_setup, sampler_loop, sampler_health, sampler_set},
    {"ballast", ballast_setup, ballast_loop, ballast_health, ballast_set},
};
const size_t module_count = sizeof modules / sizeof modules[0];
