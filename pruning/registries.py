"""The kinds of things that can be added to Headroom, a registry each.

They are named here, below everything that registers or looks up, so that a recipe can check a name
without importing what stands behind it: the folder is looked into at the first look-up. What an
entry of each kind must be is said in ``base.py`` of its folder.
"""

from __future__ import annotations

from typing import Any

from pruning.utils.registry import Registry

FAMILIES: Registry[Any] = Registry("family", "pruning.adapters.families", group="headroom.families")
CRITERIA: Registry[Any] = Registry("criterion", "pruning.criteria", group="headroom.criteria")
ALLOCATIONS: Registry[Any] = Registry(
    "allocation", "pruning.planning.allocation", group="headroom.allocations"
)
RECOVERIES: Registry[Any] = Registry("recovery", "pruning.recovery", group="headroom.recoveries")
TUNINGS: Registry[Any] = Registry("tuning", "pruning.tuning", group="headroom.tunings")
HEAD_POLICIES: Registry[Any] = Registry(
    "head policy", "pruning.planning.head_policies", group="headroom.head_policies"
)
PRESETS: Registry[Any] = Registry(
    "preset",
    "pruning.presets",
    group="headroom.presets",
    suffix=".yaml",
    read="pruning.presets.base:read_preset",
)
CORPORA: Registry[Any] = Registry("corpus", "pruning.data.corpora", group="headroom.corpora")
EXPERIMENTS: Registry[Any] = Registry(
    "experiment",
    "pruning.experiments",
    group="headroom.experiments",
    suffix=".yaml",
    read="pruning.experiments.base:read_experiment",
)
EXECUTORS: Registry[Any] = Registry(
    "executor", "pruning.experiments.executors", group="headroom.executors"
)
FORMS: Registry[Any] = Registry("form", "pruning.checkpoint.forms", group="headroom.forms")

KINDS: dict[str, Registry[Any]] = {
    "families": FAMILIES,
    "criteria": CRITERIA,
    "allocations": ALLOCATIONS,
    "recoveries": RECOVERIES,
    "tunings": TUNINGS,
    "head_policies": HEAD_POLICIES,
    "presets": PRESETS,
    "corpora": CORPORA,
    "forms": FORMS,
    "experiments": EXPERIMENTS,
    "executors": EXECUTORS,
}
"""What ``headroom ls`` lists, by the plural of its kind."""
