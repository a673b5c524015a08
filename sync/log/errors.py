"""What can go wrong with the log. The type tells the caller what to do."""

from __future__ import annotations


class LogError(Exception):
    """Base of what the log raises for its callers to deal with."""


class LogFullError(LogError):
    """Retry later: there is no room for these entries, and none of them was kept. Trimming frees room by itself."""


class LogFailedError(LogError):
    """Retry with the same keys: the disk failed, and whether these entries will be found on it is not known. The next
    append starts a new segment; those that were kept are passed over then."""


class LogClosedError(LogError):
    """The log is closing or closed: keep the entries, hand them to its next opening."""


class EntryTooLargeError(LogError):
    """Reject: an entry that fits no block. It can never be kept."""


class LogBusyError(LogError):
    """Another process has this log open; end it, or give this one a directory of its own."""
