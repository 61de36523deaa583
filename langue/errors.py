"""Errors that a user can cause.

Each is a `LangueError`, which says in one line what is wrong, where, and what to do; the command
line prints it without a traceback and exits with its `exit_code`. Any other exception that escapes
is a bug in langue.
"""

MOST = 600  # maximum length of `what`: names and shapes come from files, which may be malicious


class LangueError(Exception):
    """An error in one line, `where: what; do`.

    `what` is the fact, `where` the file and line or key, `do` the remedy.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        self.what = what if len(what) <= MOST else f"{what[: MOST - 200]} ... {what[-200:]}"
        self.where = where
        self.do = do
        super().__init__((f"{where}: " if where else "") + self.what + (f"; {do}" if do else ""))


class SettingsError(LangueError):
    """A setting that is unknown, of the wrong type, or out of range."""


class DataError(LangueError):
    """A file, row or data set that cannot be used as it is."""


class ModelError(LangueError):
    """A model folder, config or weight file that cannot be loaded, or is not what it says."""


class PromptTooLong(ModelError):
    """A text with more tokens than fit into the model; `tokens` and `room` are the two numbers."""

    def __init__(self, what: str, *, tokens: int, room: int, where: str = "", do: str = "") -> None:
        super().__init__(what, where=where, do=do)
        self.tokens = tokens
        self.room = room


class RunError(LangueError):
    """A run directory that is missing, occupied or damaged, or a run that cannot continue."""


class LangueWarning(UserWarning):
    """A count of what was truncated, left out or ignored; the command line prints it as one
    line.
    """


class Interrupted(LangueError):
    """The user pressed Ctrl-C; the state was saved, and the message says how to continue."""

    exit_code = 130


class AlreadyReported(LangueError):
    """The cause was reported by another process of the run, so this one prints nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of the run has reported why it ended")
        self.exit_code = exit_code
