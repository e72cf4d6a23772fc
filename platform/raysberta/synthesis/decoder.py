"""Prompts through transformers, for where vLLM cannot be imported: the same prompts and sampling settings, batched `generate`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from raysberta.errors import InputError
from raysberta.models.arithmetic import has_bf16
from raysberta.models.auto import AutoModelForCausalLM, AutoTokenizer
from raysberta.synthesis.prompts import Asked, messages
from raysberta.synthesis.settings import LlmPairs

log = logging.getLogger(__name__)

TOP_P = 0.95
STOP: Mapping[str, list[str]] = {"llm_query": ["\n", "?"], "llm_paraphrase": ["\n"]}
"""Answers are one line, queries one question; what a small model writes after it is about something else."""


def sampling(settings: LlmPairs, kind: str, request_id: str, seed: int) -> dict[str, Any]:
    """vLLM's sampling parameters of one request; its own seed, so that no other request has a say in it."""
    drawn = {"seed": (int(request_id[:8], 16) ^ seed) & 0x7FFFFFFF, "top_p": TOP_P} if settings.temperature > 0 else {}
    return {
        "temperature": settings.temperature,
        "max_tokens": settings.max_new_tokens,
        "stop": STOP[kind],
        "include_stop_str_in_output": True,
        **drawn,
    }


def prompted(folder: Path, settings: LlmPairs, table: pa.Table, node: str) -> pa.Table:
    """Columns request_id, kind, prompt and tokenized_prompt of requests, schema GENERATION, the model's chat template applied.

    Raises:
        InputError: the model has none.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template is None:
        raise InputError(f"written.{node}.by: {settings.by} has no chat template; right would be an instruction-tuned model")
    prompts = []
    for row in table.select(["kind", "title", "passage"]).to_pylist():
        asked: Asked = "query" if row["kind"] == "llm_query" else "paraphrase"
        chat = messages(asked, settings.language, row["title"], row["passage"])
        prompts.append(str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)))
    ids = tokenizer(prompts, add_special_tokens=False)["input_ids"] if prompts else []
    columns = {"request_id": table["request_id"], "kind": table["kind"], "prompt": pa.array(prompts, pa.string())}
    return pa.table({**columns, "tokenized_prompt": pa.array(ids, pa.list_(pa.int64()))})


class Decoder:
    """A causal language model ready to answer prompts."""

    def __init__(self, folder: Path, settings: LlmPairs, seed: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16 if has_bf16(self.device) else torch.float32)
        self.model = model.to(self.device).eval()
        self.settings = settings
        self.seed = seed
        self._ends: dict[tuple[str, ...], list[int]] = {}

    @torch.inference_mode()
    def answer(self, prompts: Sequence[str], kinds: Sequence[str], request_ids: Sequence[str]) -> tuple[list[str], list[str]]:
        """What the model writes after each prompt, and an error or "" for each. A batch that fails is tried again prompt by prompt."""
        try:
            return self._generate(prompts, kinds, request_ids), [""] * len(prompts)
        except (RuntimeError, ValueError, IndexError) as error:
            if len(prompts) == 1:
                return [""], [f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"]
            log.warning("a batch of %d prompts failed (%s), trying each alone", len(prompts), type(error).__name__)
        alone = [self.answer([prompt], [kind], [name]) for prompt, kind, name in zip(prompts, kinds, request_ids, strict=True)]
        return [outputs[0] for outputs, _ in alone], [errors[0] for _, errors in alone]

    def _generate(self, prompts: Sequence[str], kinds: Sequence[str], request_ids: Sequence[str]) -> list[str]:
        inputs = self.tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False).to(self.device)
        width = inputs["input_ids"].shape[1]
        if width + self.settings.max_new_tokens > self.settings.max_model_length:
            longest = self.settings.max_model_length
            raise ValueError(f"a prompt of {width} tokens and {self.settings.max_new_tokens} new ones pass max_model_length {longest}")
        drawn = (
            {"do_sample": True, "temperature": self.settings.temperature, "top_p": TOP_P, "top_k": 0}
            if self.settings.temperature > 0
            else {"do_sample": False}
        )
        torch.manual_seed(sampling(self.settings, kinds[0], request_ids[0], self.seed).get("seed", self.seed))
        written = self.model.generate(
            **inputs,
            **drawn,
            max_new_tokens=self.settings.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self._last_tokens([mark for mark in STOP[kinds[0]] if all(mark in STOP[kind] for kind in kinds)]),
        )
        return self.tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)

    def _last_tokens(self, marks: Sequence[str]) -> list[int]:
        """The tokens that end an answer: the model's own, and all that hold a mark (`stop_strings` takes a minute to say the same)."""
        key = tuple(marks)
        if key not in self._ends:
            own = self.model.generation_config.eos_token_id
            texts = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
            holding = [token for token, text in enumerate(texts) if any(mark in text for mark in marks)]
            self._ends[key] = [*(own if isinstance(own, list) else [own]), *holding]
        return self._ends[key]
