/* json.c and rpc.c on texts that end exactly where their memory ends, so that ASan sees each byte
 * too far. */
#include "check.h"
#include "json.h"
#include "rpc.h"

#include <stdlib.h>
#include <string.h>

/* The text alone in its memory, without a NUL behind it. */
static struct slice exactly(const char *text, size_t size) {
    char *copy = malloc(size > 0 ? size : 1);
    memcpy(copy, text, size);
    return (struct slice){copy, size};
}

static bool valid(const char *text, size_t size) {
    struct slice slice = exactly(text, size);
    bool result = json_valid(slice);
    free((char *)slice.at);
    return result;
}

static const char *const good[] = {
    "null",
    " true ",
    "-0",
    "0.5",
    "1e9",
    "-12.5E-3",
    "\"\"",
    "\"\\u00e9\\n\"",
    "[]",
    "{}",
    "[1,[2,{\"a\":[]}]]",
    "{\"a\":{\"b\":[null,false]},\"c\":\"\xf0\x9f\x98\x80\"}",
};
static const char *const bad[] = {
    "",         " ",          "nul",
    "01",       "-",          "1.",
    ".5",       "1e",         "+1",
    "\"",       "\"\\",       "\"\\u12",
    "\"\\x\"",  "[",          "[1",
    "[1,",      "[,1]",       "{",
    "{\"a\"",   "{\"a\":",    "{\"a\":1",
    "{a:1}",    "{\"a\":1,}", "1 2",
    "\"\x1f\"", "\"\xc3\"",   "\"\xed\xa0\x80\"",
    "\"\xf5\"",
};

static void test_valid(void) {
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK(valid(good[i], strlen(good[i])));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(!valid(bad[i], strlen(bad[i])));
    }
}

static void test_depth(void) {
    char text[2 * (JSON_DEPTH_MAX + 1)];
    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    CHECK(valid(text, 2 * JSON_DEPTH_MAX));
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    CHECK(!valid(text, 2 * (JSON_DEPTH_MAX + 1)));
}

/* Every piece of every text, and every text with any one byte changed to some others: no answer is
 * expected, only that nothing is read outside. */
static void test_damage(void) {
    static const char bytes[] = "\"\\{}[],:0-eu\x00\x80\xff";
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        size_t size = strlen(good[i]);
        for (size_t cut = 0; cut < size; cut++) {
            valid(good[i], cut);
            valid(good[i] + cut, size - cut);
            for (size_t b = 0; b < sizeof bytes - 1; b++) {
                struct slice changed = exactly(good[i], size);
                ((char *)changed.at)[cut] = bytes[b];
                if (json_valid(changed)) {
                    struct slice rest = changed, item;
                    json_member(changed, "c", &item);
                    while (json_next_item(&rest, &item)) {
                        json_string_is(item, "2");
                    }
                }
                free((char *)changed.at);
                checks++;
            }
        }
    }
}

static void test_unsigned(void) {
    uint32_t value = 7;
    CHECK(json_unsigned((struct slice){"0", 1}, &value) && value == 0);
    CHECK(json_unsigned((struct slice){"4294967295", 10}, &value) && value == UINT32_MAX);
    CHECK(!json_unsigned((struct slice){"4294967296", 10}, &value) && value == UINT32_MAX);
    CHECK(!json_unsigned((struct slice){"42949672950", 11}, &value));
    CHECK(!json_unsigned((struct slice){"-1", 2}, &value));
    CHECK(!json_unsigned((struct slice){"1.0", 3}, &value));
    CHECK(!json_unsigned((struct slice){"1e3", 3}, &value));
    CHECK(!json_unsigned((struct slice){"", 0}, &value));
}

static void send(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        rpc_byte(text[i]);
    }
}

static void test_lines(void) {
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}";
    static const char answer[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"pong\"}\n";
    char padded[RPC_LINE_MAX + 1];
    memset(padded, ' ', sizeof padded);
    memcpy(padded, request, strlen(request));
    send(padded, RPC_LINE_MAX);
    CHECK(strcmp(written(), "") == 0);
    send("\n", 1);
    CHECK(strcmp(written(), answer) == 0);
    send(padded, RPC_LINE_MAX + 1);
    send("\n", 1);
    CHECK(strstr(written(), "-32600") != NULL);
    send(request, strlen(request));
    send("\n", 1);
    CHECK(strcmp(written(), answer) == 0);
}

void run_tests(void) {
    test_valid();
    test_depth();
    test_damage();
    test_unsigned();
    test_lines();
}
