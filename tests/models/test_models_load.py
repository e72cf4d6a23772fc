import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysberta.models import load
from raysberta.models.load import load_tokenizer, token_ids

text = st.sampled_from(["", "дом", "a house by the river", "мост " * 40, "x" * 90])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(text, max_size=9), st.sampled_from([1, 50, 1 << 20]))
def test_texts_have_the_same_tokens_however_many_are_read_at_once(small_folder, texts, characters):
    tokenizer = load_tokenizer(small_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "CHARACTERS", characters)
        found = token_ids(tokenizer, texts, 12)
    assert found == [tokenizer(each, truncation=True, max_length=12)["input_ids"] for each in texts]
