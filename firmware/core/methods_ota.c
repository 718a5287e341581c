/* An update of the application over the line, into the slot that does not run.
 *
 * The slot is written block by block, each in order; a block begins anew at any time, so that a
 * host whose line was cut asks for the digests of what is there and goes on. Nothing selects the
 * slot before its whole content has the digest that the host names. */
#include "base64.h"
#include "methods.h"
#include "out.h"
#include "params.h"
#include "port.h"

enum { HASHES_MAX = 32, COPIES_MAX = 8, SHORT_DIGEST = 8 };

static struct {
    bool open;
    struct port_slot slot;
    uint32_t size;   /* of the image */
    uint32_t next;   /* where the next chunk goes */
    uint32_t filled; /* bytes of the block under way */
    uint8_t block[PORT_BLOCK] __attribute__((aligned(4)));
} update;

static bool is_open(const struct rpc_request *request) {
    if (!update.open) {
        rpc_error(request, RPC_FAILED, "no update is open: call ota.begin");
    }
    return update.open;
}

static uint32_t block_count(void) {
    return (update.size + PORT_BLOCK - 1) / PORT_BLOCK;
}

static uint32_t block_size(uint32_t index) {
    uint32_t left = update.size - index * PORT_BLOCK;
    return left < PORT_BLOCK ? left : PORT_BLOCK;
}

void run_ota_begin(const struct rpc_request *request) {
    uint32_t size = 0;
    if (!params_unsigned(request, 0, "size", &size)) {
        return;
    }
    update.open = false;
    if (!port_update_slot(&update.slot)) {
        rpc_error(request, RPC_FAILED, "there is no second slot for an update");
        return;
    }
    if (size == 0 || size > update.slot.size) {
        rpc_error(request, RPC_INVALID_PARAMS,
                  "Invalid params: size is 0 or more than the slot has");
        return;
    }
    update.open = true;
    update.size = size;
    update.next = update.filled = 0;
    rpc_begin(request);
    out_text("{\"partition\":");
    out_string(update.slot.name);
    out_text(",\"offset\":");
    out_number(update.slot.offset);
    out_text(",\"room\":");
    out_number(update.slot.size);
    out_text(",\"block\":");
    out_number(PORT_BLOCK);
    out_text("}");
    rpc_end();
}

/* `first` and `count` of a request about blocks, within the image and `most`. */
static bool blocks_of(const struct rpc_request *request, uint32_t *first, uint32_t *count,
                      uint32_t most) {
    *first = *count = 0;
    if (!params_unsigned(request, 0, "first", first) ||
        !params_unsigned(request, 1, "count", count)) {
        return false;
    }
    if (*count == 0 || *count > most || *first >= block_count() ||
        *count > block_count() - *first) {
        rpc_error(request, RPC_INVALID_PARAMS, "Invalid params: no such blocks, or too many");
        return false;
    }
    return true;
}

static void out_hashes(const char *name, uint32_t offset, uint32_t first, uint32_t count) {
    out_text(name);
    for (uint32_t i = first; i < first + count; i++) {
        uint8_t digest[PORT_DIGEST_SIZE];
        struct port_region region = {.offset = offset + i * PORT_BLOCK, .size = block_size(i)};
        port_sha256(&region, digest);
        out_text(i == first ? "[" : ",");
        out_hex(digest, SHORT_DIGEST, "");
    }
    out_text("]");
}

void run_ota_hashes(const struct rpc_request *request) {
    uint32_t first, count;
    if (!is_open(request) || !blocks_of(request, &first, &count, HASHES_MAX)) {
        return;
    }
    rpc_begin(request);
    out_hashes("{\"slot\":", update.slot.offset, first, count);
    out_hashes(",\"running\":", update.slot.running_offset, first, count);
    out_text("}");
    rpc_end();
}

void run_ota_copy(const struct rpc_request *request) {
    uint32_t first, count;
    if (!is_open(request) || !blocks_of(request, &first, &count, COPIES_MAX)) {
        return;
    }
    update.filled = 0;
    for (uint32_t i = first; i < first + count; i++) {
        port_update_read(&update.slot, i * PORT_BLOCK, update.block, PORT_BLOCK);
        if (!port_update_write(&update.slot, i * PORT_BLOCK, update.block, block_size(i))) {
            rpc_error(request, RPC_FAILED, "the flash does not hold what was written");
            return;
        }
    }
    update.next = (first + count) * PORT_BLOCK;
    rpc_begin(request);
    out_number(count);
    rpc_end();
}

/* Where a chunk may go: the next byte of the block under way, or the begin of any block. */
static bool fits(uint32_t at, uint32_t size) {
    if (at % PORT_BLOCK == 0 && at < update.size) {
        update.filled = 0;
        update.next = at;
    }
    return at == update.next && size > 0 && size <= PORT_BLOCK - update.filled &&
           size <= update.size - at;
}

void run_ota_chunk(const struct rpc_request *request) {
    static uint8_t bytes[RPC_LINE_MAX * 3 / 4];
    uint32_t at = 0;
    if (!is_open(request) || !params_unsigned(request, 0, "at", &at)) {
        return;
    }
    int size = base64_decode(params_get(request, 1, "data"), bytes, sizeof bytes);
    if (size < 0 || !fits(at, (uint32_t)size)) {
        rpc_error(request, RPC_INVALID_PARAMS,
                  "Invalid params: data is not base64, or does not follow what came before");
        return;
    }
    for (int i = 0; i < size; i++) {
        update.block[update.filled++] = bytes[i];
    }
    update.next = at + (uint32_t)size;
    if (update.filled == PORT_BLOCK || update.next == update.size) {
        uint32_t start = update.next - update.filled;
        bool done = port_update_write(&update.slot, start, update.block, update.filled);
        update.filled = 0;
        if (!done) {
            rpc_error(request, RPC_FAILED, "the flash does not hold what was written");
            return;
        }
    }
    rpc_begin(request);
    out_number(update.next);
    rpc_end();
}

static void hex_of(const uint8_t *bytes, char *text) {
    for (int i = 0; i < PORT_DIGEST_SIZE; i++) {
        *text++ = "0123456789abcdef"[bytes[i] >> 4];
        *text++ = "0123456789abcdef"[bytes[i] & 15];
    }
    *text = '\0';
}

void run_ota_commit(const struct rpc_request *request) {
    uint8_t digest[PORT_DIGEST_SIZE];
    char text[2 * PORT_DIGEST_SIZE + 1];
    if (!is_open(request)) {
        return;
    }
    struct port_region whole = {.offset = update.slot.offset, .size = update.size};
    port_sha256(&whole, digest);
    hex_of(digest, text);
    if (!json_string_is(params_get(request, 0, "sha256"), text)) {
        rpc_error(request, RPC_FAILED, "the slot does not hold what sha256 names");
        return;
    }
    if (!port_update_select(&update.slot)) {
        rpc_error(request, RPC_FAILED, "the slot could not be selected");
        return;
    }
    update.open = false;
    rpc_begin(request);
    out_text("{\"partition\":");
    out_string(update.slot.name);
    out_text(",\"sha256\":");
    out_string(text);
    out_text("}");
    rpc_end();
}

void run_ota_abort(const struct rpc_request *request) {
    if (!params_none(request)) {
        return;
    }
    rpc_begin(request);
    out_bool(update.open);
    rpc_end();
    update.open = false;
}
