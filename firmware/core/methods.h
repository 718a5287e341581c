/* Methods that have a file of their own, for the table in methods.c. */
#ifndef CORE_METHODS_H
#define CORE_METHODS_H

#include "rpc.h"

/* methods_state.c: how the device is */
void run_health(const struct rpc_request *request);
void run_module_set(const struct rpc_request *request);
void run_log(const struct rpc_request *request);

/* methods_image.c: what the device holds */
void run_image_hashes(const struct rpc_request *request);

/* methods_ota.c: another application over the line */
void run_ota_begin(const struct rpc_request *request);
void run_ota_hashes(const struct rpc_request *request);
void run_ota_copy(const struct rpc_request *request);
void run_ota_chunk(const struct rpc_request *request);
void run_ota_commit(const struct rpc_request *request);
void run_ota_abort(const struct rpc_request *request);

#endif
