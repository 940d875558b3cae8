"""The built-in model: its folder, what its card claims, and the text that it was trained on."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from headrace import assets

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from builtin_model.base import Example, Skill, draw, is_held_out  # noqa: E402
from builtin_model.chat import ALL_SKILLS, TRAINED  # noqa: E402
from builtin_model.evaluate import answer_all, evaluate  # noqa: E402
from builtin_model.optim import orthogonalize  # noqa: E402
from builtin_model.tokens import Encoder, batches, conversation  # noqa: E402

FOLDER = assets.path("builtin")
SAMPLE = 16
# A sample of this size can fall this far below the share on the card by chance.
MARGIN = 0.25
QUICK = tuple(skill for skill in ALL_SKILLS if "long conv" not in skill.name)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """The shipped tokenizer."""
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    """The shipped weights, computed in fp32."""
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def card_accuracy() -> dict[str, float]:
    """The accuracy per skill that the model card states."""
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([\d.]+)% \|$", (FOLDER / "README.md").read_text(), re.M)
    return {name: float(share) / 100 for name, share in rows}


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    """A wrong name, or a path in place of a name, is answered with what exists."""
    for name in ("other", "../assets/builtin", ""):
        with pytest.raises(ValueError, match="builtin"):
            assets.path(name)


def test_the_weights_are_small_bf16_and_a_few_million(model: torch.nn.Module) -> None:
    """The folder can be in a package: at most 12 MB, with nothing but safetensors for weights."""
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 12_000_000
    assert not list(FOLDER.glob("*.bin"))
    assert 1_000_000 < sum(p.numel() for p in model.parameters()) < 6_000_000
    assert AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto").dtype == torch.bfloat16


def test_generation_ends_at_either_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Both the end of a turn and the end of a text stop generation."""
    ends = {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")}
    assert set(GenerationConfig.from_pretrained(FOLDER).eos_token_id) == ends


def test_the_chat_template_renders_text_and_parts(tokenizer: PreTrainedTokenizerBase) -> None:
    """A content may be a string or, as OpenAI's clients send it, a list of parts."""
    want = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    for content in ("Hello", [{"type": "text", "text": "Hello"}]):
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
        assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == want


@pytest.mark.parametrize("text", ["naïve 東京 🙂", " two  spaces\n\n\ttab", "x=3.14; y='ok'", "\u0000\u202e"])
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """Byte-level pieces: text that the world has never seen comes back as it was."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_training_sees_chats_as_the_template_renders_them(tokenizer: PreTrainedTokenizerBase) -> None:
    """The encoder of the training script and the chat template give the same ids."""
    encoder, rng = Encoder(tokenizer), random.Random(5)
    for turns in (1, 3, 8):
        chat = conversation(rng, turns)
        text = tokenizer.apply_chat_template([{"role": r, "content": c} for r, c in chat], tokenize=False)
        ids, learned = encoder.conversation(chat)
        assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
        answers = [content + "<|im_end|>" for role, content in chat if role == "assistant"]
        assert tokenizer.decode([i for i, mark in zip(ids, learned, strict=True) if mark]) == "".join(answers)


@pytest.mark.parametrize("skill", ALL_SKILLS, ids=lambda skill: skill.name)
def test_the_two_sides_of_the_split_share_no_key(skill: Skill) -> None:
    """What is measured is never trained on, and the expected answer is marked right."""
    trained = {draw(skill, random.Random(i), held_out=False).key for i in range(200)}
    for i in range(100):
        example = draw(skill, random.Random(i), held_out=True)
        assert skill.check(example, example.answer)
        assert not skill.check(example, example.answer + " And more")
        if not skill.never_trained:
            assert is_held_out(skill.name, example.key)
            assert example.key not in trained


def test_never_trained_skills_are_not_among_the_trained() -> None:
    """The skills that only measure are not drawn from in training."""
    assert all(skill.weight > 0 and not skill.never_trained for skill in TRAINED)


def test_one_seed_makes_the_same_batches(tokenizer: PreTrainedTokenizerBase) -> None:
    """The text of a run depends on its seed alone."""

    def make(seed: int) -> list[torch.Tensor]:
        return [ids for ids, _ in batches(Encoder(tokenizer), random.Random(seed), 256, 0.02)]

    first, again, other = make(1), make(1), make(2)
    assert len(first) == len(again)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=False))


def test_orthogonalize_brings_singular_values_near_one() -> None:
    """The update of Muon keeps the directions of a gradient and evens out their sizes."""
    grads = torch.randn(3, 24, 64, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(grads, steps=6))
    assert values.min() > 0.5
    assert values.max() < 1.5


@pytest.mark.parametrize("skill", QUICK, ids=lambda skill: skill.name)
def test_held_out_answers_are_as_the_card_says(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, skill: Skill
) -> None:
    """The shipped weights answer a small held-out sample about as well as the card states."""
    share, wrong = evaluate(model, tokenizer, [skill], SAMPLE)[skill.name]
    assert share >= card_accuracy()[skill.name] - MARGIN, wrong[:3]


def test_a_name_told_earlier_is_remembered(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """The model uses the earlier turns of a chat, and does not make up what was not told."""
    between = (("user", "What is 3 + 4?"), ("assistant", "3 + 4 = 7."))
    told = (("user", "My name is Mira."), ("assistant", "Nice to meet you, Mira."))
    ask = "What is my name?"
    examples = [
        Example("told", ask, "Your name is Mira.", (*told, *between)),
        Example("never", ask, "You have not told me your name.", between),
    ]
    assert answer_all(model, tokenizer, examples) == [example.answer for example in examples]
