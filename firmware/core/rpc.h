/* JSON-RPC 2.0 server, one message per line. Knows the protocol, not the methods' meaning. */
#ifndef CORE_RPC_H
#define CORE_RPC_H

#include "json.h"

#define RPC_LINE_MAX 1024

enum rpc_error {
    RPC_PARSE_ERROR = -32700,
    RPC_INVALID_REQUEST = -32600,
    RPC_METHOD_NOT_FOUND = -32601,
    RPC_INVALID_PARAMS = -32602,
    RPC_FAILED = -32000,
};

struct rpc_request {
    struct slice id;     /* as it came; empty for a notification */
    struct slice params; /* array or object; empty when absent */
};

/* A method answers with exactly one of rpc_error() or rpc_begin() ... rpc_end(). For a notification
 * both write nothing; a method need not know. */
struct rpc_method {
    const char *name;
    const char *summary;
    const char *params; /* OpenRPC content descriptors: a JSON array */
    const char *result; /* JSON schema of the result */
    void (*run)(const struct rpc_request *request);
};

extern const struct rpc_method rpc_methods[];
extern const size_t rpc_method_count;

void rpc_begin(const struct rpc_request *request); /* then write the result's JSON with out_*() */
void rpc_end(void);
void rpc_error(const struct rpc_request *request, enum rpc_error code, const char *message);

/* Takes one received byte; answers when it completes a line. */
void rpc_byte(char byte);

#endif
