"""Import a checkpoint of another project.

genstack import vqgan_imagenet_f16_1024.ckpt --out runs/vqgan-f16
"""

from dataclasses import dataclass, fields
from pathlib import Path

from genstack import hub, plugins
from genstack.checkpoints.import_options import ImportOptions, note_options
from genstack.checkpoints.model_file import TENSORS, is_own, save
from genstack.checkpoints.published import formats
from genstack.checkpoints.published import load as load_published
from genstack.cli.commands import IMPORT
from genstack.cli.parsing.parser import Parser, to_dataclass
from genstack.cli.parsing.paths import Place
from genstack.errors import UserError
from genstack.model import Model


@dataclass(frozen=True)
class Request:
    """Import a checkpoint of another project as a run, without running code from its file.

    Options can also be written to FILE.yaml, such as `heads: 16`; then FILE can be used in place of a run.

    Args:
        file: checkpoint (.ckpt, .pt, .pth, .bin, .pkl, .safetensors), folder of diffusers, or hf:user/name,
            hf:user/name/FILE.
        out: folder of the new run.
        list: list the known formats and exit.
    """

    file: Place = ""
    out: Place = ""
    list: bool = False


def run(arguments: list[str]) -> int | None:
    """Run a command line."""
    settings = Parser(IMPORT).parse(arguments)
    import_model(to_dataclass(Request, settings), to_dataclass(ImportOptions, settings))
    return None


def import_model(request: Request, options: ImportOptions) -> None:
    """Save a published model as a run."""
    if request.list:
        print(known_formats())
        return
    if not request.file or not request.out:
        raise UserError(
            "expected a file and a folder: genstack import FILE --out RUN; --list shows the known formats"
        )
    if (Path(request.out) / TENSORS).exists():
        raise UserError(f"{request.out} already holds a model; choose another --out")
    file = hub.fetch(request.file) if hub.is_hub_name(request.file) else Path(request.file)
    if is_own(file / TENSORS if file.is_dir() else file):
        raise UserError(
            f"{request.file} is a model of genstack already; use it as it is, without an import: "
            f"genstack sample {request.file}, or genstack reconstruct {request.file} for a compressor"
        )
    model = load_published(file, options.over(note_options(file)))
    save(model, Path(request.out))
    print(f"{request.out}: {summary(model)}. {next_step(model, request.out)}")


def known_formats() -> str:
    """List the known formats: options, files, repository, licence, and what was compared."""
    lines = []
    for kind in sorted(formats().values(), key=lambda kind: kind.what):
        names = (field.name for field in fields(ImportOptions) if field.name in kind.options)
        options = " ".join(f"--{name.replace('_', '-')}" for name in names)
        lines += [kind.what, f"    options: {options or 'none'}"]
        if (known := kind.provenance) is not None:
            lines += [
                f"    files: {known.files}",
                f"    from: {known.source}",
                f"    licence: code {known.licence}; weights {known.weights}",
                f"    equal to its own code: {known.checked}",
            ]
    return "\n".join(lines)


def summary(model: Model) -> str:
    """Describe an imported model in a few words."""
    weights = sum(parameter.numel() for parameter in model.modules().parameters())
    height, width = model.preprocessing.height, model.preprocessing.width
    prior = f" and {type(model.prior).__name__}" if model.prior else ""
    part = f" (its {model.metadata['part']})" if "part" in model.metadata else ""
    return (
        f"{model.metadata['published']}{part}, {type(model.compressor).__name__}{prior}, "
        f"{weights / 1e6:.3g} M weights, images {height}x{width}"
    )


def next_step(model: Model, out: str) -> str:
    """Return the next command."""
    if model.prior:
        return f"Next:  genstack sample {out} --count 16{plugins.flags()}"
    return f"Next:  genstack reconstruct {out} --source DIR{plugins.flags()}"
