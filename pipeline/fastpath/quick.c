/* `hotplate` without an interpreter: ask the resident service; where that knows what moved, let its
 * runner do the run, and be `hotplate` itself where neither can.
 *
 * Does what `pipeline/client/verdict.py` does, byte for byte; the frame is described there.
 * VERSION, PREFIX and SCRIPT are the interpreter's `sys.version` and `sys.prefix`, and the script
 * that it stands in front of. Whatever is not a whole answer within DEADLINE_MS is none. Prints
 * nothing but the answer.
 */
#define _GNU_SOURCE
#include <signal.h>

#include "quick_frames.h"

#define DEADLINE_MS 50

#ifdef RELEASE
#include "quick_run.h"
#endif

/* The question; its size, or 0 when it cannot be asked. */
static size_t question(char *data, size_t room, int argc, char **argv) {
    char *at = data + PREFIX_BYTES, *end = data + room, **pair;
    int n;
    at = put(at, end, "verdict 1");
    if (!at || !getcwd(at, (size_t)(end - at)) || at[0] != '/') {
        return 0;
    }
    at += strlen(at) + 1;
    at = put(put(at, end, VERSION), end, PREFIX);
    at = put_number(at, end, argc - 1);
    for (n = 1; n < argc; n++) {
        at = put(at, end, argv[n]);
    }
    for (pair = environ; *pair; pair++) {
        at = put(at, end, *pair);
    }
    return framed(data, at);
}

/* YES, which is printed then; MOVED, where the service says what moved; else UNKNOWN. */
enum { UNKNOWN, YES, MOVED };

static int told(char *data, size_t room, int argc, char **argv) {
    int64_t end_ms = now_ms() + DEADLINE_MS;
    size_t size, sent, header, body;
    int handle = connected(SERVICE), found = UNKNOWN;
    if (handle < 0) {
        return UNKNOWN;
    }
    if ((size = question(data, room, argc, argv)) != 0 && give(handle, data, size, end_ms) &&
        take_frame(handle, data, &header, &body, end_ms)) {
        if (header == 3 && memcmp(data, "yes", 3) == 0) {
            found = YES;
        } else if (body == 0 && memcmp(data, "look", 5) == 0 && fields(data, header) == 4) {
            found = MOVED;
        }
    }
    close(handle);
    for (sent = 0; found == YES && sent < body;) {
        ssize_t part = write(1, data + header + 1 + sent, body - sent);
        if (part < 0 && errno != EINTR) {
            break; /* the reader went away; the answer stands */
        }
        sent += part > 0 ? (size_t)part : 0;
    }
    return found;
}

int main(int argc, char **argv) {
    static char data[MAX_SIZE + PREFIX_BYTES];
    char began[40];
    struct timespec now;
    int found = UNKNOWN;
    /* Neither a service nor a reader that goes away ends this process. */
    void (*before)(int) = signal(SIGPIPE, SIG_IGN);
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(began, sizeof began, "%lld.%09ld", (long long)now.tv_sec, now.tv_nsec);
    if (argc > 1 && (found = told(data, sizeof data, argc, argv)) == YES) {
        return 0;
    }
#ifdef RELEASE
    if (found == MOVED) {
        keep_look(data);
        hand_over(data, sizeof data, argc, argv, began);
    }
#endif
    signal(SIGPIPE, before);
    argv[0] = (char *)SCRIPT;
    execv(SCRIPT, argv);
    fprintf(stderr, "hotplate: error: %s cannot be started: %s\n", SCRIPT, strerror(errno));
    fprintf(stderr, "  hint: install hotplate again, and then `doit hooks:quick`\n");
    return 2;
}
