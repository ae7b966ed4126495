# SPDX-License-Identifier: MIT
"""What can go wrong with the rig itself, each a situation with an exit status of its own.

The guest command's own status passes through unchanged, so these follow the conventions
for a program that runs another one: 124 is timeout(1)'s, 125 is "the runner failed, not the
command" (env(1), docker-run(1)), 77 is the skip of automake's test drivers.
"""


class RigError(Exception):
    """The rig failed, not the command it ran."""

    exit_status = 125


class Missing(RigError):
    """A prerequisite is not on this machine; the sentence says which command brings it."""

    exit_status = 77


class TimedOut(RigError):
    """The command did not end in time; it was killed, the guest was still alive."""

    exit_status = 124


class GuestDied(RigError):
    """The guest panicked, never came up, or QEMU ended under a running command."""
