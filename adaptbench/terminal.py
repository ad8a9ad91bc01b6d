"""The terminal's two streams, and how a command ends: what is said, and with which exit code.

0 pass, 1 regression, 2 usage or input error, 3 no verdict, or some cases failed; 130 Ctrl-C, 141 a reader that went
away. Nothing ends with 1 but the gate, an audit whose limits are broken, and a bundle that does not hold.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
import tempfile
import traceback
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from adaptbench.errors import AdaptBenchError, Stopped

if TYPE_CHECKING:
    from rich.console import Console

INPUT_ERROR, INTERRUPTED, READER_GONE = 2, 130, 141
_DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

_PLAIN = {
    "×": "x", "→": "->", "−": "-", "–": "-", "—": "-", "·": "*", "…": "...", "≤": "<=", "≥": ">=", "±": "+-",
    "∞": "inf", "ε": "eps", "λ": "lambda", "µ": "u", "μ": "u", "“": '"', "”": '"', "‘": "'", "’": "'",
}  # fmt: skip


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: what the stream has no character for, in characters that it has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    out = ""
    for char in error.object[error.start : error.end]:
        bare = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
        out += _PLAIN.get(char) or bare or char.encode("ascii", "backslashreplace").decode()
    return out, error.end


def prepare() -> None:
    """Streams that take any text, whatever their encoding."""
    codecs.register_error("adaptbench.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="adaptbench.plain")


def console(stderr: bool = False) -> Console:
    """One of the two streams; square brackets and colons are text, not markup."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the program with 1, a regression's code

    plain: dict[str, Any] = {"stderr": stderr, "highlight": False, "markup": False, "emoji": False}
    as_wide_as_told = Plain(**plain)
    # a pipe or a log has no width of its own: 80 columns would only cut the table
    return as_wide_as_told if as_wide_as_told.is_terminal or "COLUMNS" in os.environ else Plain(**plain, width=120)


class _Left(BaseException):
    """Carries a command's error past typer, which ends some of them with exit code 1."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Commands(TyperGroup):
    """A group whose commands' errors reach `run` as they are."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except typer.Exit:
            raise
        except BaseException as error:
            raise _Left(error) from error


def run(app: Callable[..., Any]) -> int:
    """Run the application to its end.

    Returns:
        The exit code.
    """
    try:
        prepare()  # may raise where text pends on a stream that cannot be written
        returned = app(standalone_mode=False)
        code = returned if isinstance(returned, int) else 0
    except _Left as left:
        code = _answer(left.error)
    except BaseException as error:
        code = _answer(error)
    return _flushed(code)


def _answer(error: BaseException) -> int:
    """Say what went wrong, in one message; the exit code."""
    with contextlib.suppress(OSError):  # nobody is left to be told
        if isinstance(error, BrokenPipeError):
            return READER_GONE
        if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
            kept = error.kept if isinstance(error, Stopped) else "what was computed is kept"
            _say(AdaptBenchError(f"{kept}.", todo="The same command goes on from there."), "stopped: ")
            return INTERRUPTED
        _say(_in_our_words(error))
    return INPUT_ERROR


def _in_our_words(error: BaseException) -> AdaptBenchError:
    if isinstance(error, AdaptBenchError):
        return error
    if hasattr(error, "format_message"):  # of the parser: a word that no command takes
        return _misspelt(error)
    if isinstance(error, MemoryError):
        return AdaptBenchError(
            "there is not enough memory.",
            why="What was computed is kept.",
            todo="Free some, raise the limit, or run fewer inputs at once (`chunk` and `measure.batch_sizes`).",
        )
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return AdaptBenchError(
            f"{place}{error.strerror[:1].lower()}{error.strerror[1:]}.",
            todo="Free space or permissions there, or name another place."
            + ("" if error.errno in _DISK_FULL else _kept_trace(error)),
        )
    said = " ".join(str(error).split())[:500]
    return AdaptBenchError(
        f"unexpected {type(error).__name__}{f': {said}' if said else ''}.",
        why="It is a fault of adaptbench, or of a plug-in or package that it called.",
        todo=_kept_trace(error).strip(),
    )


def _misspelt(error: Any) -> AdaptBenchError:
    context = getattr(error, "ctx", None)
    said = " ".join(str(error.format_message()).split())
    if type(error).__name__ == "NoArgsIsHelpError" or not said:
        return AdaptBenchError("no command was named.", todo="`adaptbench --help` lists them.")
    path = context.command_path if context is not None else "adaptbench"
    return AdaptBenchError(
        f"{said[:1].lower()}{said[1:]}{'' if said.endswith(('.', '?', '!')) else '.'}",
        todo=f"`{path} --help` says more.",
    )


def _kept_trace(error: BaseException) -> str:
    try:
        handle, name = tempfile.mkstemp(prefix="adaptbench-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return ""
    return f" Its traceback is in {name}."


def _say(error: AdaptBenchError, opening: str = "error: ") -> None:
    from adaptbench.console import show_error

    show_error(console(stderr=True), error, opening)


def _flushed(code: int) -> int:
    """Write out what is buffered: a full disk behind a pipe shows only now."""
    try:
        sys.stdout.flush()
    except OSError as error:
        code = READER_GONE if isinstance(error, BrokenPipeError) else code or INPUT_ERROR
        with contextlib.suppress(OSError):
            if code == INPUT_ERROR:
                _say(AdaptBenchError(f"standard output: cannot write ({error.strerror})."))
    except ValueError:
        pass  # closed by whoever called
    for stream in (sys.stdout, sys.stderr):
        _silenced(stream)
    return code


def _silenced(stream: Any) -> None:
    """The interpreter flushes both streams once more at its end, and ends with 120 where one cannot be written."""
    with contextlib.suppress(ValueError, AttributeError):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
