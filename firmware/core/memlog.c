#include "memlog.h"

#include "gate.h"
#include "guard.h"
#include "heap.h"
#include "logring.h"
#include "text.h"

static size_t free_before;
static struct gate gate;
static bool is_low;

static void add_kilobytes(struct text *line, size_t bytes) {
    text_number(line, bytes / 1024);
    text_add(line, "KB");
}

static void log_heap(char level, const char *tag, const char *who) {
    struct heap_state heap = heap_state();
    char buffer[LOG_TEXT_ROOM];
    struct text line = TEXT_IN(buffer);
    bool less = heap.free < free_before;
    text_add(&line, tag);
    text_add(&line, who);
    text_add(&line, less ? ": -" : ": +");
    add_kilobytes(&line, less ? free_before - heap.free : heap.free - free_before);
    text_add(&line, " = ");
    add_kilobytes(&line, heap.free);
    text_add(&line, " (frag=");
    text_number(&line, heap.fragmentation_percent);
    text_add(&line, "%, largest=");
    add_kilobytes(&line, heap.largest);
    text_add(&line, ")");
    log_add(level, buffer);
    free_before = heap.free;
}

void memlog_boot(const char *step) {
    log_heap('I', "[MemBoot] ", step);
}

void memlog_watch(uint64_t now_ms) {
    struct heap_state heap = heap_state();
    bool low = heap.largest < HEAP_RESERVE;
    bool edge = low != is_low;
    is_low = low;
    if (gate_passes(&gate, (uint32_t)heap.free, now_ms) || edge) {
        log_heap(low ? 'W' : 'I', "[MemLive] ", "heap");
    }
}
