"""Check this machine for everything that training needs, and suggest fixes.

genstack doctor
"""

import importlib
import os
import platform
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from packaging.requirements import Requirement

import genstack
from genstack import plugins
from genstack.errors import UserError

MISMATCH = "operator torchvision::nms does not exist"
#: Libraries whose versions belong in a bug report.
REPORTED = ("torch", "torchvision", "pytorch-lightning", "numpy", "pillow", "jsonargparse", "safetensors")
#: Extras whose libraries no command uses.
DEVELOPMENT = ("test", "docs")


@dataclass(frozen=True)
class Finding:
    """Result of one check, and the fix for a warning or problem."""

    state: Literal["ok", "warning", "problem"]
    fact: str
    fix: str = ""


def doctor(runs: Path = Path("runs")) -> int:
    """Check this machine for everything that training needs; exits with 1 if something is broken.

    Args:
        runs: folder of all runs.
    """
    findings = {
        "versions": versions(),
        "device": device(),
        "torchvision": torchvision(),
        "compiler": compiler(),
        "venv": venv(),
        "weights": weights(),
        "plugins": installed_plugins(),
        "wandb": wandb(),
        "disk": disk(runs),
    }
    for subject, found in findings.items():
        print(f"{found.state:8} {subject:12} {found.fact}" + (f"; {found.fix}" if found.fix else ""))
    return int(any(found.state == "problem" for found in findings.values()))


def bounds(clone: Path = Path(genstack.__file__).parents[1]) -> list[str]:
    """Return required and optional libraries with their bounds, from the clone if there is one."""
    file = clone / "pyproject.toml"
    if not file.is_file():
        try:
            return requires("genstack-images") or []
        except PackageNotFoundError:  # a copied folder
            return list(REPORTED)
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].items()
    optional = [f'{text}; extra == "{extra}"' for extra, texts in extras for text in texts]
    return project["dependencies"] + optional


def versions(find: Callable[[str], str] = version, declared: Callable[[], list[str]] = bounds) -> Finding:
    """Check versions of Python and of libraries against their bounds; optional ones may be missing."""
    found, problems, fixes = [f"python {platform.python_version()}"], [], []
    for requirement in map(Requirement, declared()):
        optional = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        if optional and any(f'"{extra}"' in str(requirement.marker) for extra in DEVELOPMENT):
            continue
        name = requirement.name
        try:
            installed = find(name)
        except PackageNotFoundError:
            if optional:
                continue
            problems.append(f"{name} missing")
            fixes.append(f"'{name}{requirement.specifier}'")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            problems.append(f"{name} {installed} does not satisfy {requirement.specifier}")
            fixes.append(f"'{name}{requirement.specifier}'")
        if name in REPORTED:
            found.append(f"{name} {installed}")
    if problems:
        return Finding("problem", ", ".join(problems), f"pip install {' '.join(fixes)}")
    return Finding("ok", ", ".join(found))


def device(load: Callable[[str], Any] = importlib.import_module) -> Finding:
    """Find the device that training runs on."""
    try:
        torch = load("torch")
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("problem", f"torch does not load ({_first(error)})", "make clean install")
    threads = f"{torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: use --trainer.precision 16-mixed"
        name, count = torch.cuda.get_device_name(0), torch.cuda.device_count()
        return Finding("ok", f"CUDA, {count} x {name}, {memory:.0f} GiB, {bf16}, {threads}")
    if torch.backends.mps.is_available():
        return Finding("ok", f"Apple GPU (MPS), {threads}")
    if shutil.which("nvidia-smi"):
        fix = "install a driver as new as torch's CUDA, or the torch of pytorch.org that fits the driver"
        return Finding("warning", f"CPU, {threads}; torch cannot use the GPU of this machine", fix)
    return Finding("ok", f"CPU, {threads}, bf16")


def torchvision(load: Callable[[str], ModuleType] = importlib.import_module) -> Finding:
    """Check that torchvision matches torch; both must come from the same index."""
    try:
        return Finding("ok", f"loads, {load('torchvision').__version__}")
    except (ImportError, OSError, RuntimeError) as error:
        if MISMATCH not in str(error):
            return Finding("problem", f"does not load ({_first(error)})", "pip install torchvision")
    fix = (
        "install both from one index: pip install --force-reinstall torch torchvision, "
        "with --index-url https://download.pytorch.org/whl/cpu for a CPU"
    )
    return Finding("problem", f"does not match this torch ({MISMATCH})", fix)


