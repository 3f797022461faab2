"""The digest of an export's rows, as docs/exports.md and analytics/src/digest.rs say: of each row FNV-1a, 128 bits wide,
of its values as bytes; of many rows the sum, modulo 2^128. Column by column, for all rows at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

FNV_OFFSET = 0x6C62272E07BB014262B821756295C58D
# The prime is 2^88 + this.
FNV_LOW = np.uint64(0x13B)
LOW_32 = np.uint64(0xFFFFFFFF)
SHIFT_24, SHIFT_32 = np.uint64(24), np.uint64(32)


class Numbers:
    """The numbers of some rows, in halves."""

    def __init__(self, high: np.ndarray, low: np.ndarray) -> None:
        self.high, self.low = high, low

    @staticmethod
    def of(count: int) -> Numbers:
        high = np.full(count, FNV_OFFSET >> 64, np.uint64)
        return Numbers(high, np.full(count, FNV_OFFSET & (2**64 - 1), np.uint64))

    def mix(self, byte: np.ndarray) -> None:
        """Takes a byte of each row in."""
        low = self.low ^ byte
        # What the lower half times 0x13b carries over.
        carried = ((low & LOW_32) * FNV_LOW >> SHIFT_32) + (low >> SHIFT_32) * FNV_LOW
        self.high = self.high * FNV_LOW + (carried >> SHIFT_32) + (low << SHIFT_24)
        self.low = low * FNV_LOW

    def mix_words(self, words: np.ndarray) -> None:
        """Takes 8 bytes of each row in, the lowest first."""
        for byte in words.astype("<u8").view(np.uint8).reshape(-1, 8).T:
            self.mix(byte.astype(np.uint64))

    def at(self, rows: np.ndarray) -> Numbers:
        return Numbers(self.high[rows], self.low[rows])

    def put(self, rows: np.ndarray, numbers: Numbers) -> None:
        self.high[rows], self.low[rows] = numbers.high, numbers.low

    def sum(self) -> int:
        def total(half: np.ndarray) -> int:
            upper, lower = half >> SHIFT_32, half & LOW_32
            return (int(upper.sum()) << 32) + int(lower.sum())

        return ((total(self.high) << 64) + total(self.low)) % 2**128


def digest(rows: pa.RecordBatch, kinds: list[str]) -> int:
    """Of all these rows, whose columns are of these kinds."""
    numbers = Numbers.of(rows.num_rows)
    for column, kind in zip(rows.columns, kinds, strict=True):
        is_there = np.asarray(column.is_valid())
        numbers.mix(is_there.astype(np.uint64))
        there = np.flatnonzero(is_there)
        if len(there):
            some = numbers.at(there)
            mix_values(some, column.drop_null(), kind)
            numbers.put(there, some)
    return numbers.sum()


def mix_values(numbers: Numbers, values: pa.Array, kind: str) -> None:
    match kind:
        case "text" | "object" | "bytes":
            mix_bytes(numbers, values.cast(pa.large_binary()))
        case "integer":
            numbers.mix_words(words(values.cast(pa.int64())))
        case "time":
            micros = values.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
            numbers.mix_words(words(micros))
        case "number":
            # -0 is 0.
            numbers.mix_words((np.asarray(values.cast(pa.float64())) + 0.0).view("u8"))
        case "boolean":
            numbers.mix(np.asarray(values.cast(pa.uint8())).astype(np.uint64))
        case _:
            raise ValueError(f"columns of kind {kind} have no bytes here")


def words(values: pa.Array) -> np.ndarray:
    return np.asarray(values).view(np.uint64)


def mix_bytes(numbers: Numbers, values: pa.Array) -> None:
    """Lengths, then bytes: the longest rows first, so that those which have a byte more are the first so many."""
    _, places, content = values.buffers()
    first = values.offset
    offsets = np.frombuffer(places, np.int64)[first : first + len(values) + 1]
    lengths = np.diff(offsets)
    numbers.mix_words(lengths.view(np.uint64))
    if content is None or not lengths.any():
        return
    order = np.argsort(-lengths, kind="stable")
    sorted_numbers, starts = numbers.at(order), offsets[:-1][order]
    counts = len(lengths) - np.searchsorted(
        np.sort(lengths), np.arange(lengths.max()), side="right"
    )
    data = np.frombuffer(content, np.uint8)
    for at, count in enumerate(counts):
        some = Numbers(sorted_numbers.high[:count], sorted_numbers.low[:count])
        some.mix(data[starts[:count] + at].astype(np.uint64))
        sorted_numbers.high[:count], sorted_numbers.low[:count] = some.high, some.low
    numbers.put(order, sorted_numbers)
