"""Forms a pruned model can be saved in. Adding one is adding a file and importing it here."""

from pruning.checkpoint.forms.base import FORMS, Form, FormOptions
from pruning.checkpoint.forms import compact  # noqa: F401  (they register)

__all__ = ["FORMS", "Form", "FormOptions"]
