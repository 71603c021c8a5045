"""Entry point of the command `genstack`: run a verb, and print errors as one line."""

import io
import os
import sys

from genstack import __version__, plugins
from genstack.cli.parsing.words import unknown
from genstack.cli.quiet import quiet
from genstack.cli.verb import verbs
from genstack.errors import UserError

FLOW = "images -> encoder -> quantizer -> codes -> prior -> codes -> decoder -> images"
ORDER = (
    "demo",
    "plan",
    "train",
    "sample",
    "reconstruct",
    "evaluate",
    "report",
    "data",
    "weights",
    "config",
    "doctor",
)


def main(arguments: list[str] | None = None) -> int | None:
    """Run a command line and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # OpenMP reads this when torch loads: idle threads sleep, since spinning ones slow down shared cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    escape_unprintable()
    try:
        with quiet():
            return dispatch(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # without this, Python reports the closed pipe again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (UserError, OSError) as error:  # anything else is a bug, and keeps its traceback
        if os.environ.get("GENSTACK_TRACEBACK"):
            raise
        print(one_line(error, named_command(arguments)), file=sys.stderr)
        return 2


def dispatch(words: list[str]) -> int | None:
    """Run the verb that the command line names, with its plugins, or list the verbs."""
    arguments, files = take_plugins(words)
    with plugins.use_temporarily(files):
        return run(arguments)


def take_plugins(words: list[str]) -> tuple[list[str], list[str]]:
    """A command line without `--plugin FILE`, which may stand anywhere, and the files."""
    rest, files, left = [], [], iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name != "--plugin":
            rest.append(word)
            continue
        file = value if equals else next(left, "")
        if not file or file.startswith("--"):
            raise UserError("genstack: --plugin has no value; expected a Python file: --plugin FILE.py")
        files.append(file)
    return rest, files


def run(arguments: list[str]) -> int | None:
    """Run a verb, or list the verbs."""
    known = verbs()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
    elif arguments[0] == "--version":
        print(f"genstack {__version__}")
    elif arguments[0] in known:
        return known[arguments[0]].run(arguments[1:])
    else:
        raise UserError(f"genstack: {unknown('command', arguments[0], known)}")
    return None


def overview() -> str:
    """List the verbs with an example each."""
    known = verbs()
    names = [*(name for name in ORDER if name in known), *(name for name in known if name not in ORDER)]
    width = max(map(len, names), default=0)
    lines = [
        f"  {name:{width}}  {known[name].summary}\n  {'':{width}}  $ {known[name].example}" for name in names
    ]
    more = (
        "Details of a command:          genstack COMMAND --help\n"
        "Own classes, for any command:  --plugin FILE.py\n"
        "Full tracebacks:               GENSTACK_TRACEBACK=1 genstack COMMAND ..."
    )
    head = ["genstack: train compressors, train priors, sample images", f"  {FLOW}", ""]
    return "\n".join([*head, *lines, "", more])


def escape_unprintable() -> None:
    """Escape characters that the terminal cannot encode, rather than fail on them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def named_command(arguments: list[str]) -> str:
    """Return the words of the command on a command line, such as `train compressor`; "" for none."""
    at = next((index for index, word in enumerate(arguments) if word in verbs()), None)
    if at is None:
        return ""
    name, *rest = arguments[at:]
    return f"{name} {rest[0]}" if rest and rest[0] and rest[0] in verbs()[name].actions() else name


def one_line(error: Exception, name: str) -> str:
    """Format an error as one line that begins with the command."""
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror or message}"
    command = f"genstack {name}".strip()
    return message if message.startswith("genstack") else f"{command}: {message}"


if __name__ == "__main__":
    sys.exit(main())
