/* `hotplate` without an interpreter: ask the resident service, and be `hotplate` itself where that
 * does not know.
 *
 * Does what `pipeline/client/verdict.py` does, byte for byte; the frame is described there, the
 * directory in `pipeline/client/endpoint.py`. VERSION, PREFIX and SCRIPT are the interpreter's
 * `sys.version` and `sys.prefix`, and the script that it stands in front of. Whatever is not a
 * whole answer within DEADLINE_MS is none. Prints nothing but the answer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_MS 50
#define MAX_SIZE (1u << 20)
#define MAX_SOCKET_PATH 100
#define PREFIX_BYTES 9
#define VERDICT_FRAME 2
#define LONGEST_NAME "runner.sock"
#define NAME "service.sock"

extern char **environ;

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Wait until `handle` is ready; 0 when it is too late. */
static int ready(int handle, short events, int64_t end_ms) {
    struct pollfd wanted = {handle, events, 0};
    int64_t left = end_ms - now_ms();
    return left > 0 && poll(&wanted, 1, (int)left) == 1;
}

/* Where the service listens, in `address`; 0 where there can be none. */
static int find(struct sockaddr_un *address) {
    const char *base = getenv("XDG_RUNTIME_DIR"), *wanted = getenv("HOTPLATE_SERVICE");
    struct stat status;
    char directory[MAX_SOCKET_PATH + 1];
    int size;
    if (wanted && strcmp(wanted, "0") == 0) {
        return 0;
    }
    if (base && base[0] == '/') {
        size = snprintf(directory, sizeof directory, "%s/hotplate", base);
    } else {
#ifdef __APPLE__
        size = snprintf(directory, sizeof directory, "/private/tmp/hotplate-%u", getuid());
#else
        size = snprintf(directory, sizeof directory, "/tmp/hotplate-%u", getuid());
#endif
    }
    if (size < 0 || (size_t)size + strlen("/" LONGEST_NAME) > MAX_SOCKET_PATH ||
        lstat(directory, &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != getuid() ||
        (status.st_mode & 077)) {
        return 0;
    }
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof address->sun_path, "%s/" NAME, directory);
    return 1;
}

static void put_size(unsigned char *place, size_t size) {
    place[0] = (unsigned char)(size >> 24);
    place[1] = (unsigned char)(size >> 16);
    place[2] = (unsigned char)(size >> 8);
    place[3] = (unsigned char)size;
}

static size_t get_size(const unsigned char *place) {
    return (size_t)place[0] << 24 | (size_t)place[1] << 16 | (size_t)place[2] << 8 | place[3];
}

/* Append `text` and what separates it from the next one; NULL when there is no more room. */
static char *put(char *at, const char *end, const char *text) {
    size_t size = strlen(text) + 1;
    if (!at || (size_t)(end - at) < size) {
        return NULL;
    }
    memcpy(at, text, size);
    return at + size;
}

/* The question; its size, or 0 when it cannot be asked. */
static size_t question(char *data, size_t room, int argc, char **argv) {
    char *at = data + PREFIX_BYTES, *end = data + room, count[16], **pair;
    int n;
    at = put(at, end, "verdict 1");
    if (!at || !getcwd(at, (size_t)(end - at)) || at[0] != '/') {
        return 0;
    }
    at += strlen(at) + 1;
    at = put(put(at, end, VERSION), end, PREFIX);
    snprintf(count, sizeof count, "%d", argc - 1);
    at = put(at, end, count);
    for (n = 1; n < argc; n++) {
        at = put(at, end, argv[n]);
    }
    for (pair = environ; *pair; pair++) {
        at = put(at, end, *pair);
    }
    if (!at) {
        return 0;
    }
    at--; /* nothing follows the last one */
    data[0] = VERDICT_FRAME;
    put_size((unsigned char *)data + 1, (size_t)(at - data) - PREFIX_BYTES);
    put_size((unsigned char *)data + 5, 0);
    return (size_t)(at - data);
}

/* Take `size` bytes; 0 if they do not come. */
static int take(int handle, unsigned char *data, size_t size, int64_t end_ms) {
    while (size) {
        ssize_t got;
        if (!ready(handle, POLLIN, end_ms)) {
            return 0;
        }
        got = recv(handle, data, size, MSG_DONTWAIT);
        if (got <= 0) {
            return 0;
        }
        data += got;
        size -= (size_t)got;
    }
    return 1;
}

/* Print the answer if it is yes. */
static int told(int argc, char **argv) {
    static char data[MAX_SIZE + PREFIX_BYTES];
    unsigned char *answer = (unsigned char *)data;
    struct sockaddr_un address;
    int64_t end_ms = now_ms() + DEADLINE_MS;
    size_t size, sent = 0, header, body;
    int handle, flags;
    if (!find(&address) || (size = question(data, sizeof data, argc, argv)) == 0 ||
        (handle = socket(AF_UNIX, SOCK_STREAM, 0)) < 0) {
        return 0;
    }
    flags = fcntl(handle, F_GETFL);
    if (flags < 0 || fcntl(handle, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(handle, F_SETFD, FD_CLOEXEC) < 0 ||
        connect(handle, (struct sockaddr *)&address, sizeof address) != 0) {
        close(handle);
        return 0;
    }
    while (sent < size) {
        ssize_t part =
            ready(handle, POLLOUT, end_ms) ? send(handle, data + sent, size - sent, 0) : -1;
        if (part < 0) {
            close(handle);
            return 0;
        }
        sent += (size_t)part;
    }
    if (!take(handle, answer, PREFIX_BYTES, end_ms) || answer[0] != VERDICT_FRAME) {
        close(handle);
        return 0;
    }
    header = get_size(answer + 1);
    body = get_size(answer + 5);
    if (header != 3 || body > MAX_SIZE - 3 || !take(handle, answer, header + body, end_ms) ||
        memcmp(answer, "yes", 3) != 0) {
        close(handle);
        return 0;
    }
    close(handle);
    for (sent = 0; sent < body;) {
        ssize_t part = write(1, answer + header + sent, body - sent);
        if (part < 0 && errno != EINTR) {
            break; /* the reader went away; the answer stands */
        }
        sent += part > 0 ? (size_t)part : 0;
    }
    return 1;
}

int main(int argc, char **argv) {
    char asked[24];
    /* Neither a service nor a reader that goes away ends this process. */
    void (*before)(int) = signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && told(argc, argv)) {
        return 0;
    }
    signal(SIGPIPE, before);
    /* This process, so that nobody whom it starts takes it for his own. */
    snprintf(asked, sizeof asked, "%ld", (long)getpid());
    setenv("HOTPLATE_ASKED", asked, 1);
    argv[0] = (char *)SCRIPT;
    execv(SCRIPT, argv);
    fprintf(stderr, "hotplate: error: %s cannot be started: %s\n", SCRIPT, strerror(errno));
    fprintf(stderr, "  hint: install hotplate again, and then `doit hooks:quick`\n");
    return 2;
}
