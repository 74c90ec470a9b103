"""Post-shift: better worst-class accuracy from a frozen classifier, by one coefficient a class. NumPy only.

A shifted classifier predicts argmax_y w_y·p_y(x); nothing is retrained, and any table of predictions will do.
"""

from __future__ import annotations

from robustdistill.postshift.estimator import METHODS, Method, PostShift
from robustdistill.postshift.priors import Priors
from robustdistill.postshift.tau import fit_tau

__all__ = ["METHODS", "Method", "PostShift", "Priors", "fit_tau"]
