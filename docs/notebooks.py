"""Notebooks of the tutorials, made of the same pages, so that they never differ.

`make docs` puts them into the site, and `python docs/notebooks.py FOLDER` writes them.
"""

import base64
import re
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat

DOCS = Path(__file__).parent
#: Pages with a notebook; their code runs from top to bottom, in an empty folder.
TUTORIALS = ("from_pictures_to_samples", "your_own_quantizer")
#: First line that jupytext gives cells of shell commands.
SHELL = "%%bash\n"
PICTURE = re.compile(r"!\[([^]]*)\]\(pictures/([\w.]+)\)")


def notebook(page: str) -> nbformat.NotebookNode:
    """Make the notebook of a page: its Python is code, and its pictures are inside."""
    made = jupytext.reads((DOCS / f"{page}.md").read_text(encoding="utf-8"), fmt="md")
    made.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(made.cells):
        cell.id = f"{page.replace('_', '-')}-{number}"  # jupytext chooses random ones
        if cell.source.startswith(SHELL):  # commands to read; a notebook has no folder to run them on
            text = f"```bash\n{cell.source.removeprefix(SHELL)}\n```"
            made.cells[number] = nbformat.v4.new_markdown_cell(text, id=cell.id)
        if cell.cell_type == "code":
            continue
        names = [name for _, name in PICTURE.findall(cell.source)]
        cell.source = PICTURE.sub(r"![\1](attachment:\2)", cell.source)
        if names:
            cell.attachments = {
                name: {"image/png": base64.b64encode((DOCS / "pictures" / name).read_bytes()).decode()}
                for name in names
            }
    nbformat.validate(made)
    return made


def on_files(files: Any, config: Any) -> Any:
    """Add the notebooks to the site."""
    from mkdocs.structure.files import File

    for page in TUTORIALS:
        files.append(File.generated(config, f"{page}.ipynb", content=nbformat.writes(notebook(page))))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Link each tutorial to its notebook, below the title."""
    name = Path(page.file.src_uri).stem
    if name not in TUTORIALS:
        return markdown
    title, _, rest = markdown.partition("\n")
    return f"{title}\n\n[This page as a notebook]({name}.ipynb)\n{rest}"


def main(folder: Path) -> None:
    """Write all notebooks into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in TUTORIALS:
        nbformat.write(notebook(page), folder / f"{page}.ipynb")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
