/* The functions of each module, named in the rows of table.c. To add a module: write its file,
 * declare its functions here, add its row. */
#ifndef MODULES_MODULES_H
#define MODULES_MODULES_H

#include "module.h"

/* Blinks the board's LED: the sign of life for people. */
bool blink_setup(unsigned self);
uint32_t blink_loop(void);
void blink_health(struct text *text);

/* Records the free memory four times a second. Its parameter is how many samples it keeps. */
bool sampler_setup(unsigned self);
uint32_t sampler_loop(void);
void sampler_health(struct text *text);
bool sampler_set(unsigned self, uint32_t samples);

/* Holds as many bytes as its parameter says: stands for whatever else needs memory, so that tests
 * can bring the device into need. */
bool ballast_setup(unsigned self);
uint32_t ballast_loop(void);
void ballast_health(struct text *text);
bool ballast_set(unsigned self, uint32_t bytes);

#endif
