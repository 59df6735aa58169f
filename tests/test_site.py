"""The documentation site: the reference has all public names, links lead somewhere, and browsers show the pages."""

import contextlib
import functools
import html.parser
import http.server
import importlib
import io
import os
import pkgutil
import posixpath
import re
import shutil
import subprocess
import sys
import threading
import types
import urllib.parse
from pathlib import Path

import pytest

import bsojax

ROOT = Path(__file__).resolve().parents[1]
ROOMS = [
    importlib.import_module(f"bsojax.{room.name}")
    for room in pkgutil.iter_modules(bsojax.__path__)
    if not room.name.startswith("_")
]
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def public_names(module):
    """The names of a module and what they stand for, but for modules and for classes of other libraries."""
    for name, value in vars(module).items():
        elsewhere = isinstance(value, type) and not value.__module__.startswith("bsojax")
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and not elsewhere:
            yield f"{module.__name__}.{name}", value


def documented_names():
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        yield from re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)


@pytest.mark.parametrize("module", [bsojax, *ROOMS])
def test_the_reference_has_every_public_name(module):
    root = dict(public_names(bsojax))
    documented = set(documented_names())
    for name, value in public_names(module):
        at_root = f"bsojax.{name.rpartition('.')[2]}"
        shown = at_root if root.get(at_root) is value else name
        assert shown in documented, f"{shown} has no place in docs/reference/"


def test_the_reference_has_each_name_once_and_no_name_that_is_gone():
    documented = list(documented_names())
    assert len(documented) == len(set(documented))
    assert set(documented) <= {name for module in (bsojax, *ROOMS) for name, _ in public_names(module)}


@pytest.mark.slow
def test_the_example_of_the_home_page_runs_and_learns(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "index.md").read_text(), re.DOTALL)
    fewer = code.replace("range(10)", "range(3)")
    assert fewer != code
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.chdir(tmp_path):
        exec(fewer, {})
    assert float(re.search(r"'accuracy': Array\(([\d.]+)", printed.getvalue())[1]) > 0.7
    assert bsojax.load_model(tmp_path / "digits.bsojax").state is not None


