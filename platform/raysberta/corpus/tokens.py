"""Words of many texts at machine speed: compiled loops over the UTF-8 bytes of an Arrow column, and the n-gram measures made from them.

A text is cut at blanks; marks are peeled off both ends of each piece, one token a mark (an ellipsis is one); what is left is cut at a
hyphen, slash, colon, comma, equals or angle sign between letters. So words come out as spaCy's rules for English and Russian have
them, but for contractions, units and abbreviations.
"""

import string
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

SPACE, LETTER, ALNUM, PEELED, MARK, PREFIX_ONLY = 1, 2, 4, 8, 16, 32
KNOWN_CHARACTERS = 0x20000
"""What lies above are ideographs: letters."""
PEELED_MARKS = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪\"'`“”‘’‚„«»〈〉《》「」【】（）―"
PREFIX_MARKS = "%=—–+$£€¥₽§"
MARKS = string.punctuation + "—”％〈、━【「」，】；“《„’∶´．（–？！：～«〉》）。…►»"
"""What makes no word: Gopher's counts leave tokens of these alone out."""

HYPHEN, SLASH, COLON, COMMA, EQUALS, LESS, GREATER, DOT, ELLIPSIS = map(ord, "-/:,=<>.…")
PRIME = np.uint64(0x9E3779B97F4A7C15)


@cache
def character_classes() -> np.ndarray:
    """Bits of each code point below KNOWN_CHARACTERS, uint8."""
    classes = np.zeros(KNOWN_CHARACTERS, dtype=np.uint8)
    for code in range(KNOWN_CHARACTERS):
        character = chr(code)
        if character.isalpha():
            classes[code] = LETTER | ALNUM
        elif character.isalnum():
            classes[code] = ALNUM
        elif character.isspace():
            classes[code] = SPACE
        elif code < 32 or 127 <= code < 160:
            classes[code] = MARK
    for marks, bit in ((PEELED_MARKS, PEELED), (PREFIX_MARKS, PREFIX_ONLY), (MARKS, MARK)):
        for character in marks:
            classes[ord(character)] |= bit
    return classes


