"""The theory as code: exact problems, optimal scorers, bounds term by term, and what makes a good teacher.

>>> import robustdistill as rd
>>> problem = rd.theory.gaussian_mixture([-1.0, 0.0, 1.5], priors=[0.7, 0.2, 0.1])
>>> best = rd.theory.optimal_scorer(problem, "robust")
>>> best.gap < 1e-9, best.class_risks.round(3)
(True, array([0.764, 0.764, 0.764]))
"""

from __future__ import annotations

from robustdistill.theory.algorithms import TabularRun, lemma5, tabular_run
from robustdistill.theory.bounds import (
    RobustBound,
    Theorem2,
    approximation_errors,
    best_tau,
    lemma7,
    theorem2,
    theorem4,
    theorem8,
)
from robustdistill.theory.fitness import Estimates, Fitness, teacher_fitness
from robustdistill.theory.optimal import Optimum, optimal_scorer
from robustdistill.theory.plans import Plan, plan
from robustdistill.theory.problems import FiniteProblem, gaussian_mixture, random_table
from robustdistill.theory.variances import LossVariances, empirical_loss_variances, loss_variances

__all__ = [
    "Estimates",
    "FiniteProblem",
    "Fitness",
    "LossVariances",
    "Optimum",
    "Plan",
    "RobustBound",
    "TabularRun",
    "Theorem2",
    "approximation_errors",
    "best_tau",
    "empirical_loss_variances",
    "gaussian_mixture",
    "lemma5",
    "lemma7",
    "loss_variances",
    "optimal_scorer",
    "plan",
    "random_table",
    "tabular_run",
    "teacher_fitness",
    "theorem2",
    "theorem4",
    "theorem8",
]
