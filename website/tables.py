"""Tables of figures: a cell with a few words stays on one line, one with many is wide enough to be read."""

import re

CELL = re.compile(r"<td>(?P<text>.*?)</td>", re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    def sized(cell: re.Match[str]) -> str:
        length = len(re.sub(r"<[^>]*>", "", cell["text"]))
        return f'<td class="{"short" if length <= 24 else "long"}">{cell["text"]}</td>' if length else cell[0]

    return CELL.sub(sized, content)
