/* Boot, say who is here, then serve requests for ever. */
#include "out.h"
#include "port.h"
#include "rpc.h"

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

int main(void) {
    port_init();
    announce();
    for (;;) {
        int byte = port_read();
        if (byte < 0) {
            port_wait();
        } else {
            rpc_byte((char)byte);
        }
    }
}
