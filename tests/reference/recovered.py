"""Recovery once more: a full-width copy whose removed units fall silent, fitted module by module.

Every fit runs the whole copy from the tokens on; nothing is carried forward, nothing is shared with
the engine.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from tests.reference import plain

ORDER = ("attention", "ffn")


def recovered(
    model, ids, removed, method, *, target="residual", damping=0.1, add_bias=False, in_proj=True
):
    """A copy of ``model`` with the ``removed`` channels {(block, kind): [...]} of out_proj inputs
    silent and the others repaired by ``method``: none, bias, refit, reconstruct or full."""
    small = copy.deepcopy(model)
    dense = plain.observed(model, ids)
    dense_streams = _streams(model, ids)
    for block in range(model.config.num_hidden_layers):
        for kind in ORDER:
            gone = removed.get((block, kind), [])
            if not gone:
                continue
            first, second = plain.layers_of(small, block)[kind]
            lost = dense_streams[block, kind] - _streams(small, ids)[block, kind]
            wanted = dense[block][kind].y + (lost if target == "residual" else 0.0)
            rule = {"damping": damping, "intercept": second.bias is not None or add_bias}
            if method in ("reconstruct", "full"):
                if in_proj:
                    _fit_first(small, first, dense[block][kind], ids, damping)
                _fit_second(small, second, block, kind, ids, wanted, None, rule)
            kept = [c for c in range(plain.matrix(second).shape[1]) if c not in set(gone)]
            if method in ("refit", "full"):
                _fit_second(small, second, block, kind, ids, wanted, kept, rule)
            elif method == "bias":
                x = plain.observed(small, ids)[block][kind].x
                mean = x.reshape(-1, x.shape[-1]).mean(0)[gone]
                extra = plain.numpy64(plain.matrix(second))[:, gone] @ mean
                _set(second, None, extra + _bias(second))
            matrix = plain.numpy64(plain.matrix(second))
            matrix[:, gone] = 0.0
            _set(second, matrix, _bias(second) if second.bias is not None else None)
    return small


def _bias(layer):
    return 0.0 if layer.bias is None else plain.numpy64(layer.bias)


def _set(layer, matrix, bias) -> None:
    if matrix is not None:
        data = torch.tensor(matrix, dtype=torch.float32)
        data = data.T.contiguous() if type(layer).__name__ == "Conv1D" else data
        layer.weight = torch.nn.Parameter(data, requires_grad=False)
    if bias is not None:
        bias = torch.tensor(bias, dtype=torch.float32)
        layer.bias = torch.nn.Parameter(bias, requires_grad=False)


def _streams(model, ids) -> dict:
    """The residual stream [n, s, d] that each module reads, before its norm."""
    seen, handles = {}, []
    blocks = model.model.layers if model.config.model_type == "llama" else model.transformer.h
    for block, layer in enumerate(blocks):

        def keep(_layer, args, kwargs, block=block):
            seen[block] = plain.numpy64(args[0] if args else kwargs["hidden_states"])

        handles.append(layer.register_forward_pre_hook(keep, with_kwargs=True))
    modules = plain.observed(model, ids)
    for handle in handles:
        handle.remove()
    found = {}
    for block, parts in enumerate(modules):
        found[block, "attention"] = seen[block]
        found[block, "ffn"] = seen[block] + parts["attention"].y
    return found


def _fit_first(model, first, dense, ids, damping) -> None:
    """The first layer's parts, on what they read now, to what the dense ones gave."""
    read = {}
    layers = {id(layer): layer for layer, _ in first.values()}
    handles = [
        layer.register_forward_pre_hook(lambda one, args: read.__setitem__(id(one), args[0]))
        for layer in layers.values()
    ]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    for key, layer in layers.items():
        names = [name for name, (one, _) in first.items() if one is layer]
        wanted = np.concatenate([dense.first[name] for name in names], axis=-1)
        present = np.concatenate([dense.rows[name] for name in names]).T
        if layer.bias is not None:
            wanted = wanted + plain.numpy64(layer.bias)
        free = layer.bias is not None
        weight, bias = plain.ridge(
            plain.numpy64(read[key]), wanted, present, damping, intercept=free
        )
        _set(layer, weight.T, bias if free else None)


def _fit_second(model, second, block, kind, ids, wanted, kept, rule) -> None:
    """The second layer's ``kept`` columns (None: all), on what they read now."""
    x = plain.observed(model, ids)[block][kind].x
    kept = list(range(x.shape[-1])) if kept is None else kept
    matrix = plain.numpy64(plain.matrix(second))
    weight, bias = plain.ridge(x[..., kept], wanted, matrix[:, kept].T, **rule)
    matrix[:, kept] = weight.T
    _set(second, matrix, bias if rule["intercept"] else None)
