#include "rpc.h"

#include "out.h"

static const struct slice null_id = {"null", 4};

/* A batch's answers share one array; a single request's answer stands alone. */
static enum { SINGLE, BATCH_EMPTY, BATCH_OPEN } reply_form;

static char line[RPC_LINE_MAX];
static size_t line_size; /* may count beyond RPC_LINE_MAX: the line was too long */

static void begin_reply(struct slice id) {
    out_mute(id.size == 0);
    if (id.size != 0 && reply_form != SINGLE) {
        out_text(reply_form == BATCH_EMPTY ? "[" : ",");
        reply_form = BATCH_OPEN;
    }
    out_text("{\"jsonrpc\":\"2.0\",\"id\":");
    out_slice(id);
}

void rpc_end(void) {
    out_text(reply_form == SINGLE ? "}\n" : "}");
    out_mute(false);
}

void rpc_begin(const struct rpc_request *request) {
    begin_reply(request->id);
    out_text(",\"result\":");
}

void rpc_error(const struct rpc_request *request, enum rpc_error code, const char *message) {
    begin_reply(request->id);
    out_text(",\"error\":{\"code\":-");
    out_number((uint64_t)-code);
    out_text(",\"message\":");
    out_string(message);
    out_text("}");
    rpc_end();
}

static void refuse(enum rpc_error code, const char *message) {
    rpc_error(&(struct rpc_request){.id = null_id}, code, message);
}

static bool is_id(struct slice value) {
    char kind = json_kind(value);
    return kind == '"' || kind == 'n' || kind == '-' || (kind >= '0' && kind <= '9');
}

static bool is_structured(struct slice value) {
    char kind = json_kind(value);
    return kind == '[' || kind == '{';
}

static void serve_request(struct slice message) {
    struct rpc_request request = {0};
    struct slice version, name;
    bool has_id = json_member(message, "id", &request.id);
    bool has_params = json_member(message, "params", &request.params);
    if (!json_member(message, "jsonrpc", &version) || !json_string_is(version, "2.0") ||
        !json_member(message, "method", &name) || json_kind(name) != '"' ||
        (has_id && !is_id(request.id)) || (has_params && !is_structured(request.params))) {
        refuse(RPC_INVALID_REQUEST, "Invalid Request");
        return;
    }
    if (!has_id) {
        request.id = (struct slice){0};
    }
    if (!has_params) {
        request.params = (struct slice){0};
    }
    for (size_t i = 0; i < rpc_method_count; i++) {
        if (json_string_is(name, rpc_methods[i].name)) {
            rpc_methods[i].run(&request);
            return;
        }
    }
    rpc_error(&request, RPC_METHOD_NOT_FOUND, "Method not found");
}

static void serve_batch(struct slice rest) {
    struct slice item;
    bool any = false;
    reply_form = BATCH_EMPTY;
    while (json_next_item(&rest, &item)) {
        any = true;
        serve_request(item);
    }
    bool open = reply_form == BATCH_OPEN;
    reply_form = SINGLE;
    if (open) {
        out_text("]\n");
    } else if (!any) {
        refuse(RPC_INVALID_REQUEST, "Invalid Request");
    }
}

static void serve_line(struct slice text) {
    if (!json_valid(text)) {
        refuse(RPC_PARSE_ERROR, "Parse error");
    } else if (json_kind(text) == '[') {
        serve_batch(text);
    } else {
        serve_request(text);
    }
}

static bool is_blank(struct slice text) {
    return json_kind(text) == '\0';
}

void rpc_byte(char byte) {
    if (byte != '\n') {
        if (line_size < sizeof line) {
            line[line_size] = byte;
        }
        line_size += line_size <= sizeof line;
        return;
    }
    struct slice text = {line, line_size};
    line_size = 0;
    if (text.size > sizeof line) {
        refuse(RPC_INVALID_REQUEST, "Invalid Request: line longer than 1024 bytes");
    } else if (!is_blank(text)) {
        serve_line(text);
    }
}
