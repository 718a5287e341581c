"""A compile's result in the store, as an entry of the action cache, and back.

Knows the store's values. Does not know how keys are made. Invariant: what `answer_of` gives is what `record` was given,
put in the places of the call that asks.
"""

from __future__ import annotations

from cache.actions import ActionResult, OutputFile
from cache.digest import ActionKey, Digest
from cache.store import Store
from pipeline.formats.compile_command import CompileReading
from pipeline.launcher.call import ROOT, Call
from pipeline.launcher.called import Called

OBJECT, DEPFILE, PLACED_DEPFILE = "build/object", "build/depfile", "build/depfile-with-root"
"""Names of outputs in an entry; the last holds the symbol of the root."""

Stored = tuple[str, int] | tuple[()]
Result = tuple[str, str, Stored, str, Stored, bool, Stored, Stored, str]
"""As `memo.Answer`."""


def record(
    store: Store, call: Call, reading: CompileReading, key: ActionKey, made: Called, *, is_bound: bool
) -> Result:
    """Store the blobs, then the entry. Raises OSError."""
    put = store.blobs.put_bytes
    rules, name = made.rules, DEPFILE
    if call.root and not is_bound and call.root.encode("utf-8", "surrogateescape") in rules:
        rules, name = rules.replace(call.root.encode("utf-8", "surrogateescape"), ROOT.encode()), PLACED_DEPFILE
    outputs = [OutputFile(OBJECT, put(made.body), False)]
    if reading.depfile:
        outputs.append(OutputFile(name, put(rules), False))
    out, err = (put(data) if data else None for data in (made.out, made.err))
    result = ActionResult(tuple(outputs), out, err, int(1000 * made.duration_s))
    store.results.record(key, result)
    answer = answer_of(call, reading, key, result, is_bound=is_bound)
    assert answer is not None
    return answer


def answer_of(
    call: Call, reading: CompileReading, key: ActionKey, result: ActionResult, *, is_bound: bool
) -> Result | None:
    """Where everything goes; None for an entry that is none of a compile like this. `is_bound`: it is for this place of
    the root alone."""
    found = {file.path: file.digest for file in result.outputs}
    deps = found.get(DEPFILE) or found.get(PLACED_DEPFILE)
    if OBJECT not in found or (deps is None) == bool(reading.depfile):
        return None
    return (
        key,
        call.symbolic(reading.output),
        _stored(found[OBJECT]),
        call.symbolic(reading.depfile),
        _stored(deps),
        PLACED_DEPFILE in found,
        _stored(result.stdout),
        _stored(result.stderr),
        call.root if is_bound else "",
    )


def _stored(digest: Digest | None) -> Stored:
    return () if digest is None else (digest.hex, digest.size)
