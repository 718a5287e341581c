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

/* Long division, one bit at a time; nearly all numbers are small enough for the CPU's own `divu`.
 * Division by zero gives all ones, as that does. */
static uint64_t divide(uint64_t dividend, uint64_t divisor, uint64_t *remainder) {
    uint64_t quotient = 0, rest = 0;
    if (dividend >> 32 == 0 && divisor >> 32 == 0 && divisor != 0) {
        *remainder = (uint32_t)dividend % (uint32_t)divisor;
        return (uint32_t)dividend / (uint32_t)divisor;
    }
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

/* Shifts by a count that is not known, which gcc leaves to a library where it saves space. */
uint64_t __lshrdi3(uint64_t value, int count) {
    uint32_t high = (uint32_t)(value >> 32), low = (uint32_t)value;
    if (count >= 32) {
        return high >> (count - 32);
    }
    low = count == 0 ? low : low >> count | high << (32 - count);
    return (uint64_t)(high >> count) << 32 | low;
}

uint64_t __ashldi3(uint64_t value, int count) {
    uint32_t high = (uint32_t)(value >> 32), low = (uint32_t)value;
    if (count >= 32) {
        return (uint64_t)(low << (count - 32)) << 32;
    }
    high = count == 0 ? high : high << count | low >> (32 - count);
    return (uint64_t)high << 32 | low << count;
}
