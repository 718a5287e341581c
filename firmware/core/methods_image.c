#include "methods.h"

#include "out.h"
#include "params.h"
#include "port.h"

enum { REGIONS_MAX = 20 }; /* bootloader, table, otadata, 16 slots and a factory application */

static void out_region(const struct port_region *region) {
    uint8_t digest[PORT_DIGEST_SIZE];
    port_sha256(region, digest);
    out_text("{\"name\":");
    out_string(region->name);
    out_text(",\"offset\":");
    out_number(region->offset);
    out_text(",\"size\":");
    out_number(region->size);
    out_text(",\"running\":");
    out_bool(region->running);
    out_text(",\"sha256\":");
    out_hex(digest, sizeof digest, "");
    out_text("}");
}

void run_image_hashes(const struct rpc_request *request) {
    static struct port_region regions[REGIONS_MAX];
    const struct port_identity *who = port_identity();
    if (!params_none(request)) {
        return;
    }
    size_t count = port_regions(regions, REGIONS_MAX);
    rpc_begin(request);
    out_text("{\"mac\":");
    out_hex(who->mac, sizeof who->mac, ":");
    out_text(",\"regions\":[");
    for (size_t i = 0; i < count; i++) {
        out_text(i == 0 ? "" : ",");
        out_region(&regions[i]);
    }
    out_text("]}");
    rpc_end();
}
