"""The report on a captioned dataset: HTML that needs no network and no server.

``survey`` and ``contents`` read the dataset, ``figures`` counts, ``page`` writes a page, and ``pages`` divides a large
dataset into several. The page with tracks is page.html, page.css, charts.js and page.js; the index of a large dataset
has index.html and index.js instead.
"""

from musicflamingo_cli.report.contents import Source
from musicflamingo_cli.report.pages import write_report

__all__ = ["Source", "write_report"]
