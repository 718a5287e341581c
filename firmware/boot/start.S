/* Entry of the second stage: the ROM has loaded it to RAM and jumps here. */
    .option arch, +zicsr

    .section .entry, "ax"
    .globl _start
_start:
    .option push
    .option norelax
    la      gp, __global_pointer$
    .option pop
    la      sp, __stack_top
    la      t0, trap_vectors + 1        /* bit 0: vectored, the only mode of this CPU */
    csrw    mtvec, t0
    la      t0, __bss_start
    la      t1, __bss_end
1:  bgeu    t0, t1, 2f
    sw      zero, 0(t0)
    addi    t0, t0, 4
    j       1b
2:  call    boot_main
3:  j       3b

    .section .vectors, "ax"
    .option push
    .option norvc
    .balign 256
trap_vectors:
    j       on_trap                     /* exceptions; no interrupt is ever enabled here */
    .option pop

on_trap:
    csrr    a0, mcause
    csrr    a1, mepc
    la      sp, __stack_top
    tail    boot_trap
