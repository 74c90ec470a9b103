"""Tables, figures and a page from the journal of finished runs. Nothing here needs torch.

>>> from robustdistill import report
>>> report.write("runs", "out")  # doctest: +SKIP
PosixPath('out/index.html')
"""

from __future__ import annotations

from robustdistill.report.page import write as write
