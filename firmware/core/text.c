#include "text.h"

void text_add(struct text *text, const char *part) {
    while (*part != '\0' && text->size + 1 < text->room) {
        text->at[text->size++] = *part++;
    }
    text->at[text->size] = '\0';
}

char *format_number(char *end, uint64_t number) {
    do {
        *--end = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    return end;
}

void text_number(struct text *text, uint64_t number) {
    char digits[NUMBER_DIGITS_MAX + 1];
    digits[NUMBER_DIGITS_MAX] = '\0';
    text_add(text, format_number(digits + NUMBER_DIGITS_MAX, number));
}
