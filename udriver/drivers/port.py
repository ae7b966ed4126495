# SPDX-License-Identifier: MIT
"""Process context. The tty: opened raw, exclusive for real, put back as it was.

pyserial sets the line; what it cannot do is done here: TIOCEXCL on top of its flock (which
alone keeps out only those who also ask), the name of whoever holds the port, no change to
DTR and RTS unless asked, the speed the kernel really set, and VMIN=1, without which an empty
tty and a hung-up one both read as b"".
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import stat
import struct
import termios
import time
from dataclasses import dataclass
from typing import Literal

import serial

from udriver.drivers.holders import holders
from udriver.drivers.latency import Latency
from udriver.errors import Busy, DeviceGone, NotASerialPort, UDriverError, Unsupported

__all__ = ["Icount", "Line", "Port"]

# asm-generic/ioctls.h; pyserial and termios have no names for these
TIOCGEXCL = 0x80045440
TCGETS2 = 0x802C542A
TIOCGICOUNT = 0x545D
TIOCSERGETLSR = 0x5459
TIOCSER_TEMT = 0x01

NO_SUCH_IOCTL = (errno.ENOTTY, errno.EINVAL)

TIOCM_DTR = termios.TIOCM_DTR
TIOCM_RTS = termios.TIOCM_RTS

Dtr = Literal["keep", "on", "off"]


@dataclass(frozen=True, slots=True)
class Line:
    """How the line is set, in pyserial's words."""

    baudrate: int = 115200
    bytesize: int = 8
    parity: str = "N"
    stopbits: float = 1
    rtscts: bool = False
    xonxoff: bool = False

    def __str__(self) -> str:
        stop = f"{self.stopbits:g}"
        return f"{self.baudrate} {self.bytesize}{self.parity}{stop}"

    @property
    def bits_per_char(self) -> float:
        """Start, data, parity and stop bits: what one byte takes on the wire."""
        return 1 + self.bytesize + (self.parity != "N") + self.stopbits

    @property
    def char_time(self) -> float:
        """Seconds that one byte takes on the wire."""
        return self.bits_per_char / self.baudrate


@dataclass(frozen=True, slots=True)
class Icount:
    """``struct serial_icounter_struct`` (linux/serial.h): what the kernel counted on this line."""

    cts: int
    dsr: int
    rng: int
    dcd: int
    rx: int
    tx: int
    frame: int
    overrun: int
    parity: int
    brk: int
    buf_overrun: int


