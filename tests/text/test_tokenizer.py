"""The tokenizer wrapper: loading, encoding, conversations, threads, and errors that say what to do."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.errors import InvalidRequest, ModelNotSupported
from headrace.text import Tokenizer
from tests.text import tokenizers_for_tests as trained

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system messages here') }}{% endif %}"
    "<bos>{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}<bos>{% endif %}"
    "{% if tools %}{{ tools | length }}{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = trained.byte_level()
    inner.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    return tmp_path


def test_loaded_from_a_folder(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    ids = tokenizer.encode("hello world")
    assert tokenizer.decode(ids) == "hello world"
    assert ids == Tokenizer(str(folder)).encode("hello world")
    assert tokenizer.vocab_size == len(tokenizer.inner) > max(ids)
    assert tokenizer.inner.convert_ids_to_tokens(list(tokenizer.eos_token_ids)) == ["<eos>"]
    assert len(tokenizer.special_token_ids) == 3


def test_conversations(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    messages = [{"role": "user", "content": "hello"}]
    assert tokenizer.has_chat_template
    ids = tokenizer.apply_chat_template(messages)
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<bos>hello<eos><bos>"
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=False, tools=[{"name": "f"}])
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<bos>hello<eos>1"


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "at least one message"),
        (["hi"], r"messages\[0\] must be an object"),
        ([{"content": "hi"}], r"messages\[0\] needs a role"),
        ([{"role": "user"}], r"messages\[0\] needs a content"),
        ([{"role": "system", "content": "be kind"}], "no system messages here"),
    ],
)
def test_messages_that_are_refused(folder: Path, messages: list[object], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        Tokenizer(folder).apply_chat_template(messages)  # type: ignore[arg-type]


def test_no_chat_template() -> None:
    with pytest.raises(InvalidRequest, match=r"no chat template: send the prompt as text"):
        Tokenizer(trained.metaspace()).apply_chat_template([{"role": "user", "content": "hi"}])


def test_what_cannot_be_loaded_or_encoded(tmp_path: Path) -> None:
    with pytest.raises(ModelNotSupported, match="no tokenizer could be loaded from"):
        Tokenizer(tmp_path)
    with pytest.raises(ModelNotSupported, match="a dict is not a tokenizer"):
        Tokenizer({})
    with pytest.raises(InvalidRequest, match="must be a string, not int"):
        Tokenizer(trained.byte_level()).encode(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="half of a surrogate pair"):
        Tokenizer(trained.byte_level()).encode("a\ud800")


def test_truncation_and_padding_that_came_with_the_tokenizer_are_off_before_the_first_call() -> None:
    """Were they switched off by the first call, two threads' first calls would collide."""
    inner = trained.byte_level()
    inner.backend_tokenizer.enable_truncation(3)
    inner.backend_tokenizer.enable_padding(length=9)
    Tokenizer(inner)
    assert inner.backend_tokenizer.truncation is None
    assert inner.backend_tokenizer.padding is None


def test_many_threads_at_once(folder: Path) -> None:
    tokenizer = Tokenizer(folder)

    def work(number: int) -> bool:
        text = f"hello {number} world, " * 30
        ids = tokenizer.encode(text)
        chat = tokenizer.apply_chat_template([{"role": "user", "content": text}])
        return tokenizer.decode(ids) == text and tokenizer.decode(chat) == text

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


def test_importing_it_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, headrace.text; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


LONG = "The miller's cat — ein Kätzchen — sat by the mill, 3 times. " * 300


@pytest.mark.parametrize("text", ["", " ", "hello  world\n", "<bos>hi<eos>", LONG])
@pytest.mark.parametrize("special", [True, False])
def test_encodes_as_transformers_does(folder: Path, text: str, special: bool) -> None:
    tokenizer = Tokenizer(folder)
    assert tokenizer.encode(text, add_special_tokens=special) == tokenizer.inner.encode(
        text, add_special_tokens=special
    )


def test_a_conversation_is_encoded_as_transformers_does(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    messages = [{"role": "user", "content": "hello <eos>"}, {"role": "assistant", "content": "wor"}]
    expected = tokenizer.inner.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=False) == expected
    continued = tokenizer.render_chat(messages, add_generation_prompt=False, continue_final_message=True)
    assert continued == "<bos>hello <eos><eos><bos>wor"


def test_variables_of_the_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}{% if calm %} calmly{% endif %}")
    tokenizer = Tokenizer(folder)
    messages = [{"role": "user", "content": "sit"}]
    assert tokenizer.render_chat(messages, template_kwargs={"calm": True}) == "sit calmly"
    with pytest.raises(InvalidRequest, match="tokenize"):
        tokenizer.render_chat(messages, template_kwargs={"tokenize": True})


def test_the_builtin_tokenizer_needs_no_torch() -> None:
    code = (
        "import sys; from headrace import assets; from headrace.text import Tokenizer;"
        "t = Tokenizer(assets.path('builtin')); t.apply_chat_template([{'role': 'user', 'content': 'hi'}]);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_short_way_loads_what_transformers_would() -> None:
    from transformers import AutoTokenizer

    from headrace import assets

    short, long = Tokenizer(assets.path("builtin")), Tokenizer(AutoTokenizer.from_pretrained(assets.path("builtin")))
    assert type(short.inner) is type(long.inner)
    assert short.inner.chat_template == long.inner.chat_template
    assert short.encode(LONG) == long.encode(LONG)
    assert (short.special_token_ids, short.eos_token_ids) == (long.special_token_ids, long.eos_token_ids)
