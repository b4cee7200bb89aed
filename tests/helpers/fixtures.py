"""Fixtures of the engine's tests: a cache of their own, one thread, no network."""

from __future__ import annotations

import gc
import shlex
from itertools import chain

import pytest
import torch

from pruning.cli.main import main
from tests.helpers import families


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Measurements of tiny models never reach the user's cache, nor one module the next."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HEADROOM_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny tensors: a second thread only waits
    yield
    torch.set_num_threads(threads)
    patch.undo()


@pytest.fixture
def only_new_objects():
    """The collector, and ``gc.get_objects``, pass over what was made before the test: going
    through every object of a long session is what made such tests slow."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def run(capsys):
    """``run("prune MODEL --keep 0.8", ...)`` runs the command line in this process: its exit status
    and what it wrote to stdout and stderr. Text is split as a shell does it."""

    def call(*arguments):
        words = (shlex.split(a) if isinstance(a, str) else [str(a)] for a in arguments)
        capsys.readouterr()
        try:
            status = main(list(chain.from_iterable(words)))
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def tiny_model():
    """``tiny_model(family, seed=0, dtype=...)``: each model is built once per session."""
    made = {}

    def get(family: str, seed: int = 0, dtype: torch.dtype = torch.float32):
        key = family, seed, dtype
        if key not in made:
            made[key] = families.loaded(family, seed, dtype)
        return made[key]

    return get


@pytest.fixture(scope="session")
def tokenizer():
    """A word-level tokenizer of 200 words, trained on the sample text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=200, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False
    )
    words.train([str(families.SAMPLE)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory):
    """A small Llama and its tokenizer as any model on the hub is stored; read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    model = families.llama_grouped(vocab_size=200)
    families.randomise(model, 3)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def uneven_run(tiny_model, tmp_path_factory):
    """A run with other widths in some blocks, and its compact folder; not to be changed."""
    from pruning.checkpoint import save
    from pruning.pipeline import prune
    from tests.helpers.form_cases import UNEVEN

    run = prune(tiny_model("llama_grouped"), families.recipe(**UNEVEN, recovery__method="bias"))
    return run, save(run, tmp_path_factory.mktemp("uneven") / "model")
