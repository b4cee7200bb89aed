"""A model whose blocks have different widths, as pruned by Headroom.

Needs torch and transformers only. It builds the architecture that it was made from and gives the
layers the shapes that ``config.json`` records under ``headroom``; nothing else is changed.
"""

import torch
from torch import nn
from transformers import LlamaForCausalLM as Architecture


def reshape(model, layers, attributes, heads=None, configs=None, absent=()):
    """Give the modules of ``model`` their recorded shapes and plain attributes, in place.

    ``layers``: {module path: {parameter: shape, or None where there is none}}; ``attributes``:
    {module path: {name: value}}; ``heads``: {attention path: the original number of each head
    that is left}, for position biases that are made for all heads at once; ``configs``:
    {module path: settings that differ for this module}; ``absent``: paths of modules that are
    taken out. New parameters are zeros. Raises ValueError when the record does
    not fit the model.
    """
    for path in reversed(absent):
        parent, _, name = path.rpartition(".")
        if name not in _module(model, parent)._modules:
            raise ValueError(f"the model has no module {path!r}")
        del _module(model, parent)._modules[name]
    for path, numbers in (heads or {}).items():
        # on the CPU: values that are not computed by a model's own class must survive "meta"
        kept = torch.tensor(numbers, dtype=torch.long, device="cpu")
        _module(model, path).register_buffer("kept_heads", kept)
        _module(model, path).register_forward_pre_hook(_pick_heads, with_kwargs=True)
    for path, values in (configs or {}).items():
        module = _module(model, path)
        module.config = _OwnConfig(module.config, values)
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


class _OwnConfig:
    """The model's config as one module sees it: some values of its own, all else shared."""

    def __init__(self, config, values):
        self._shared = config
        vars(self).update(values)

    def __getattr__(self, name):
        # copying looks for these before there is a config to ask
        if name == "_shared" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._shared, name)


def _pick_heads(attention, args, kwargs):
    """Of biases [n, heads, ...] or [n·heads, 1, s] and masks that contain them, those left."""
    kept, samples = attention.kept_heads, len(args[0] if args else kwargs["hidden_states"])
    picked = {}
    for name in ("alibi", "attention_mask"):
        value = kwargs.get(name)
        if value is None:
            continue
        if value.dim() == 4 and value.shape[1] > 1:
            picked[name] = value[:, kept]
        elif value.dim() == 3:
            picked[name] = value.unflatten(0, (samples, -1))[:, kept].flatten(0, 1)
    return args, {**kwargs, **picked}


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
            parts = ("layers", "attributes", "heads", "configs", "absent")
            reshape(self, *(record[part] for part in parts))
