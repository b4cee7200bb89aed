"""The mathematics once more, small and slow, on plain ``transformers`` models.

Shares no code with the engine: weights are cut by hand out of Llama and GPT-2, activations come
from hooks of one whole forward pass, everything is float64 and loops where loops are clearer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass
class Module:
    """One depth-2 module. ``rows``: name -> weight [out, in] of the first layer's parts;
    ``columns`` [d, in] and ``bias`` [d] of the second layer. ``units`` of ``width`` channels share
    ``groups`` key/value heads. ``x`` [n, s, in]: what the second layer reads, ``y`` [n, s, d] what
    it gives, ``first`` name -> [n, s, out] what the first gives, without biases."""

    kind: str
    rows: dict[str, np.ndarray]
    columns: np.ndarray
    bias: np.ndarray | None
    units: int
    width: int
    groups: int
    x: np.ndarray
    y: np.ndarray
    first: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray] = field(default_factory=dict)

    def per_unit(self, channels: np.ndarray) -> np.ndarray:
        """Sums [units] over the channels of each unit."""
        return np.array([channels[self.own(unit)].sum() for unit in range(self.units)])

    def own(self, unit: int) -> list[int]:
        return [unit * self.width + place for place in range(self.width)]

    def owned_rows(self, unit: int):
        """``(name, rows, share)`` of the first layer: a key or value head belongs to all query
        heads of its group alike."""
        for name in self.rows:
            if name in ("key", "value") and self.groups:
                per_group = self.units // self.groups
                group = unit // per_group
                rows = [group * self.width + place for place in range(self.width)]
                yield name, rows, 1.0 / per_group
            else:
                yield name, self.own(unit), 1.0


def numpy64(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def layers_of(model, block: int):
    """``{kind: ({part: (layer, rows)}, second layer)}`` of a Llama or GPT-2 block; ``rows`` None:
    all of them."""
    if model.config.model_type == "llama":
        layer = model.model.layers[block]
        attention, mlp = layer.self_attn, layer.mlp
        first = {"query": attention.q_proj, "key": attention.k_proj, "value": attention.v_proj}
        ffn = {"up": mlp.up_proj, "gate": mlp.gate_proj}
        return {
            "attention": ({k: (v, None) for k, v in first.items()}, attention.o_proj),
            "ffn": ({k: (v, None) for k, v in ffn.items()}, mlp.down_proj),
        }
    layer, d = model.transformer.h[block], model.config.n_embd
    fused = {
        name: (layer.attn.c_attn, slice(place * d, (place + 1) * d))
        for place, name in enumerate(("query", "key", "value"))
    }
    return {
        "attention": (fused, layer.attn.c_proj),
        "ffn": ({"up": (layer.mlp.c_fc, None)}, layer.mlp.c_proj),
    }


def matrix(layer) -> torch.Tensor:
    """[out, in], whatever the class of the layer."""
    return layer.weight.T if type(layer).__name__ == "Conv1D" else layer.weight


def heads_of(config) -> tuple[int, int, int]:
    """Query heads, key/value heads, channels of one."""
    if config.model_type == "llama":
        return config.num_attention_heads, config.num_key_value_heads, config.head_dim
    return config.n_head, config.n_head, config.n_embd // config.n_head


def observed(model, ids: torch.Tensor) -> list[dict[str, Module]]:
    """Both modules of every block, with what they read and gave for ``ids`` [n, s]."""
    blocks = range(model.config.num_hidden_layers)
    seen: dict[int, tuple] = {}
    handles = []
    for block in blocks:
        for first, second in layers_of(model, block).values():
            for layer in {id(layer): layer for layer, _ in (*first.values(), (second, 0))}.values():
                handles.append(
                    layer.register_forward_hook(
                        lambda one, args, output: seen.__setitem__(id(one), (args[0], output))
                    )
                )
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    return [
        {kind: _module(model, kind, *parts, seen) for kind, parts in layers_of(model, b).items()}
        for b in blocks
    ]


def _module(model, kind, first, second, seen) -> Module:
    heads, groups, width = heads_of(model.config)
    rows, given = {}, {}
    for name, (layer, part) in first.items():
        chosen = part or slice(None)
        rows[name] = numpy64(matrix(layer))[chosen]
        output = numpy64(seen[id(layer)][1])[..., chosen]
        given[name] = output if layer.bias is None else output - numpy64(layer.bias)[chosen]
    columns = numpy64(matrix(second))
    return Module(
        kind=kind,
        rows=rows,
        columns=columns,
        bias=None if second.bias is None else numpy64(second.bias),
        units=heads if kind == "attention" else columns.shape[1],
        width=width if kind == "attention" else 1,
        groups=groups if kind == "attention" else 0,
        x=numpy64(seen[id(second)][0]),
        y=numpy64(seen[id(second)][1]),
        first=given,
    )


def divergences(model, ids: torch.Tensor) -> list[np.ndarray]:
    """Mean Jensen-Shannon divergence (nats) between the attention patterns of every two heads
    [heads, heads], block by block."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(ids, output_attentions=True).attentions
    found = []
    for one in maps:
        p = numpy64(one)
        heads = p.shape[1]
        table = np.zeros((heads, heads))
        for i in range(heads):
            for j in range(heads):
                middle = 0.5 * (p[:, i] + p[:, j])
                table[i, j] = 0.5 * np.mean(_kl(p[:, i], middle) + _kl(p[:, j], middle))
        found.append(table)
    return found


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0.0, p * np.log(p / q), 0.0)
    return terms.sum(-1)


