"""An ESP32 on this machine: ROM loader protocol, flash, reset lines and CPU, for anyone who writes a flasher.

Knows nothing of `pipeline/` or `cache/`: it is a product of its own. The chip itself (`board.Board` and everything
below it) does no I/O but its flash file, starts no thread and never sleeps; time comes in through a callable.
`port` (in-process) and `rfc2217` (a process of its own) connect it to the world.

    chips      the facts of each chip, as data            slip, loader, stub, spi, bus   the download mode
    nor        flash with NOR semantics, in a file        board       reset lines, modes, UART
    timing     what each operation costs, as data         port        pyserial-like object on a virtual clock
    rv32, rom  the CPU and the boot (RISC-V chips only)   telnet, rfc2217, __main__      `python -m virtualboard`
"""
