/* A test program for the host: CHECK counts, and says where it fails. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>

extern int checks, failures;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        checks++;                                                                                  \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("%s:%d: error: %s\n", __FILE__, __LINE__, #condition);                          \
        }                                                                                          \
    } while (0)

/* What the firmware wrote since the last call; and the clock that it sees. */
const char *written(void);
extern unsigned long long fake_uptime_ms;

/* Defined by each test program. */
void run_tests(void);

#endif
