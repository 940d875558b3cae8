"""The tokenizer and the batches: from conversations to token ids with a mask of what is learned."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from builtin_model import chat, facts
from builtin_model.base import Turns, draw
from builtin_model.world import PEOPLE, TOWNS

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# One digit is one token, so that sums can be learned place by place.
SPLIT = r"'s| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] if part['type'] == 'text' else '' }}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def conversation(rng: random.Random, turns: int) -> Turns:
    """A conversation of the training side: at times a system message, at times something to remember first."""
    parts: list[tuple[str, str]] = []
    if rng.random() < (0.3 if turns > 4 else 0.07):
        example = draw(chat.REMEMBERING, rng, held_out=False)
        parts += [*example.context, ("user", example.prompt), ("assistant", example.answer)]
    elif rng.random() < 0.05:
        example = draw(chat.ABOUT_ITSELF, rng, held_out=False)
        parts += [("user", example.prompt), ("assistant", example.answer)]
    missing = turns - len(parts) // 2
    if missing > 0:
        parts += chat.filler(rng, missing)
    if parts[0][0] != "system" and rng.random() < 0.2:
        parts.insert(0, ("system", rng.choice(chat.SYSTEM)))
    return tuple(parts)


def document(rng: random.Random) -> str:
    """Plain text without a chat around it, for those who complete text."""
    if rng.random() < 0.7:
        return facts.tell_story(rng.choice(PEOPLE), rng)
    return rng.choice((*PEOPLE, *TOWNS)).describe()


def sample_texts(rng: random.Random, count: int) -> Iterator[str]:
    """Texts for the tokenizer to learn its pieces from."""
    for _ in range(count):
        yield "\n".join(content for _, content in conversation(rng, 1))


def train_tokenizer(seed: int, vocab_size: int, length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text has tokens, texts of the world have few."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    roles = ["user\n", "assistant\n", "system\n"] * 20000
    texts = [*roles, *chat.SYSTEM * 200, *sample_texts(random.Random(seed), 40000)]
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END_OF_TEXT,
        model_max_length=length,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


Encoded = tuple[list[int], list[bool]]


class Encoder:
    """Turns conversations into ids as the chat template does, and marks the assistant's tokens as learned."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Keep the fast tokenizer itself: the wrapper costs more than the work."""
        self.fast = tokenizer.backend_tokenizer

    def ids(self, text: str) -> list[int]:
        """The ids of a text, special tokens in it included."""
        return self.fast.encode(text, add_special_tokens=False).ids

    def conversation(self, turns: Turns) -> Encoded:
        """All turns; what the assistant says, with its end, is learned."""
        ids: list[int] = []
        learned: list[bool] = []
        for role, content in turns:
            head, body, tail = self.ids(f"{START}{role}\n"), self.ids(f"{content}{END}"), self.ids("\n")
            ids += head + body + tail
            learned += [False] * len(head) + [role == "assistant"] * len(body) + [False] * len(tail)
        return ids, learned

    def document(self, text: str) -> Encoded:
        """Plain text and the end of it; all of it is learned but the first token, which nothing comes before."""
        ids = self.ids(text + END_OF_TEXT)
        return ids, [True] * len(ids)


def _draw_one(encoder: Encoder, rng: random.Random, long_share: float) -> Encoded:
    roll = rng.random()
    if roll < long_share:
        return encoder.conversation(conversation(rng, rng.randint(14, 30)))
    roll = rng.random()
    if roll < 0.03:
        return encoder.document(document(rng))
    turns = 1 if roll < 0.5 else rng.randint(2, 4) if roll < 0.9 else rng.randint(5, 9)
    return encoder.conversation(conversation(rng, turns))


Batch = tuple[torch.Tensor, torch.Tensor]


def batches(encoder: Encoder, rng: random.Random, tokens: int, long_share: float, limit: int = 1024) -> list[Batch]:
    """Some batches of about `tokens` tokens each, of texts of similar length, so that little is padding."""
    rows, total = [], 0
    while total < tokens * 24:
        ids, learned = _draw_one(encoder, rng, long_share)
        rows.append((ids[:limit], learned[:limit]))
        total += len(rows[-1][0])
    rows.sort(key=lambda row: len(row[0]))
    result, batch = [], []
    for row in rows:
        batch.append(row)
        if _width(batch) * (len(batch) + 1) > tokens:
            result.append(_pad(batch))
            batch = []
    rng.shuffle(result)
    return result


def _width(rows: list[Encoded]) -> int:
    return -(-len(rows[-1][0]) // 8) * 8


def _pad(rows: list[Encoded]) -> Batch:
    """Pad on the right: with causal attention no mask is needed there."""
    width = _width(rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    learned = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (row, mask) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        learned[i, : len(row)] = torch.tensor(mask)
    return ids, learned