def compiler(
    which: Callable[[str], str | None] = shutil.which, headers: Path = Path(sysconfig.get_path("include"))
) -> Finding:
    """Check for the C++ compiler and the Python headers that torch.compile needs."""
    uses = "--model.compile, sample --compile and evaluate --compile"
    usual = "clang++" if sys.platform == "darwin" else "g++"
    path = which(os.environ.get("CXX") or usual)
    if path and (headers / "Python.h").is_file():
        return Finding("ok", f"{path} for {uses}")
    if path:
        return Finding(
            "warning", f"no {headers / 'Python.h'}; {uses} will not work", "apt install python3-dev"
        )
    other = next((name for name in ("clang++", "c++") if which(name)), None)
    fix = f"export CXX={other}" if other else "apt install g++ (or xcode-select --install)"
    return Finding("warning", f"no {usual} for C++; {uses} will not work", fix)


def compiler_obstacle() -> str:
    """Return the reason why torch.compile does not work on this machine; "" for none."""
    found = compiler()
    return "" if found.state == "ok" else f"there is {found.fact.partition(';')[0]}"


def check_compiler(flag: str = "--compile") -> None:
    """Raise a UserError if --compile, or another flag, will not work on this machine."""
    if (found := compiler()).state != "ok":
        raise UserError(f"{flag} needs a C++ compiler: {found.fact}: {found.fix}")


def venv(find: Callable[[str], object] = find_spec) -> Finding:
    """Check for the modules that `make install` needs."""
    if missing := [name for name in ("venv", "ensurepip") if find(name) is None]:
        fact = f"python has no {' and no '.join(missing)}; make install will not work"
        return Finding("warning", fact, "apt install python3-venv")
    return Finding("ok", "python makes virtual environments")


def weights(places: Callable[[], dict[str, list[str]]] | None = None) -> Finding:
    """Locate the pretrained weights of perceptual losses."""
    try:
        found = (places or _places)()
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("problem", f"search failed ({_first(error)})", "make clean install")
    if missing := [name for name, where in found.items() if not where]:
        fix = f"genstack weights fetch {missing[0]}, or train with --model.perceptual null"
        return Finding("warning", f"{', '.join(missing)} not found on this machine", fix)
    return Finding("ok", ", ".join(f"{name}: {where[0]}" for name, where in found.items()))


def _places() -> dict[str, list[str]]:
    from genstack import pretrained

    return {
        weights.name: [str(path) for path in pretrained.locations(weights.name).values()]
        for weights in pretrained.PRETRAINED
    }


def installed_plugins(find: Callable[[], Sequence[plugins.Plugin]] = plugins.installed) -> Finding:
    """Import the plugins of installed packages."""
    found = []
    try:
        for plugin in find():
            found.append(f"{plugin.name} {plugin.version}")
            plugin.modules()
    except UserError as error:
        return Finding("problem", str(error), "mend or uninstall that package; other commands need it")
    return Finding("ok", ", ".join(found) or "none installed")


def wandb(find: Callable[[str], object] = find_spec) -> Finding:
    """Check for Weights & Biases, which is optional."""
    if find("wandb") is None:
        return Finding("warning", "not installed", "pip install wandb to log there")
    return Finding("ok", f"installed, mode {os.environ.get('WANDB_MODE', 'offline unless a run asks')}")


def disk(folder: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> Finding:
    """Check the free disk space for runs."""
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = usage(there).free / 1e9
    fact, fix = f"{free:.1f} GB free for {folder}", "delete old runs, or write elsewhere with --runs DIR"
    if not os.access(there, os.W_OK):
        return Finding("problem", f"{there} cannot be written to", "write elsewhere with --runs DIR")
    if free < 1:
        return Finding("problem", fact, fix)
    return Finding("warning", fact, fix) if free < 10 else Finding("ok", fact)


def _first(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
