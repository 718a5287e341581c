/* The methods that this device offers. To add one: write its function, add its row. */
#include "methods.h"

#include "out.h"
#include "params.h"
#include "port.h"

static void run_discover(const struct rpc_request *request) {
    if (!params_none(request)) {
        return;
    }
    rpc_begin(request);
    out_text("{\"openrpc\":\"1.2.6\",\"info\":{\"title\":");
    out_string(port_identity()->project);
    out_text(",\"version\":");
    out_string(port_identity()->version);
    out_text("},\"methods\":[");
    for (size_t i = 0; i < rpc_method_count; i++) {
        out_text(i == 0 ? "{\"name\":" : ",{\"name\":");
        out_string(rpc_methods[i].name);
        out_text(",\"summary\":");
        out_string(rpc_methods[i].summary);
        out_text(",\"params\":");
        out_text(rpc_methods[i].params);
        out_text(",\"result\":{\"name\":\"result\",\"schema\":");
        out_text(rpc_methods[i].result);
        out_text("}}");
    }
    out_text("]}");
    rpc_end();
}

static void run_ping(const struct rpc_request *request) {
    if (!params_none(request)) {
        return;
    }
    rpc_begin(request);
    out_text("\"pong\"");
    rpc_end();
}

static void run_echo(const struct rpc_request *request) {
    if (request->params.size == 0) {
        rpc_error(request, RPC_INVALID_PARAMS, "Invalid params: nothing to echo");
        return;
    }
    rpc_begin(request);
    out_slice(request->params);
    rpc_end();
}

static void run_info(const struct rpc_request *request) {
    const struct port_identity *who = port_identity();
    if (!params_none(request)) {
        return;
    }
    rpc_begin(request);
    out_text("{\"project\":");
    out_string(who->project);
    out_text(",\"version\":");
    out_string(who->version);
    out_text(",\"chip\":");
    out_string(who->chip);
    out_text(",\"mac\":");
    out_hex(who->mac, sizeof who->mac, ":");
    out_text(",\"app_elf_sha256\":");
    out_hex(who->app_elf_sha256, sizeof who->app_elf_sha256, "");
    out_text(",\"partition\":");
    out_string(who->partition);
    out_text(",\"reset_reason\":");
    out_string(who->reset_reason);
    out_text(",\"uptime_ms\":");
    out_number(port_uptime_ms());
    out_text("}");
    rpc_end();
}

static void run_reboot(const struct rpc_request *request) {
    if (!params_none(request)) {
        return;
    }
    rpc_begin(request);
    out_text("true");
    rpc_end();
    port_reboot();
}

#if HOTPLATE_TEST_RPC /* for tests of hosts: what does yours say when a device fails? */
static void run_panic(const struct rpc_request *request) {
    if (params_none(request)) {
        port_panic();
    }
}

static void run_hang(const struct rpc_request *request) {
    if (params_none(request)) {
        for (;;) {
        }
    }
}
#endif

#define OBJECT "{\"type\":\"object\"}"
#define BLOCKS                                                                                     \
    "[{\"name\":\"first\"," NUMBER ",\"required\":true},"                                          \
    "{\"name\":\"count\"," NUMBER ",\"required\":true}]"
#define NUMBER "\"schema\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":4294967295}"

const struct rpc_method rpc_methods[] = {
    {"rpc.discover", "Lists these methods as an OpenRPC document.", "[]", OBJECT, run_discover},
    {"ping", "Answers \"pong\".", "[]", "{\"type\":\"string\"}", run_ping},
    {"echo", "Answers its parameters as they came.",
     "[{\"name\":\"value\",\"schema\":{},\"required\":true}]", "{}", run_echo},
    {"info", "Says which device this is and what it runs.", "[]", OBJECT, run_info},
    {"health", "Says how each module and the memory are.", "[]", OBJECT, run_health},
    {"module.set", "Gives a module its parameter and answers its health.",
     "[{\"name\":\"module\",\"schema\":{\"type\":\"string\"},\"required\":true},"
     "{\"name\":\"value\"," NUMBER ",\"required\":true}]",
     OBJECT, run_module_set},
    {"log", "Answers the log entries from number `since` on, as [level, uptime_ms, text].",
     "[{\"name\":\"since\"," NUMBER "}]", OBJECT, run_log},
    {"image.hashes", "Answers the SHA-256 of every image as it lies in flash.", "[]", OBJECT,
     run_image_hashes},
    {"ota.begin", "Opens an update of `size` bytes; answers the slot that it goes to.",
     "[{\"name\":\"size\"," NUMBER ",\"required\":true}]", OBJECT, run_ota_begin},
    {"ota.hashes",
     "Answers the first 8 bytes of the SHA-256 of blocks of the slot and of what runs.", BLOCKS,
     OBJECT, run_ota_hashes},
    {"ota.copy", "Copies blocks of the running application into the slot.", BLOCKS,
     "{\"type\":\"integer\"}", run_ota_copy},
    {"ota.chunk", "Takes bytes, in base64; answers where the next go.",
     "[{\"name\":\"at\"," NUMBER ",\"required\":true},"
     "{\"name\":\"data\",\"schema\":{\"type\":\"string\"},\"required\":true}]",
     "{\"type\":\"integer\"}", run_ota_chunk},
    {"ota.commit", "Selects the slot if its content has this SHA-256; it runs after a restart.",
     "[{\"name\":\"sha256\",\"schema\":{\"type\":\"string\"},\"required\":true}]", OBJECT,
     run_ota_commit},
    {"ota.abort", "Closes the update; answers whether one was open.", "[]",
     "{\"type\":\"boolean\"}", run_ota_abort},
    {"reboot", "Answers true and restarts the device.", "[]", "{\"type\":\"boolean\"}", run_reboot},
#if HOTPLATE_TEST_RPC
    {"panic", "Does not answer: the device fails as with a bad pointer.", "[]", "{}", run_panic},
    {"hang", "Does not answer: the device hangs until its watchdog restarts it.", "[]", "{}",
     run_hang},
#endif
};
const size_t rpc_method_count = sizeof rpc_methods / sizeof rpc_methods[0];
