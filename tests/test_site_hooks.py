"""What the site makes of pages: links, names, formulas, tables, docstrings and notebooks."""

import types
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="`make docs` installs what builds the site")

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("EXTENDING.md", "how-to/freeze.md", "how-to/index.md", "tutorials/1-first.md", "pictures/bits.png")
CONFIG = types.SimpleNamespace(
    config_file_path=str(ROOT / "mkdocs.yml"), docs_dir=str(ROOT / "docs"), repo_url="https://code.example/bsojax"
)


def site_files(names=PAGES):
    return Files([File(name, str(ROOT / "docs"), "", True) for name in names])


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("../EXTENDING.md#targets", "../EXTENDING.md#targets"),
        ("../pictures/bits.png", "../pictures/bits.png"),
        ("../tutorials/1-first.py", "../tutorials/1-first.md"),
        ("../../README.md", "https://code.example/bsojax/blob/main/README.md"),
        ("../../bsojax/nn/_layers.py#L3", "https://code.example/bsojax/blob/main/bsojax/nn/_layers.py#L3"),
        ("../../examples", "https://code.example/bsojax/tree/main/examples"),
        ("../../examples/", "https://code.example/bsojax/tree/main/examples"),
        ("../nowhere.md", "../nowhere.md"),
        ("https://elsewhere.example/a", "https://elsewhere.example/a"),
        ("#here", "#here"),
    ],
)
def test_links_that_leave_the_pages_lead_to_the_repository(link, expected):
    links = pytest.importorskip("website.links")
    page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri="how-to/freeze.md"))
    code = f"`[a]({link})`\n\n```markdown\n[a]({link})\n```\n"
    found = links.on_page_markdown(f"See [a]({link}).\n\n{code}", page, CONFIG, site_files())
    assert found == f"See [a]({expected}).\n\n{code}"


def test_names_in_code_lead_to_the_reference_but_not_those_in_headings_links_and_programs():
    names = pytest.importorskip("website.names")
    kept = "<h2><code>bsojax.bso</code></h2><a href='#'><code>bsojax.bso</code></a><pre><code>bsojax.bso</code></pre>"
    found = names.on_page_content(f"{kept}<p><code>bsojax.nn.LIF</code> and <code>jax.jit</code></p>")
    linked = '<autoref identifier="bsojax.nn.LIF" optional><code>bsojax.nn.LIF</code></autoref>'
    assert found == f"{kept}<p>{linked} and <code>jax.jit</code></p>"


def test_a_formula_becomes_mathml():
    formulas = pytest.importorskip("website.formulas")
    found = formulas.on_page_content('<p>If <span class="arithmatex">\\(a &lt; b^2\\)</span>.</p>')
    assert "<math" in found
    assert "<mo>&#x0003C;</mo>" in found
    assert "msup" in found
    assert "arithmatex" not in found


def test_docstrings_are_read_as_they_are_meant():
    docstrings = pytest.importorskip("website.docstrings")
    text = "See :func:`checked`.\n\nExample:\n  >>> 1\n  1\n\nArgs:\n  low, high: the ends,\n    both whole.\n"
    assert docstrings.readable(f"{text}  x: a value.\n") == (
        "See `checked`.\n\nExamples:\n  >>> 1\n  1\n\nArgs:\n  low: the ends,\n    both whole.\n"
        "  high: the ends,\n    both whole.\n  x: a value.\n"
    )


def test_classes_made_of_fields_have_signatures():
    griffe = pytest.importorskip("griffe")
    docstrings = pytest.importorskip("website.docstrings")
    extensions = griffe.load_extensions(docstrings.Docstrings)
    package = griffe.load("bsojax", search_paths=[ROOT], extensions=extensions)
    assert str(package["nn._neurons.LIF"].parameters["tau"].default) == "2.0"
    assert "_constants" not in package["nn._neurons.LIF"].parameters
    assert "num_steps" in package["nn._norms.BatchRenorm"].parameters, "of BatchNorm"


def notebook_files(folder, program):
    (folder / "tutorials").mkdir()
    (folder / "tutorials" / "1-first.py").write_text(program)
    return Files([File("tutorials/1-first.py", str(folder), str(folder), True)])


PROGRAM = """# %% [markdown]
# # A title

# %%
import matplotlib.pyplot as plt

print("*two* words")

# %% tags=["keep-colors"]
plt.plot([1, 2])
"""


@pytest.mark.slow
def test_a_notebook_becomes_a_page_with_what_it_prints_and_draws(tmp_path):
    notebooks = pytest.importorskip("website.notebooks")
    config = types.SimpleNamespace(extra={"execute": True}, site_dir=str(tmp_path), use_directory_urls=True)
    config.plugins = types.SimpleNamespace(_current_plugin=None)
    files = notebooks.on_files(notebook_files(tmp_path, PROGRAM), config)
    page = files.get_file_from_path("tutorials/1-first.md").content_string
    assert page.startswith("# A title\n\n````python\nimport matplotlib")
    assert "````{ .text .output }\n*two* words\n````" in page
    assert "![What the cell draws](1-first-2-0.png#keep-colors)" in page
    assert "matplotlib.lines" not in page
    assert files.get_file_from_path("tutorials/1-first-2-0.png").content_bytes.startswith(b"\x89PNG")
    assert files.get_file_from_path("tutorials/1-first.py") is None


@pytest.mark.slow
def test_a_notebook_that_fails_fails_the_build(tmp_path):
    notebooks = pytest.importorskip("website.notebooks")
    config = types.SimpleNamespace(extra={"execute": True})
    with pytest.raises(PluginError, match=r"tutorials/1-first\.py: a cell failed(.|\n)*ZeroDivisionError"):
        notebooks.on_files(notebook_files(tmp_path, "# %%\n1 / 0\n"), config)
