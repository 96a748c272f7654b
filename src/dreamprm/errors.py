"""Errors that a user can mend: entries print them as one message and leave with code 2, without a traceback."""

from __future__ import annotations

import errno

__all__ = ["ConfigError", "UserError", "fault_of_machine", "is_out_of_memory"]


class UserError(Exception):
    """Something outside the program is missing or wrong; the text says what, and what to change."""


class ConfigError(UserError):
    """A setting has a wrong name, type or value; the text says which, and what is allowed."""


_WAYS_OUT = {
    errno.ENOSPC: "the disk is full: free some space, or write elsewhere; files written before are whole",
    errno.EDQUOT: "the disk's quota is used up: free some space, or write elsewhere; files written before are whole",
    errno.EFBIG: "files of this size are not allowed here (ulimit -f, or the file system's limit)",
    errno.EROFS: "the file system is read-only: write elsewhere",
    errno.EACCES: "permission denied: write elsewhere, or ask for the right to it",
    errno.EPERM: "permission denied: write elsewhere, or ask for the right to it",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "is a folder, not a file",
    errno.EEXIST: "is there already, and is no folder",
    errno.ENOENT: "is not there, and cannot be made here",
    errno.EMFILE: "too many open files (ulimit -n)",
    errno.EIO: "the disk failed to read or write: look at the machine",
}


def is_out_of_memory(error: BaseException) -> bool:
    """Of the machine or of the GPU, whoever noticed it: Python, torch, or the loader of a library."""
    words = ("allocate memory", "failed to map segment from shared object")
    return (
        isinstance(error, MemoryError)
        or "OutOfMemory" in type(error).__name__
        or any(each in str(error) for each in words)
    )


def fault_of_machine(error: BaseException) -> UserError | None:
    """What happened in the machine, in one line, where an error that nobody caught is of that kind; else None.

    Files and disks (OSError, safetensors' own I/O errors), memory of the machine or of the GPU, and chat templates
    that do what the sandbox forbids.
    """
    kind, text = type(error), " ".join(str(error).split())
    if kind.__name__ == "SafetensorError":
        number = next((code for code in _WAYS_OUT if f"os error {code})" in text), None)
        return UserError(f"a safetensors file cannot be read or written: {_WAYS_OUT[number] if number else text}")
    if kind.__module__.partition(".")[0] == "jinja2":
        return UserError(f"the model's chat template cannot be rendered, or does what is not allowed to it: {text}")
    if is_out_of_memory(error):
        return UserError(
            "out of memory: lower the batch sizes (inner.batch_size, outer.batch_size, batch_size), or see what a run "
            f"needs by plan=true{f' ({text[:200]})' if text else ''}"
        )
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        reason = _WAYS_OUT.get(error.errno or 0) or error.strerror or text or kind.__name__
        return UserError(f"{where}{reason}")
    return None
