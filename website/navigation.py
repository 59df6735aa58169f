"""The navigation: an entry that ends in "/" stands for the pages of a folder, in the order of their names."""

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files


def named(entry: Any) -> set[str]:
    """The pages that a part of the navigation names."""
    if isinstance(entry, str):
        return {entry}
    return set().union(*map(named, entry.values() if isinstance(entry, dict) else entry))


def filled(entry: Any, pages: list[str]) -> list[Any]:
    """The entries that one entry stands for; none for a folder without pages."""
    if isinstance(entry, str):
        return [page for page in pages if page.startswith(entry)] if entry.endswith("/") else [entry]
    ((title, inner),) = entry.items()
    if isinstance(inner, str) and not inner.endswith("/"):
        return [entry]
    entries = [one for part in ([inner] if isinstance(inner, str) else inner) for one in filled(part, pages)]
    return [{title: entries}] if entries else []


def on_files(files: Files, config: MkDocsConfig) -> Files:
    known = named(config.nav)
    pages = [file.src_uri for file in files.documentation_pages() if file.src_uri not in known]
    pages.sort(key=lambda page: (not page.endswith("/index.md"), page))
    config.nav = [one for entry in config.nav for one in filled(entry, pages)]
    return files


on_files.mkdocs_priority = -50  # after notebooks have become pages
