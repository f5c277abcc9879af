"""Sentences out of WikiText's lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

WORDS_A_SENTENCE = (4, 60)
_ENDS = {".", "!", "?"}
_JOINERS = {"@-@": "-", "@,@": ",", "@.@": "."}
_GLUED_LEFT = {",", ".", ";", ":", "!", "?", ")", "]", "%", "'"}
_SUFFIXES = {"'s", "'t", "'re", "'ve", "'ll", "'d", "'m", "n't"}
_GLUED_RIGHT = {"(", "[", "$", "£", "€"}


def wiki_sentences(lines: Iterable[str]) -> list[str]:
    """Cut lines of WikiText into sentences as people write them, each once.

    Its text has a space around every punctuation mark but not within abbreviations, so that a
    sentence ends at a full stop that stands alone, outside of quotation marks and brackets.

    >>> wiki_sentences([" = Boats = ", ' The crew saw 1 @,@ 200 " old " boats . Nobody sank . '])
    ['The crew saw 1,200 "old" boats.']

    The second sentence has fewer than four words.
    """
    least, most = WORDS_A_SENTENCE
    found: dict[str, None] = {}
    for line in lines:
        if line.strip().startswith("="):
            continue
        for tokens in _cut(line.split()):
            sentence = _join(tokens)
            is_text = "<unk>" not in tokens and any(map(str.isalpha, sentence))
            if is_text and least <= len(sentence.split()) <= most:
                found[sentence] = None
    return list(found)


def _cut(tokens: Sequence[str]) -> Iterator[list[str]]:
    sentence: list[str] = []
    has_ended = False
    for token in tokens:
        is_closing = token == ")" or (token == '"' and sentence.count('"') % 2 == 1)
        if has_ended and not is_closing and _is_balanced(sentence):
            yield sentence
            sentence, has_ended = [], False
        sentence.append(token)
        has_ended = token in _ENDS or (has_ended and is_closing)
    if sentence:
        yield sentence


def _is_balanced(tokens: Sequence[str]) -> bool:
    return tokens.count('"') % 2 == 0 and tokens.count("(") <= tokens.count(")")


def _join(tokens: Sequence[str]) -> str:
    text, wants_space, is_quoting = "", False, False
    for token in tokens:
        if token in _JOINERS:
            text, wants_space = text + _JOINERS[token], False
        elif token == '"':
            text += '"' if is_quoting or not wants_space else ' "'
            is_quoting, wants_space = not is_quoting, is_quoting
        else:
            is_glued = token in _GLUED_LEFT or token in _SUFFIXES
            text += token if is_glued or not wants_space else f" {token}"
            wants_space = token not in _GLUED_RIGHT
    return text
