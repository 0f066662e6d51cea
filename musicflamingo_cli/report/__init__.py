"""The report on a captioned dataset: one HTML page that needs no network and no server.

``contents`` reads the dataset, ``page`` writes the page from page.html, page.css and page.js.
"""

from musicflamingo_cli.report.contents import Report, gather
from musicflamingo_cli.report.page import MARKER, render, write_page

__all__ = ["MARKER", "Report", "gather", "render", "write_page"]
