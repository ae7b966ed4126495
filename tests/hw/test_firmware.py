# SPDX-License-Identifier: MIT
"""What hangs on the wire, in virtual time."""

from __future__ import annotations

import pytest

from udriver_hw.chips.firmware import Echo, Firmware, Jumper, Script, Step, Unplugged, parse_script
from udriver_hw.chips.uart import Framing, Uart

MSEC = 1_000_000


def script(text: str) -> Script:
    return Script(parse_script(text))


def ask(firmware: Firmware, data: bytes = b"", now: int = 0) -> bytes:
    if data:
        firmware.receive(data, now)
    return firmware.transmit(now)


def test_a_jumper_gives_back_what_it_got_at_once() -> None:
    wire = Jumper()
    wire.receive(b"ab", 0)
    wire.receive(b"c", 0)
    assert (wire.next_event(), wire.transmit(0), wire.next_event()) == (0, b"abc", None)


def test_an_unpaced_echo_answers_at_once() -> None:
    assert ask(Echo(Uart()), b"abc") == b"abc"


def test_an_unpaced_echo_needs_no_room_for_all_of_it() -> None:
    echo = Echo(Uart(4))
    answer = ask(echo, b"0123456789")
    while echo.next_event() is not None:
        answer += echo.transmit(0)
    assert answer == b"0123456789"


def test_a_paced_echo_takes_as_long_as_its_own_line() -> None:
    line = Uart(paced=True)
    line.set_framing(Framing(1000), 0)  # 10 ms a character
    echo = Echo(line)
    assert (ask(echo, b"abc", 5 * MSEC), echo.next_event()) == (b"", 15 * MSEC)
    assert (ask(echo, now=15 * MSEC - 1), ask(echo, now=15 * MSEC)) == (b"", b"a")
    assert ask(echo, now=35 * MSEC) == b"bc"
    assert echo.next_event() is None


def test_a_paced_echo_with_a_small_fifo_loses_nothing() -> None:
    line = Uart(4, paced=True)
    echo = Echo(line)
    answer, now = ask(echo, b"0123456789"), 0
    while (at := echo.next_event()) is not None:
        now = max(now, at)
        answer += echo.transmit(now)
    assert answer == b"0123456789"


def test_expect_waits_for_exactly_these_bytes_and_skips_others() -> None:
    device = script('expect b"PING"\nsend b"PONG"')
    assert [ask(device, part) for part in (b"xxPI", b"PPIN", b"G")] == [b"", b"", b"PONG"]


def test_expect_leaves_what_came_after() -> None:
    assert ask(script('expect b"a"\nsend b"1"\nexpect b"b"\nsend b"2"'), b"ab") == b"12"


def test_any_waits_for_so_many_bytes() -> None:
    device = script('any 3\nsend b"3"\nany 2\nsend b"2"')
    assert [ask(device, part) for part in (b"ab", b"cd", b"e")] == [b"", b"3", b"2"]


def test_send_needs_no_question() -> None:
    assert ask(script(r'send b"\x00\xff\n"')) == b"\x00\xff\n"


def test_delay_counts_from_the_step_before() -> None:
    device = script('any 1\ndelay 50\nsend b"late"')
    assert ask(device, b"x", 7 * MSEC) == b""
    assert device.next_event() == 57 * MSEC
    assert (ask(device, now=57 * MSEC - 1), ask(device, now=57 * MSEC)) == (b"", b"late")
    assert device.next_event() is None


def test_two_delays_follow_each_other() -> None:
    device = script('delay 1\ndelay 2\nsend b"x"')
    assert [ask(device, now=n * MSEC) for n in (0, 1, 2, 3)] == [b"", b"", b"", b"x"]


def test_unplug_comes_after_what_was_sent() -> None:
    device = script('send b"bye"\nunplug')
    assert (ask(device), device.next_event()) == (b"bye", 0)
    with pytest.raises(Unplugged):
        device.transmit(0)


def test_after_its_last_step_a_device_says_nothing() -> None:
    device = script('send b"once"')
    assert [ask(device), ask(device, b"more"), device.next_event()] == [b"once", b"", None]


def test_a_script_without_steps_is_a_device_that_never_answers() -> None:
    assert ask(script("# nothing\n\n"), b"hello?") == b""


def test_the_grammar() -> None:
    text = "# a modem\n\nexpect b\"AT\\r\"\n  send b'OK'  # fine\nany 16\ndelay 50\nunplug\n"
    assert parse_script(text) == [
        Step("expect", b"AT\r"), Step("send", b"OK"), Step("any", 16), Step("delay", 50),
        Step("unplug", 0),
    ]  # fmt: skip


BAD = {
    "expect": "wants bytes",
    "send": "wants bytes",
    'send "text"': "wants bytes",
    'send b""': "wants bytes",
    'send b"open': "wants bytes",
    "send 5": "wants bytes",
    "send OK": "wants bytes",
    "any": "wants a number, not nothing",
    "any many": "wants a number",
    "any -1": "wants a number",
    "delay 1.5": "wants a number",
    "jump 3": "'jump' is none of expect, send, any, delay, unplug",
    'SEND b"x"': "is none of",
}
BAD_MENDED = {
    "send {[]: 1}": "wants bytes",
    "send " + "-" * 5000 + "1": "wants bytes",
    "any ²": "wants a number",
    "delay " + "9" * 30: "wants a number",
    "unplug now": "unplug stands alone",
}


@pytest.mark.parametrize(("line", "why"), [*BAD.items(), *BAD_MENDED.items()])
def test_a_malformed_line_is_named(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^modem\.txt, line 3: ") as caught:
        parse_script(f'# a modem\nsend b"x"\n{line}\n', "modem.txt")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "<unknown>" not in str(caught.value)
