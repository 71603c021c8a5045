"""Results of every recipe at one small budget, measured by the public command line.

    python benchmarks/pictures.py --out runs/data --only emoji
    OMP_NUM_THREADS=1 python benchmarks/results.py [--pictures runs/data/emoji] [--only vqgan,masked-prior]

Trains each recipe in a small form on emoji, measures it with `genstack evaluate` on those laid aside, and
writes tables and curves into docs/results.md, between two lines that say so. Runs that are complete are not
trained again, and cards that lie there not measured again, so that a script that was stopped goes on.
Processor time is that of the training command, its validations included.
"""

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from genstack.atomic import replacing
from genstack.checkpoints.model_file import load
from genstack.cli.main import main as genstack
from genstack.report.chart import Curve, chart
from genstack.report.history import Points

STEPS, SEED, SAMPLES, TRAINING = 200, 0, 128, 500
FASTER = 3.0  # times the recipe's learning rate, since a run is short; recipes with Muon suit any length
SHADES = ("#0a6ebd", "#b54708", "#5b6470", "#8a3fa0", "#0f766e", "#b4235a", "#6b6a10", "#4b4fc4")
BEGIN, END = "<!-- written by benchmarks/results.py -->", "<!-- end -->"

DATA = {"source": "{pictures}/train.csv", "resolution": "32", "validation": "0.05", "batch_size": "16"}
NARROW = {"compressor.network.width": "16", "compressor.network.blocks": "1"}
JUDGE = {"adversary.discriminator.width": "32"}
VIT = {
    "compressor.network.width": "128",
    "compressor.network.depth": "4",
    "compressor.network.heads": "4",
    **JUDGE,
}
BACKBONE = {"prior.backbone.width": "128", "prior.backbone.depth": "4", "prior.backbone.heads": "4"}
CONVOLUTIONS = {"prior.width": "48"}

