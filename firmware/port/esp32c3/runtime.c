/* What a compiler expects to find in a C library, and nothing else: compilers emit calls to these
 * even for free-standing code. Own division keeps the image free of a toolchain's runtime library.
 */
#include <stddef.h>
#include <stdint.h>

void *memset(void *to, int value, size_t size) {
    for (uint8_t *at = to; size > 0; size--) {
        *at++ = (uint8_t)value;
    }
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    const uint8_t *source = from;
    for (uint8_t *at = to; size > 0; size--) {
        *at++ = *source++;
    }
    return to;
}

/* Long division, one bit at a time. Division by zero gives all ones, as the CPU's own `divu`. */
static uint64_t divide(uint64_t dividend, uint64_t divisor, uint64_t *remainder) {
    uint64_t quotient = 0, rest = 0;
    for (int bit = 63; bit >= 0; bit--) {
        rest = rest << 1 | (dividend >> bit & 1);
        quotient <<= 1;
        if (rest >= divisor) {
            rest -= divisor;
            quotient |= 1;
        }
    }
    *remainder = rest;
    return quotient;
}

uint64_t __udivdi3(uint64_t dividend, uint64_t divisor) {
    uint64_t remainder;
    return divide(dividend, divisor, &remainder);
}

uint64_t __umoddi3(uint64_t dividend, uint64_t divisor) {
    uint64_t remainder;
    divide(dividend, divisor, &remainder);
    return remainder;
}
