"""Pages made from what run folders hold; nothing is computed anew."""

from limbeck.report.page import write_page

__all__ = ["write_page"]
