"""A Sphinx extension: formulas as MathML, which every current browser draws itself. No script, no
fonts, no network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def to_mathml(latex: str, display: str = "inline") -> str:
    """A formula as a `<math>` element.

    Raises:
        ExtensionError: The converter left a macro behind (it would be shown as text); the message
            names it.
    """
    result = convert(latex, display=display)
    if "\\" in result:
        raise ExtensionError(
            f"formula {latex!r}: a macro is not known, rewrite it (\\operatorname{{argmax}} for "
            "\\arg\\max)"
        )
    return result


def _inline(self: Any, node: nodes.Element) -> None:
    self.body.append(to_mathml(node.astext()))
    raise nodes.SkipNode


def _block(self: Any, node: nodes.Element) -> None:
    self.body.append(f'<div class="formula">{to_mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer under the name `mathml`."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_inline, None), block_renderers=(_block, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
