"""Sphinx: Markdown pages by myst, docstrings by autodoc and napoleon."""

from importlib.metadata import version as _version

project = "Strombus"
copyright = "the Strombus authors"
version = release = _version("strombus")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Strombus {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say it in words
napoleon_google_docstring = False
napoleon_use_param = False  # types are prose ("array, shape (examples, ...)"): no words of them are cross-references
napoleon_use_rtype = False
