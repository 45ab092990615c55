"""How Sphinx builds the documentation: `make docs`, then open build/docs/index.html.

Nothing is fetched: no inventories of other projects for the build, no scripts or fonts from elsewhere for the pages.
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
smartquotes = False  # two hyphens begin an option, they are no dash

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

default_role = "code"  # in docstrings, single backticks mean code, as in all other texts of the project
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
# Types that have no page here: those of other libraries, and parts of satpipe that are not for its users.
nitpick_ignore_regex = [
    ("py:class", r"(collections|datetime|numpy|pandas|pathlib|pyarrow|torch)\..*"),
    ("py:class", r"(pipeline\.(decode|find|run|scores)|jobs\.synth\.sources)\..*"),
    ("py:class", r"sat\.live\.Key"),  # a type variable
]

# The tutorial runs in a folder of its own, with a link to the examples in it, as if it were that of the project.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 240  # seconds for a cell; tagging starts Ray
os.environ["SATPIPE_PROJECT"] = str(HERE.parent.parent)
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where `satpipe` is
