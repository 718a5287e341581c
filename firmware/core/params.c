#include "params.h"

static bool has_any(struct slice params) {
    struct slice value;
    if (json_kind(params) == '{') {
        /* `{}` is the only object without a second character that starts a member. */
        params.at++;
        params.size--;
        return json_kind(params) != '}';
    }
    return json_next_item(&params, &value);
}

bool params_none(const struct rpc_request *request) {
    if (has_any(request->params)) {
        rpc_error(request, RPC_INVALID_PARAMS, "Invalid params: this method takes none");
        return false;
    }
    return true;
}

struct slice params_get(const struct rpc_request *request, size_t position, const char *name) {
    struct slice rest = request->params, value = {0};
    if (json_kind(rest) == '{') {
        return json_member(rest, name, &value) ? value : (struct slice){0};
    }
    do {
        if (!json_next_item(&rest, &value)) {
            return (struct slice){0};
        }
    } while (position-- > 0);
    return value;
}

bool params_unsigned(const struct rpc_request *request, size_t position, const char *name,
                     uint32_t *value) {
    struct slice number = params_get(request, position, name);
    if (number.size > 0 && !json_unsigned(number, value)) {
        rpc_error(request, RPC_INVALID_PARAMS,
                  "Invalid params: a whole number from 0 to 4294967295 is needed");
        return false;
    }
    return true;
}
