"""Pages as HTML: one file with everything in it, and nothing that a reader's folder could smuggle in."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lepton_jax.report.blocks import Bar, Page

_TEMPLATES = Path(__file__).parent / "templates"


def render(page: Page) -> str:
    """A page as a self-contained HTML document.

    Names and labels come from users' folders: all text is escaped, and the document's own content
    policy allows neither scripts nor anything from the network.

    Args:
      page: its headline and sections. Only `Plot.svg`, which the library drew, is taken as markup.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["bar"] = lambda cell: isinstance(cell, Bar)
    style = Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html.j2").render(page=page, style=style)
