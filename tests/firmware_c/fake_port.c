/* core/port.h for test programs: writes go to a buffer, time stands still, nothing else happens. */
#include "check.h"
#include "port.h"

#include <stdlib.h>
#include <string.h>

int checks, failures;
unsigned long long fake_uptime_ms;
static char output[65536];
static size_t output_size;

int main(void) {
    run_tests();
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}

const char *written(void) {
    output[output_size] = '\0';
    output_size = 0;
    return output;
}

void port_init(void) {}

const struct port_identity *port_identity(void) {
    static const struct port_identity nobody = {"test", "0", "test", "test", "unknown", {0}, {0}};
    return &nobody;
}

uint64_t port_uptime_ms(void) {
    return fake_uptime_ms;
}

void port_write(const char *bytes, size_t size) {
    if (size < sizeof output - output_size) {
        memcpy(output + output_size, bytes, size);
        output_size += size;
    }
}

int port_read(void) {
    return -1;
}

void port_wait(uint64_t until_ms) {
    (void)until_ms;
}

void *port_heap(size_t *size) {
    static _Alignas(16) unsigned char memory[65536];
    *size = sizeof memory;
    return memory;
}

void port_led(bool on) {
    (void)on;
}

size_t port_regions(struct port_region *regions, size_t max) {
    (void)regions;
    (void)max;
    return 0;
}

void port_sha256(const struct port_region *region, uint8_t digest[PORT_DIGEST_SIZE]) {
    (void)region;
    memset(digest, 0, PORT_DIGEST_SIZE);
}

bool port_update_slot(struct port_slot *slot) {
    (void)slot;
    return false;
}

void port_update_read(const struct port_slot *slot, uint32_t at, uint8_t *block, uint32_t size) {
    (void)slot, (void)at, (void)block, (void)size;
}

bool port_update_write(const struct port_slot *slot, uint32_t at, const uint8_t *block,
                       uint32_t size) {
    (void)slot, (void)at, (void)block, (void)size;
    return false;
}

bool port_update_select(const struct port_slot *slot) {
    (void)slot;
    return false;
}

_Noreturn void port_reboot(void) {
    abort();
}

_Noreturn void port_panic(void) {
    abort();
}
