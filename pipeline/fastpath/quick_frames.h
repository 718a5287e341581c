/* Frames and sockets of the compiled client: what `quick.c` and `quick_run.h` have in common. The
 * frame is described in `pipeline/client/verdict.py`, the directory in
 * `pipeline/client/endpoint.py`.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_SIZE (1u << 20)
#define MAX_SOCKET_PATH 100
#define PREFIX_BYTES 9
#define VERDICT_FRAME 2
#define SERVICE "service.sock"
#define RUNNER "runner.sock" /* the longest name */

extern char **environ;

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Wait until `handle` is ready, for ever where `end_ms` is negative; 0 when it is too late. */
static int ready(int handle, short events, int64_t end_ms) {
    struct pollfd wanted = {handle, events, 0};
    int64_t left = end_ms < 0 ? -1 : end_ms - now_ms();
    int found;
    if (end_ms >= 0 && left <= 0) {
        return 0;
    }
    while ((found = poll(&wanted, 1, (int)left)) < 0 && errno == EINTR && end_ms < 0) {
    }
    return found == 1;
}

/* Where the service or its runner (`name`) listens, in `address`; 0 where there can be none. */
static int find(struct sockaddr_un *address, const char *name) {
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
    if (size < 0 || (size_t)size + strlen("/" RUNNER) > MAX_SOCKET_PATH ||
        lstat(directory, &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != getuid() ||
        (status.st_mode & 077)) {
        return 0;
    }
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof address->sun_path, "%s/%s", directory, name);
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

/* The same with a number. */
static char *put_number(char *at, const char *end, long number) {
    char text[24];
    snprintf(text, sizeof text, "%ld", number);
    return put(at, end, text);
}

/* Finish the frame whose header ends at `at`; its size, 0 where it did not fit. */
static size_t framed(char *data, char *at) {
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

/* A connection to `name`, not blocking; -1 where there is none. */
static int connected(const char *name) {
    struct sockaddr_un address;
    int handle, flags;
    if (!find(&address, name) || (handle = socket(AF_UNIX, SOCK_STREAM, 0)) < 0) {
        return -1;
    }
    flags = fcntl(handle, F_GETFL);
    if (flags < 0 || fcntl(handle, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(handle, F_SETFD, FD_CLOEXEC) < 0 ||
        connect(handle, (struct sockaddr *)&address, sizeof address) != 0) {
        close(handle);
        return -1;
    }
    return handle;
}

static int give(int handle, const char *data, size_t size, int64_t end_ms) {
    while (size) {
        ssize_t part = ready(handle, POLLOUT, end_ms) ? send(handle, data, size, 0) : -1;
        if (part < 0) {
            return 0;
        }
        data += part;
        size -= (size_t)part;
    }
    return 1;
}

/* The header of the next frame in `data`, ended by a NUL, and its body behind that; 0 if none
 * comes. */
static int take_frame(int handle, char *data, size_t *header, size_t *body, int64_t end_ms) {
    unsigned char prefix[PREFIX_BYTES];
    if (!take(handle, prefix, PREFIX_BYTES, end_ms) || prefix[0] != VERDICT_FRAME) {
        return 0;
    }
    *header = get_size(prefix + 1);
    *body = get_size(prefix + 5);
    if (*header > MAX_SIZE || *body > MAX_SIZE - 1 - *header ||
        !take(handle, (unsigned char *)data, *header, end_ms) ||
        !take(handle, (unsigned char *)data + *header + 1, *body, end_ms)) {
        return 0;
    }
    data[*header] = 0;
    return 1;
}

/* How many fields a header has. */
static int fields(const char *header, size_t size) {
    int count = 1;
    while (size) {
        count += header[--size] == 0;
    }
    return count;
}
