"""A public name that stands in code, such as `bsojax.t_bso`, links to its place in the reference."""

import re

KEPT = re.compile(r"<(?P<tag>h[1-6]|a|pre|autoref)\b.*?</(?P=tag)>|<code>(?P<name>bsojax(?:\.\w+)+)</code>", re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    def linked(found: re.Match[str]) -> str:
        return f'<autoref identifier="{found["name"]}" optional>{found[0]}</autoref>' if found["name"] else found[0]

    return KEPT.sub(linked, content)
