"""Post-shift: better worst-class accuracy from a frozen classifier, by one coefficient a class. NumPy only.

A shifted classifier predicts argmax_y w_y·p_y(x); nothing is retrained, and any table of predictions will do.

Both methods over-fit the table they are fitted on, the more so the fewer examples a class has; exponentiated gradient
is the default because it does so less. Worst-class/balanced accuracy on *test* in percent (± standard error of the
worst class over n models), and in brackets by how many points the worst class is better on the fit table:

    fit table (examples a class)          n   unshifted        gradient                search
    10 Gaussian classes, 30:1 (20)       20   27.4 ± 3.5/72.8  57.8 ± 1.7/76.6 [9.7]   51.2 ± 2.2/76.9 [13.1]
    the same (100)                       20   27.4 ± 3.5/72.8  62.9 ± 1.7/76.5 [4.5]   59.4 ± 1.8/77.3 [6.7]
    the same (500)                       20   27.4 ± 3.5/72.8  66.1 ± 1.5/76.1 [1.2]   63.9 ± 1.7/77.1 [2.5]
    digits-lt, convnet-8, standard (40)   6   32.9 ± 5.9/83.0  72.5 ± 3.3/87.9 [6.9]   72.6 ± 2.7/88.8 [6.8]
    digits-lt, convnet-8, balanced (40)   6   64.9 ± 3.7/89.9  71.1 ± 4.6/88.1 [8.0]   65.1 ± 2.7/88.2 [15.6]
    digits-lt, convnet-8, robust (40)     6   69.4 ± 3.9/89.2  72.1 ± 4.7/88.6 [6.8]   71.5 ± 4.3/88.7 [8.9]

The robustly trained models gained 2.7 ± 2.0 points by gradient, seed by seed, which may be chance. On 50,000 rows of
1,000 classes in single precision one fit took 3 s by gradient and 39 s by search, and 0.8 GB beside the table (n = 1,
one core of an AMD EPYC). `benchmarks/post_shift.py` prints these numbers; results/post-shift/README.md has its output.
"""

from __future__ import annotations

from robustdistill.postshift.estimator import METHODS, Method, PostShift
from robustdistill.postshift.held_out import cross_fitted
from robustdistill.postshift.priors import Priors
from robustdistill.postshift.tau import fit_tau

__all__ = ["METHODS", "Method", "PostShift", "Priors", "cross_fitted", "fit_tau"]
