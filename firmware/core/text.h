/* Composes one line of text in a buffer. What does not fit is cut off, never written. */
#ifndef CORE_TEXT_H
#define CORE_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct text {
    char *at;
    size_t size; /* without the terminating NUL */
    size_t room; /* of the buffer */
};

/* An empty text in `buffer`, an array. */
#define TEXT_IN(buffer)                                                                            \
    (struct text) {                                                                                \
        (buffer), 0, sizeof(buffer)                                                                \
    }

#define NUMBER_DIGITS_MAX 20 /* of 2^64 */

/* Each keeps the text NUL-terminated, so `at` is always a C string after the first call. */
void text_add(struct text *text, const char *part);
void text_number(struct text *text, uint64_t number);

/* Writes the decimal digits of `number` so that they end before `end`; returns their begin. */
char *format_number(char *end, uint64_t number);

#endif
