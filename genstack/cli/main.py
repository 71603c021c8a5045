"""The command `genstack`: finds the verb, runs it, and tells mistakes in one line."""

import os
import sys

from genstack import __version__
from genstack.cli.parsing.words import nearest
from genstack.cli.quiet import quiet
from genstack.cli.verb import verbs
from genstack.errors import UserError

FLOW = "images -> encoder -> quantizer -> codes -> prior -> codes -> decoder -> images"
ORDER = ("train", "sample", "reconstruct", "evaluate", "report", "data", "weights", "config", "doctor")


def main(arguments: list[str] | None = None) -> int | None:
    """Run a command line; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Read when torch loads. Idle threads sleep: spinning ones slow each other down on shared cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    quiet()
    try:
        return dispatch(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # whoever read our output has left; Python would complain once more when it flushes on exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (UserError, OSError) as error:  # anything else is a bug, and keeps its traceback
        if os.environ.get("GENSTACK_TRACEBACK"):
            raise
        print(one_line(error, arguments[0]), file=sys.stderr)
        return 2


def dispatch(arguments: list[str]) -> int | None:
    """Run the verb that the command line names, or show what there is."""
    known = verbs()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
    elif arguments[0] == "--version":
        print(f"genstack {__version__}")
    elif arguments[0] in known:
        return known[arguments[0]].run(arguments[1:])
    else:
        raise UserError(f"genstack: {nearest(arguments[0], known, 'verb')}")
    return None


def overview() -> str:
    """What genstack can do, with one example each."""
    known = verbs()
    names = [*(name for name in ORDER if name in known), *(name for name in known if name not in ORDER)]
    width = max(map(len, names), default=0)
    lines = [
        f"  {name:{width}}  {known[name].summary}\n  {'':{width}}  $ {known[name].example}" for name in names
    ]
    more = "More:  genstack VERB --help    A whole traceback instead of one line:  GENSTACK_TRACEBACK=1"
    head = ["genstack: train compressors, train priors, sample images", f"  {FLOW}", ""]
    return "\n".join([*head, *lines, "", more])


def one_line(error: Exception, verb: str) -> str:
    """What went wrong, after the command that it went wrong in."""
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror or message}"
    return message if message.startswith("genstack") else f"genstack {verb}: {message}"


if __name__ == "__main__":
    sys.exit(main())
