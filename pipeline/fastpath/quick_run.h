/* A run of the compiled client in a child of the service's runner: what
 * `pipeline/client/handoff.py` does, for selections of host stages, which write no flash. RELEASE
 * and PACKAGE are what the script imports, BESIDE is its directory. How the interpreter would have
 * been started the runner knows itself (COMPILED in `run_frame.py`); of the rest nothing is handed
 * over of which this cannot say what the interpreter would make of it. Invariant: a run is begun
 * once, there or by the script.
 */
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define START_MS 500
#define GONE_MS 30000
#define INTERRUPTED 130
#define MOST_GROUPS 256
#define MOST_VARIABLES 256
#define MAX_LOOK 1024

static int run_handle = -1;

/* What the interpreter makes of the locale for the errors of its streams; NULL where it may make
 * another encoding than UTF-8. `coerced`: it sets LC_CTYPE, as where nobody wants a language. */
static const char *locale_errors(int *coerced) {
    static const char *const targets[] = {"C.UTF-8", "C.utf8", "UTF-8"};
    const char *all = getenv("LC_ALL"), *found = setlocale(LC_CTYPE, "");
    size_t n;
    *coerced = 0;
    if (!found) {
        return NULL;
    }
    if (strcmp(found, "C") == 0 || strcmp(found, "POSIX") == 0) {
        if ((all && *all) || !setlocale(LC_CTYPE, targets[0])) {
            return NULL;
        }
        *coerced = 1;
        return "surrogateescape";
    }
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) {
        return NULL;
    }
    for (n = 0; n < sizeof targets / sizeof *targets; n++) {
        if (strcmp(found, targets[n]) == 0) {
            return "surrogateescape";
        }
    }
    return "strict";
}

static int by_text(const void *one, const void *other) {
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* Would the interpreter make each place named there of its own directory, which is not the
 * runner's? */
static int is_relative(const char *places) {
    int relative = *places && *places != '/'; /* nothing at all is as if it were not set */
    for (; *places; places++) {
        relative |= *places == ':' && places[1] != '/';
    }
    return relative;
}

/* Who asks: as `handoff.described` has it, and for the rest whatever the runner is. */
static char *put_who(char *at, const char *end) {
    static const char *const changing[] = {
        "PYTHONIOENCODING=", "PYTHONUTF8=", "PYTHONCOERCECLOCALE=", "PYTHONINSPECT=",
        "PYTHONSAFEPATH="};
    char *own[MOST_VARIABLES], **pair;
    size_t count = 0, n;
    for (pair = environ; *pair; pair++) {
        if (strncmp(*pair, "PYTHON", 6) == 0) {
            for (n = 0; n < sizeof changing / sizeof *changing; n++) {
                if (strncmp(*pair, changing[n], strlen(changing[n])) == 0) {
                    return NULL;
                }
            }
            if (count == MOST_VARIABLES ||
                (strncmp(*pair, "PYTHONPATH=", 11) == 0 && is_relative(*pair + 11))) {
                return NULL;
            }
            own[count++] = *pair;
        }
    }
    qsort(own, count, sizeof *own, by_text);
    at = put_number(at, end, 5 + (long)count);
    at = put(put(put(at, end, RELEASE), end, PACKAGE), end, VERSION);
    at = put(put(at, end, PREFIX), end, "compiled");
    for (n = 0; n < count; n++) {
        at = put(at, end, own[n]);
    }
    return at;
}

static char *put_place(char *at, const char *end, const char *began) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    char cwd[4096];
    struct sigaction now;
    int ignored[3], n, count = 0;
    mode_t mask = umask(077);
    umask(mask);
    for (n = 0; n < 3; n++) {
        if (sigaction(numbers[n], NULL, &now) == 0 && now.sa_handler == SIG_IGN) {
            ignored[count++] = numbers[n];
        }
    }
    if (!getcwd(cwd, sizeof cwd) || cwd[0] != '/') {
        return NULL;
    }
    at = put(put_number(at, end, 6 + count), end, cwd);
    at = put_number(at, end, mask);
    errno = 0;
    at = put_number(at, end, getpriority(PRIO_PROCESS, 0));
    at = put(put(put(at, end, began), end, SCRIPT), end, strrchr(SCRIPT, '/') + 1);
    for (n = 0; n < count; n++) {
        at = put_number(at, end, ignored[n]);
    }
    return at;
}

