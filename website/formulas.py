r"""Formulas: LaTeX between dollars becomes MathML when the site is built, which browsers show without a script."""

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    def as_mathml(found: re.Match[str]) -> str:
        display = "inline" if found["tag"] == "span" else "block"
        return convert(html.unescape(found["latex"]).strip(), display=display)

    return FORMULA.sub(as_mathml, content)
