/* Everything that core/ and modules/ may ask of a platform. A port implements all of it; they
 * include nothing else of the platform, so the same sources run on a chip and on a host.
 *
 * One thread. No call allocates memory. */
#ifndef CORE_PORT_H
#define CORE_PORT_H

#include <stdbool.h>
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

/* A part of flash that an image was written to: `size` bytes, exactly those of the image. */
struct port_region {
    char name[17];
    bool running;
    uint32_t offset, size;
};

#define PORT_DIGEST_SIZE 32

void port_init(void);
const struct port_identity *port_identity(void);

/* Milliseconds since this boot. Never goes back. */
uint64_t port_uptime_ms(void);

/* Sends all of `bytes`; waits while the line is busy. */
void port_write(const char *bytes, size_t size);

/* The next received byte (0..255), or -1 when there is none. Never waits. */
int port_read(void);

/* Rests until a byte has arrived or the uptime is `until_ms`, a second at most. May return early.
 * Feeds the watchdog: a program that does not come here for three seconds is restarted. */
void port_wait(uint64_t until_ms);

/* The memory that heap.c hands out, aligned to 16 bytes. */
void *port_heap(size_t *size);

/* The one output that every board has. */
void port_led(bool on);

/* What lies in flash, at most `max` regions; returns how many. */
size_t port_regions(struct port_region *regions, size_t max);

/* SHA-256 of a region as it lies in flash now. */
void port_sha256(const struct port_region *region, uint8_t digest[PORT_DIGEST_SIZE]);

/* --- An update of the application ---------------------------------------------------------------
 */

/* The slot that an update goes to, beside the one that runs. */
struct port_slot {
    char name[17];
    uint32_t offset, size;
    uint32_t running_offset; /* of the slot that runs; the same size */
    uint32_t number;         /* for the port */
};

enum { PORT_BLOCK = 4096 }; /* what is erased at once */

/* False where this platform cannot update itself. */
bool port_update_slot(struct port_slot *slot);

/* A block of the running slot, `at` a multiple of PORT_BLOCK. */
void port_update_read(const struct port_slot *slot, uint32_t at, uint8_t *block, uint32_t size);

/* Erases the block at `at` (a multiple of PORT_BLOCK) and writes the first `size` bytes of it.
 * `block` has PORT_BLOCK bytes, aligned to 4. True when the flash then holds them. */
bool port_update_write(const struct port_slot *slot, uint32_t at, const uint8_t *block,
                       uint32_t size);

/* From the next start on the slot runs, for as long as it says that it works; otherwise the one
 * before does again. */
bool port_update_select(const struct port_slot *slot);

/* Lets what was written leave the device, then restarts it. */
_Noreturn void port_reboot(void);

/* Fails as a program with a bad pointer does: a report on the line, then a restart. */
_Noreturn void port_panic(void);

#endif
