/* Starts commands, reads what they print and tells how they ended, for a process that is better
 * not stopped by each start: the other half of `pipeline/effects/command_server.py`.
 *
 *     statloop commands            a stream socket to whom it works for is its standard input
 *
 * Takes three kinds of orders, each a `struct order` and `size` bytes: 'E', the environment of what
 * is started from here on (strings, each ended by a NUL); 'S', start a command under this number
 * (its words likewise, the first one its path); 'K', kill the command of this number with its
 * descendants. Gives one `struct answer` for each command that was to be started, and after it the
 * first bytes that it wrote to its standard output and error; and before all others one of zeros,
 * which says that it works. The numbers are in this machine's byte order. Ends when the other end
 * of the socket is closed: kills all that it has started, and sees it gone.
 *
 * A command runs in the directory in which this was started, with no input, in a process group
 * whose leader waits for the end of this process, `kill -9` included, and then kills the group.
 * Knows processes; not what they are for.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>

#define MOST_COMMANDS 1024
/* Of what a command prints; nobody reads more. As `MOST_KEPT` of effects/spawned.py. */
#define MOST_KEPT (8u << 20)
#define MOST_ORDER (64u << 20)
#define BLOCK (1u << 16)
/* At the end, for what was killed and does not go, since its disk does not answer. */
#define MOST_SECONDS 5

struct order {
    uint32_t kind, number, size;
};

struct answer {
    uint32_t number;
    int32_t error, status;
    uint32_t kept[2];
    uint64_t more[2];
};

struct bytes {
    char *data;
    size_t size, room;
};

/* A place for a command: its group lives on for the next one. */
struct place {
    pid_t leader, child;
    uint32_t number;
    int busy, reaped, status;
    int handle[2]; /* what it prints comes here; -1: nothing more */
    struct bytes kept[2];
    uint64_t more[2];
};

struct server {
    struct place *places;
    size_t count;
    struct bytes orders, answers, environment;
    char **variables;
    int lifeline[2], woken[2];
};

static int waker = -1; /* for the handler, which is given nothing */

static void on_child(int number) {
    int before = errno;
    (void)number;
    if (write(waker, "", 1) < 0) {
        /* full: it will wake */
    }
    errno = before;
}

/* Room for so many more bytes; 0 when there is none to be had. */
static int has_room(struct bytes *bytes, size_t more) {
    size_t room = bytes->room ? bytes->room : 256;
    char *data;
    while (room - bytes->size < more) {
        room *= 2;
    }
    if (room != bytes->room) {
        data = realloc(bytes->data, room);
        if (data == NULL) {
            return 0;
        }
        bytes->data = data;
        bytes->room = room;
    }
    return 1;
}

static int add(struct bytes *bytes, const void *data, size_t size) {
    if (!has_room(bytes, size)) {
        return 0;
    }
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
    return 1;
}

static void drop_first(struct bytes *bytes, size_t size) {
    memmove(bytes->data, bytes->data + size, bytes->size - size);
    bytes->size -= size;
}

/* A NULL-terminated array of the strings in so many bytes, which must end with a NUL; NULL if that
 * cannot be. */
static char **strings_of(char *text, size_t size) {
    size_t count = 0, n;
    char **found;
    if (size && text[size - 1] != '\0') {
        return NULL;
    }
    for (n = 0; n < size; n++) {
        count += text[n] == '\0';
    }
    found = calloc(count + 1, sizeof *found);
    for (n = 0; found && n < count; n++) {
        found[n] = text;
        text += strlen(text) + 1;
    }
    return found;
}

static void close_on_exec(int handle) {
    fcntl(handle, F_SETFD, FD_CLOEXEC);
}

/* The leader of a group: ends the group when this process is gone. */
static void lead(struct server *server) {
    char never;
    size_t n;
    signal(SIGCHLD, SIG_DFL);
    setpgid(0, 0);
    close(0);
    close(server->lifeline[1]);
    close(server->woken[0]);
    close(server->woken[1]);
    for (n = 0; n < 2 * server->count; n++) {
        if (server->places[n / 2].handle[n % 2] >= 0) {
            close(server->places[n / 2].handle[n % 2]);
        }
    }
    while (read(server->lifeline[0], &never, 1) < 0 && errno == EINTR) {
    }
    kill(0, SIGKILL);
    _exit(1);
}

static int has_leader(struct server *server, struct place *place) {
    if (place->leader == 0) {
        pid_t leader = fork();
        if (leader == 0) {
            lead(server);
        }
        if (leader < 0) {
            return 0;
        }
        setpgid(leader, leader); /* as it does itself: whoever comes first */
        place->leader = leader;
    }
    return 1;
}

/* An idle place, a new one if there is none; NULL when there is none to be had. */
static struct place *idle_place(struct server *server) {
    size_t n;
    struct place *place;
    for (n = 0; n < server->count; n++) {
        if (!server->places[n].busy) {
            return &server->places[n];
        }
    }
    if (server->count == MOST_COMMANDS) {
        return NULL;
    }
    place = &server->places[server->count];
    memset(place, 0, sizeof *place);
    place->handle[0] = place->handle[1] = -1;
    server->count++;
    return place;
}

