"""Notebooks: each docs/tutorials/*.py (jupytext, percent format) is run from top to bottom and becomes a page.

An error in a cell fails the build. What cells print and draw stands below them; what they write to stderr does not.
They run in an empty folder. ``DOCS_EXECUTE=false mkdocs build`` runs none, for a look in seconds. A cell with the tag
``keep-colors`` draws what must not be inverted on a dark page, such as kernels in black and white.
"""

import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbclient
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbformat import NotebookNode

FOLDER = "tutorials/"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for file in [file for file in files if file.src_uri.startswith(FOLDER) and file.src_uri.endswith(".py")]:
        notebook = jupytext.read(file.abs_src_path)
        if config.extra["execute"]:
            run(notebook, file.src_uri)
        files.remove(file)
        stem = file.src_uri.removesuffix(".py")
        parts = []
        for number, cell in enumerate(notebook.cells):
            parts.append(cell.source if cell.cell_type == "markdown" else fenced("python", cell.source))
            outputs = cell.get("outputs", [])
            if any("image/png" in output.get("data", {}) for output in outputs):
                outputs = [output for output in outputs if not is_plain_result(output)]
            for index, output in enumerate(outputs):
                name = f"{stem.removeprefix(FOLDER)}-{number}-{index}.png"
                for part in shown(output, name, "keep-colors" in cell.metadata.get("tags", [])):
                    if isinstance(part, bytes):
                        files.append(File.generated(config, FOLDER + name, content=part))
                    else:
                        parts.append(part)
        files.append(File.generated(config, f"{stem}.md", content="\n\n".join(parts)))
    return files


def run(notebook: NotebookNode, name: str) -> None:
    """Runs all cells in an empty folder and keeps their outputs in the notebook."""
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        try:
            client.execute()
        except nbclient.exceptions.CellExecutionError as error:
            raise PluginError(f"{name}: a cell failed.\n{error}") from error


def is_plain_result(output: NotebookNode) -> bool:
    """Whether an output is the text of the last expression: below a picture, the name of an object of matplotlib."""
    return output.output_type == "execute_result" and "image/png" not in output.data


def fenced(language: str, text: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````" if text.strip() else ""


def shown(output: NotebookNode, name: str, keep_colors: bool) -> Iterator[str | bytes]:
    """Markdown for an output, and the bytes of its picture."""
    data: dict[str, Any] = output.get("data", {})
    if "image/png" in data:
        yield base64.b64decode(data["image/png"])
        yield f"![What the cell draws]({Path(name).name}{'#keep-colors' if keep_colors else ''})"
    elif "text/markdown" in data:
        yield data["text/markdown"]
    elif "text/plain" in data:
        yield fenced("{ .text .output }", data["text/plain"])
    elif output.output_type == "stream" and output.name == "stdout":
        yield fenced("{ .text .output }", output.text)