def text_buffers(texts: pa.Array | Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes, uint8, and the offsets of each text in them, int64 [texts + 1]."""
    column = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
    column = column.cast(pa.large_string())
    _, offsets, data = column.buffers()
    places = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8), places


@njit(cache=True, nogil=True)
def _decode(data: np.ndarray, at: int) -> Any:
    """Code point and the place after it."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, at + 1
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, at + 2
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F, at + 3
    return (
        (lead & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12 | (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F,
        at + 4,
    )


@njit(cache=True, nogil=True)
def _emit(
    codes: np.ndarray, bits: np.ndarray, first: int, last: int, hashes: np.ndarray, lengths: np.ndarray, kinds: np.ndarray, count: int
) -> int:
    """Append the token of code points first to last."""
    value = np.uint64(last - first)
    union = 0
    word = False
    for index in range(first, last):
        value = (value ^ np.uint64(codes[index])) * PRIME
        value ^= value >> np.uint64(29)
        union |= bits[index]
        word |= not bits[index] & MARK
    hashes[count] = value
    lengths[count] = last - first
    kinds[count] = (union & LETTER) | (ALNUM if word else 0)
    return count + 1


@njit(cache=True, nogil=True)
def tokenize(
    data: np.ndarray,
    start: int,
    end: int,
    classes: np.ndarray,
    codes: np.ndarray,
    bits: np.ndarray,
    hashes: np.ndarray,
    lengths: np.ndarray,
    kinds: np.ndarray,
) -> int:
    """Write hash, length in characters and kind (LETTER: holds a letter, ALNUM: is more than marks) of each token; returns their number."""
    count = 0
    at = start
    while at < end:
        size = 0
        while at < end:  # one piece between blanks
            code, after = _decode(data, at)
            known = classes[code] if code < KNOWN_CHARACTERS else LETTER | ALNUM
            if known & SPACE:
                if size:
                    break
                at = after
                continue
            codes[size] = code
            bits[size] = known
            size += 1
            at = after
        if not size:
            break
        first, last = 0, size
        while first < last and (
            bits[first] & (PEELED | PREFIX_ONLY) or (codes[first] == DOT and first + 1 < last and codes[first + 1] == DOT)
        ):
            run = first + 1
            while codes[first] == DOT and run < last and codes[run] == DOT:
                run += 1
            count = _emit(codes, bits, first, run, hashes, lengths, kinds, count)
            first = run
        tail = last
        while tail > first:
            if bits[tail - 1] & PEELED:
                tail -= 1
            elif codes[tail - 1] == DOT and tail - 1 > first:
                tail -= 1
                while tail - 1 > first and codes[tail - 1] == DOT:
                    tail -= 1
            else:
                break
        part = first
        whole_address = False
        for index in range(first, tail - 2):
            whole_address |= codes[index] == COLON and codes[index + 1] == SLASH and codes[index + 2] == SLASH
        if not whole_address:
            for index in range(first + 1, tail - 1):
                code = codes[index]
                if code in (HYPHEN, SLASH, COLON, COMMA, EQUALS, LESS, GREATER):
                    left, right = bits[index - 1], bits[index + 1]
                    strict = code in (HYPHEN, COMMA)
                    if right & LETTER and (left & LETTER if strict else left & ALNUM):
                        if index > part:
                            count = _emit(codes, bits, part, index, hashes, lengths, kinds, count)
                        count = _emit(codes, bits, index, index + 1, hashes, lengths, kinds, count)
                        part = index + 1
        if tail > part:
            count = _emit(codes, bits, part, tail, hashes, lengths, kinds, count)
        while tail < last:
            run = tail + 1
            if codes[tail] == DOT:
                while run < last and codes[run] == DOT:
                    run += 1
            count = _emit(codes, bits, tail, run, hashes, lengths, kinds, count)
            tail = run
    return count


@njit(cache=True, nogil=True)
def _slot(table: np.ndarray, stamps: np.ndarray, stamp: int, key: np.uint64, mask: int) -> Any:
    """The place of a key in an open-addressed table, or the free place where it belongs."""
    place = np.int64((key ^ key >> np.uint64(32)) & np.uint64(mask))
    while stamps[place] == stamp and table[place] != key:
        place = (place + 1) & mask
    return place


@njit(cache=True, nogil=True)
def measure_words(
    data: np.ndarray, offsets: np.ndarray, classes: np.ndarray, stop_words: np.ndarray, top: np.ndarray, repeated: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The measures that need words.

    Args:
        data: UTF-8 bytes.
        offsets: int64 [texts + 1].
        classes: As `character_classes` gives them.
        stop_words: uint64, hashes.
        top: int64, the n for which the most frequent n-gram is looked for, ascending.
        repeated: int64, the n for which repetition is measured, ascending.
        most: Bytes of the longest text.

    Returns:
        float64 [texts, 5]: tokens, words, characters of the words, tokens with a letter, different stop words;
        int64 [texts, len(top)]: characters of the most frequent n-gram times its number, blanks between words counted;
        int64 [texts, len(repeated)]: characters in n-grams that occur before, blanks left out, none counted twice.
    """
    texts = len(offsets) - 1
    counts = np.zeros((texts, 5))
    tops = np.zeros((texts, len(top)), np.int64)
    repeats = np.zeros((texts, len(repeated)), np.int64)
    room = most + 1
    codes, bits = np.empty(room, np.int64), np.empty(room, np.uint8)
    hashes, lengths, kinds = np.empty(room, np.uint64), np.empty(room, np.int64), np.empty(room, np.uint8)
    before, grams = np.zeros(room + 1, np.int64), np.empty(room, np.uint64)
    first, number = np.empty(room, np.int64), np.empty(room, np.int64)
    capacity = 16
    while capacity < 2 * room:
        capacity *= 2
    table, stamps, entry = np.empty(capacity, np.uint64), np.zeros(capacity, np.int64), np.empty(capacity, np.int64)
    stamp = 0
    seen_stop = np.zeros(len(stop_words), np.bool_)
    sizes = 0
    for size in top:
        sizes = max(sizes, size)
    for size in repeated:
        sizes = max(sizes, size)
    for text in range(texts):
        total = tokenize(data, offsets[text], offsets[text + 1], classes, codes, bits, hashes, lengths, kinds)
        words = characters = letters = 0
        seen_stop[:] = False
        for index in range(total):
            before[index + 1] = before[index] + lengths[index]
            if kinds[index] & ALNUM:
                words += 1
                characters += lengths[index]
            if kinds[index] & LETTER:
                letters += 1
            if lengths[index] < 12:
                for stop in range(len(stop_words)):
                    if stop_words[stop] == hashes[index]:
                        seen_stop[stop] = True
        counts[text, 0], counts[text, 1], counts[text, 2], counts[text, 3] = total, words, characters, letters
        counts[text, 4] = seen_stop.sum()
        mask = 15
        while mask < 2 * total:
            mask = 2 * mask + 1
        grams[:total] = hashes[:total]
        for size in range(2, sizes + 1):
            windows = total - size + 1
            if windows <= 0:
                break
            for index in range(windows):
                grams[index] = (grams[index] ^ (grams[index] >> np.uint64(31))) * PRIME + hashes[index + size - 1]
            for column in range(len(top)):
                if top[column] == size:
                    stamp += 1
                    entries = 0
                    for index in range(windows):
                        place = _slot(table, stamps, stamp, grams[index], mask)
                        if stamps[place] != stamp:
                            stamps[place], table[place], entry[place] = stamp, grams[index], entries
                            first[entries], number[entries] = index, 0
                            entries += 1
                        number[entry[place]] += 1
                    best = 0
                    for index in range(1, entries):
                        if number[index] > number[best]:
                            best = index
                    tops[text, column] = number[best] * (before[first[best] + size] - before[first[best]] + size - 1)
            for column in range(len(repeated)):
                if repeated[column] == size:
                    stamp += 1
                    index = found = 0
                    while index < windows:
                        place = _slot(table, stamps, stamp, grams[index], mask)
                        if stamps[place] == stamp:
                            found += before[index + size] - before[index]
                            index += size
                        else:
                            stamps[place], table[place] = stamp, grams[index]
                            index += 1
                    repeats[text, column] = found
    return counts, tops, repeats


def token_hashes(words: Sequence[str]) -> np.ndarray:
    """The hash that each word has as a token, uint64; words of more than one token have that of their first."""
    data, offsets = text_buffers(words)
    room = int(np.diff(offsets).max(initial=0)) + 1
    codes, bits = np.empty(room, np.int64), np.empty(room, np.uint8)
    hashes, lengths, kinds = np.zeros(room, np.uint64), np.empty(room, np.int64), np.empty(room, np.uint8)
    found = np.zeros(len(words), np.uint64)
    for index in range(len(words)):
        tokenize(data, offsets[index], offsets[index + 1], character_classes(), codes, bits, hashes, lengths, kinds)
        found[index] = hashes[0]
    return found


def tokens(text: str) -> list[str]:
    """The tokens of one text, for a look at them: the reference that the tests hold the compiled loop to is independent of it."""
    data, offsets = text_buffers([text])
    room = len(data) + 1
    codes, bits = np.empty(room, np.int64), np.empty(room, np.uint8)
    hashes, lengths, kinds = np.empty(room, np.uint64), np.empty(room, np.int64), np.empty(room, np.uint8)
    count = tokenize(data, offsets[0], offsets[1], character_classes(), codes, bits, hashes, lengths, kinds)
    solid = "".join(text.split())
    ends = np.cumsum(lengths[:count])
    return [solid[end - length : end] for end, length in zip(ends.tolist(), lengths[:count].tolist(), strict=True)]
