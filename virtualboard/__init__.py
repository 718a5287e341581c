"""An ESP32 on this machine: ROM loader protocol, flash, reset lines and CPU, for anyone who writes a flasher.

Knows nothing of `pipeline/` or `cache/`: it is a product of its own. The chip itself (`board.Board` and everything
below it) does no I/O but its flash file, starts no thread and never sleeps; time comes in through a callable.
`cable` gives the line its pace; `port` (in-process) and `server` (a process of its own) connect it to the world.

    chips            the facts of each chip, as data             slip, loader, stub*, spi, bus  the download mode
    nor              flash with NOR semantics, in a file         board, usb      reset lines, modes, UART, USB port
    timing           what each operation costs, as data          faults, active_faults   what can go wrong, how it acts
    machine, rv32*   the CPU (RISC-V chips only)                 rom, rom_only   the boot, and a ROM without a CPU
    cable, port      pace, and a pyserial-like object            server, tcp, telnet, ptyport  `python -m virtualboard`
                     on a virtual clock                          control, control_socket       its buttons
"""
