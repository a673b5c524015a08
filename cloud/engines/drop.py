"""Becomes an engine: run by file path, as `python -I -S drop.py REQUEST`, with the standard library only.

REQUEST is JSON: {"argv": [...], "directory": "...", "account": [uid, gid] or null, "stage": "/media" or null,
"binds": [[source, name], ...]}.

Between fork and exec of a running Python, little may be done safely; here there is a process of its own for it. It
leaves the terminal's session (Ctrl-C is for the parent), gives up root if it has an account to go to, and executes
argv; its process id becomes the engine's.

With a stage, the account cannot pass a directory above the engine's files. Those directories belong to somebody else,
so their modes stay: the process takes a mount namespace of its own, where the stage is an empty file system, and binds
the sources to names there, by descriptors that root opened. Nobody else sees these mounts, and they end with the
engine.

What fails before the exec is said on standard error; the exit code is NOT_PERMITTED where root has not the rights of
root (in a container, say), else CANNOT_RUN.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import NoReturn

NOT_PERMITTED = 77  # EX_NOPERM of sysexits.h
CANNOT_RUN = 71  # EX_OSERR

RESET_SIGNALS = (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""An engine started by a shell's background job, or by Python, would inherit some of these as ignored."""

LOCK_DESCRIPTOR = 3
"""What the starter wants held until the exec, and not beyond it; may be absent."""

# <linux/sched.h>, <linux/mount.h>
CLONE_NEWNS = 0x0002_0000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x8_0000
MS_NODEV = 4
MS_NOSUID = 2


def enter_stage(stage: str, binds: list[tuple[str, str]]) -> None:
    """A mount namespace in which each source stands at `stage`/name. Raises OSError."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)

    def mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
        if libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount: " + os.strerror(ctypes.get_errno()), target)

    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))
    # Slave, not private: what the system unmounts outside goes away here too, and no disk stays busy for our sake.
    mount("none", "/", "", MS_REC | MS_SLAVE, "")
    # Opened before the stage is covered: a source may lie below it.
    opened = [(os.open(source, os.O_PATH | os.O_CLOEXEC), name) for source, name in binds]
    mount("tmpfs", stage, "tmpfs", MS_NODEV | MS_NOSUID, "mode=0755,size=64k")
    for descriptor, name in opened:
        target = os.path.join(stage, name)
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        source = f"/proc/self/fd/{descriptor}"
        if os.path.isdir(source):
            os.mkdir(target, 0o755)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        mount(source, target, "", MS_BIND, "")


def main() -> NoReturn:
    request = json.loads(sys.argv[1])
    account = request["account"]
    os.umask(0o022)
    with contextlib.suppress(OSError):
        os.set_inheritable(LOCK_DESCRIPTOR, False)
    try:
        if request["stage"] is not None:
            enter_stage(request["stage"], request["binds"])
        os.setsid()
        if account is not None:
            os.setgroups([])
            os.setgid(account[1])
            os.setuid(account[0])
        os.umask(0o077)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in RESET_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.chdir(request["directory"])
        os.execve(request["argv"][0], request["argv"], os.environ)
    except OSError as error:
        os.write(2, f"launch: {error}\n".encode())
        os._exit(NOT_PERMITTED if isinstance(error, PermissionError) else CANNOT_RUN)


if __name__ == "__main__":
    main()
