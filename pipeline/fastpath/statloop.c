/* Which files of a listing are not what they were: the loop of `pipeline/fastpath/__init__.py`,
 * compiled.
 *
 *     statloop ROOT COUNT SIZE < listing
 *
 * The listing (SIZE bytes, COUNT files; format: `fastpath.KIND`) comes from a state file whose
 * checksum the caller has verified. Prints the places of the files that differ or are missing, one
 * per line, and then "checked". Before those come one line or a few, as soon as that is known, of a
 * file that is there and differs: "moved PLACE". Ends with 0 if it could tell, with 2 and no
 * "checked" if it could not. Knows nothing of projects or state files; writes nothing else.
 *
 *     statloop commands
 *
 * is another program in the same file: see command_server.h.
 */
#define _FILE_OFFSET_BITS 64
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command_server.h"

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
/* A process takes about as long to start as this many files to look at. */
#define WORTH_A_PROCESS 2000
#define MOST_PROCESSES 4
/* What builds make. People edit other files, which are looked at first. */
#define MADE "build/"

#ifdef __APPLE__
#define CHANGED st_ctimespec
#else
#define CHANGED st_ctim
#endif

struct stamp {
    uint64_t ctime_ns, size, inode;
};

enum verdict { SAME, GONE, OTHER, OTHER_FILE };

static enum verdict verdict_of(const char *name, const char *wanted) {
    struct stamp stamp;
    struct stat now;
    if (stat(name, &now) != 0) {
        return GONE;
    }
    memcpy(&stamp, wanted, sizeof stamp); /* the listing is not aligned */
    if ((uint64_t)now.CHANGED.tv_sec * 1000000000u + (uint64_t)now.CHANGED.tv_nsec ==
            stamp.ctime_ns &&
        (uint64_t)now.st_size == stamp.size && (uint64_t)now.st_ino == stamp.inode) {
        return SAME;
    }
    return S_ISREG(now.st_mode) ? OTHER_FILE : OTHER;
}

/* All bytes of standard input, or NULL if they are not `size`. */
static char *read_listing(size_t size) {
    char *data = malloc(size + 1), more;
    size_t have = 0;
    ssize_t got = 1;
    while (data && have < size && (got = read(0, data + have, size - have)) > 0) {
        have += (size_t)got;
    }
    return data && have == size && read(0, &more, 1) == 0 ? data : NULL;
}

/* The listing, and a byte for each file that says whether it moved, and one more that says whether
 * that was told: all processes write there. */
struct work {
    const char *root, *listing;
    size_t count, size;
    char *moved;
};

/* Say at once that this file moved; 0 when that worked. Few bytes go through a pipe in one piece.
 */
static int tell(const struct work *work, size_t place) {
    char text[40];
    int size = snprintf(text, sizeof text, "moved %zu\n", place);
    work->moved[work->count] = 1;
    return write(1, text, (size_t)size) == size ? 0 : 2;
}

/* Look at the files from `first` up to `last`, of those that builds make, or of the others; 0 when
 * the text holds exactly `count` names. */
static int check_half(const struct work *work, size_t first, size_t last, int made) {
    const char *text = work->listing + work->count * sizeof(struct stamp);
    const char *end = work->listing + work->size, *stamp = work->listing;
    size_t place = 0;
    while (text < end) {
        const char *directory = text;
        int entered = -1, mixed = strcmp(directory, "./") == 0;
        for (text += strlen(text) + 1; text < end && *text; text += strlen(text) + 1) {
            if (place == work->count) {
                return 2;
            }
            if (place >= first && place < last &&
                (strncmp(mixed ? text : directory, MADE, sizeof MADE - 1) == 0) == made) {
                enum verdict verdict;
                if (entered < 0) {
                    /* Through the root, because most directories are relative to it. */
                    entered = chdir(work->root) == 0 && chdir(directory) == 0;
                }
                verdict = entered ? verdict_of(text, stamp) : GONE;
                work->moved[place] = verdict != SAME;
                if (verdict == OTHER_FILE && !work->moved[work->count] && tell(work, place) != 0) {
                    return 2;
                }
            }
            place++;
            stamp += sizeof(struct stamp);
        }
        text++;
    }
    return place == work->count ? 0 : 2;
}

static int check(const struct work *work, size_t first, size_t last) {
    int result = check_half(work, first, last, 0);
    return result ? result : check_half(work, first, last, 1);
}

/* Look at all files, with a process for each processor as far as that is worth it; 0 if it worked.
 */
static int check_all(const struct work *work) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t most = work->count / WORTH_A_PROCESS + 1, parts = 1, n, started = 0;
    int result, status;
    while (parts < most && parts < MOST_PROCESSES && (long)parts < processors) {
        parts++;
    }
    for (n = 1; n < parts; n++) {
        pid_t child = fork();
        if (child == 0) {
            _exit(check(work, work->count * n / parts, work->count * (n + 1) / parts));
        }
        if (child < 0) {
            break;
        }
        started++;
    }
    result = check(work, 0, work->count / parts);
    for (n = started + 1; n < parts && result == 0; n++) { /* what no process could be had for */
        result = check(work, work->count * n / parts, work->count * (n + 1) / parts);
    }
    for (n = 0; n < started; n++) {
        if (wait(&status) < 0 || status != 0) {
            result = 2;
        }
    }
    return result;
}

int main(int argc, char **argv) {
    struct work work;
    size_t place;
    if (argc == 2 && strcmp(argv[1], "commands") == 0) {
        return serve_commands();
    }
    if (argc != 4) {
        return 2;
    }
    work.root = argv[1];
    work.count = strtoull(argv[2], NULL, 10);
    work.size = strtoull(argv[3], NULL, 10);
    if (work.size < 2 || work.count > (work.size - 2) / sizeof(struct stamp) ||
        (work.listing = read_listing(work.size)) == NULL || work.listing[work.size - 1] ||
        work.listing[work.size - 2]) {
        return 2;
    }
    work.moved =
        mmap(NULL, work.count + 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (work.moved == MAP_FAILED || check_all(&work) != 0) {
        return 2;
    }
    for (place = 0; place < work.count; place++) {
        if (work.moved[place]) {
            printf("%zu\n", place);
        }
    }
    return puts("checked") == EOF || fflush(stdout) != 0 ? 2 : 0;
}