static void kill_group(struct place *place) {
    if (place->leader) {
        kill(-place->leader, SIGKILL);
    }
    if (place->busy && !place->reaped) {
        kill(place->child, SIGKILL); /* it may have left the group */
    }
}

static void stop_reading(struct place *place) {
    int n;
    for (n = 0; n < 2; n++) {
        if (place->handle[n] >= 0) {
            close(place->handle[n]);
            place->handle[n] = -1;
        }
    }
}

static int answer(struct server *server, struct place *place, uint32_t number, int error) {
    struct answer said;
    int n;
    memset(&said, 0, sizeof said);
    said.number = number;
    said.error = error;
    if (place) {
        said.status = place->status;
        for (n = 0; n < 2; n++) {
            said.kept[n] = (uint32_t)place->kept[n].size;
            said.more[n] = place->more[n];
        }
    }
    if (!add(&server->answers, &said, sizeof said)) {
        return 0;
    }
    for (n = 0; place && n < 2; n++) {
        if (!add(&server->answers, place->kept[n].data, place->kept[n].size)) {
            return 0;
        }
        place->kept[n].size = 0;
    }
    return 1;
}

/* The error of a start. `to` is where it writes. */
static int spawned(struct server *server, struct place *place, char **words, const int *to) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t ours;
    int error;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, to[0], 1);
    posix_spawn_file_actions_adddup2(&actions, to[1], 2);
    posix_spawnattr_init(&attributes);
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    sigaddset(&ours, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes, &ours);
    posix_spawnattr_setpgroup(&attributes, place->leader);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
    error = posix_spawn(&place->child, words[0], &actions, &attributes, words, server->variables);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

/* Start a command in this place; what went wrong, 0 if nothing did. */
static int start_in(struct server *server, struct place *place, char **words) {
    int pairs[2][2] = {{-1, -1}, {-1, -1}}, to[2], error = 0, n;
    if (!has_leader(server, place) || pipe(pairs[0]) != 0 || pipe(pairs[1]) != 0) {
        error = errno;
    }
    for (n = 0; n < 2; n++) {
        to[n] = pairs[n][1];
        if (to[n] >= 0) {
            close_on_exec(pairs[n][0]);
            close_on_exec(to[n]);
            fcntl(pairs[n][0], F_SETFL, O_NONBLOCK);
        }
    }
    if (error == 0) {
        error = spawned(server, place, words, to);
    }
    for (n = 0; n < 2; n++) {
        if (to[n] >= 0) {
            close(to[n]);
        }
        if (error && pairs[n][0] >= 0) {
            close(pairs[n][0]);
        }
        if (!error) {
            place->handle[n] = pairs[n][0];
            place->more[n] = 0;
        }
    }
    if (error == 0) {
        place->busy = 1;
        place->reaped = 0;
    }
    return error;
}

static int start(struct server *server, uint32_t number, char *text, size_t size) {
    char **words = strings_of(text, size);
    struct place *place = idle_place(server);
    int error = EAGAIN;
    if (words == NULL || words[0] == NULL) {
        free(words);
        return answer(server, NULL, number, EINVAL);
    }
    if (place) {
        error = start_in(server, place, words);
        if (error == EPERM || error == ESRCH) {
            place->leader = 0; /* somebody killed the group */
            error = start_in(server, place, words);
        }
        place->number = number;
    }
    free(words);
    return error ? answer(server, NULL, number, error) : 1;
}

static int finish_if_over(struct server *server, struct place *place) {
    if (!place->busy || !place->reaped || place->handle[0] >= 0 || place->handle[1] >= 0) {
        return 1;
    }
    place->busy = 0;
    return answer(server, place, place->number, 0);
}

/* Do what one order says; 0 when this cannot go on. */
static int obey(struct server *server, const struct order *order, char *text) {
    size_t n;
    if (order->kind == 'S') {
        return start(server, order->number, text, order->size);
    }
    if (order->kind == 'E') {
        server->environment.size = 0;
        free(server->variables);
        server->variables = NULL;
        if (add(&server->environment, text, order->size)) {
            server->variables = strings_of(server->environment.data, order->size);
        }
        return server->variables != NULL;
    }
    for (n = 0; order->kind == 'K' && n < server->count; n++) {
        if (server->places[n].busy && server->places[n].number == order->number) {
            kill_group(&server->places[n]);
            server->places[n].leader = 0; /* it is gone, or will be */
            stop_reading(&server->places[n]);
            if (!finish_if_over(server, &server->places[n])) {
                return 0;
            }
        }
    }
    return order->kind == 'K';
}

