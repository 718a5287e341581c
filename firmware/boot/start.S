/* Entry of the second stage: the ROM has loaded it to RAM and jumps here. */
#include "start.inc"

    .section .entry, "ax"
    .globl _start
_start:
    begin_stage
    call    boot_main
3:  j       3b

    trap_table on_trap

on_trap:
    csrr    a0, mcause
    csrr    a1, mepc
    la      sp, __stack_top
    tail    boot_trap
