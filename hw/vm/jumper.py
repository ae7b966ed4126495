# SPDX-License-Identifier: MIT
"""The far end of the wire: a jumper from TX to RX, or an open wire the rig can talk on.

QEMU writes a usb-serial's output with a *blocking* call (hw/usb/dev-serial.c,
qemu_chr_fe_write_all): a far end that stops reading stops the whole virtual machine. So this
one always reads, and keeps what the guest has not taken yet in a buffer without bound.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios
import threading

_CHUNK = 65536


class Jumper:
    """One wire, from one plug to the next unplug; `far_end` is the descriptor for QEMU."""

    def __init__(self) -> None:
        self._near, self.far_end = socket.socketpair()
        self._near.setblocking(False)
        self._lock = threading.Lock()
        self._joined = True
        self._silent = False
        self._to_guest = bytearray()
        self._heard = bytearray()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="jumper", daemon=True)
        self._thread.start()

    def join(self, *, joined: bool) -> None:
        """Put the jumper on, or take it off: then what the guest sends is only kept."""
        with self._lock:
            self._joined = joined

    def say(self, data: bytes) -> None:
        """Send bytes to the guest, as a device on the open wire would."""
        with self._lock:
            if self._wake >= 0:  # else pulled meanwhile: the bytes are lost, as on a desk
                self._to_guest += data
                os.eventfd_write(self._wake, 1)

    def heard(self) -> bytes:
        """Take what the guest sent while the jumper was off."""
        with self._lock:
            taken = bytes(self._heard)
            self._heard.clear()
        return taken

    def silence(self) -> None:
        """Send nothing more, for good: the plug is about to be pulled."""
        with self._lock:
            self._silent = True
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def unread(self) -> int:
        """Bytes that QEMU has not taken off the wire yet."""
        return int(struct.unpack("i", fcntl.ioctl(self._near, termios.TIOCOUTQ, bytes(4)))[0])

    def pull(self) -> None:
        """The wire is gone, with the bytes on it. Harmless twice."""
        try:
            self._near.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # QEMU's end went first, and the thread with it
        self.far_end.close()
        self._thread.join()
        with self._lock:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except OSError:
            pass  # reset by QEMU: an unplug like any other
        finally:
            self._near.close()

    def _turn(self) -> bool:
        """One wait, then what became possible; False at the end of the wire."""
        with self._lock:
            full = bool(self._to_guest) and not self._silent
        poll = select.poll()
        poll.register(self._near, select.POLLIN | (select.POLLOUT if full else 0))
        poll.register(self._wake, select.POLLIN)
        for fd, events in poll.poll():
            if fd == self._wake:
                os.eventfd_read(self._wake)
                continue
            if events & select.POLLOUT:
                self._send()
            if events & ~select.POLLOUT and not self._receive():
                return False
        return True

    def _send(self) -> None:
        with self._lock:
            if self._silent:
                return
            sent = self._near.send(memoryview(self._to_guest)[:_CHUNK].tobytes())
            del self._to_guest[:sent]

    def _receive(self) -> bool:
        data = self._near.recv(_CHUNK)
        with self._lock:
            (self._to_guest if self._joined else self._heard).extend(data)
        return bool(data)
