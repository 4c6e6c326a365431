"""What a person looks at: the page of one scan with its viewer, the page of a cohort, and figures.

Pages are single HTML files that need no network; `anomri.report.case.write`, `anomri.report.cohort.write`, and
`anomri.report.figures`.
"""

from anomri.report import case, cohort, figures

__all__ = ["case", "cohort", "figures"]
