"""The grammar of faults: what is understood, what is refused and with which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualboard.faults import KEYS, KINDS, BadFault, parse_fault


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_in_the_help_is_valid_and_uses_documented_keys(kind: str) -> None:
    fault = parse_fault(KINDS[kind].example)
    assert fault.kind == kind and fault.text == KINDS[kind].example
    assert set(KINDS[kind].keys) <= set(KEYS)


def test_values_are_read_in_their_units() -> None:
    fault = parse_fault("power-cut:write=3,for=0.25,times=0")
    assert (fault.write, fault.for_s, fault.times, fault.after, fault.boot) == (3, 0.25, 0, None, None)
    assert parse_fault("worn:sector=0x12345").sector == 0x12345
    assert parse_fault("other-mac:mac=7C-DF-A1-00-00-01").mac == "7c:df:a1:00:00:01"
    assert parse_fault("vanish:name=new").name == "new"


def test_what_is_left_out_has_the_documented_default() -> None:
    assert parse_fault("brown-out").after == 0.0
    assert parse_fault("silence").for_s == 0.0
    assert parse_fault("vanish").for_s == 0.5
    loop = parse_fault("boot-loop")
    assert (loop.boot, loop.times) == (0.3, 0)
    assert parse_fault("slow-boot").times == 0
    assert parse_fault("garble").to == "host"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("brownout", "'brownout' is not a fault\nDid you mean brown-out?"),
        ("xyzzy", "'xyzzy' is not a fault\nChoose one of brown-out, power-cut, "),
        (
            "drop:form=host",
            "drop has no place for 'form=host'\nIt takes to, at, count, every, seed. For example: drop:",
        ),
        ("drop:cuont=1", "drop has no place for 'cuont=1'\nDid you mean count?"),
        ("drop:at=1,at=2", "drop has no place twice for 'at=2'\n"),
        ("drop:at", "drop has no place for 'at'\n"),
        ("drop:", "drop has no place for ''\n"),
        ("drop:count=0", "drop: count=0: not a whole number from 1\nWrite it like drop:"),
        ("drop:to=me", "drop: to=me: not one of host, board\n"),
        ("power-cut:for=-1", "power-cut: for=-1: not a number of seconds from 0 to 86400\n"),
        ("power-cut:for=inf", "power-cut: for=inf: not a number of seconds"),
        ("brown-out:write=1,after=2", "brown-out has both write= and after=\nGive one of them."),
        ("worn", "worn needs sector=\nWrite it like worn:sector=0x12000."),
        ("wrong-chip:chip=esp8266", "wrong-chip: chip=esp8266: not one of esp32, esp32c3, esp32s3, esp32s2, "),
        ("other-mac:mac=1", "other-mac: mac=1: not a MAC address\n"),
    ],
)
def test_wrong_faults_are_named(text: str, message: str) -> None:
    with pytest.raises(BadFault) as caught:
        parse_fault(text)
    assert str(caught.value).startswith(message)


_PAIRS = st.builds("{}={}".format, st.sampled_from(sorted(KEYS)), st.text("0123456789.x-abew", max_size=6))


@given(
    st.text(max_size=60)
    | st.builds(lambda k, p: f"{k}:{','.join(p)}", st.sampled_from(sorted(KINDS)), st.lists(_PAIRS))
)
def test_any_text_is_a_fault_or_a_message(text: str) -> None:
    try:
        fault = parse_fault(text)
    except BadFault as bad:
        assert "\n" in str(bad)
    else:
        assert parse_fault(fault.text) == fault
