/* logring.c, gate.c and text.c. */
#include "check.h"
#include "gate.h"
#include "logring.h"
#include "text.h"

#include <string.h>

static void add(unsigned count) {
    char buffer[LOG_TEXT_ROOM];
    for (unsigned i = 0; i < count; i++) {
        struct text text = TEXT_IN(buffer);
        text_number(&text, log_next());
        log_add('I', buffer);
    }
}

/* Each entry says the number that it had when it was added. */
static int says_its_number(uint32_t number) {
    char buffer[LOG_TEXT_ROOM];
    struct text text = TEXT_IN(buffer);
    text_number(&text, number);
    return strcmp(log_at(number)->text, buffer) == 0;
}

static void test_numbers_from(uint32_t start) {
    uint32_t dropped;
    log_clear(start);
    CHECK(log_first(start, &dropped) == start && dropped == 0 && log_next() == start);
    add(LOG_ENTRIES);
    CHECK(log_first(start, &dropped) == start && dropped == 0);
    add(36);
    CHECK(log_next() == start + 100);
    CHECK(log_first(start, &dropped) == start + 36 && dropped == 36);
    CHECK(log_first(start + 30, &dropped) == start + 36 && dropped == 6);
    CHECK(log_first(start + 36, &dropped) == start + 36 && dropped == 0);
    CHECK(log_first(start + 50, &dropped) == start + 50 && dropped == 0);
    CHECK(log_first(start + 100, &dropped) == start + 100 && dropped == 0);
    CHECK(log_first(start + 101, &dropped) == start + 36 && dropped == 0); /* it has restarted */
    for (uint32_t i = 36; i < 100; i++) {
        CHECK(says_its_number(start + i));
    }
}

static void test_print(void) {
    log_clear(0);
    fake_uptime_ms = 1234;
    log_add('I', "one");
    log_add('W', "two");
    CHECK(strcmp(written(), "") == 0); /* not before it is asked to */
    log_print();
    CHECK(strcmp(written(), "I (1234) one\nW (1234) two\n") == 0);
    log_print();
    CHECK(strcmp(written(), "") == 0);
    add(70); /* six of them are gone before they are printed */
    log_print();
    const char *text = written();
    unsigned lines = 0;
    for (const char *at = text; *at != '\0'; at++) {
        lines += *at == '\n';
    }
    CHECK(lines == LOG_ENTRIES && strncmp(text, "I (1234) 8\n", 11) == 0);
}

static void test_long_text_is_cut(void) {
    char longest[3 * LOG_TEXT_ROOM];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    log_clear(0);
    log_add('E', longest);
    CHECK(strlen(log_at(0)->text) == LOG_TEXT_ROOM - 1 && log_at(0)->level == 'E');
}

static void test_text(void) {
    char buffer[8];
    struct text text = TEXT_IN(buffer);
    text_number(&text, 0);
    text_add(&text, "ab");
    CHECK(strcmp(buffer, "0ab") == 0);
    text_number(&text, UINT64_MAX);
    CHECK(strcmp(buffer, "0ab1844") == 0 && text.size == 7);
    text_add(&text, "more");
    CHECK(strcmp(buffer, "0ab1844") == 0);
    char full[NUMBER_DIGITS_MAX];
    CHECK(format_number(full + sizeof full, UINT64_MAX) == full);
    CHECK(memcmp(full, "18446744073709551615", sizeof full) == 0);
}

static void test_gate(void) {
    struct gate gate = {0};
    CHECK(gate_passes(&gate, 1000, 5));
    CHECK(!gate_passes(&gate, 1000, 6));
    CHECK(!gate_passes(&gate, 1200, 7)); /* 20 % is no more than 20 % */
    CHECK(!gate_passes(&gate, 800, 8));
    CHECK(gate_passes(&gate, 1201, 9));
    CHECK(!gate_passes(&gate, 1000, 10)); /* compared with 1201 now */
    CHECK(gate_passes(&gate, 960, 11));
    CHECK(!gate_passes(&gate, 960, 11 + GATE_SILENCE_MS - 1));
    CHECK(gate_passes(&gate, 960, 11 + GATE_SILENCE_MS));
    CHECK(gate_passes(&gate, 0, 11 + GATE_SILENCE_MS));
    CHECK(!gate_passes(&gate, 0, 12 + GATE_SILENCE_MS));
    CHECK(gate_passes(&gate, 1, 12 + GATE_SILENCE_MS)); /* from nothing, anything is news */
    CHECK(gate_passes(&gate, UINT32_MAX, 13 + GATE_SILENCE_MS));
    CHECK(gate_passes(&gate, 0, 14 + GATE_SILENCE_MS));
}

void run_tests(void) {
    test_numbers_from(0);
    test_numbers_from(63);
    test_numbers_from(UINT32_MAX - 70); /* the numbers wrap */
    test_numbers_from(UINT32_MAX - 40);
    test_print();
    test_long_text_is_cut();
    test_text();
    test_gate();
}
