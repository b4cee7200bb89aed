"""LLM-Pruner before its fine-tuning."""

from pruning.presets.base import PRESETS

for _name, _title in (
    ("taylor_vector", "Vector"),
    ("taylor_element1", "Element¹"),
    ("taylor_element2", "Element²"),
):
    PRESETS.add(
        f"llm_pruner_{_name.removeprefix('taylor_')}",
        {"heads": {"score": _name}, "ffn": {"score": _name}, "recovery": {"method": "none"}},
        title=f"LLM-Pruner, {_title}",
        summary="Taylor expansion of the loss on ten windows, the same share everywhere, no "
        "recovery.",
        source="Ma et al., NeurIPS 2023",
    )
