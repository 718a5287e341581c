#define _GNU_SOURCE

#include "line.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

enum { LISTENER_TIMEOUT_MS = 500 };

static int in_fd = STDIN_FILENO, out_fd = STDOUT_FILENO;
static const char *link_path; /* NULL: no pty */
static char buffer[256];
static ssize_t filled, taken;
static bool nobody_listens;

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "%s: error: %s\n", what, strerror(errno));
    exit(1);
}

/* A name of ours may be replaced; a file of somebody else may not. */
static void publish(const char *name) {
    struct stat old;
    if (lstat(link_path, &old) == 0 && (!S_ISLNK(old.st_mode) || unlink(link_path) != 0)) {
        errno = EEXIST;
        fail(link_path);
    }
    if (symlink(name, link_path) != 0) {
        fail(link_path);
    }
}

static void open_pty(void) {
    struct termios raw;
    in_fd = posix_openpt(O_RDWR | O_NOCTTY);
    if (in_fd < 0 || grantpt(in_fd) != 0 || unlockpt(in_fd) != 0) {
        fail("pty");
    }
    /* Kept open on purpose: without any open slave, reading the master fails with EIO. */
    int slave = open(ptsname(in_fd), O_RDWR | O_NOCTTY);
    if (slave < 0 || tcgetattr(slave, &raw) != 0) {
        fail("pty");
    }
    cfmakeraw(&raw);
    tcsetattr(slave, TCSANOW, &raw);
    publish(ptsname(in_fd));
}

void line_open(const char *link, int inherited) {
    link_path = link;
    if (link == NULL) {
        return;
    }
    if (inherited >= 0) {
        in_fd = inherited;
    } else {
        open_pty();
    }
    out_fd = in_fd;
    fcntl(in_fd, F_SETFL, O_NONBLOCK);
}

int line_inheritable(void) {
    return link_path == NULL ? -1 : in_fd;
}

void line_close(void) {
    if (link_path != NULL) {
        unlink(link_path);
    }
}

/* A wire takes bytes whether or not anybody listens; a pty that nobody reads fills up. So a full
 * one gets half a second, and then bytes are lost until there is room again. */
void line_write(const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t done = write(out_fd, bytes, size);
        if (done > 0) {
            nobody_listens = false;
            bytes += done;
            size -= (size_t)done;
        } else if (errno == EAGAIN && !nobody_listens) {
            struct pollfd wanted = {out_fd, POLLOUT, 0};
            nobody_listens = poll(&wanted, 1, LISTENER_TIMEOUT_MS) == 0;
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR) {
            exit(0); /* stdout was closed: the other side has gone */
        }
    }
}

int line_read(void) {
    if (taken == filled) {
        struct pollfd wanted = {in_fd, POLLIN, 0};
        if (poll(&wanted, 1, 0) <= 0) {
            return -1;
        }
        taken = 0;
        filled = read(in_fd, buffer, sizeof buffer);
        if (filled == 0) {
            exit(0); /* end of stdin: the other side has gone */
        }
        if (filled < 0) {
            filled = 0;
            return -1;
        }
    }
    return (unsigned char)buffer[taken++];
}

void line_wait(int timeout_ms) {
    struct pollfd wanted = {in_fd, POLLIN, 0};
    if (taken == filled) {
        poll(&wanted, 1, timeout_ms);
    }
}
