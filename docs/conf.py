"""The documentation as a site: `make docs`. The repository is the source folder, so that README and notebooks are pages where they lie."""

import os
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

_project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
project, release = _project["name"], _project["version"]
author, copyright = "The mmclib maintainers", "the mmclib maintainers, MIT licence"

root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb"]
exclude_patterns = ["docs/_build", "**/.*", ".*", "results", "logs", "checkpoints", "data", "build", "figures", "released", "tests"]
extensions = ["myst_nb", "sphinx.ext.autodoc"]

nb_execution_mode = "off"  # notebooks are shown as they are committed; `make test` runs and compares them
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "misc.highlighting_failure"]  # a cell's text may begin at any level; pip and make lines are no Python

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 160
default_role = "literal"  # single backquotes in docstrings name arguments
toc_object_entries = False

html_theme = "furo"
html_title = f"mmclib {release}"
html_extra_path = ["_extra"]
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sourcelink = False