static int by_number(const void *one, const void *other) {
    gid_t first = *(const gid_t *)one, second = *(const gid_t *)other;
    return (first > second) - (first < second);
}

static char *put_streams(char *at, const char *end, const char *errors) {
    const char *set = getenv("PYTHONUNBUFFERED");
    int n, unbuffered = set && *set;
    if (unbuffered && strcmp(set, "1") != 0) {
        return NULL;
    }
    at = put(at, end, "12");
    for (n = 0; n < 3; n++) {
        struct stat status;
        if (fstat(n, &status) != 0 || S_ISDIR(status.st_mode)) {
            return NULL;
        }
        at = put(put(at, end, "utf-8"), end, n == 2 ? "backslashreplace" : errors);
        at = put_number(at, end, !unbuffered && (n == 2 || isatty(n)));
        at = put_number(at, end, unbuffered);
    }
    return at;
}

static char *put_environment(char *at, const char *end, int coerced) {
    static const char wanted[] = "LC_CTYPE=C.UTF-8";
    char **pair;
    long count = 0;
    int is_there = 0;
    for (pair = environ; *pair; pair++, count++) {
        is_there |= strncmp(*pair, wanted, 9) == 0;
    }
    at = put_number(at, end, count + (coerced && !is_there));
    for (pair = environ; *pair; pair++) {
        at = put(at, end, coerced && strncmp(*pair, wanted, 9) == 0 ? wanted : *pair);
    }
    return coerced && !is_there ? put(at, end, wanted) : at;
}

/* What the service said to have moved: the last two fields of its answer, as `FirstLook.told` has
 * them. */
static char look[2][MAX_LOOK];

static void keep_look(const char *answer) {
    size_t n;
    answer += strlen(answer) + 1;
    for (n = 0; n < 2; n++) {
        answer += strlen(answer) + 1;
        if (strlen(answer) >= MAX_LOOK) {
            look[0][0] = 0; /* the run asks itself */
            return;
        }
        strcpy(look[n], answer);
    }
}

static char *put_look(char *at, const char *end) {
    return look[0][0] ? put(put(put(at, end, "2"), end, look[0]), end, look[1]) : put(at, end, "0");
}

/* The frame that hands this run over; its size, 0 where the script would be something else. */
static size_t run_frame(char *data, size_t room, int argc, char **argv, const char *began) {
    char *at = data + PREFIX_BYTES, *end = data + room;
    gid_t groups[MOST_GROUPS];
    int n, coerced, count = getgroups(MOST_GROUPS, groups);
    const char *errors = locale_errors(&coerced);
    if (!errors || count < 0) {
        return 0;
    }
    at = put_place(put_who(put(at, end, "run 2"), end), end, began);
    at = put_number(at, end, argc - 1);
    for (n = 1; n < argc; n++) {
        at = put(at, end, argv[n]);
    }
    at = put_streams(put(put(at, end, "1"), end, BESIDE), end, errors);
    qsort(groups, (size_t)count, sizeof *groups, by_number);
    at = put_number(at, end, count);
    for (n = 0; n < count; n++) {
        at = put_number(at, end, (long)groups[n]);
    }
    return framed(data, put_look(put_environment(at, end, coerced), end));
}

/* Send the frame with our streams and `go`. */
static int hand(int handle, char *data, size_t size, int go, int64_t end_ms) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(4 * sizeof(int))];
    } extra;
    int descriptors[4] = {0, 1, 2, go};
    struct iovec part = {data, size};
    struct msghdr message = {0};
    ssize_t sent;
    memset(&extra, 0, sizeof extra);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = &extra;
    message.msg_controllen = sizeof extra.room;
    extra.header.cmsg_level = SOL_SOCKET;
    extra.header.cmsg_type = SCM_RIGHTS;
    extra.header.cmsg_len = CMSG_LEN(sizeof descriptors);
    memcpy(CMSG_DATA(&extra.header), descriptors, sizeof descriptors);
    sent = ready(handle, POLLOUT, end_ms) ? sendmsg(handle, &message, 0) : -1;
    return sent > 0 && give(handle, data + sent, size - (size_t)sent, end_ms);
}

