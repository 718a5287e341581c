#include "methods.h"

#include "guard.h"
#include "heap.h"
#include "logring.h"
#include "module.h"
#include "out.h"
#include "params.h"

enum { HEALTH_ROOM = 128 };

static void out_module(size_t index) {
    char buffer[HEALTH_ROOM];
    struct text text = TEXT_IN(buffer);
    module_health(index, &text);
    out_text("{\"name\":");
    out_string(modules[index].name);
    out_text(",\"setup_ok\":");
    out_bool(module_setup_ok(index));
    out_text(",\"at_fault\":");
    out_bool(module_at_fault(index));
    out_text(",\"held\":");
    out_number(module_held(index));
    out_text(",\"health\":");
    out_string(buffer);
    out_text("}");
}

static void out_heap(void) {
    struct heap_state heap = heap_state();
    out_text("{\"size\":");
    out_number(heap.size);
    out_text(",\"free\":");
    out_number(heap.free);
    out_text(",\"largest\":");
    out_number(heap.largest);
    out_text(",\"fragmentation_percent\":");
    out_number(heap.fragmentation_percent);
    out_text(",\"reserve\":");
    out_number(HEAP_RESERVE);
    out_text("}");
}

void run_health(const struct rpc_request *request) {
    if (!params_none(request)) {
        return;
    }
    bool ok = true;
    rpc_begin(request);
    out_text("{\"modules\":[");
    for (size_t i = 0; i < module_count; i++) {
        out_text(i == 0 ? "" : ",");
        out_module(i);
        ok = ok && module_setup_ok(i);
    }
    out_text("],\"heap\":");
    out_heap();
    out_text(",\"ok\":");
    out_bool(ok);
    out_text("}");
    rpc_end();
}

/* The module that a parameter names, module_count when none does. */
static size_t find_module(struct slice name) {
    size_t index = 0;
    while (index < module_count && !json_string_is(name, modules[index].name)) {
        index++;
    }
    return index;
}

void run_module_set(const struct rpc_request *request) {
    size_t index = find_module(params_get(request, 0, "module"));
    uint32_t value;
    if (index == module_count || modules[index].set == NULL) {
        rpc_error(request, RPC_INVALID_PARAMS,
                  "Invalid params: no module of this name has a parameter");
        return;
    }
    if (params_get(request, 1, "value").size == 0) {
        rpc_error(request, RPC_INVALID_PARAMS, "Invalid params: value is missing");
        return;
    }
    if (!params_unsigned(request, 1, "value", &value)) {
        return;
    }
    module_set(index, value);
    rpc_begin(request);
    out_module(index);
    rpc_end();
}

void run_log(const struct rpc_request *request) {
    uint32_t since = 0, dropped;
    if (!params_unsigned(request, 0, "since", &since)) {
        return;
    }
    uint32_t first = log_first(since, &dropped);
    rpc_begin(request);
    out_text("{\"first\":");
    out_number(first);
    out_text(",\"next\":");
    out_number(log_next());
    out_text(",\"dropped\":");
    out_number(dropped);
    out_text(",\"entries\":[");
    for (uint32_t number = first; number != log_next(); number++) {
        const struct log_entry *entry = log_at(number);
        char level[] = {entry->level, '\0'};
        out_text(number == first ? "[" : ",[");
        out_string(level);
        out_text(",");
        out_number(entry->uptime_ms);
        out_text(",");
        out_string(entry->text);
        out_text("]");
    }
    out_text("]}");
    rpc_end();
}
