"""Forms that a pruned model can be saved in; a file that is dropped here is found."""

from pruning.checkpoint.forms.base import FORMS, Form, FormOptions, check_handoff
from pruning.checkpoint.gguf.types import GGUF_TYPES

__all__ = ["FORMS", "GGUF_TYPES", "Form", "FormOptions", "check_handoff"]
