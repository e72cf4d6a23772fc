"""What a decoder's token sees: set, and proven on the decoder itself.

transformers builds the masks of its decoders from the config's `is_causal`, padding kept, whatever the attention's implementation. That a
family does so is not taken on trust: another last token is put in, and states before it must move, or must not.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from raysberta.errors import InputError
from raysberta.models.folder import bidirectional
from raysberta.models.settings import Attention

TOKENS, PADDING = 6, 2
MOVED = 1e-6
"""Of its own size, a state moves by more where it sees what changed."""


def set_attention(decoder: PreTrainedModel, attention: Attention) -> None:
    """Let each token see those before it, or all of its text; the config says so from now on."""
    decoder.config.is_causal = attention == "causal"
    if hasattr(decoder.config, "use_bidirectional_attention"):  # Gemma's own switch, which others than transformers read
        decoder.config.use_bidirectional_attention = attention == "bidirectional"


def attention_of(decoder: PreTrainedModel) -> Attention:
    """What its config says."""
    return "bidirectional" if bidirectional(vars(decoder.config)) else "causal"


def check_attention(decoder: PreTrainedModel, name: str) -> None:
    """See, with padding and without, that a later token changes earlier states if and only if attention is bidirectional.

    Raises:
        InputError: it does not do what its config says; the message begins with the setting.
    """
    wanted = attention_of(decoder)
    for padding in (0, PADDING):
        if sees_later_tokens(decoder, padding) != (wanted == "bidirectional"):
            kind = f"{name} is of type {decoder.config.model_type}, which does not attend so"
            other = "causal" if wanted == "bidirectional" else "bidirectional"
            raise InputError(f"attention: {wanted}: {kind}; right would be another decoder, or {other}")


@torch.no_grad()
def sees_later_tokens(decoder: PreTrainedModel, padding: int) -> bool:
    """Whether the first state of a text changes with its last token, the text being padded on the right by so many tokens."""
    ids = torch.arange(1, 1 + TOKENS)[None]
    other = torch.cat([ids[:, :-1], ids[:, -1:] + 1], dim=1)
    states, changed = (_states(decoder, text, padding) for text in (ids, other))
    distance = (states[:, 0] - changed[:, 0]).norm() / states[:, 0].norm()
    return float(distance) > MOVED


def _states(decoder: PreTrainedModel, ids: Tensor, padding: int) -> Tensor:
    mask = torch.cat([torch.ones_like(ids), ids.new_zeros(1, padding)], dim=1)
    padded = torch.cat([ids, ids.new_zeros(1, padding)], dim=1)
    states: Tensor = decoder(input_ids=padded, attention_mask=mask, use_cache=False).last_hidden_state
    return states
