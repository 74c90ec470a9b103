"""Tables, figures, a ledger of claims and a page from the journal of finished runs. Nothing here needs torch.

>>> from robustdistill import report
>>> report.write("runs", "out")  # doctest: +SKIP
PosixPath('out/index.html')

A section of one's own joins the page by `report.write(..., extra_sections=[report.ExtraSection(title, html, anchor)])`.
"""

from __future__ import annotations

from robustdistill.report.page import ExtraSection as ExtraSection
from robustdistill.report.page import write as write
