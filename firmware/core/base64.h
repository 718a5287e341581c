/* Base64 (RFC 4648, with padding) into bytes. Pure. */
#ifndef CORE_BASE64_H
#define CORE_BASE64_H

#include "json.h"

/* Decodes what stands between the quotes of a JSON string into `to`. Returns the number of bytes,
 * -1 when it is not base64 or has more than `room`. */
int base64_decode(struct slice string, uint8_t *to, size_t room);

#endif
