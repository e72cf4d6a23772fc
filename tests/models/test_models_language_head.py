"""Language-model heads: logits are those of transformers' whole model, and transformers loads what is published."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForCausalLM, Gemma2Config

from decoders import FAMILIES, a_decoder
from raysberta.errors import InputError
from raysberta.models.head import FILE
from raysberta.models.language_head import embedding_table, load_language_head, save_language_head
from raysberta.models.load import load_transformer, weight_files
from raysberta.publishing.export import join_language_head

IDS = torch.tensor([[0, 5, 9, 300, 2, 44]])


def a_generator(folder: Path, family: str, **settings: object) -> torch.nn.Module:
    torch.manual_seed(3)
    whole = AutoModelForCausalLM.from_config(a_decoder(family, **settings)).eval()
    whole.save_pretrained(folder)
    return whole


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_whole_model(family: str, tied: bool, tmp_path: Path) -> None:
    whole = a_generator(tmp_path, family, tie_word_embeddings=tied)
    decoder = load_transformer(tmp_path)
    head = load_language_head(tmp_path, decoder, "llm")
    assert (head.weight is None) == tied
    with torch.no_grad():
        states = decoder(input_ids=IDS).last_hidden_state
        assert torch.allclose(head(states, embedding_table(decoder)), whole(input_ids=IDS).logits, atol=1e-5)


def test_a_cap_on_logits_is_kept(tmp_path: Path) -> None:
    settings = {key: value for key, value in a_decoder("gemma").to_dict().items() if key in ("vocab_size", "hidden_size", "head_dim")}
    config = Gemma2Config(**settings, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=32)
    config.final_logit_softcapping = 0.05
    whole = AutoModelForCausalLM.from_config(config).eval()
    whole.save_pretrained(tmp_path)
    decoder = load_transformer(tmp_path)
    head = load_language_head(tmp_path, decoder, "llm")
    with torch.no_grad():
        found = head(decoder(input_ids=IDS).last_hidden_state, embedding_table(decoder))
        assert found.abs().max() < 0.05 and torch.allclose(found, whole(input_ids=IDS).logits, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_a_trained_head_from_what_is_published(tied: bool, tmp_path: Path) -> None:
    """A folder as a phase leaves it is the decoder alone; once joined, both of transformers' classes find what is theirs."""
    a_generator(tmp_path / "llm", "llama", tie_word_embeddings=tied)
    decoder = load_transformer(tmp_path / "llm")
    head = load_language_head(tmp_path / "llm", decoder, "llm")
    with torch.no_grad():
        for weights in (*decoder.parameters(), *head.parameters()):
            weights.add_(torch.randn_like(weights) * 0.1)
    folder = tmp_path / "model"
    decoder.save_pretrained(folder)
    save_language_head(head.state_dict(), folder)
    assert (folder / FILE).is_file() != tied and [file.name for file in weight_files(folder)] == ["model.safetensors"]
    again = load_language_head(folder, load_transformer(folder), "llm")
    join_language_head(folder)
    with torch.no_grad():
        states = decoder(input_ids=IDS).last_hidden_state
        logits = head(states, embedding_table(decoder))
        assert torch.equal(again(states, embedding_table(decoder)), logits)
        assert torch.allclose(AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=IDS).logits, logits, atol=1e-6)
        assert torch.equal(AutoModel.from_pretrained(folder).eval()(input_ids=IDS).last_hidden_state, states)
        assert torch.equal(load_transformer(folder)(input_ids=IDS).last_hidden_state, states)


def test_heads_that_are_not_there_or_are_others_are_refused(tmp_path: Path) -> None:
    a_generator(tmp_path / "llm", "llama", tie_word_embeddings=False)
    a_generator(tmp_path / "other", "qwen3")
    decoder = load_transformer(tmp_path / "llm")
    decoder.save_pretrained(tmp_path / "alone")
    with pytest.raises(InputError, match=r"^llm: there is no language-model head \(lm_head\.weight\), and"):
        load_language_head(tmp_path / "alone", decoder, "llm")
    with pytest.raises(InputError, match=r"^other is a qwen3 of 700 pieces, the decoder a llama of 700; right would be its own generator"):
        load_language_head(tmp_path / "other", decoder, "other")
    with safe_open(tmp_path / "alone" / "model.safetensors", "pt") as stream:
        assert not any("lm_head" in name for name in stream.keys())  # noqa: SIM118 - not a mapping
    config = (tmp_path / "llm" / "config.json").read_text()
    (tmp_path / "llm" / "config.json").write_text(config.replace("{", '{"logit_scale": 0.5, ', 1))
    with pytest.raises(InputError, match=r"its logits are scaled \(logit_scale\)"):
        load_language_head(tmp_path / "llm", decoder, "llm")
