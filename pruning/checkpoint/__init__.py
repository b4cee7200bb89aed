"""Pruned models on disk, in every form, with recipe, report and card."""

from pruning.checkpoint.forms import FORMS, FormOptions
from pruning.checkpoint.records import Evaluation
from pruning.checkpoint.save import export, save

__all__ = ["FORMS", "Evaluation", "FormOptions", "export", "save"]
