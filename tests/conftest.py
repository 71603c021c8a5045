"""Setup of every test: fixed seeds, one thread, its own home folder; no network by pyproject.toml.

And parts that tests of several folders take: a full disk, every network, a text encoder.
"""

import ctypes
import functools
import gc
import inspect
import itertools
import multiprocessing
import multiprocessing.connection
import os
import resource
import runpy
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import jaxtyping
import pytest

if TYPE_CHECKING:  # imported where it is used: the process that starts the workers of xdist needs no torch
    from genstack.compressor import Network
    from genstack.layout import CodeLayout
    from genstack.transformer import Backbone

THREADS = os.environ.get("OMP_NUM_THREADS") or "1"
RESIDENT = pytest.StashKey[int]()  # bytes of the process when memory was last returned

followed = jaxtyping.jaxtyped


def checked(*, typechecker: Callable) -> Callable:
    """Decorate functions and dataclasses of genstack: check types, and sizes where a hint has shapes.

    Types are checked all the same. But jaxtyping binds the arguments of each call to learn names of sizes,
    which takes ten times as long, and readers of files call what has no sizes a hundred thousand times.
    The code of the checks is written when a function is called first: most are not in a process.
    """

    def decorate(member: Any) -> Any:
        if "__dataclass_fields__" in vars(member) and not hasattr(member.__init__, "__wrapped__"):
            member.__init__ = decorate(member.__init__)
        if inspect.isclass(member):
            return member
        function = None

        @functools.wraps(member)
        def called(*arguments: Any, **named: Any) -> Any:
            __tracebackhide__ = True
            nonlocal function
            if function is None:
                plain = not any(map(shaped, member.__annotations__.values()))
                function = typechecker(member) if plain else followed(member, typechecker=typechecker)
            return function(*arguments, **named)

        return called

    return decorate


def shaped(hint: Any) -> bool:
    """Return True if a hint contains a shape or is a string, which might."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return isinstance(hint, str) or any(map(shaped, get_args(hint)))


jaxtyping.jaxtyped = checked  # before the first import of genstack

os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported, as the command line does
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")  # of 1024 kernels: they take 100 MB
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "all"  # the command line turns them off for its users


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each worker of xdist begin with whole slow modules and end with fast tests.

    Each begins with an equal part of the list. An idle one takes half of what another has left, from the end:
    it would split slow modules, whose fixtures are then made twice, and the last test could be a long one.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    weights = {path: sum(map(weight, members)) for path, members in modules.items()}
    parts: list[list[Path]] = [[] for _ in range(workers)]
    for path in sorted(filter(weights.get, weights), key=lambda path: -weights[path]):
        min(parts, key=lambda part: sum(map(weights.__getitem__, part))).append(path)
    fast = [item for path, members in modules.items() if not weights[path] for item in members]
    size, order = -(-len(items) // workers), []
    for part in parts:
        slow = [item for path in part for item in modules[path]]
        end = max(size - len(slow), 0)
        order += slow + fast[:end]
        del fast[:end]
    if workers > 1:
        items[:] = order + fast


def weight(item: pytest.Item) -> int:
    """Rough share of a test in the time of the suite; 0 for a fast test."""
    marks = {mark.name for mark in item.iter_markers()}
    return 5 if "distributed" in marks else int("slow" in marks or "nightly" in marks)


def pytest_collection_finish() -> None:
    """Compute in THREADS, one by default: as many processes as cores run tests.

    Imported objects are frozen, so that garbage collection does not visit a million objects again.
    """
    import torch

    torch.set_num_threads(int(THREADS))
    gc.collect()
    gc.freeze()
    gc.collect()  # counts the few that are left: a full collection waits for a quarter as many new ones


LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
GROWTH = 50 * 2**20  # bytes


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Return unused memory to the system whenever a worker has grown: glibc keeps up to a gigabyte of it.

    Trainings refer to themselves, and wait for garbage collection with all their networks.
    """
    known = item.session.stash.setdefault(RESIDENT, resident())
    if hasattr(LIBC, "malloc_trim") and resident() > known + GROWTH:
        gc.collect()
        LIBC.malloc_trim(0)
        item.session.stash[RESIDENT] = resident()


def resident() -> int:
    """Bytes of this process in memory; 0 where Linux's /proc is not there."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * resource.getpagesize() if file.exists() else 0


@functools.cache
def seed() -> Callable[[int], Any]:
    """Return the function that seeds torch.

    `torch.manual_seed` writes down the stack once for each kind of device that is not there.
    """
    import torch

    return torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same numbers, whichever tests ran before it."""
    seed()(0)


