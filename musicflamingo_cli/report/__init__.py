"""`report`: one page about a captioned dataset, which needs no network and no server.

``contents`` reads, ``page`` writes; page.html, page.css and page.js beside them are what a browser gets.
"""

from musicflamingo_cli.report.contents import Report, gather
from musicflamingo_cli.report.page import MARKER, render, write_page

__all__ = ["MARKER", "Report", "gather", "render", "write_page"]
