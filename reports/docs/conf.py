"""Sphinx configuration. Run `make docs`, then open build/docs/index.html.

Neither the build nor the pages use the network: no inventories of other projects, no external scripts or fonts.
"""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the extension satpipe_docs

project = "satpipe"
version = release = version_of("satpipe")
extensions = ["myst_nb", "satpipe_docs", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]

html_theme = "furo"
html_title = f"satpipe {release}"
html_static_path, html_css_files = ["_static"], ["frames.css"]
html_show_copyright = html_show_sourcelink = html_copy_source = False
smartquotes = False  # two hyphens begin an option and must not become a dash

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

default_role = "code"  # single backticks in docstrings mean code
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
# Types without a page here: those of other libraries, and internal ones of satpipe.
nitpick_ignore_regex = [
    ("py:class", r"(collections|datetime|numpy|pandas|pathlib|pyarrow|torch)\..*"),
    (
        "py:class",
        r"satpipe\.pipeline\..*|satpipe\.jobs\.(options|ground_truth\.vocabulary|own_classes\.figures|synth\.inputs|tag\.plan|tag\.status)\..*",
    ),
    ("py:class", r"satpipe\.sat\.own_classes\..*"),
    ("py:class", r"satpipe\.sat\.model\.concurrent_streams\.Key"),  # a type variable
    ("py:class", r"FieldInfo|NoneType|Ge|Gt|Le|Lt"),  # of fields that pydantic checks
]

# The tutorial runs in a temporary folder, with a link to the examples.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 240  # seconds per cell; tagging starts Ray
os.environ["SATPIPE_PROJECT"] = str(HERE.parent.parent)
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # finds `satpipe`
