#include "json.h"

struct reader {
    const char *at;
    const char *end;
    unsigned depth;
};

static bool read_value(struct reader *r);

static void skip_space(struct reader *r) {
    while (r->at < r->end &&
           (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) {
        r->at++;
    }
}

static bool take(struct reader *r, char wanted) {
    if (r->at == r->end || *r->at != wanted) {
        return false;
    }
    r->at++;
    return true;
}

static bool read_word(struct reader *r, const char *word) {
    while (*word != '\0') {
        if (!take(r, *word++)) {
            return false;
        }
    }
    return true;
}

static bool read_digits(struct reader *r) {
    const char *start = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') {
        r->at++;
    }
    return r->at > start;
}

static bool read_number(struct reader *r) {
    take(r, '-');
    if (!take(r, '0') && !read_digits(r)) {
        return false;
    }
    if (take(r, '.') && !read_digits(r)) {
        return false;
    }
    if (take(r, 'e') || take(r, 'E')) {
        if (!take(r, '+')) {
            take(r, '-');
        }
        return read_digits(r);
    }
    return true;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20; /* to lower case */
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_escape(struct reader *r) {
    if (r->at == r->end) {
        return false;
    }
    char c = *r->at++;
    if (c == 'u') {
        for (int i = 0; i < 4; i++) {
            if (r->at == r->end || hex_digit(*r->at++) < 0) {
                return false;
            }
        }
        return true;
    }
    return c == '"' || c == '\\' || c == '/' || c == 'b' || c == 'f' || c == 'n' || c == 'r' ||
           c == 't';
}

/* The rest of a UTF-8 sequence whose first byte is `lead`. Refuses overlong forms, surrogates and
 * values above U+10FFFF (RFC 3629): what comes in is echoed, and no answer may be broken text. */
static bool read_utf8_tail(struct reader *r, uint8_t lead) {
    unsigned more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    uint8_t low = 0x80, high = 0xBF;
    if (lead < 0xC2 || lead > 0xF4) {
        return false;
    }
    if (lead == 0xE0) {
        low = 0xA0;
    } else if (lead == 0xED) {
        high = 0x9F;
    } else if (lead == 0xF0) {
        low = 0x90;
    } else if (lead == 0xF4) {
        high = 0x8F;
    }
    for (; more > 0; more--) {
        if (r->at == r->end || (uint8_t)*r->at < low || (uint8_t)*r->at > high) {
            return false;
        }
        r->at++;
        low = 0x80;
        high = 0xBF;
    }
    return true;
}

static bool read_string(struct reader *r) {
    if (!take(r, '"')) {
        return false;
    }
    while (r->at < r->end) {
        uint8_t c = (uint8_t)*r->at++;
        if (c == '"') {
            return true;
        }
        if (c < 0x20 || (c == '\\' && !read_escape(r)) || (c >= 0x80 && !read_utf8_tail(r, c))) {
            return false;
        }
    }
    return false;
}

/* The inside of an array or object, up to and with `close`. */
static bool read_members(struct reader *r, char close, bool named) {
    skip_space(r);
    if (take(r, close)) {
        return true;
    }
    do {
        skip_space(r);
        if (named) {
            if (!read_string(r)) {
                return false;
            }
            skip_space(r);
            if (!take(r, ':')) {
                return false;
            }
        }
        if (!read_value(r)) {
            return false;
        }
    } while (take(r, ','));
    return take(r, close);
}

static bool read_nested(struct reader *r) {
    if (r->depth == JSON_DEPTH_MAX) {
        return false;
    }
    r->depth++;
    bool object = *r->at++ == '{';
    bool good = read_members(r, object ? '}' : ']', object);
    r->depth--;
    return good;
}

/* One value with white space around it. */
static bool read_value(struct reader *r) {
    bool good;
    skip_space(r);
    if (r->at == r->end) {
        return false;
    }
    switch (*r->at) {
    case '{':
    case '[':
        good = read_nested(r);
        break;
    case '"':
        good = read_string(r);
        break;
    case 't':
        good = read_word(r, "true");
        break;
    case 'f':
        good = read_word(r, "false");
        break;
    case 'n':
        good = read_word(r, "null");
        break;
    default:
        good = read_number(r);
    }
    skip_space(r);
    return good;
}

bool json_valid(struct slice text) {
    struct reader r = {text.at, text.at + text.size, 0};
    return read_value(&r) && r.at == r.end;
}

/* The value at the reader, without the white space around it. */
static struct slice take_value(struct reader *r) {
    skip_space(r);
    const char *start = r->at;
    read_value(r);
    const char *stop = r->at;
    while (stop > start && (stop[-1] == ' ' || stop[-1] == '\t' || stop[-1] == '\r')) {
        stop--;
    }
    return (struct slice){start, (size_t)(stop - start)};
}

char json_kind(struct slice value) {
    struct reader r = {value.at, value.at + value.size, 0};
    skip_space(&r);
    return r.at < r.end ? *r.at : '\0';
}

bool json_next_item(struct slice *rest, struct slice *item) {
    struct reader r = {rest->at, rest->at + rest->size, 0};
    skip_space(&r);
    if (!take(&r, '[') && !take(&r, ',')) {
        return false;
    }
    skip_space(&r);
    if (take(&r, ']')) {
        return false;
    }
    *item = take_value(&r);
    *rest = (struct slice){r.at, (size_t)(r.end - r.at)};
    return true;
}

bool json_member(struct slice object, const char *name, struct slice *value) {
    struct reader r = {object.at, object.at + object.size, 0};
    skip_space(&r);
    if (!take(&r, '{')) {
        return false;
    }
    do {
        skip_space(&r);
        struct slice key = {r.at, 0};
        if (!read_string(&r)) {
            return false;
        }
        key.size = (size_t)(r.at - key.at);
        skip_space(&r);
        take(&r, ':');
        *value = take_value(&r);
        if (json_string_is(key, name)) {
            return true;
        }
    } while (take(&r, ','));
    return false;
}

/* The character that the escape after a backslash stands for; only ASCII can match a name. */
static uint32_t resolve_escape(struct reader *r) {
    char c = *r->at++;
    uint32_t code = 0;
    switch (c) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'u':
        for (int i = 0; i < 4; i++) {
            code = code << 4 | (uint32_t)hex_digit(*r->at++);
        }
        return code;
    default:
        return (uint8_t)c;
    }
}

bool json_string_is(struct slice string, const char *text) {
    struct reader r = {string.at, string.at + string.size, 0};
    if (!take(&r, '"')) {
        return false;
    }
    for (; *text != '\0'; text++) {
        uint32_t c = (uint8_t)*r.at;
        if (c == '"') {
            return false;
        }
        r.at++;
        if (c == '\\') {
            c = resolve_escape(&r);
        }
        if (c != (uint8_t)*text) {
            return false;
        }
    }
    return *r.at == '"';
}

bool json_unsigned(struct slice number, uint32_t *value) {
    uint32_t sum = 0;
    for (size_t i = 0; i < number.size; i++) {
        uint32_t digit = (uint32_t)(number.at[i] - '0');
        if (digit > 9 || sum > (UINT32_MAX - digit) / 10) {
            return false;
        }
        sum = sum * 10 + digit;
    }
    *value = sum;
    return number.size > 0;
}
