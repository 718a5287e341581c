/* core/port.h as a process: the same firmware without a board, for tests and for trying things out.
 *
 * A restart is the program executed again on the same pty; the watchdog counts CPU time, so that a
 * busy host is not taken for a hang. */
#define _GNU_SOURCE

#include "port.h"

#include "line.h"
#include "sha256.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef PROJECT_NAME
#define PROJECT_NAME "reference"
#endif
#ifndef PROJECT_VERSION
#define PROJECT_VERSION "0.0.0"
#endif

_Noreturn void core_main(void);

enum { HEAP_SIZE = 256 * 1024, WATCHDOG_MS = 500, WAIT_MAX_MS = 1000, ENVIRONMENT_MAX = 512 };

static const char usage[] = "usage: %s [--pty LINK]\n"
                            "Runs the firmware as a process. It speaks JSON-RPC, a message per "
                            "line, on stdin and stdout,\n"
                            "or with --pty on a new pseudo terminal that the symbolic link LINK "
                            "points to.\n";

static char **arguments;
static char reset_variable[64], line_variable[64]; /* for the next start of this program */
static char *environment[ENVIRONMENT_MAX];
static struct port_identity identity;
static uint64_t started_ms;

/* Only what is safe in a signal handler. */
static _Noreturn void restart(const char *reason) {
    size_t at = sizeof "HOTPLATE_RESET=" - 1;
    while ((reset_variable[at++] = *reason++) != '\0') {
    }
    execve("/proc/self/exe", arguments, environment);
    _exit(1);
}

static void on_watchdog(int number) {
    (void)number;
    restart("watchdog");
}

static void on_end(int number) {
    (void)number;
    line_close();
    _exit(0);
}

static void set_watchdog(void) {
    struct itimerval limit = {.it_value = {WATCHDOG_MS / 1000, WATCHDOG_MS % 1000 * 1000}};
    setitimer(ITIMER_PROF, &limit, NULL);
}

static void handle_signals(void) {
    sigset_t all;
    struct sigaction watchdog = {.sa_handler = on_watchdog}, end = {.sa_handler = on_end};
    sigaction(SIGPROF, &watchdog, NULL);
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGINT, &end, NULL);
    sigaction(SIGHUP, &end, NULL);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&all); /* a restart out of a handler leaves its signal blocked */
    sigprocmask(SIG_SETMASK, &all, NULL);
}

/* The environment of the next start: this one, with our two variables set again. */
static void prepare_restart(void) {
    extern char **environ;
    size_t count = 0;
    strcpy(reset_variable, "HOTPLATE_RESET=");
    snprintf(line_variable, sizeof line_variable, "HOTPLATE_PTY_FD=%d", line_inheritable());
    environment[count++] = reset_variable;
    environment[count++] = line_variable;
    for (char **variable = environ; *variable != NULL && count < ENVIRONMENT_MAX - 1; variable++) {
        if (strncmp(*variable, "HOTPLATE_", 9) != 0) {
            environment[count++] = *variable;
        }
    }
}

static uint64_t clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int main(int argc, char **argv) {
    const char *inherited = getenv("HOTPLATE_PTY_FD"), *reason = getenv("HOTPLATE_RESET");
    bool pty = argc == 3 && strcmp(argv[1], "--pty") == 0;
    if (argc != 1 && !pty) {
        bool asked = argc == 2 && strcmp(argv[1], "--help") == 0;
        fprintf(asked ? stdout : stderr, usage, argv[0]);
        return asked ? 0 : 2;
    }
    arguments = argv;
    identity.reset_reason = reason != NULL ? reason : "power_on";
    line_open(pty ? argv[2] : NULL, inherited != NULL ? atoi(inherited) : -1);
    prepare_restart();
    core_main();
}

/* --- core/port.h ------------------------------------------------------------------------------ */

void port_init(void) {
    const struct port_region self = {.name = "app"};
    handle_signals();
    set_watchdog();
    started_ms = clock_ms();
    identity.project = PROJECT_NAME;
    identity.version = PROJECT_VERSION;
    identity.chip = "host";
    identity.partition = "app";
    identity.mac[0] = 2; /* locally administered */
    identity.mac[5] = 1;
    port_sha256(&self, identity.app_elf_sha256);
}

const struct port_identity *port_identity(void) {
    return &identity;
}

uint64_t port_uptime_ms(void) {
    return clock_ms() - started_ms;
}

void port_write(const char *bytes, size_t size) {
    line_write(bytes, size);
}

int port_read(void) {
    return line_read();
}

void port_wait(uint64_t until_ms) {
    uint64_t now = port_uptime_ms();
    uint64_t rest = until_ms > now ? until_ms - now : 0;
    set_watchdog();
    line_wait(rest < WAIT_MAX_MS ? (int)rest : WAIT_MAX_MS);
}

void *port_heap(size_t *size) {
    static _Alignas(16) unsigned char memory[HEAP_SIZE];
    *size = sizeof memory;
    return memory;
}

void port_led(bool on) {
    (void)on; /* a process has none */
}

/* A process has one image, which is its program file. */
size_t port_regions(struct port_region *regions, size_t max) {
    struct stat file;
    if (max == 0 || stat("/proc/self/exe", &file) != 0) {
        return 0;
    }
    regions[0] =
        (struct port_region){.name = "app", .running = true, .size = (uint32_t)file.st_size};
    return 1;
}

void port_sha256(const struct port_region *region, uint8_t digest[PORT_DIGEST_SIZE]) {
    (void)region;
    uint8_t part[4096];
    ssize_t size;
    struct sha256 sha;
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    sha256_begin(&sha);
    while ((size = read(file, part, sizeof part)) > 0) {
        sha256_add(&sha, part, (size_t)size);
        set_watchdog();
    }
    close(file);
    sha256_end(&sha, digest);
}

/* A program does not replace itself while it runs. */
bool port_update_slot(struct port_slot *slot) {
    (void)slot;
    return false;
}

void port_update_read(const struct port_slot *slot, uint32_t at, uint8_t *block, uint32_t size) {
    (void)slot, (void)at, (void)block, (void)size;
}

bool port_update_write(const struct port_slot *slot, uint32_t at, const uint8_t *block,
                       uint32_t size) {
    (void)slot, (void)at, (void)block, (void)size;
    return false;
}

bool port_update_select(const struct port_slot *slot) {
    (void)slot;
    return false;
}

_Noreturn void port_reboot(void) {
    restart("software");
}

_Noreturn void port_panic(void) {
    static const char report[] =
        "\r\nGuru Meditation Error: Core  0 panic'ed (Store access fault). "
        "Exception was unhandled.\r\n\r\nRebooting...\r\n";
    port_write(report, sizeof report - 1);
    restart("panic");
}
