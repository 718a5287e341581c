/* Writes the parts of a JSON answer to the port. Text goes out as it is produced: an answer can be
 * longer than any buffer here. */
#ifndef CORE_OUT_H
#define CORE_OUT_H

#include "json.h"

#include <stdbool.h>
#include <stdint.h>

/* While muted, everything below writes nothing (a notification gets no answer). */
void out_mute(bool muted);

void out_text(const char *text);
void out_slice(struct slice text);
void out_string(const char *text); /* quoted, escaped */
void out_number(uint64_t number);
void out_bool(bool value);
void out_hex(const uint8_t *bytes, size_t size, const char *separator); /* quoted */

#endif
