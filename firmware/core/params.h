/* Reads a method's parameters, given by name ({"since": 5}) or by position ([5]).
 *
 * Each function answers a request that it finds wrong and returns false; the method just returns.
 */
#ifndef CORE_PARAMS_H
#define CORE_PARAMS_H

#include "rpc.h"

#include <stdint.h>

/* The request has no parameters at all. */
bool params_none(const struct rpc_request *request);

/* A whole number from 0 to 2^32-1; `*value` stays as it is when the parameter is absent. */
bool params_unsigned(const struct rpc_request *request, size_t position, const char *name,
                     uint32_t *value);

/* The parameter's JSON text; empty when it is absent. Cannot be wrong. */
struct slice params_get(const struct rpc_request *request, size_t position, const char *name);

#endif