class Port:
    """An open tty. ``path`` as given, ``device`` the node itself, ``fd`` non-blocking.

    ``discarded`` is how many bytes lay in the tty from before and were flushed by opening.
    Raises FileNotFoundError, PermissionError, Busy, Unsupported, UDriverError; each message is a
    whole sentence with the next thing to do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        line: Line | None = None,
        *,
        dtr: Dtr = "keep",
        exclusive: bool = True,
        low_latency: bool = True,
    ) -> None:
        self.path = os.fspath(path)
        self.device = os.path.realpath(self.path)
        self.line = line or Line()
        self.exclusive = exclusive
        if dtr not in ("keep", "on", "off"):
            raise ValueError(f'dtr is "keep", "on" or "off", not {dtr!r}')
        if self.line.baudrate < 1:
            raise Unsupported(f"{self.path}: {self.line.baudrate} baud is none; ask for at least 1")
        self.latency = Latency(self.device)
        self._serial = serial.Serial()  # not open, which close() asks
        try:
            self._open_in_time(dtr)
            self.fd = self._serial.fileno()
            self._finish_setup()
            if low_latency:
                self.latency.lower(self.fd)
        except BaseException as exc:
            hung_up = self._serial.is_open and _hung_up(self._serial.fileno())
            self.close()
            if hung_up and isinstance(exc, Exception):
                raise self._went() from exc
            raise

    def _open_in_time(self, dtr: Dtr) -> None:
        for tries_left in reversed(range(20)):
            try:
                self._open(dtr)
                return
            except Busy:
                # nobody in sight: a program that has just ended is still being taken off the tty
                if not tries_left or holders(self.device):
                    raise
                time.sleep(0.01)

    def _open(self, dtr: Dtr) -> None:
        probe = self._open_node()
        try:
            # root passes TIOCEXCL, and flock alone stops nobody who does not ask
            if self.exclusive and (_is_exclusive(probe) or holders(self.device)):
                raise self._busy()
            self._found = termios.tcgetattr(probe)
            self.discarded = _in_waiting(probe)
            self._serial = self._open_serial(_modem_lines(probe), dtr)
        except Exception as exc:
            if _hung_up(probe):
                raise self._went() from exc
            raise
        finally:
            os.close(probe)

    def _went(self) -> DeviceGone:
        """Unplugged meanwhile: what failed says EIO, ENOENT or nothing, in one of four classes."""
        return DeviceGone(f"{self.path} went while it was opened; plug it in and open it again")

    def __repr__(self) -> str:
        return f"<Port {self.path} {self.line}>"

    @property
    def name(self) -> str:
        """The short name for messages, ``ttyUSB0``."""
        return self.device.removeprefix("/dev/")

    @property
    def driver(self) -> str:
        """The kernel's driver of it, as "ftdi_sio"; "" where there is none, as of a pty."""
        try:
            return os.path.basename(os.readlink(f"/sys/class/tty/{self.name}/device/driver"))
        except OSError:
            return ""

    # opening

    def _open_node(self) -> int:
        try:
            if not stat.S_ISCHR(os.stat(self.path).st_mode):
                raise NotASerialPort(
                    f"{self.path} is not a serial port but {_kind(self.path)}; "
                    "`udriver run` without PORT uses the built-in pty"
                )
            fd = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            raise self._open_error(exc) from None
        if not os.isatty(fd):
            os.close(fd)
            raise NotASerialPort(
                f"{self.path} is a character device but not a tty; give a /dev/tty* or /dev/pts path"
            )
        return fd

    def _open_error(self, exc: OSError) -> Exception:
        if isinstance(exc, UDriverError):
            return exc
        if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV):
            return FileNotFoundError(
                errno.ENOENT,
                f"{self.path}: no such device; plug it in, or leave PORT out to use the pty",
            )
        if exc.errno in (errno.EACCES, errno.EPERM):
            group = _group(self.path)
            return PermissionError(
                errno.EACCES,
                f"{self.path}: permission denied; "
                f"`sudo usermod -aG {group} $USER` and a new login give access",
            )
        if exc.errno == errno.EBUSY:
            return self._busy()
        return UDriverError(f"{self.path}: cannot be opened: {os.strerror(exc.errno or 0)}")

    def _busy(self) -> Busy:
        found = ", ".join(map(str, holders(self.device))) or "this process, or one of another user"
        return Busy(f"{self.path} is held by {found}; stop that program or choose another port")

    def _open_serial(self, modem: int | None, dtr: Dtr) -> serial.Serial:
        if modem is None and (dtr != "keep" or self.line.rtscts):
            raise Unsupported(
                f"{self.path} has no modem lines, so neither DTR nor hardware flow control; "
                "use an adapter, or leave these options out"
            )
        port = serial.Serial()
        port.port = self.path
        port.timeout = 0
        port.exclusive = True if self.exclusive else None
        try:
            port.baudrate = self.line.baudrate
            port.bytesize = self.line.bytesize
            port.parity = self.line.parity
            port.stopbits = self.line.stopbits
        except ValueError as exc:
            raise Unsupported(f"{self.path}: {exc}; pyserial knows no such setting") from None
        port.rtscts = self.line.rtscts
        port.xonxoff = self.line.xonxoff
        # the kernel raised both by opening the first fd; pyserial writes what it finds here, and
        # writing the same again is no edge, so a board that resets on DTR sees none from us
        port.dtr = bool(modem is None or modem & TIOCM_DTR) if dtr == "keep" else dtr == "on"
        port.rts = bool(modem is None or modem & TIOCM_RTS) if dtr == "keep" else dtr == "on"
        try:
            port.open()
        except (ValueError, OverflowError, termios.error, struct.error) as exc:
            self._restore_after_refusal()
            raise Unsupported(
                f"{self.path} refuses {self.line} ({exc}); ask for another baud rate or framing"
            ) from None
        except serial.SerialException as exc:
            self._restore_after_refusal()
            if exc.errno in (errno.EAGAIN, errno.EBUSY):
                raise self._busy() from None
            raise self._open_error(exc) from None
        except BaseException:  # Ctrl-C
            self._restore_after_refusal()
            raise
        return port

    def _restore_after_refusal(self) -> None:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        try:
            termios.tcsetattr(fd, termios.TCSANOW, self._found)
        except termios.error:
            pass
        finally:
            os.close(fd)

    def _finish_setup(self) -> None:
        if self.exclusive:
            fcntl.ioctl(self.fd, termios.TIOCEXCL)
        attributes = termios.tcgetattr(self.fd)
        attributes[6][termios.VMIN] = 1
        termios.tcsetattr(self.fd, termios.TCSANOW, attributes)
        self._check_framing(termios.tcgetattr(self.fd)[2])
        # a driver that cannot do a speed says so only here: tcsetattr succeeds all the same
        speed = struct.unpack("II", fcntl.ioctl(self.fd, TCGETS2, bytes(44))[36:44])[1]
        if abs(speed - self.line.baudrate) > 0.03 * self.line.baudrate:
            raise Unsupported(
                f"{self.path} set {speed} baud where {self.line.baudrate} was asked; "
                "ask for a baud rate the device can do"
            )

    def _check_framing(self, cflag: int) -> None:
        """tcsetattr succeeds if it could do any of it, so look what it did (a pty: 8 bits only)."""
        size = {5: termios.CS5, 6: termios.CS6, 7: termios.CS7, 8: termios.CS8}[self.line.bytesize]
        asked = (size, self.line.parity != "N", self.line.stopbits > 1)
        got = (
            cflag & termios.CSIZE,
            bool(cflag & termios.PARENB),
            bool(cflag & termios.CSTOPB),
        )
        if asked != got:
            raise Unsupported(f"{self.path} refuses {self.line}; ask for another framing, as 8N1")

    # in use

    @property
    def low_latency(self) -> bool:
        """Whether short packets are known to come at once; ``latency`` says how, or why not."""
        return self.latency.method is not None

    def out_waiting(self) -> int:
        """Bytes that the kernel still holds for the wire (TIOCOUTQ), 0 on a pty."""
        return int(struct.unpack("i", fcntl.ioctl(self.fd, termios.TIOCOUTQ, bytes(4)))[0])

    def in_waiting(self) -> int:
        """Bytes in the tty's own FIFO (FIONREAD)."""
        return _in_waiting(self.fd)

    def transmitter_empty(self) -> bool:
        """Whether the last bit has left: TIOCOUTQ is 0 and TEMT set, where the driver tells it."""
        if self.out_waiting():
            return False
        try:
            status = fcntl.ioctl(self.fd, TIOCSERGETLSR, bytes(4))
        except OSError as exc:
            if exc.errno == errno.EIO:
                raise
            return True  # ENOTTY, EINVAL: no such register, and nothing is queued
        return bool(struct.unpack("I", status)[0] & TIOCSER_TEMT)

    def icount(self) -> Icount | None:
        """The kernel's counters of this line (TIOCGICOUNT), None where the tty has none."""
        try:
            raw = fcntl.ioctl(self.fd, TIOCGICOUNT, bytes(80))
        except OSError as exc:
            if exc.errno in NO_SUCH_IOCTL:
                return None
            raise
        return Icount(*struct.unpack("11i", raw[:44]))

    def modem_lines(self) -> int:
        """CTS, DSR, RI, DCD, DTR, RTS as TIOCM_* bits. Raises Unsupported where there are none."""
        lines = _modem_lines(self.fd)
        if lines is None:
            raise Unsupported(f"{self.path} has no modem lines; use an adapter, a pty has none")
        return lines

    @property
    def hung_up(self) -> bool:
        """Whether the tty has gone, whatever anybody was told of it."""
        return _hung_up(self.fd)

    def is_gone(self, exc: OSError) -> bool:
        """Whether ``exc`` says that the tty has gone. EIO may also be one transfer that failed
        (usb_translate_errors()), but of a tty that was hung up even tcgetattr() gives it.
        """
        return exc.errno in (errno.ENODEV, errno.ENXIO) or (
            exc.errno == errno.EIO and _hung_up(self.fd)
        )

    def abandon(self) -> None:
        """Close this process's copy and touch nothing: after fork() the settings are the parent's."""
        self._serial.close()

    def close(self) -> None:
        """Give the tty back as it was found: termios, exclusivity, locks. May be repeated."""
        if not self._serial.is_open:
            return
        self.fd = self._serial.fileno()  # Ctrl-C may have come before it was noted
        for restore in (self.latency.restore, self._restore_termios, self._end_exclusivity):
            try:
                restore()
            except (OSError, termios.error):
                pass  # hung up: the tty that had these settings is gone
        self._serial.close()

    def _restore_termios(self) -> None:
        # TCSANOW: on a slow line, or a pty whose other end stopped reading, draining never ends
        termios.tcsetattr(self.fd, termios.TCSANOW, self._found)

    def _end_exclusivity(self) -> None:
        if self.exclusive:
            fcntl.ioctl(self.fd, termios.TIOCNXCL)


def _hung_up(fd: int) -> bool:
    try:
        termios.tcgetattr(fd)
    except termios.error as exc:
        return bool(exc.args[0] == errno.EIO)
    return False


def _is_exclusive(fd: int) -> bool:
    return fcntl.ioctl(fd, TIOCGEXCL, bytes(4)) != bytes(4)


def _in_waiting(fd: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])


def _modem_lines(fd: int) -> int | None:
    try:
        return int(struct.unpack("I", fcntl.ioctl(fd, termios.TIOCMGET, bytes(4)))[0])
    except OSError as exc:
        if exc.errno in NO_SUCH_IOCTL:
            return None
        raise


def _kind(path: str) -> str:
    mode = os.stat(path).st_mode
    return {
        stat.S_IFDIR: "a directory",
        stat.S_IFREG: "a regular file",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a block device",
    }.get(stat.S_IFMT(mode), "something else")


def _group(path: str) -> str:
    try:
        return grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        return "dialout"
