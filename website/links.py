"""Pages link to each other and to the sources by relative paths, as a code host shows them; here they work on the site.

A link to a file that is a page or a picture of the site stays. One to anything else in the repository becomes a link to
the repository. One to nothing stays as it is, and the strict build refuses it. Markdown within ``<details>``, which a
code host shows as such, is shown so here too.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

CODE = re.compile(
    r"(^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)[ ]*$|(?P<tick>`+)[^`].*?(?P=tick))", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\((?P<target>[^()\s#:]+)(?P<anchor>#[^()\s]*)?\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    root = Path(config.config_file_path).parent
    docs = Path(config.docs_dir).relative_to(root).as_posix()
    folder = posixpath.dirname(page.file.src_uri)

    def mended(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(docs, folder, link["target"]))
        anchor = link["anchor"] or ""
        inside = posixpath.relpath(path, docs)
        if inside.endswith(".py") and files.get_file_from_path(f"{inside[:-3]}.md"):
            return f"]({link['target'][:-3]}.md{anchor})"  # a notebook is a page
        if files.get_file_from_path(inside) or not (root / path).exists():
            return link[0]
        kind = "tree" if (root / path).is_dir() else "blob"
        return f"]({config.repo_url.rstrip('/')}/{kind}/main/{path}{anchor})"

    markdown = markdown.replace("<details>", '<details markdown="1">')
    parts, last = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(mended, markdown[last : code.start()]), code[0]]
        last = code.end()
    return "".join([*parts, LINK.sub(mended, markdown[last:])])
