"""The command line: parses, calls `semivox.api`, shows what it returns, turns errors into messages."""

from __future__ import annotations

import signal
import sys
from io import TextIOWrapper
from types import FrameType

from semivox.errors import Terminated, UserError, explained

_received: list[int] = []
_FIXABLE, _BUG = 2, 1


def main() -> None:
    """Run the `semivox` command.

    Exit codes: 0 done; 1 the command found problems, or has a bug; 2 what the user can mend;
    130 and 143 after SIGINT and SIGTERM.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _on_signal)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that are no UTF-8 are shown all the same
    code: int | str | None = 0
    try:
        _check_words(sys.argv[1:])
        from semivox.cli.app import app

        app()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt as stop:
        code = 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
    except Exception as error:
        if "--debug" in sys.argv and not _received:
            raise
        code = _show(error)
    if _received:  # whatever else it set off
        code = 128 + _received[0]
    if code in (130, 143):
        _say_how_to_resume()
        exec("")  # Python ends by SIGINT if a KeyboardInterrupt came within `exec`, as of a dataclass
    sys.exit(code)


def _check_words(words: list[str]) -> None:
    """Refuse an empty word: as a path, the shell's empty variable would be the current folder."""
    if found := [word or "''" for word in words if not word or (word[:2] == "--" and word[-1] == "=")]:
        do = "check the variable or the quotes that it comes from"
        raise UserError("A value on the command line is empty", found[0], "some text", do)


def _on_signal(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _say_how_to_resume() -> None:
    """From here on a second signal ends the process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    import shlex  # after, for it takes a moment

    again = shlex.join(["semivox", *(word for word in sys.argv[1:] if word != "--fresh")])
    but = " without --fresh" if "--fresh" in sys.argv else ""
    print(f"\nStopped. To resume, run the same command again{but}:\n{again}", file=sys.stderr)


def _show(error: Exception) -> int:
    """Print one message without a traceback and return the exit code."""
    known = explained(error)
    if _received:
        return _BUG
    if known is None:
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        where = "" if frame is None else f" ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})"
        text = " ".join(str(error).split())[:300]
        print(f"This is a bug in semivox: {type(error).__name__}: {text}{where}", file=sys.stderr)
        print(
            "Please report it with the output of the same command after `semivox --debug`.", file=sys.stderr
        )
        return _BUG
    from rich.console import Console
    from rich.text import Text

    first, _, rest = str(known).partition("\n")
    console = Console(stderr=True)
    console.print(Text(f"Error: {first}", style="bold red"), soft_wrap=True)
    if rest:
        console.print(Text(rest), soft_wrap=True)
    return _FIXABLE
