#include "gate.h"

bool gate_passes(struct gate *gate, uint32_t value, uint64_t now_ms) {
    uint64_t change = value > gate->value ? value - gate->value : gate->value - value;
    bool news = change * 100 > (uint64_t)gate->value * GATE_CHANGE_PERCENT;
    if (gate->used && !news && now_ms - gate->at_ms < GATE_SILENCE_MS) {
        return false;
    }
    *gate = (struct gate){true, value, now_ms};
    return true;
}
