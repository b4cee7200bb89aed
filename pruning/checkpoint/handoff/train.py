"""Train a model that Headroom pruned toward the dense one, on any text, with TRL and PEFT.

Run it in its own folder: ``python train.py``. What it does is in ``settings.yaml``; every option of
``trl.SFTConfig`` may stand under ``training``. After an interruption ``python train.py --resume``
goes on from the last checkpoint.
"""

import argparse
import shutil
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent


def main():
    """Read settings.yaml, train, and save the model with its adapters merged."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", default=str(HERE / "settings.yaml"))
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    with open(options.settings, encoding="utf-8") as file:
        settings = yaml.safe_load(file)

    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig

    folder, out = HERE / settings["model"], HERE / settings["training"]["output_dir"]
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    lora = settings["lora"] and LoraConfig(task_type="CAUSAL_LM", **settings["lora"])
    trainer = distillation()(
        # its own modelling file stands in the folder: read it before you run this
        model=load(folder, settings["own_code"]),
        teacher=load(settings["teacher"]),
        args=SFTConfig(max_length=None, **{**settings["training"], "output_dir": str(out)}),
        train_dataset=windows(settings, tokenizer),
        processing_class=tokenizer,
        peft_config=lora or None,
    )
    trainer.train(resume_from_checkpoint=options.resume)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if lora:
        model = model.merge_and_unload()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for code in folder.glob("modeling_headroom.py"):
        shutil.copy(code, out)


def load(place, own_code=False):
    """The model in ``place`` in float32, every weight of it ready to be trained."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        place, dtype=torch.float32, trust_remote_code=own_code
    )
    return model.requires_grad_()


def windows(settings, tokenizer):
    """The text, tokenised once, in consecutive windows without padding."""
    from datasets import Dataset, load_dataset

    text = "\n".join(load_dataset(**settings["text"])["text"])
    ids = tokenizer(text, verbose=False)["input_ids"]
    size = settings["seq_len"]
    rows = [ids[start : start + size] for start in range(0, len(ids) - size + 1, size)]
    if not rows:
        raise SystemExit(f"The text has {len(ids)} tokens, fewer than one window of {size}.")
    return Dataset.from_dict({"input_ids": rows[: settings["windows"]]})


def distillation():
    """The trainer: TRL's, with the divergence from the teacher's next-token probabilities as loss.

    TRL's own DistillationTrainer lets the model write and learns from that alone; a pruned model
    writes too badly at first, and a text costs no generation.
    """
    import torch
    from torch.nn import functional
    from trl import SFTTrainer

    class Distillation(SFTTrainer):
        def __init__(self, *, teacher, **more):
            super().__init__(**more)
            self.teacher = self.accelerator.prepare_model(
                teacher.requires_grad_(False).eval(), evaluation_mode=True
            )

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            batch = {"input_ids": inputs["input_ids"], "use_cache": False}
            outputs = model(**batch)
            with torch.no_grad():
                wanted = self.teacher(**batch).logits.float().log_softmax(-1)
            found = outputs.logits.float().log_softmax(-1)
            apart = functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)
            loss = apart.mean()
            return (loss, outputs) if return_outputs else loss

    return Distillation


if __name__ == "__main__":
    main()
