/* A bounded JSON reader: checks one text in place and walks it. No tree, no copies, no allocation.
 *
 * json_valid() comes first. The walking functions expect a slice of text that passed it. */
#ifndef CORE_JSON_H
#define CORE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Deeper nesting is refused, because each level costs stack. */
#define JSON_DEPTH_MAX 16

/* A part of a text that somebody else owns. */
struct slice {
    const char *at;
    size_t size;
};

/* Is `text` exactly one JSON value (RFC 8259, UTF-8), white space around it allowed? */
bool json_valid(struct slice text);

/* First character of a value: one of { [ " t f n - 0..9. */
char json_kind(struct slice value);

/* Steps through an array. Start with *rest = the array; false at its end. */
bool json_next_item(struct slice *rest, struct slice *item);

/* The value of an object's first member called `name`; false when there is none. */
bool json_member(struct slice object, const char *name, struct slice *value);

/* Does this JSON string mean exactly `text` (ASCII), escapes resolved? */
bool json_string_is(struct slice string, const char *text);

/* The value of a JSON number that is a whole one from 0 to 2^32-1, written without exponent. */
bool json_unsigned(struct slice number, uint32_t *value);

#endif
