/* Which files of a listing are not what they were: the loop of `pipeline/gate.py`, compiled.
 *
 *     statgate ROOT COUNT SIZE < listing
 *
 * The listing (SIZE bytes, COUNT files; format: `gate.KIND`) comes from a state file whose checksum
 * the caller has verified. Prints the places of the files that differ or are missing, one per line,
 * and then "checked". Ends with 0 if it could tell, with 2 and no "checked" if it could not. Knows
 * nothing of projects or state files; writes nothing else.
 */
#define _FILE_OFFSET_BITS 64
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __APPLE__
#define CHANGED st_ctimespec
#else
#define CHANGED st_ctim
#endif

struct stamp {
    uint64_t ctime_ns, size, inode;
};

static int is_same(const char *name, const char *wanted) {
    struct stamp stamp;
    struct stat now;
    if (stat(name, &now) != 0) {
        return 0;
    }
    memcpy(&stamp, wanted, sizeof stamp); /* the listing is not aligned */
    return (uint64_t)now.CHANGED.tv_sec * 1000000000u + (uint64_t)now.CHANGED.tv_nsec ==
               stamp.ctime_ns &&
           (uint64_t)now.st_size == stamp.size && (uint64_t)now.st_ino == stamp.inode;
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

/* Check each group; 0 when the text holds exactly `count` names. */
static int check(const char *root, const char *listing, size_t count, size_t size) {
    const char *stamp = listing, *stamps_end = listing + count * sizeof(struct stamp);
    const char *text = stamps_end, *end = listing + size;
    size_t place = 0;
    while (text < end) {
        /* Through the root, because most directories are relative to it. */
        int entered = chdir(root) == 0 && chdir(text) == 0;
        for (text += strlen(text) + 1; text < end && *text; text += strlen(text) + 1) {
            if (stamp == stamps_end) {
                return 2;
            }
            if (!(entered && is_same(text, stamp))) {
                printf("%zu\n", place);
            }
            place++;
            stamp += sizeof(struct stamp);
        }
        text++;
    }
    return stamp == stamps_end ? 0 : 2;
}

int main(int argc, char **argv) {
    size_t count, size;
    char *listing;
    if (argc != 4) {
        return 2;
    }
    count = strtoull(argv[2], NULL, 10);
    size = strtoull(argv[3], NULL, 10);
    if (size < 2 || count > (size - 2) / sizeof(struct stamp) ||
        (listing = read_listing(size)) == NULL || listing[size - 1] || listing[size - 2]) {
        return 2;
    }
    if (check(argv[1], listing, count, size) != 0) {
        return 2;
    }
    return puts("checked") == EOF || fflush(stdout) != 0 ? 2 : 0;
}
