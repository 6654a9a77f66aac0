"""What a unit's sandbox does to a program, without systemd as the first process: `python -m tests.deploy.unit_file UNIT
COMMAND...` loads the unit's system call filter and runs the command under it.

The filter is the unit's own: its groups are looked up with `systemd-analyze syscall-filter`, and libseccomp, on which
systemd builds, loads it.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import socket
import subprocess
import sys
from pathlib import Path

ALLOW = 0x7FFF0000
ERRNO_EPERM = 0x00050000 | 1
EQUAL = 4
"""From seccomp.h."""
PR_SET_NO_NEW_PRIVS = 38


class Compare(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def values_of(unit: Path, name: str) -> list[str]:
    """Every value that a unit or drop-in gives to a name, in order."""
    pairs = [line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] not in "#;"]
    return [value.strip() for key, value in pairs if key.strip() == name]


def allowed_calls(unit: Path) -> set[str]:
    """The system calls that the unit's filter lets through."""
    allowed = members("@default")
    for value in values_of(unit, "SystemCallFilter"):
        calls = {call for group in value.removeprefix("~").split() for call in members(group)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


def members(group: str) -> set[str]:
    """The calls of a group such as `@system-service`, those of the groups in it included."""
    if not group.startswith("@"):
        return {group}
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True
    ).stdout
    names = [line.strip() for line in told.splitlines() if line.startswith("    ") and "#" not in line]
    return {call for name in names for call in members(name)}


def load_filter(calls: set[str], families: list[str]) -> None:
    """Let this process and its children make no other system calls than these, and no sockets of other families."""
    library = ctypes.CDLL(ctypes.util.find_library("seccomp"), use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ERRNO_EPERM))
    for call in calls:
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:  # a call of other processors
            continue
        if call == "socket":
            for family in families:
                only = Compare(0, EQUAL, getattr(socket, family), 0)
                assert library.seccomp_rule_add_array(context, ALLOW, number, 1, ctypes.byref(only)) == 0
        else:
            assert library.seccomp_rule_add_array(context, ALLOW, number, 0, None) == 0
    assert ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert library.seccomp_load(context) == 0


if __name__ == "__main__":
    unit, *command = sys.argv[1:]
    load_filter(allowed_calls(Path(unit)), " ".join(values_of(Path(unit), "RestrictAddressFamilies")).split())
    os.execvp(command[0], command)