@pytest.fixture(autouse=True, scope="session")
def unsynchronized() -> Iterator[None]:
    """Files are not awaited on the disk: a test sees them all the same, and no test can cut the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names of homes; `mktemp` would read the whole list of those before to number the next."""
    parent = tmp_path_factory.mktemp("homes")
    return (parent / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def home(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever writes to a home folder or a cache writes to an empty one."""
    folder = next(homes)
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
    for name in (
        "GENSTACK_WEIGHTS",
        "GENSTACK_TRACEBACK",
        "GENSTACK_TEXT_ENCODER",
        "TORCH_HOME",
        "WANDB_DIR",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """A time in which no file may become larger than so many bytes."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


class Script:
    """A Python script in a new process, which is ended like one of `subprocess.Popen`.

    Args:
        process: the process.
        out: path of its output, without the endings `.out` and `.err`.
    """

    def __init__(self, process: Any, out: Path):
        self.process, self.out, self.pid = process, out, process.pid

    def finish(self, timeout: float | None = None) -> tuple[int, str, str]:
        """Wait for its end; exit code, standard output and errors."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"it did not end in {timeout} seconds"
        return self.process.exitcode, self.read("out"), self.read("err")

    def read(self, name: str) -> str:
        """Its output (`out`) or errors (`err`) so far."""
        return Path(f"{self.out}.{name}").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Script]:
    """Start a script in a new process that has torch and Lightning, whose imports take 5 s of a core.

    A process without tests imports both once, and splits in two for each script. It has used no autograd,
    which does not work in a copy, and checks no shapes: the checks do not compile.
    """
    context, folder = multiprocessing.get_context("forkserver"), tmp_path_factory.mktemp("scripts")
    context.set_forkserver_preload(["torch", "pytorch_lightning", "torch.distributed.fsdp"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", THREADS)
        multiprocessing.forkserver.ensure_running()
    numbers = itertools.count()

    def started(*words: str, cwd: Path | None = None, **environment: str) -> Script:
        out = folder / str(next(numbers))
        given = {"words": words, "folder": str(cwd or Path.cwd()), "out": str(out)}
        given["environment"] = {**os.environ, "OMP_NUM_THREADS": THREADS, **environment}
        become = str(Path(__file__).with_name("become.py"))
        process = context.Process(target=runpy.run_path, args=(become, {"given": given}, "__main__"))
        process.start()
        return Script(process, out)

    return started


@pytest.fixture(scope="session")
def start_ranks(start: Callable[..., Script]) -> Callable[..., None]:
    """Run a script in two processes that have the ranks and the address that torchrun gives."""

    def run(*words: str, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        shared |= {"GLOO_SOCKET_IFNAME": "lo"}
        running = [start(*words, RANK=rank, LOCAL_RANK=rank, **shared, **environment) for rank in "01"]
        while all(script.process.exitcode in (None, 0) for script in running):
            alive = [script.process.sentinel for script in running if script.process.exitcode is None]
            if not alive:
                break
            multiprocessing.connection.wait(alive)
        else:  # one has failed, and the other would wait for it
            for script in running:
                script.process.kill()
        ends = [script.finish() for script in running]
        assert [status for status, _, _ in ends] == [0, 0], "\n".join(errors for _, _, errors in ends)

    return run


@pytest.fixture(scope="session")
def in_processes(
    start_ranks: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[Any]]:
    """Call a function of a test's file with a rank in two processes, and return what each returned."""
    import torch

    def call(function: Callable[[int], Any]) -> list[Any]:
        folder, code = tmp_path_factory.mktemp("processes"), function.__code__
        script = str(Path(__file__).with_name("call.py"))
        start_ranks(script, code.co_filename, code.co_name, str(folder))
        return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]

    return call


#: Small values for the arguments that plans of networks have, by their name; a plan takes those it knows.
SMALL = {
    "dim": 6,
    "width": 8,
    "multipliers": (1, 2, 2),
    "blocks": 1,
    "attention": (1,),
    "depth": 1,
    "heads": 2,
    "tokens": 5,
}


@functools.cache
def networks() -> "dict[str, type[Network]]":
    """Every network of the package, by name."""
    import genstack.compressor
    from genstack.discovery import discover

    return discover(genstack.compressor, genstack.compressor.Network)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of a network with each network."""
    if "network" in metafunc.fixturenames:
        metafunc.parametrize("network", networks(), indirect=True)


@pytest.fixture
def network(request: pytest.FixtureRequest) -> "Network":
    """Each network of its folder, with every size that it knows made small."""
    seed()(0)
    plan = networks()[request.param]
    known = inspect.signature(plan).parameters
    return plan(**{name: size for name, size in SMALL.items() if name in known})


WORDS = ("a", "and", "circle", "high", "left", "low", "of", "red", "blue", "ring", "square", "tone")


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small T5 that learned nothing, with a tokenizer of a few words."""
    import tokenizers
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("text_encoder")
    numbers = {word: number for number, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    cutter = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="<unk>"))
    cutter.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    cutter.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=cutter, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    config = transformers.T5Config(
        vocab_size=len(numbers), d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=3
    )
    with torch.random.fork_rng():
        transformers.T5EncoderModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


#: Image size, codebook size, grids and depth.
LAYOUTS = {
    "one grid": ((24, 40), 11, ((3, 5),), 1),
    "two grids": ((24, 32), 11, ((1, 2), (3, 4)), 1),
    "depth 2": ((16, 24), 11, ((2, 3),), 2),
    "one row": ((32, 32), 11, ((1, 9),), 1),
}


@pytest.fixture(params=LAYOUTS)
def layout(request) -> "CodeLayout":
    from genstack.layout import CodeLayout

    return CodeLayout(*LAYOUTS[request.param])


@pytest.fixture
def tiny() -> "Backbone":
    """A backbone for priors that are built in milliseconds."""
    from genstack.transformer import Backbone

    return Backbone(width=24, depth=2, heads=3, dropout=0.0)


@pytest.fixture
def save_untrained(tmp_path: Path) -> Callable[[Callable[[], Any]], Path]:
    """Save a network of transformers that learned nothing in a folder; no weight is a zero or a one."""
    import torch

    def save(build: Callable[[], Any]) -> Path:
        with torch.random.fork_rng():
            network = build().eval()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        network.save_pretrained(tmp_path)
        return tmp_path

    return save
