/* The only file that knows the project's name and version (-DPROJECT_NAME, -DPROJECT_VERSION): a
 * new version recompiles nothing else. Time and date stay empty, so that equal sources give equal
 * images. */
#include "app_desc.h"

__attribute__((section(".appdesc"), used)) const struct app_desc app_desc = {
    .magic = 0xABCD5432,
    .version = PROJECT_VERSION,
    .project = PROJECT_NAME,
    .max_efuse_block = 0xFFFF,
    .mmu_page_log2 = 16,
};
