"""A model whose blocks have different widths, as pruned by Headroom.

Needs torch and transformers only. It builds the architecture that it was made from and gives the
layers the shapes that ``config.json`` records under ``headroom``; nothing else is changed.
"""

from torch import nn
from transformers import LlamaForCausalLM as Architecture


def reshape(model, layers, attributes):
    """Give the modules of ``model`` their recorded shapes and plain attributes, in place.

    ``layers``: {module path: {parameter: shape, or None where there is none}}; ``attributes``:
    {module path: {name: value}}. New parameters are zeros. Raises ValueError when the record
    does not fit the model.
    """
    for path, shapes in layers.items():
        module = _module(model, path)
        like = next(module.parameters(recurse=False))
        for name, shape in shapes.items():
            if name not in module._parameters:
                raise ValueError(f"{path} has no parameter {name!r}")
            new = None
            if shape is not None:
                if not shape or not all(type(size) is int and size > 0 for size in shape):
                    raise ValueError(f"{path}.{name} has the shape {shape!r}")
                new = nn.Parameter(like.new_zeros(shape), requires_grad=False)
            setattr(module, name, new)
    for path, values in attributes.items():
        module = _module(model, path)
        for name, value in values.items():
            known = getattr(module, name, 0)
            plain = all(isinstance(v, (int, float, list, tuple)) for v in (known, value))
            if name.startswith("_") or not plain:
                raise ValueError(f"{path} has no attribute {name!r} to set")
            setattr(module, name, tuple(value) if isinstance(known, tuple) else value)


def _module(model, path):
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ValueError(f"the model has no module {path!r}") from None


class HeadroomForCausalLM(Architecture):
    """The architecture with the widths of ``config.headroom``; without them, as it is."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        record = getattr(config, "headroom", None)
        if record:
            reshape(self, record["layers"], record["attributes"])
