"""Text in and out of token ids. No torch."""

from headrace.text.detokenizer import IncrementalDetokenizer
from headrace.text.stop_strings import StopStringMatcher
from headrace.text.text_stream import TextDelta, TextStream
from headrace.text.tokenizer import Tokenizer

__all__ = ["IncrementalDetokenizer", "StopStringMatcher", "TextDelta", "TextStream", "Tokenizer"]
