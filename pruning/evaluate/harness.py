"""A model in memory as lm_eval wants it. Importing this needs lm_eval."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import lm_eval.api.task as task_module
from lm_eval.models.huggingface import HFLM
from torch import Tensor, nn

from pruning.adapters import adapter_for
from pruning.artifacts.events import CancelCheck
from pruning.models.execution.blockwise import batched_logits
from pruning.utils.errors import UsageError


class HarnessModel(HFLM):
    """Log-likelihoods of ``model``, wherever its blocks wait; ``on_answer`` is told of each answer
    as it comes: how many characters it has with its prompt. Raises Cancelled between two batches.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        batch_size: int,
        on_answer: Callable[[int], None],
        should_cancel: CancelCheck,
    ) -> None:
        self._should_cancel = should_cancel
        own = copy.deepcopy(tokenizer)  # lm_eval gives it a padding token
        nameless = own.bos_token_id is None and own.eos_token_id is None
        super().__init__(
            pretrained=model,
            tokenizer=own,
            backend="causal",
            batch_size=batch_size,
            max_length=adapter_for(model.config).max_positions(model.config),
            prefix_token_id=0 if nameless else None,
        )
        self.cache_hook = _Listener(on_answer)

    def _model_call(self, inps: Tensor, attn_mask: Any = None, labels: Any = None) -> Tensor:
        ((_, logits),) = batched_logits(self.model, inps, len(inps), self._should_cancel)
        return logits

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None
    ) -> Any:
        longest = max((len(answer) for _, _, answer in requests), default=0)
        if longest > self.max_length:
            raise UsageError(
                f"An answer has {longest} tokens, the model only {self.max_length} positions; "
                "leave this task out."
            )
        return super()._loglikelihood_tokens(requests, True, override_bs)

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return super().loglikelihood(requests, disable_tqdm=True)


class _Listener:
    """Stands where lm_eval would keep a cache of answers."""

    def __init__(self, on_answer: Callable[[int], None]) -> None:
        self._on_answer = on_answer

    def add_partial(self, _kind: str, request: tuple[str, str], _answer: Any) -> None:
        self._on_answer(sum(map(len, request)))


def keep_quiet() -> None:
    """No bars and advice of lm_eval on the terminal; errors still show."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    task_module.tqdm = lambda rows, **_: rows  # the one bar that no setting switches off