def perplexity(model, windows: torch.Tensor) -> float:
    """``exp`` of the mean negative log-likelihood of tokens 2 to s of each window [n, s]."""
    total = 0.0
    for window in windows:
        with torch.no_grad():
            logits = numpy64(model(window[None]).logits[0])
        for place in range(len(window) - 1):
            row = logits[place]
            total += np.log(np.exp(row - row.max()).sum()) + row.max() - row[window[place + 1]]
    return float(np.exp(total / (len(windows) * (windows.shape[1] - 1))))


def scores(module: Module) -> dict[str, np.ndarray]:
    """Every criterion of the forward pass, per unit."""
    x = module.x.reshape(-1, module.x.shape[-1])
    square, size = (module.columns**2).sum(0), np.abs(module.columns).sum(0)
    energy = (x**2).mean(0)
    exact = 0.5 * square * energy
    paper = exact
    if module.kind == "ffn":
        branches = [
            0.5 * square * (given.reshape(len(x), -1) ** 2).mean(0)
            for given in module.first.values()
        ]
        paper = np.prod(branches, axis=0)
    flap = x.var(0, ddof=1) * square
    found = {
        "second_moment_exact": module.per_unit(exact),
        "second_moment": module.per_unit(paper),
        "wanda_sp": module.per_unit(size * np.sqrt(energy)),
        "flap": module.per_unit(flap**2 if module.kind == "attention" else flap),
        "l1": np.zeros(module.units),
        "l2": np.zeros(module.units),
    }
    for unit in range(module.units):
        own = module.columns[:, module.own(unit)]
        found["l1"][unit] = np.abs(own).sum()
        found["l2"][unit] = (own**2).sum()
        for name, rows, share in module.owned_rows(unit):
            found["l1"][unit] += share * np.abs(module.rows[name][rows]).sum()
            found["l2"][unit] += share * (module.rows[name][rows] ** 2).sum()
    return found