/* Take what has come on the socket; 0 at its end. */
static int take_orders(struct server *server) {
    struct order order;
    size_t done = 0;
    ssize_t got;
    if (!has_room(&server->orders, BLOCK)) {
        return 0;
    }
    got = read(0, server->orders.data + server->orders.size, BLOCK);
    if (got <= 0) {
        return got < 0 && (errno == EINTR || errno == EAGAIN);
    }
    server->orders.size += (size_t)got;
    while (server->orders.size - done >= sizeof order) {
        memcpy(&order, server->orders.data + done, sizeof order);
        if (order.size > MOST_ORDER) {
            return 0;
        }
        if (server->orders.size - done - sizeof order < order.size) {
            break;
        }
        if (!obey(server, &order, server->orders.data + done + sizeof order)) {
            return 0;
        }
        done += sizeof order + order.size;
    }
    drop_first(&server->orders, done);
    return 1;
}

/* What a command has printed; 0 when this cannot go on. */
static int take_printed(struct server *server, struct place *place, int which) {
    static char block[BLOCK];
    struct bytes *kept = &place->kept[which];
    ssize_t got = read(place->handle[which], block, sizeof block);
    if (got < 0) {
        return errno == EINTR || errno == EAGAIN;
    }
    if (got == 0) {
        close(place->handle[which]);
        place->handle[which] = -1;
        return finish_if_over(server, place);
    }
    if (kept->size >= MOST_KEPT) {
        place->more[which] += (uint64_t)got;
        return 1;
    }
    return add(kept, block, (size_t)got);
}

static int reap(struct server *server) {
    char some[256];
    pid_t child;
    int status;
    size_t n;
    while (read(server->woken[0], some, sizeof some) > 0) {
    }
    while ((child = waitpid(-1, &status, WNOHANG)) > 0) {
        for (n = 0; n < server->count; n++) {
            struct place *place = &server->places[n];
            if (place->leader == child) {
                place->leader = 0;
            } else if (place->busy && !place->reaped && place->child == child) {
                place->reaped = 1;
                place->status = status;
                if (!finish_if_over(server, place)) {
                    return 0;
                }
            }
        }
    }
    return 1;
}

static int say_answers(struct server *server) {
    ssize_t wrote = write(0, server->answers.data, server->answers.size);
    if (wrote < 0) {
        return errno == EINTR || errno == EAGAIN;
    }
    drop_first(&server->answers, (size_t)wrote);
    return 1;
}

/* Wait for something, and see to it; 0 when there is nothing more to do. */
static int serve_once(struct server *server) {
    static struct pollfd polled[2 + 2 * MOST_COMMANDS];
    static struct {
        struct place *place;
        int which;
    } of[2 + 2 * MOST_COMMANDS];
    size_t count = 2, n;
    int which;
    polled[0].fd = 0;
    polled[0].events = (short)(POLLIN | (server->answers.size ? POLLOUT : 0));
    polled[1].fd = server->woken[0];
    polled[1].events = POLLIN;
    for (n = 0; n < server->count; n++) {
        for (which = 0; which < 2; which++) {
            if (server->places[n].handle[which] >= 0) {
                of[count].place = &server->places[n];
                of[count].which = which;
                polled[count].fd = server->places[n].handle[which];
                polled[count++].events = POLLIN;
            }
        }
    }
    if (poll(polled, (nfds_t)count, -1) < 0) {
        return errno == EINTR;
    }
    for (n = 2; n < count; n++) {
        if (polled[n].revents && !take_printed(server, of[n].place, of[n].which)) {
            return 0;
        }
    }
    if (polled[1].revents && !reap(server)) {
        return 0;
    }
    if (polled[0].revents & (POLLIN | POLLHUP | POLLERR) && !take_orders(server)) {
        return 0;
    }
    return server->answers.size == 0 || say_answers(server);
}

static int serve_commands(void) {
    static struct place places[MOST_COMMANDS];
    static struct server server;
    struct sigaction noted;
    sigset_t ours;
    size_t n;
    server.places = places;
    if (pipe(server.lifeline) != 0 || pipe(server.woken) != 0) {
        return 2;
    }
    for (n = 0; n < 2; n++) {
        close_on_exec(server.lifeline[n]);
        close_on_exec(server.woken[n]);
        fcntl(server.woken[n], F_SETFL, O_NONBLOCK);
    }
    fcntl(0, F_SETFL, O_NONBLOCK);
    server.variables = strings_of(NULL, 0);
    waker = server.woken[1];
    memset(&noted, 0, sizeof noted);
    noted.sa_handler = on_child;
    noted.sa_flags = SA_RESTART | SA_NOCLDSTOP;
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    sigprocmask(SIG_UNBLOCK, &ours, NULL); /* whoever started this may have blocked it */
    signal(SIGPIPE, SIG_IGN); /* the end of the socket is seen where it is written to */
    if (server.variables == NULL || sigaction(SIGCHLD, &noted, NULL) != 0 ||
        !answer(&server, NULL, 0, 0)) {
        return 2;
    }
    while (serve_once(&server)) {
    }
    for (n = 0; n < server.count; n++) {
        kill_group(&places[n]);
    }
    alarm(MOST_SECONDS);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {
    }
    return 0;
}
