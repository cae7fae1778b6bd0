"""The site: `python -m sphinx docs build/site`, without a network; its pages ask for none either.

Pages may include what stands elsewhere in the repository, with its links. So a link leads to a page
where its file is one, or is shown on one; what leads nowhere is a warning, as is a name of the
package that the reference has not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import math_core
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

import fusedrnn

project = "fusedrnn"
author = copyright = "The fusedrnn developers"
version = release = fusedrnn.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]

# Pages are Markdown as GitHub shows it: $...$ and blocks of math, links to headings.
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4

# Docstrings have types and shapes in their sections; `...` is a name, a link where there is one.
default_role = "py:obj"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_param = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"fusedrnn {version}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False

# Of docstrings, what is written as a name of this package is one.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!fusedrnn\.).*")]

OPTIONAL = {"lessons", "nn", "command_line"}  # pages that come with their parts of the package
ALIASES = {"fr": "fusedrnn", "ft": "fusedrnn.torch", "fj": "fusedrnn.jax"}

log = logging.getLogger(__name__)
to_mathml = math_core.LatexToMathML(fancy_error=False)


# Formulas as MathML, which browsers set themselves: no script, and none from elsewhere.


def visit_math(self: Any, node: nodes.math | nodes.math_block) -> None:
    block = isinstance(node, nodes.math_block)
    try:
        formula = to_mathml.convert_with_local_state(node.astext(), displaystyle=block)
    except math_core.LatexError as error:
        log.warning("no formula: %s", error, location=node)
        raise nodes.SkipNode from error
    self.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise nodes.SkipNode


class RepositoryLinks(SphinxPostTransform):
    """Links to files of the repository lead to the pages that are made of them, or show them."""

    default_priority = 8  # before MyST's resolver, which only knows pages

    def run(self, **_: Any) -> None:
        shown = self._shown()
        for node in list(self.document.findall(addnodes.pending_xref)):
            self._lead(node, shown)
        for node in list(self.document.findall(addnodes.download_reference)):
            self._lead(node, shown)

    def _lead(self, node: nodes.Element, shown: dict[Path, str]) -> None:
        if node.get("reftype") != "myst":
            return
        target, _, anchor = node["reftarget"].partition("#")
        anchor = anchor or node.get("reftargetid")
        for folder in self._folders():
            file = (folder / target).resolve()
            page = shown.get(file) or shown.get(file.with_name(file.name + ".md"))
            if page is not None:
                link = addnodes.pending_xref(
                    "", *node.children, refdomain="doc", reftarget=page, reftargetid=anchor,
                    reftype="myst", refdoc=self.env.docname, refexplicit=True,
                )  # fmt: skip
                node.replace_self(link)
                return

    def _folders(self) -> list[Path]:
        """Return where this page is, and where the pages are that it includes."""
        here = Path(self.env.doc2path(self.env.docname)).parent
        return [here, *sorted({file.parent for file in self._included(self.env.docname)})]

    def _included(self, page: str) -> Iterator[Path]:
        source = Path(self.env.srcdir)
        return ((source / file).resolve() for file in self.env.dependencies.get(page, ()))

    def _shown(self) -> dict[Path, str]:
        """Return on which page a file is: that of its name, or of its folder's, or the first."""
        shown: dict[Path, str] = {}
        for page in sorted(self.env.found_docs):
            for file in self._included(page):
                names = {file.stem.lower(), file.parent.name}
                if file not in shown or Path(page).name in names:
                    shown[file] = page
        pages = {Path(self.env.doc2path(page)).resolve(): page for page in self.env.found_docs}
        return shown | pages


class LinkedNames(SphinxPostTransform):
    """`fr.LSTM(...)` in a text leads to the reference; a name that is not there is a warning."""

    default_priority = 20

    def run(self, **_: Any) -> None:
        known = self.env.domains.python_domain.objects
        for node in list(self.document.findall(nodes.literal)):
            match = re.match(r"(fr|ft|fj|fusedrnn)((?:\.\w+)+)(?![\w/.])", node.astext())
            if match is None or isinstance(node.parent, nodes.reference):
                continue
            name = ALIASES.get(match[1], match[1]) + match[2]
            if name in known:
                page, anchor = known[name].docname, known[name].node_id
                uri = self.app.builder.get_relative_uri(self.env.docname, page) + f"#{anchor}"
                link = nodes.reference("", "", node.deepcopy(), internal=True, refuri=uri)
                node.replace_self(link)
            elif match[1] in ALIASES:
                log.warning("the reference has no %s", name, location=node)


def check_names(_: Sphinx, env: BuildEnvironment) -> None:
    """Every public name has its place in the reference."""
    known = env.domains.python_domain.objects
    parts = [getattr(fusedrnn, name) for name in dir(fusedrnn)]
    for module in (fusedrnn, *(part for part in parts if isinstance(part, ModuleType))):
        for name in getattr(module, "__all__", ()):
            if f"{module.__name__}.{name}" not in known:
                log.warning("the reference has no %s.%s", module.__name__, name)


def leave_out(app: Sphinx, page: str, source: list[str]) -> None:
    """Drop optional pages that are not there from the list of all."""
    if page == app.config.root_doc:
        missing = OPTIONAL - app.env.found_docs
        lines = source[0].splitlines(keepends=True)
        source[0] = "".join(line for line in lines if line.strip() not in missing)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.add_post_transform(RepositoryLinks)
    app.add_post_transform(LinkedNames)
    app.connect("source-read", leave_out)
    app.connect("env-check-consistency", check_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
