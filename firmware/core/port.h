/* Everything that core/ may ask of a platform. A port implements all of it; core/ includes nothing
 * else of the platform, so the same core runs on a chip and on a host.
 *
 * One thread. No call allocates memory. */
#ifndef CORE_PORT_H
#define CORE_PORT_H

#include <stddef.h>
#include <stdint.h>

/* Who this device is and what it runs. Constant from port_init() until the next reset. */
struct port_identity {
    const char *project;
    const char *version;
    const char *chip;
    const char *partition;    /* label of the partition that holds the running image */
    const char *reset_reason; /* power_on, software, panic, watchdog, brownout or unknown */
    uint8_t mac[6];
    uint8_t app_elf_sha256[32]; /* of the ELF that the running image was made from */
};

void port_init(void);
const struct port_identity *port_identity(void);

/* Milliseconds since this boot. Never goes back. */
uint64_t port_uptime_ms(void);

/* Sends all of `bytes`; waits while the line is busy. */
void port_write(const char *bytes, size_t size);

/* The next received byte (0..255), or -1 when there is none. Never waits. */
int port_read(void);

/* Rests until a byte has arrived. May return without one. */
void port_wait(void);

/* Lets what was written leave the device, then restarts it. */
_Noreturn void port_reboot(void);

#endif
