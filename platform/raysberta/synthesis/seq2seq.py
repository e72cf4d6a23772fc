"""Questions through an encoder-decoder model (ruT5 and any AutoModelForSeq2SeqLM), batched `generate`; vLLM serves no T5."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from raysberta.models.auto import AutoModelForSeq2SeqLM, AutoTokenizer
from raysberta.synthesis.settings import Seq2SeqPairs

log = logging.getLogger(__name__)


class Seq2SeqWriter:
    """An encoder-decoder model ready to write questions."""

    def __init__(self, folder: Path, settings: Seq2SeqPairs) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
        self.model = model.to(self.device).eval()
        self.settings = settings

    @torch.inference_mode()
    def write(self, passages: Sequence[str]) -> tuple[list[str], list[str]]:
        """A question a passage, and an error or "" for each. A batch that fails is tried again passage by passage."""
        try:
            return self._generate(passages), [""] * len(passages)
        except (RuntimeError, ValueError, IndexError) as error:
            if len(passages) == 1:
                return [""], [f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"]
            log.warning("a batch of %d passages failed (%s), trying each alone", len(passages), type(error).__name__)
        alone = [self.write([passage]) for passage in passages]
        return [outputs[0] for outputs, _ in alone], [errors[0] for _, errors in alone]

    def _generate(self, passages: Sequence[str]) -> list[str]:
        prompts = [self.settings.prompt.replace("{passage}", passage) for passage in passages]
        inputs = self.tokenizer(
            prompts, return_tensors="pt", padding=True, truncation=True, max_length=self.settings.max_passage_tokens
        ).to(self.device)
        written = self.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=self.settings.max_new_tokens,
            num_beams=self.settings.beams,
            do_sample=False,
        )
        return self.tokenizer.batch_decode(written, skip_special_tokens=True)
