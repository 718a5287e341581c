"""`hotplate cc -- COMPILER ARGUMENTS`: a compiler launcher that answers single compiles from the user's store.

Works without a project, for whoever calls a compiler: make, CMake, PlatformIO, Arduino. Knows what was asked; what a
compile reads and makes is found out in `single_compile.py`, which is loaded only when no memo answers. Invariant: what
is not certain is the compiler's own to do, with the same arguments, streams and exit code.
"""

import os
import sys

from pipeline.launcher.call import Call, cache_directory, count, original_environment, plain
from pipeline.launcher.memo import hit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """usage: hotplate cc -- COMPILER ARGUMENTS...   compile, or answer from the store
       hotplate cc --stats                   how often it could
       hotplate cc --zero-stats              count from zero
"""


def main(argv: "Sequence[str]") -> int:
    """What stands behind `hotplate cc`; the exit code, if this process does not end as the compiler."""
    environment = original_environment()
    cache = cache_directory(environment)
    if argv[:1] in (["--stats"], ["--zero-stats"]):
        from pipeline.launcher import statistics

        return statistics.show(cache) if argv[0] == "--stats" else statistics.zero(cache)
    if argv[:1] in (["--help"], ["-h"]):
        sys.stdout.write(USAGE)
        return 0
    words = list(argv[1:] if argv[:1] == ["--"] else argv)
    if not words or words[0].startswith("-"):
        sys.stderr.write(USAGE)
        return 3
    if not cache or environment.get("HOTPLATE_CC") == "0":
        plain(words, environment)
    if "-c" not in words and not any(word.startswith("@") for word in words):
        count(cache, "passed-no-compile")
        plain(words, environment)
    try:
        call = Call(words, environment, cache)
        if hit(call):
            os._exit(0)
        from pipeline.launcher.single_compile import compile_or_pass

        return compile_or_pass(call, words)
    except Exception:  # a build must not fail for what is wrong here; it is counted
        count(cache, "passed-trouble")
        plain(words, environment)
