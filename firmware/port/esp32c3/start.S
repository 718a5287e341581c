/* Entry and trap vectors of the application. Runs from RAM; the bootloader has mapped the rest. */
#include "start.inc"

    .section .entry, "ax"
    .globl _start
_start:
    begin_stage
    la      t0, trap_frame
    csrw    mscratch, t0
    call    core_main
3:  j       3b

/* Every trap is a panic: interrupts stay off. */
    trap_table on_trap

on_trap:
    csrrw   sp, mscratch, sp            /* sp: trap_frame; mscratch: the stack of the culprit */
    sw      ra, 4(sp)
    sw      gp, 12(sp)
    sw      tp, 16(sp)
    sw      t0, 20(sp)
    sw      t1, 24(sp)
    sw      t2, 28(sp)
    sw      s0, 32(sp)
    sw      s1, 36(sp)
    sw      a0, 40(sp)
    sw      a1, 44(sp)
    sw      a2, 48(sp)
    sw      a3, 52(sp)
    sw      a4, 56(sp)
    sw      a5, 60(sp)
    sw      a6, 64(sp)
    sw      a7, 68(sp)
    sw      s2, 72(sp)
    sw      s3, 76(sp)
    sw      s4, 80(sp)
    sw      s5, 84(sp)
    sw      s6, 88(sp)
    sw      s7, 92(sp)
    sw      s8, 96(sp)
    sw      s9, 100(sp)
    sw      s10, 104(sp)
    sw      s11, 108(sp)
    sw      t3, 112(sp)
    sw      t4, 116(sp)
    sw      t5, 120(sp)
    sw      t6, 124(sp)
    csrr    t0, mepc
    sw      t0, 0(sp)
    csrr    t0, mscratch
    sw      t0, 8(sp)
    csrr    t0, mstatus
    sw      t0, 128(sp)
    csrr    t0, mtvec
    sw      t0, 132(sp)
    csrr    t0, mcause
    sw      t0, 136(sp)
    csrr    t0, mtval
    sw      t0, 140(sp)
    mv      a0, sp
    la      sp, panic_stack_top         /* the culprit's stack may be what is broken */
    .option push
    .option norelax
    la      gp, __global_pointer$
    .option pop
    tail    panic

    .section .bss.trap, "aw", @nobits
    .balign 16
trap_frame:
    .skip   144
    .balign 16
    .skip   1024
panic_stack_top:
