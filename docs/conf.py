"""Configuration of the site: `make site` lays its pages out in build/site-work/ and makes build/site/ of them. Nothing is executed, nothing is fetched."""

import pathlib
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))  # for pages/, beside this file
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]

project = "MiniCLIP"
author = "The MiniCLIP authors"
version = release = PROJECT["version"]
copyright = "the MiniCLIP authors; prose and figures CC BY 4.0, code MIT"
language = "en"

# pages.layout comes first: it writes the pages that the others read
extensions = ["pages.layout", "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode", "pages.notebooks", "pages.formulas", "pages.docstrings"]
exclude_patterns = ["extra"]

nb_execution_mode = "off"  # what is committed is what is shown
nb_merge_streams = True
nb_code_prompt_show = nb_code_prompt_hide = "On Colab alone: install the package"  # the one kind of cell that is folded away
nb_ipywidgets_js = {}  # by default two addresses outside; the still pictures need none
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4  # as on GitHub, so that README.md#for-instructors leads somewhere here, too
myst_linkify_fuzzy_links = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True  # CHUNK instead of 512 where the source says so
autosummary_generate = False
viewcode_follow_imported_members = True
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries = False

html_theme = "furo"
html_math_renderer = "mathml"
html_title = "MiniCLIP"
html_static_path = [str(HERE / "pages" / "static")]
html_css_files = ["site.css"]
html_domain_indices = False  # package.html says more
html_copy_source = False  # each notebook links to itself
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"accent": "#0072b2", **dict.fromkeys(("color-brand-primary", "color-brand-content", "color-link", "color-link--visited"), "#0067a3")},
    "dark_css_variables": {"accent": "#56b4e9", **dict.fromkeys(("color-brand-primary", "color-brand-content", "color-link", "color-link--visited"), "#7cc4f0")},
    "top_of_page_buttons": [],
}
# A page from the disk may not read its neighbours, which the search wants to quote: there it lists titles alone.
html_js_files = [(None, {"body": 'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false'})]
pygments_style, pygments_dark_style = "friendly", "github-dark"
