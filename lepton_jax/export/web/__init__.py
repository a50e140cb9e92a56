"""The phone model as a page for browsers: draw, classify, train and see what would be uploaded."""

from lepton_jax.export.web.page import Facts, write_page
from lepton_jax.export.web.run_page import check_run_page, write_run_page

__all__ = ["Facts", "check_run_page", "write_page", "write_run_page"]