#: What of each recipe is made smaller, beside data and steps, under `--model.`
COMPRESSORS = {
    "vqgan": NARROW | JUDGE,
    "vqvae": NARROW,
    "multiscale": NARROW | JUDGE,
    "residual": NARROW | JUDGE,
    "vqvae2": {"compressor.network.dim": "64", "compressor.coarser.dim": "64"},
    "fsq": NARROW | JUDGE,
    "lfq": NARROW | JUDGE,
    "bsq": NARROW | JUDGE,
    "maskbit": NARROW | JUDGE,
    "infinity": NARROW | JUDGE | {"compressor.quantizer.scales": "1,2,3,4"},
    "ibq": NARROW | JUDGE | {"compressor.quantizer.codebook_size": "4096"},
    "simvq": NARROW | JUDGE | {"compressor.quantizer.codebook_size": "4096"},
    "dvae": {
        "compressor.network.width": "32",
        "compressor.network.entrance": "32",
        "compressor.quantizer.dim": "256",
        "compressor.quantizer.annealing": str(STEPS * 4 // 5),
    },
    "vae": NARROW | JUDGE,
    "va_vae": NARROW | JUDGE,
    "vit_vqgan": VIT,
    "titok": VIT,
    "vqgan_plus": NARROW
    | JUDGE
    | {"compressor.network.multipliers": "1,1,2,4", "perceptual.features.size": "64"},
}

#: The compressor of each prior's recipe, and what of it is made smaller.
PRIORS = {
    "autoregressive": ("vqgan", BACKBONE),
    "masked": ("vqgan", BACKBONE),
    "diffusion": ("vqgan", BACKBONE),
    "random_order": ("vqgan", BACKBONE),
    "pixelcnn": ("vqgan", CONVOLUTIONS),
    "pixelsnail": ("vqgan", CONVOLUTIONS | {"prior.heads": "4", "prior.blocks": "2"}),
    "bits": ("maskbit", BACKBONE),
    "masked_bits": ("maskbit", BACKBONE | {"prior.symbols.width": "128"}),
    "maskbit": ("maskbit", BACKBONE),
    "residual": ("residual", BACKBONE | {"prior.layers": "2"}),
    "next_scale": ("multiscale", BACKBONE),
    "infinity": ("infinity", BACKBONE),
    "hierarchical": (
        "vqvae2",
        BACKBONE | {"prior.finer.width": "128", "prior.finer.depth": "4", "prior.finer.heads": "4"},
    ),
    "flow": ("vae", BACKBONE),
    "mar": ("vae", BACKBONE),
    "captions": ("vqgan", BACKBONE | {"condition.depth": "2", "condition.heads": "4"}),
    "coordinates": ("vqgan", BACKBONE),
    "image": ("vqgan", BACKBONE | {"condition.view": "edges"}),
}
ON_AUTOREGRESSIVE = ("captions", "coordinates", "image")  # recipes to lay over that one
DERIVED = {"image": {"data.condition_images": "null"}}  # edges are made of the pictures themselves


@dataclass(frozen=True)
class Recipe:
    """A recipe in the form that is trained here.

    Args:
        stage: compressor or prior.
        name: of the run.
        files: the recipes that are laid over one another, under configs/.
        options: what the command line says beside them.
    """

    stage: str
    name: str
    files: tuple[str, ...]
    options: dict[str, str]

    def words(self, runs: Path, pictures: Path) -> list[str]:
        """The training command, after `genstack`."""
        words = ["train", self.stage]
        for file in self.files:
            words += ["--config", f"configs/{file}.yaml"]
        for name, value in self.options.items():
            words += [f"--{name}", value.format(runs=runs, pictures=pictures)]
        return [*words, "--runs", str(runs), "--name", self.name]


def recipes() -> list[Recipe]:
    """Every recipe, compressors before the priors on them."""
    short = {"trainer.max_steps": str(STEPS), "trainer.validate_every": "20%", "model.seed": str(SEED)}
    found = []
    for name, smaller in COMPRESSORS.items():
        files = (f"compressor/{name}",)
        options = {f"data.{key}": value for key, value in DATA.items()}
        options |= {f"model.{key}": value for key, value in (smaller | pace(files)).items()} | short
        found.append(Recipe("compressor", name, files, options))
    for name, (compressor, smaller) in PRIORS.items():
        below = ("prior/autoregressive",) if name in ON_AUTOREGRESSIVE else ()
        files = (*below, f"prior/{name}")
        options = {"compressor": f"{{runs}}/{compressor}", "data.batch_size": "32"} | DERIVED.get(name, {})
        options |= {f"model.{key}": value for key, value in (smaller | pace(files)).items()} | short
        found.append(Recipe("prior", f"{name}-prior", files, options))
    for name in ("compressor", "prior"):
        below = {"compressor": "{runs}/digits"} if name == "prior" else {}
        found.append(Recipe(name, {"prior": "digits-prior"}.get(name, "digits"), (f"demo/{name}",), below))
    return found


def pace(files: Sequence[str]) -> dict[str, str]:
    """A short run's learning rate and averaging."""
    rates: dict[str, float] = {}
    for file in files:
        said = yaml.safe_load(Path(f"configs/{file}.yaml").read_text(encoding="utf-8"))["model"]
        rates |= said.get("optimization", {}).get("init_args", {})
    faster = 1.0 if "muon" in rates else FASTER
    return {"optimization.learning_rate": f"{faster * rates.get('learning_rate', 0.0):.4g}", "ema": "0.99"}


def seconds(words: Sequence[str]) -> float:
    """Run a command line of genstack; the processor time that it took.

    Raises:
        RuntimeError: it failed.
    """
    before = time.process_time()
    if code := genstack(list(words)):
        raise RuntimeError(f"{shlex.join(['genstack', *words])} ended with exit code {code}")
    return time.process_time() - before


def fill(recipe: Recipe, runs: Path, pictures: Path) -> None:
    """Train and measure one, as far as that has not been done."""
    folder = runs / recipe.name
    cost, card = folder / "cost.json", folder / "evaluation" / "card.json"
    if not cost.is_file():
        took = seconds(recipe.words(runs, pictures))
        with replacing(cost) as partial:
            partial.write_text(json.dumps({"seconds": took}))
    if not card.is_file():
        samples = ["--samples", str(SAMPLES), "--training", str(TRAINING)] if recipe.stage == "prior" else []
        held_out = ["--data.source", str(pictures / "held_out.csv"), "--split", "all"]
        demo = recipe.files[0].startswith("demo/")
        seconds(
            [
                "evaluate",
                str(folder),
                "--lpips",
                "alex",
                "--seed",
                str(SEED),
                *samples,
                *([] if demo else held_out),
            ]
        )


def numbers(folder: Path) -> dict[str, Any]:
    """Every number of a run's card, by name."""
    card = json.loads((folder / "evaluation" / "card.json").read_text(encoding="utf-8"))
    return {number["name"]: number for number in card["numbers"]}


def weights(folder: Path, part: str) -> float:
    """Millions of weights of the compressor, or of the prior."""
    return sum(each.numel() for each in load(folder).modules()[part].parameters()) / 1e6


def minutes(folder: Path) -> str:
    """Processor minutes of the training."""
    return f"{json.loads((folder / 'cost.json').read_text())['seconds'] / 60:.1f}"


def table(title: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [title, ["---"] * len(title), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def said(found: dict[str, Any], name: str, form: str = ".3g", interval: bool = False) -> str:
    """A number of a card as people read it; a dash where there is none."""
    if name not in found:
        return "-"
    number = found[name]
    ends = number["interval"]
    around = f" ({ends[0]:{form}} to {ends[1]:{form}})" if interval and ends else ""
    return f"{number['value']:{form}}{around}"


def compressor_row(recipe: Recipe, runs: Path) -> list[str]:
    """Results of a compressor."""
    folder = runs / recipe.name
    found, model = numbers(folder), load(folder)
    codes = (
        f"{model.layout.length} of {model.layout.codebook_size:,}" if model.compressor.has_codes else "none"
    )
    bits = "bits/pixel (stored)" if model.compressor.has_codes else "bits/pixel (rate)"
    used = [f"{found[name]['value']:.0%}" for name in ("codebook usage",) if name in found] or ["-"]
    return [
        named(recipe),
        codes,
        f"{weights(folder, 'compressor'):.2f} M",
        said(found, "PSNR", ".1f", interval=True),
        said(found, "SSIM", ".2f"),
        said(found, "LPIPS-Alex"),
        said(found, "rKID-EffLite0"),
        *used,
        said(found, "perplexity"),
        said(found, bits),
        minutes(folder),
    ]


def prior_row(recipe: Recipe, runs: Path) -> list[str]:
    """Results of a prior."""
    folder = runs / recipe.name
    found, model = numbers(folder), load(folder)
    assert model.prior is not None
    copies = f"{found['near-copies']['value']:.0%}"
    return [
        named(recipe),
        Path(recipe.options["compressor"]).name,
        f"{weights(folder, 'prior'):.2f} M",
        said(found, "nats/code", ".2f", interval=True) + ", bound" * ("bound" in model.prior.likelihood),
        said(found, "nats/code (unigram)", ".2f"),
        said(found, "nats/code (uniform)", ".2f"),
        said(found, f"bits/pixel (prior, {model.prior.likelihood})"),
        said(found, "gKID-EffLite0"),
        copies,
        minutes(folder),
    ]


def named(recipe: Recipe) -> str:
    """A recipe with a link to its file."""
    file = recipe.files[-1]
    return f"[{file.removeprefix(f'{recipe.stage}/')}](../configs/{file}.yaml)"


COMPRESSOR_TITLE = (
    *("recipe", "codes", "weights", "PSNR (95 %)", "SSIM", "LPIPS-Alex", "rKID-EffLite0"),
    *("usage", "perplexity", "bits/pixel", "minutes"),
)
PRIOR_TITLE = (
    *(
        "recipe",
        "compressor",
        "weights",
        "nats/code (95 %)",
        "unigram",
        "ln K",
        "bits/pixel",
        "gKID-EffLite0",
    ),
    *("near-copies", "minutes"),
)


def tables(done: Sequence[Recipe], runs: Path) -> str:
    """Text between the two marks of the page."""
    parts = []
    for stage, title, row in (
        ("compressor", COMPRESSOR_TITLE, compressor_row),
        ("prior", PRIOR_TITLE, prior_row),
    ):
        if rows := [row(recipe, runs) for recipe in done if recipe.stage == stage]:
            parts.append(f"## {stage.capitalize()}s\n\n{table(title, rows)}")
    places = Path("runs/results"), Path("runs/data/emoji")
    words = [shlex.join(["genstack", *recipe.words(*places)]) for recipe in done]
    return "\n\n".join([*parts, "## Commands\n\n```bash\n" + "\n".join(words) + "\n```"])


def points(folder: Path, name: str) -> Points:
    """A number of validation by step."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines]
    return [(line["step"], line[name]) for line in told if name in line]


def pictures(done: Sequence[Recipe], runs: Path) -> str:
    """Curves of validation, as SVG: PSNR of compressors, and how far priors are below the unigram entropy."""
    psnr, gain = [], []
    for recipe in done:
        if recipe.files[0].startswith("demo/"):
            continue  # other images, and more steps
        folder, name = runs / recipe.name, Path(recipe.files[-1]).name
        if recipe.stage == "compressor":
            psnr.append((name, points(folder, "val/psnr")))
            continue
        unigram = dict(points(folder, "val/unigram"))
        below = [(step, unigram[step] - value) for step, value in points(folder, "val/nats")]
        if below:  # priors over latents have no nats
            gain.append((name, below))
    boxes = [("held-out PSNR in dB, by step", psnr), ("nats/code below the unigram entropy, by step", gain)]
    drawn = [box(title, curves, 470 * place) for place, (title, curves) in enumerate(boxes) if curves]
    height = 30 + 17 * max(map(len, (psnr, gain))) + 20
    size = f'viewBox="0 0 940 {max(230, height)}" font-family="sans-serif"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size}>
<rect width="100%" height="100%" fill="#ffffff"/>
{"".join(drawn)}</svg>
"""


def box(title: str, curves: Sequence[tuple[str, Points]], left: int) -> str:
    """Curves in one box, their names beside it in the order in which they end."""
    ordered = sorted(curves, key=lambda curve: -curve[1][-1][1])
    numbered = enumerate(ordered)
    made = chart(title, [Curve(name, line, number % len(SHADES)) for number, (name, line) in numbered])
    assert made is not None
    parts = [f'<g transform="translate({left} 24)"><text x="46" y="-6" font-size="13">{title}</text>']
    for tick in made.up:
        parts.append(f'<line x1="46" x2="312" y1="{tick.place}" y2="{tick.place}" stroke="#dfe1e4"/>')
        parts.append(
            f'<text x="41" y="{tick.place + 4}" font-size="11" text-anchor="end">{tick.label}</text>'
        )
    parts += [
        f'<text x="{tick.place}" y="182" font-size="11" text-anchor="middle">{tick.label}</text>'
        for tick in made.across
    ]
    for number, line in enumerate(made.lines):
        style = f'stroke="{SHADES[line.shade]}" stroke-width="1.8" fill="none"'
        style += ' stroke-dasharray="5 4"' * (number >= len(SHADES))
        parts.append(f'<path d="{line.path}" {style}/><path d="M322,{17 * number + 6} h22" {style}/>')
        parts.append(
            f'<text x="350" y="{17 * number + 10}" font-size="12">{line.name} {line.last:.3g}</text>'
        )
    return "\n".join([*parts, "</g>", ""])


def write(done: Sequence[Recipe], runs: Path) -> None:
    """The tables into the page, and the curves beside it."""
    with replacing(Path("docs/pictures/results.svg")) as partial:
        partial.write_text(pictures(done, runs), encoding="utf-8")
    page = Path("docs/results.md")
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    with replacing(page) as partial:
        partial.write_text(f"{before}{BEGIN}\n{tables(done, runs)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/results"))
    parser.add_argument("--pictures", type=Path, default=Path("runs/data/emoji"))
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.only.split(",") if name]
    for recipe in recipes():
        if chosen and recipe.name not in chosen:
            continue
        print(shlex.join(["genstack", *recipe.words(arguments.runs, arguments.pictures)]), flush=True)
        try:
            fill(recipe, arguments.runs, arguments.pictures)
        except RuntimeError as error:
            print(error, flush=True)
    done = [
        recipe
        for recipe in recipes()
        if all(
            (arguments.runs / recipe.name / file).is_file() for file in ("cost.json", "evaluation/card.json")
        )
    ]
    write(done, arguments.runs)


if __name__ == "__main__":
    main()
