"""Forms a pruned model can be saved in. Adding one is adding a file and importing it here."""

from pruning.checkpoint.forms.base import FORMS, GGUF_TYPES, Form, FormOptions
from pruning.checkpoint.forms import compact, uniform, padded, gguf  # noqa: F401  (they register)

__all__ = ["FORMS", "GGUF_TYPES", "Form", "FormOptions"]
