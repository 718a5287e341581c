/* The serial line of a host process: a pty that others find under a name, or stdin and stdout. */
#ifndef HOST_LINE_H
#define HOST_LINE_H

#include <stdbool.h>
#include <stddef.h>

/* Opens the line; `link` is the pty's name, NULL for stdin and stdout. A pty that this process had
 * before its restart is passed on as `inherited` (else -1). Ends the process when it cannot. */
void line_open(const char *link, int inherited);

/* The descriptor to pass on, -1 for stdin and stdout. */
int line_inheritable(void);

/* Takes the pty's name away. Safe in a signal handler. */
void line_close(void);

void line_write(const char *bytes, size_t size);
int line_read(void);
void line_wait(int timeout_ms);

#endif
