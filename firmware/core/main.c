/* Boot, say who is here, start the modules, then serve requests and modules for ever. */
#include "logring.h"
#include "module.h"
#include "out.h"
#include "port.h"
#include "rpc.h"

_Noreturn void core_main(void); /* the port calls it */

/* Sent before anything else, so that a host can time the boot and see at once what runs. */
static void announce(void) {
    const struct port_identity *who = port_identity();
    out_text("{\"jsonrpc\":\"2.0\",\"method\":\"ready\",\"params\":{\"app_elf_sha256\":");
    out_hex(who->app_elf_sha256, sizeof who->app_elf_sha256, "");
    out_text(",\"project\":");
    out_string(who->project);
    out_text(",\"partition\":");
    out_string(who->partition);
    out_text("}}\n");
}

/* At most one full line per turn, so that a flood of requests stops no module. */
static void serve(void) {
    for (int count = 0; count <= RPC_LINE_MAX; count++) {
        int byte = port_read();
        if (byte < 0) {
            return;
        }
        rpc_byte((char)byte);
    }
}

_Noreturn void core_main(void) {
    port_init();
    announce();
    modules_setup();
    for (;;) {
        serve();
        uint64_t next_ms = modules_loop(port_uptime_ms());
        log_print();
        port_wait(next_ms);
    }
}