def gradient_scores(model, ids: torch.Tensor) -> list[dict[str, dict[str, np.ndarray]]]:
    """Taylor and Fisher scores by torch's own backward pass: block, kind, criterion -> [units]."""
    n, s = ids.shape
    blocks = range(model.config.num_hidden_layers)
    parts = [layers_of(model, block) for block in blocks]
    layers = {
        id(layer): layer
        for block in parts
        for first, second in block.values()
        for layer in (*(layer for layer, _ in first.values()), second)
    }
    of_window: dict[int, list[np.ndarray]] = {key: [] for key in layers}
    effects: dict[int, list[np.ndarray]] = {key: [] for key in layers}
    for layer in layers.values():
        layer.weight.requires_grad_(True)
    for window in ids:
        read: dict[int, torch.Tensor] = {}

        def keep(layer, args, read=read):
            args[0].requires_grad_(True)
            args[0].retain_grad()
            read[id(layer)] = args[0]

        handles = [layer.register_forward_pre_hook(keep) for layer in layers.values()]
        logits = model(window[None]).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").backward()
        for key, layer in layers.items():
            gradient = layer.weight.grad
            of_window[key].append(
                numpy64(gradient.T if type(layer).__name__ == "Conv1D" else gradient)
            )
            effects[key].append(numpy64(read[key] * read[key].grad)[0])
            layer.weight.grad = None
        for handle in handles:
            handle.remove()
    for layer in layers.values():
        layer.weight.requires_grad_(False)
    modules = observed(model, ids)
    found = []
    for block in blocks:
        found.append({})
        for kind, (first, second) in parts[block].items():
            module = modules[block][kind]
            grads = {}
            for name, (layer, part) in first.items():
                grads[name] = np.stack(of_window[id(layer)])[:, part or slice(None)]
            columns = np.stack(of_window[id(second)])
            tokens = np.concatenate(effects[id(second)])
            found[-1][kind] = _by_gradients(module, grads, columns, tokens, n, s)
    return found


def _by_gradients(module, grads, columns, tokens, n, s) -> dict[str, np.ndarray]:
    """``grads``, ``columns``: gradients of each window's summed loss [n, out, in]; ``tokens``
    [n·s, in]: what each input of the second layer contributes to first order."""
    names = ("taylor_vector", "taylor_element1", "taylor_element2", "fisher")
    found = {name: np.zeros(module.units) for name in names}

    def add(unit, share, weight, gradient, axis):
        first = weight * gradient.sum(0) / (n * (s - 1))
        second = weight**2 * ((gradient / (s - 1)) ** 2).mean(0)
        found["taylor_vector"][unit] += share * np.abs(first.sum(axis)).sum()
        found["taylor_element1"][unit] += share * np.abs(first).sum()
        found["taylor_element2"][unit] += share * second.sum()

    for unit in range(module.units):
        own = module.own(unit)
        add(unit, 1.0, module.columns[:, own], columns[:, :, own], axis=0)
        for name, rows, share in module.owned_rows(unit):
            add(unit, share, module.rows[name][rows], grads[name][:, rows], axis=1)
        found["fisher"][unit] = (tokens[:, own].sum(1) ** 2).sum() / (n * (s - 1))
    return found


def ridge(x, target, present, damping, bias=None, intercept=False):
    """``argmin ‖X W + b − T‖² + λ‖W − W_present‖²``, ``λ = damping · mean(diag(XᵀX))`` of the
    centred inputs where b is free: rows of √λ are appended and numpy's least squares asked."""
    x, target = x.reshape(-1, x.shape[-1]), target.reshape(-1, target.shape[-1])
    middle_x = x.mean(0) if intercept else 0.0
    middle_t = target.mean(0) if intercept else (0.0 if bias is None else bias)
    inputs, wanted = x - middle_x, target - middle_t
    root = np.sqrt(damping * (inputs**2).sum() / inputs.shape[1])
    stacked = np.vstack([inputs, root * np.eye(inputs.shape[1])])
    weight = np.linalg.lstsq(stacked, np.vstack([wanted, root * present]), rcond=None)[0]
    return weight, (target - x @ weight).mean(0) if intercept else bias


def parameters(model) -> int:
    """Numbers in the model, each once."""
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


def matrix_flops(model, context: int) -> int:
    """Two per multiply-add, for one token: every two-dimensional weight that is multiplied with the
    hidden state, and attention over ``context`` positions."""
    flops = 2 * model.get_output_embeddings().weight.numel()
    for block in range(model.config.num_hidden_layers):
        parts = layers_of(model, block)
        layers = {
            id(layer): layer
            for first, second in parts.values()
            for layer in (*(layer for layer, _ in first.values()), second)
        }
        flops += sum(2 * layer.weight.numel() for layer in layers.values())
        flops += 2 * 2 * matrix(parts["attention"][1]).shape[1] * context
    return flops
