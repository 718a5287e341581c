/* Modules: what the device does besides answering. Each is one row of a table in modules/, and each
 * can fail alone: the device then says so and the others go on. */
#ifndef CORE_MODULE_H
#define CORE_MODULE_H

#include "text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `self` is the module's number as an owner of memory (guard.h). */
struct module {
    const char *name;
    bool (*setup)(unsigned self);               /* false: cannot work, stays disabled */
    uint32_t (*loop)(void);                     /* returns the ms until its next turn */
    void (*health)(struct text *text);          /* one line for a person */
    bool (*set)(unsigned self, uint32_t value); /* its parameter; false: refused. May be NULL */
};

extern const struct module modules[];
extern const size_t module_count;

void modules_setup(void);

/* Gives every module its turn that is due; returns the uptime at which the next one will be. */
uint64_t modules_loop(uint64_t now_ms);

/* Passes a parameter on. A module that refuses it is disabled until it accepts another. */
void module_set(size_t index, uint32_t value);

bool module_setup_ok(size_t index);
bool module_at_fault(size_t index); /* it is why another one was refused memory */
size_t module_held(size_t index);   /* bytes of the heap */
void module_health(size_t index, struct text *text);

#endif