class Page(html.parser.HTMLParser):
    """What a page has: its headings, the places that links can lead to, links, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded, self.headings, self.paragraphs = set(), [], [], 0, []
        self.open = {"p": False, "code": False}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes.get("id"), attributes.get("name") if tag == "a" else None}
        self.headings += tag == "h1"
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "link" and attributes.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(attributes["href"])
        if tag in ("img", "script", "iframe", "source") and attributes.get("src"):
            self.loaded.append(attributes["src"])
        if tag in self.open:
            self.open[tag] = True
        if tag == "p":
            self.paragraphs.append("")

    def handle_endtag(self, tag):
        if tag in self.open:
            self.open[tag] = False

    def handle_data(self, data):
        if self.open["p"] and not self.open["code"]:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(made_once):
    """The site as `make docs` builds it; DOCS_EXECUTE=false leaves the notebooks out."""
    pytest.importorskip("mkdocs", reason="`make docs` installs what builds the site")
    pytest.importorskip("mkdocstrings", reason="`make docs` installs what builds the site")

    def build(folder):
        # Notebooks are run as readers run them, without the settings of the tests.
        settings = {key: value for key, value in os.environ.items() if not key.startswith(("XLA_", "JAX_", "PYTEST_"))}
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
            cwd=ROOT,
            env={**settings, "PYTHONPATH": paths, "NO_MKDOCS_2_WARNING": "1"},
            check=True,
        )

    return made_once("site", build)


def pages_of(site):
    return {path.relative_to(site).as_posix(): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}


def target_of(site, page, link):
    """The file in the site that a link from a page leads to."""
    path = urllib.parse.unquote(urllib.parse.urlsplit(link).path)
    if not path:
        return page
    start = "" if path.startswith("/") else posixpath.dirname(page)
    whole = posixpath.normpath(posixpath.join(start, path.lstrip("/")))
    return posixpath.normpath(f"{whole}/index.html") if (site / whole).is_dir() else whole


@pytest.mark.slow
def test_links_lead_somewhere_and_pages_load_nothing_from_elsewhere(site):
    pages, wrong = pages_of(site), []
    for name, page in pages.items():
        wrong += [f"{name} loads {link}" for link in page.loaded if re.match(r"(https?:)?//", link)]
        for link in page.links + page.loaded:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target, place = target_of(site, name, link), urllib.parse.unquote(parts.fragment)
            if not (site / target).is_file():
                wrong.append(f"{name}: {link} leads nowhere")
            elif place and link in page.links and place != "__skip" and place not in pages[target].ids:
                wrong.append(f"{name}: {link} leads to a place that {target} does not have")
    assert not wrong, "\n".join(wrong)
    assert len(pages) > 15


@pytest.mark.slow
def test_each_page_has_one_heading_and_no_markdown_left(site):
    for name, page in pages_of(site).items():
        assert page.headings == 1, f"{name} has {page.headings} headings"
        for paragraph in page.paragraphs:
            assert not re.search(r"^([-*+] |\d+\. |#+ |\|)", paragraph, re.MULTILINE), f"{name}: {paragraph}"


@pytest.fixture(scope="module")
def served(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="`make docs` installs what opens the pages")
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no Chromium to open the pages with")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=[*FLAGS])
        yield chromium
        chromium.close()


def leaving(request):
    """Whether a request ended because the browser went on to the next page."""
    return request.failure == "net::ERR_ABORTED"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_every_page(browser, served, site, width, scheme):
    wrong = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    view, name = context.new_page(), ""
    view.on("console", lambda told: told.type in ("error", "warning") and wrong.append(f"{name}: {told.text}"))
    view.on("pageerror", lambda error: wrong.append(f"{name}: {error}"))
    view.on("requestfailed", lambda made: leaving(made) or wrong.append(f"{name}: {made.url} failed"))
    view.on("response", lambda got: got.status < 400 or wrong.append(f"{name}: {got.url} gives {got.status}"))
    view.on("request", lambda made: made.url.startswith((served, "data:")) or wrong.append(f"{name} asks {made.url}"))
    for name in pages_of(site):
        view.goto(f"{served}/{name.removesuffix('index.html')}", wait_until="load")
        looked = view.evaluate(LOOK)
        if looked["missing"]:
            wrong.append(f"{name}: pictures are missing: {looked['missing']}")
        if not looked["heading"]:
            wrong.append(f"{name}: no heading is seen")
        if looked["wide"]:
            wrong.append(f"{name}: wider than the window by {looked['wide']}, at {looked['widest']}")
        if looked["scheme"] != {"light": "default", "dark": "slate"}[scheme]:
            wrong.append(f"{name}: shown as {looked['scheme']}")
    context.close()
    assert not wrong, "\n".join(wrong)


LOOK = """async () => {
  const pictures = [...document.images]
  pictures.forEach(picture => { picture.loading = "eager" })
  await Promise.all(pictures.map(picture => picture.decode().catch(() => null)))
  const heading = document.querySelector("article h1")
  const beyond = [...document.querySelectorAll("article *")].filter(part =>
    part.getBoundingClientRect().right > innerWidth + 1 &&
    !part.closest(".md-typeset__scrollwrap, pre, code, .highlight, .arithmatex, math, .tabbed-labels"))
  return {
    missing: pictures.filter(picture => !picture.naturalWidth).map(picture => picture.src),
    heading: heading && heading.innerText.trim() && heading.getBoundingClientRect().height > 0,
    wide: Math.max(0, document.scrollingElement.scrollWidth - innerWidth) || (beyond.length ? 1 : 0),
    widest: beyond.slice(0, 3).map(part => part.outerHTML.slice(0, 120)),
    scheme: document.body.dataset.mdColorScheme,
  }
}"""
