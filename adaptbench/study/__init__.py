"""Studies: many policies on the same logged nets, compared at equal realised cost, beside published figures."""

from adaptbench.results.studies import StudyRun
from adaptbench.study.runner import run_study
from adaptbench.study.spec import LoadedStudy, load_study

__all__ = ["LoadedStudy", "StudyRun", "load_study", "run_study"]
