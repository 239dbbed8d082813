"""Stop each write, fsync and rename of a process, and let it pass, fail or end the process there.

The kernel itself asks (seccomp's user notification, Linux 5.5 or later), so that the calls of HDF5
in C and of safetensors in Rust are seen like those of Python.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Names and numbers of the calls on x86-64 that change the content or the name of a file. The first
# argument of all but the renames is a file descriptor.
CALLS = {
    1: "write", 18: "pwrite64", 20: "writev", 40: "sendfile", 74: "fsync", 75: "fdatasync",
    77: "ftruncate", 82: "rename", 264: "renameat", 285: "fallocate", 296: "pwritev",
    316: "renameat2", 326: "copy_file_range", 328: "pwritev2",
}  # fmt: skip
RENAMES = ("rename", "renameat", "renameat2")
KILL = -1
_SECCOMP, _NEW_LISTENER, _NO_NEW_PRIVILEGES = 317, 8, 38
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_NOTICE = struct.Struct("QIIiIQ6Q")
_ANSWER = struct.Struct("QqiI")


class Call(NamedTuple):
    """A system call of the process: its name, and the file that it writes; "" for a rename."""

    name: str
    path: str


def intercept(channel: socket.socket) -> None:
    """Let the kernel ask about all further calls of this process; send the listener's descriptor.

    The process cannot undo it.
    """
    rules = [struct.pack("HBBI", 0x20, 0, 0, 0)]  # load the number of the call
    rest = list(CALLS)
    for done, number in enumerate(rest):  # if it is this one, jump to the last rule
        rules.append(struct.pack("HBBI", 0x15, len(rest) - done, 0, number))
    rules += [struct.pack("HBBI", 6, 0, 0, value) for value in (_ALLOW, _ASK)]
    code = ctypes.create_string_buffer(b"".join(rules))
    program = struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener = libc.syscall(_SECCOMP, 1, _NEW_LISTENER, ctypes.c_char_p(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    socket.send_fds(channel, [str(os.getpid()).encode()], [listener])
    os.close(listener)


def supervise(channel: socket.socket, root: Path, decide: Callable[[Call], int]) -> None:
    """Answer the questions about a process until it ends.

    Parameters
    ----------
    channel
        The other end of the channel of `intercept`.
    root
        Only renames, and writes to files in this folder, are decided on; all others pass.
    decide
        Returns 0 to let a call pass, a number of `errno` to let it fail, or `KILL`.
    """
    message, (listener,), _, _ = socket.recv_fds(channel, 16, 1)
    process = int(message)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    try:
        while not poll.poll()[0][1] & select.POLLHUP:
            notice = bytearray(_NOTICE.size)
            try:
                fcntl.ioctl(listener, _RECEIVE, notice)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):  # the process ended meanwhile
                    continue
                raise
            key, thread, _, number, _, _, *arguments = _NOTICE.unpack(notice)
            name, path = CALLS[number], ""
            try:
                if name not in RENAMES:
                    path = str(Path(f"/proc/{thread}/fd/{arguments[0]}").readlink())
                inside = name in RENAMES or Path(path).is_relative_to(root)
                answer = decide(Call(name, path)) if inside else 0
                if answer == KILL:
                    os.kill(process, signal.SIGKILL)
                    answer = errno.EIO  # which nobody lives to see
                flags = 0 if answer else _CONTINUE
                fcntl.ioctl(listener, _SEND, _ANSWER.pack(key, 0, -answer, flags))
            except FileNotFoundError:  # as above
                continue
    finally:
        os.close(listener)


def missing_support() -> str:
    """Say why this machine cannot intercept; empty if it can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "needs the system calls of Linux on x86-64"
    ours, other = socket.socketpair()
    if not (child := os.fork()):
        try:
            intercept(other)
        finally:
            os._exit(0)
    other.close()
    os.waitpid(child, 0)
    message, listeners, _, _ = socket.recv_fds(ours, 16, 1)
    for listener in listeners:
        os.close(listener)
    return "" if message else "the kernel, or the container, does not allow seccomp notifications"