/* Tell the run of a signal that came to us. It writes no flash, so none is kept from it. */
static void forward(int number) {
    unsigned char frame[] = {VERDICT_FRAME, 0,   0,   0,   9,   0,   0, 0, 0,
                             's',           'i', 'g', 'n', 'a', 'l', 0, 0, 0};
    int wanted = number == SIGTSTP ? SIGSTOP : number, before = errno;
    frame[16] = (unsigned char)('0' + wanted / 10);
    frame[17] = (unsigned char)('0' + wanted % 10);
    if (send(run_handle, frame, sizeof frame, MSG_DONTWAIT) < 0) {
        errno = before; /* it has ended, and that is about to be read */
    }
    if (number == SIGTSTP) {
        kill(getpid(), SIGSTOP);
    }
    errno = before;
}

/* The runner was killed; its run is asked to end, and does so in order. */
static void left_alone(long pid) {
    static const char text[] =
        "hotplate: error: the service's runner was killed, and this run interrupted\n"
        "hint: run again\n";
#ifdef SYS_pidfd_open
    struct pollfd child = {(int)syscall(SYS_pidfd_open, (pid_t)pid, 0), POLLIN, 0};
    if (child.fd >= 0) {
        while (poll(&child, 1, GONE_MS) < 0 && errno == EINTR) {
        }
    }
#else
    (void)pid;
#endif
    if (write(2, text, sizeof text - 1) < 0) {
        _exit(INTERRUPTED);
    }
    _exit(INTERRUPTED);
}

/* Until the run ends, and then end as it ended. */
static void wait_for(char *data, long pid) {
    static const int numbers[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGWINCH,
                                  SIGTSTP, SIGCONT, SIGUSR1, SIGUSR2};
    struct sigaction wanted, now;
    size_t n, header, body;
    int code;
    memset(&wanted, 0, sizeof wanted);
    wanted.sa_handler = forward;
    wanted.sa_flags = SA_RESTART;
    for (n = 0; n < sizeof numbers / sizeof *numbers; n++) {
        if (sigaction(numbers[n], NULL, &now) == 0 && now.sa_handler != SIG_IGN) {
            sigaction(numbers[n], &wanted, NULL);
        }
    }
    do {
        if (!take_frame(run_handle, data, &header, &body, -1)) {
            left_alone(pid);
        }
    } while (strcmp(data, "ended") != 0 || fields(data, header) != 2);
    code = atoi(data + 6);
    if (code < 0) {
        signal(-code, SIG_DFL);
        kill(getpid(), -code);
    }
    _exit(code);
}

/* Let the runner do this run, and end with its code; returns where it was not begun, and will not
 * be. */
static void hand_over(char *data, size_t room, int argc, char **argv, const char *began) {
    int64_t end_ms = now_ms() + START_MS;
    size_t size, header, body;
    int handle, go[2];
    if ((size = run_frame(data, room, argc, argv, began)) == 0 ||
        (handle = connected(RUNNER)) < 0) {
        return;
    }
    if (pipe(go) != 0) {
        close(handle);
        return;
    }
    fcntl(go[0], F_SETFD, FD_CLOEXEC);
    fcntl(go[1], F_SETFD, FD_CLOEXEC);
    if (hand(handle, data, size, go[0], end_ms) &&
        take_frame(handle, data, &header, &body, end_ms) && strcmp(data, "started") == 0 &&
        fields(data, header) == 2 && write(go[1], "g", 1) == 1) {
        run_handle = handle;
        wait_for(data, atol(data + 8));
    }
    close(go[0]);
    close(go[1]);
    close(handle);
}
