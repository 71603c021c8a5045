"""Look for bytes that make a reader crash, hang, or take memory: a coverage-guided fuzzer (atheris).

    pip install atheris
    python tests/fuzz/fuzz.py pickle --seconds 600 --found found/

It is no part of the test suite. What it finds lies in `--found`; a finding that was mended belongs in
`tests/fuzz/inputs/TARGET/`, which the suite tries.
"""

import argparse
import hashlib
import json
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

import atheris

MEMORY = 2**30  # bytes that a reader may take beside what the program has
SLOW = 5.0  # seconds that an input may take; after SLOWEST libFuzzer stops
SLOWEST = 60
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    -1,
    16,
    255,
    2**16,
    2**24,
    2**31,
    2**53,
    2**63,
    10**20,
    0.5,
    -0.0,
    1e308,
    float("nan"),
)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--found", type=Path, default=Path("found"))
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    with atheris.instrument_imports(include=["genstack", "PIL", "pickletools", "zipfile", "yaml"]):
        import targets
    target = targets.TARGETS[wanted.target]
    fuzz = Fuzz(wanted.target, target, wanted.found)
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, seed in enumerate(target.seeds()):
        (corpus / f"{number:04d}").write_bytes(seed)
        fuzz.one(seed)
    dictionary = corpus.with_suffix(".dict")
    dictionary.write_text("".join(f'"{escaped(word)}"\n' for word in target.words))
    limit = memory_now() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    options = [
        f"-max_total_time={wanted.seconds}",
        f"-timeout={SLOWEST}",
        f"-seed={wanted.seed}",
        "-max_len=65536",
        "-rss_limit_mb=4096",
        f"-artifact_prefix={wanted.found}/{wanted.target}-stopped-",
        f"-dict={dictionary}",
        "-verbosity=0",
        str(corpus),
    ]
    mutator = {"custom_mutator": fuzz.mutate} if target.text else {}
    atheris.Setup([sys.argv[0], *options], fuzz.one, internal_libfuzzer=True, **mutator)
    atheris.Fuzz()


class Fuzz:
    """One reader under fire."""

    def __init__(self, name: str, target, found: Path):
        self.name, self.target, self.found = name, target, found
        self.folder = Path(
            tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        )
        self.runs, self.slowest, self.seen = 0, 0.0, set()
        self.told = time.monotonic()
        found.mkdir(parents=True, exist_ok=True)

    def one(self, content: bytes) -> None:
        """Try one input."""
        from genstack.errors import UserError

        begun = time.process_time()
        try:
            self.target.read(content, self.folder)
        except UserError as error:
            if wrong := hidden(error):
                self.keep(content, wrong, error)
            elif "\n" in str(error):
                self.keep(content, "several lines", error)
        except Exception as error:
            self.keep(content, type(error).__name__, error)
        took = time.process_time() - begun
        self.slowest = max(self.slowest, took)
        if took > SLOW:
            self.keep(content, f"took {took:.0f} s", None)
        self.runs += 1
        if time.monotonic() - self.told > 2:
            self.told = time.monotonic()
            self.tell()

    def tell(self) -> None:
        """Write how far it is."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        told = {
            "target": self.name,
            "executions": self.runs,
            "findings": len(self.seen),
            "cpu_minutes": round((used.ru_utime + used.ru_stime) / 60, 2),
            "slowest_s": round(self.slowest, 2),
            "peak_mb": used.ru_maxrss // 1024,
        }
        (self.found / f"{self.name}.json").write_text(json.dumps(told) + "\n")

    def keep(self, content: bytes, what: str, error: Exception | None) -> None:
        """Write down an input that nobody has found yet."""
        places = traceback.extract_tb(error.__traceback__) if error else []
        ours = [
            f"{Path(frame.filename).name}:{frame.lineno}" for frame in places if "genstack" in frame.filename
        ]
        where = f"{what.split(' of ', maxsplit=1)[0] if error else 'slow'} {ours[-1:]}"
        if where in self.seen:
            return
        self.seen.add(where)
        name = f"{self.name}-{hashlib.sha256(content).hexdigest()[:12]}"
        (self.found / name).write_bytes(content)
        told = "".join(traceback.format_exception(error)) if error else what
        (self.found / f"{name}.txt").write_text(f"{what}\n{told}")

    def mutate(self, content: bytes, most: int, seed: int) -> bytes:
        """Change a value of a JSON text, or some of its bytes."""
        chance = random.Random(seed)
        if chance.random() < 0.3:
            return atheris.Mutate(content, most)
        try:
            data = json.loads(content)
            for _ in range(chance.randrange(1, 4)):
                data = self.changed(data, chance)
            made = json.dumps(data).encode()
        except (ValueError, RecursionError):
            return atheris.Mutate(content, most)
        return made if len(made) <= most else content

    def changed(self, data, chance: random.Random):
        """The same with one value, key or entry changed, somewhere inside."""
        if isinstance(data, dict | list) and data and chance.random() < 0.85:
            keys = list(data) if isinstance(data, dict) else range(len(data))
            key, other = chance.choice(keys), chance.choice(keys)
            roll = chance.random()
            if roll < 0.08:
                del data[key]
            elif roll < 0.16:
                data[key] = data[other]
            elif roll < 0.24 and isinstance(data, dict):
                digits = [place for place, letter in enumerate(str(key)) if letter.isdigit()]
                place = chance.choice(digits) if digits else len(key)
                data[f"{key[:place]}{chance.randrange(12)}{key[place + 1 :]}"] = data[key]
            else:
                data[key] = self.changed(data[key], chance)
            return data
        if isinstance(data, int | float) and chance.random() < 0.6:
            return chance.choice([data * 2, data + 1, data - 1, data // 2, -data])
        words = [*self.target.words, "", "a", "\n", "\ud800", "9" * 5000]
        return chance.choice([*NUMBERS, None, True, False, [], {}, [data], {"a": data}, *words])


def hidden(error: BaseException) -> str:
    """Lack of memory behind a clear line: the line was luck."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "allocate" in str(cause):
            return "out of memory"
        cause = cause.__cause__ or cause.__context__
    return ""


def escaped(word: str) -> str:
    """A word as dictionaries of libFuzzer write it."""
    return "".join(f"\\x{byte:02X}" for byte in word.encode())


def memory_now() -> int:
    """Bytes of address space in use."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
