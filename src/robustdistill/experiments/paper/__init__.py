"""The tables and figures of the paper: what each needs trained, and our numbers beside the printed ones.

The paper is "Robust Distillation for Worst-class Performance". `paper_tables.csv` holds every number of its Tables 1-8,
a row for each printed cell, in percent and with the digits as printed; an empty error is one that is not printed.

A layout (`layouts`) says which rows and columns one data set has in a table, a scale (`scales`) which models, recipes
and temperatures fill it, a plan (`plan`) which runs that takes. Nothing here trains or imports torch: runs are done by
`experiments.execute`, and `results` reads what they left.
"""
