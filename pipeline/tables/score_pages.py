"""Read the column `scores` page by page: several times as fast as Arrow, which decodes two levels for each score.

Every list has 527 scores and none is missing, so that the levels say nothing and the values of a page are the scores:
float32 in BYTE_STREAM_SPLIT, or half floats in tables of version 1. What is not written like that is left to Arrow.
Source of the format: https://parquet.apache.org/docs/file-format (pages, encodings, checksums) and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

import struct
import zlib
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from satpipe.sat.model.config import CLASSES

_PLAIN, _RLE, _BYTE_STREAM_SPLIT, _DATA_PAGE = 0, 3, 9, 0
_ENCODINGS = {"FIXED_LEN_BYTE_ARRAY": _PLAIN, "FLOAT": _BYTE_STREAM_SPLIT}  # by physical type
_ONE = 0x3F80  # upper half of 1 in single precision; those of numbers from 0 to 1 are no larger
_TYPE, _SIZE, _COMPRESSED_SIZE, _CRC, _DATA_HEADER = 1, 2, 3, 4, 5  # fields of a page's header
_VALUES, _ENCODING, _DEFINITION, _REPETITION = 1, 2, 3, 4  # fields of a data page's header
_AT_ONCE = 32_768  # numbers, which stay in the processor's cache
_FEW = 0.1  # share of scores up to which it is faster to convert them alone
_HALF_BITS = 0x3F000000  # bits of 0.5 in single precision
_FIRST_NORMAL = 0x400  # bits of 2**-14 in half precision
_OFFSET = (127 - 15) << 10  # between the exponents, in the bits of a half
_I16, _I64, _BINARY, _STRUCT = 4, 6, 8, 12  # types of fields; I32 is between the first two
_TRUE, _FALSE = 1, 2


def read_score_pages(
    file: IO[bytes], group: pq.RowGroupMetaData, columns: npt.NDArray[np.int64] | None = None, at_least: float = 0.0
) -> npt.NDArray[np.float16] | None:
    """Return scores of a row group; None if they are written in another way, or are damaged.

    Args:
        file: The file.
        group: The row group.
        columns: Positions of the classes wanted, [K]; None: all 527.
        at_least: Lower scores may be returned as 0. Few scores are high, so that most need no conversion.

    Returns:
        [rows, K]

    Raises:
        OSError: The file cannot be read.
    """
    chunks = (group.column(place) for place in range(group.num_columns))
    column = next(each for each in chunks if each.path_in_schema.startswith("scores."))
    if column.compression != "ZSTD" or column.has_dictionary_page:
        return None
    encoding = _ENCODINGS.get(column.physical_type)
    classes, place = (np.arange(CLASSES), None) if columns is None else np.unique(columns, return_inverse=True)
    file.seek(column.data_page_offset)
    content = memoryview(file.read(column.total_compressed_size))
    codec = pa.Codec("zstd")
    above = int(np.float32(at_least).view(np.uint32) >> 24) if encoding == _BYTE_STREAM_SPLIT else 0
    scores = (np.zeros if above else np.empty)(group.num_rows * len(classes), np.float16)
    at = begin = filled = 0
    try:
        while at < len(content):
            header, at = _struct(content, at)
            page = content[at : at + header[_COMPRESSED_SIZE]]
            at += header[_COMPRESSED_SIZE]
            values = _values(header, page, codec, encoding)
            if values is None:
                return None
            size = values.shape[-1]
            if len(classes) < CLASSES:
                values = values[..., _places(begin, size, classes)]
            begin += size
            if above and np.count_nonzero(reach := values[3] >= above) < _FEW * reach.size:
                high = np.flatnonzero(reach)
                scores[filled + high] = _halves(values[:, high])
                filled += reach.size
                continue
            for part in range(0, values.shape[-1], _AT_ONCE):
                some = values[..., part : part + _AT_ONCE]
                scores[filled : filled + some.shape[-1]] = some if encoding == _PLAIN else _halves(some)
                filled += some.shape[-1]
    except (IndexError, KeyError, ValueError, TypeError, struct.error, pa.ArrowException):
        return None
    if begin != group.num_rows * CLASSES:
        return None
    found = scores.reshape(group.num_rows, len(classes))
    return found if place is None else found[:, place]


def _places(begin: int, size: int, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the places of classes, in ascending order, among so many values; the first is number `begin` of all."""
    rows = np.arange(begin // CLASSES, -(-(begin + size) // CLASSES))
    places: npt.NDArray[np.int64] = (rows[:, None] * CLASSES + classes).ravel() - begin
    return places[(places >= 0) & (places < size)]


def _values(header: dict[int, Any], page: memoryview, codec: pa.Codec, encoding: int | None) -> npt.NDArray[Any] | None:
    """Return the values of a data page: halves [n], or the bytes of float32, the lowest first [4, n].

    None if it is written in another way, or is damaged.
    """
    about = header[_DATA_HEADER]
    encodings = about[_ENCODING], about[_DEFINITION], about[_REPETITION]
    if header[_TYPE] != _DATA_PAGE or encodings != (encoding, _RLE, _RLE):
        return None
    if _CRC in header and zlib.crc32(page) != header[_CRC] % 2**32:
        return None
    content = memoryview(codec.decompress(page, header[_SIZE]))
    at = 0
    for _ in ("repetition", "definition"):
        (length,) = struct.unpack_from("<I", content, at)
        at += 4 + length
    if encoding == _PLAIN:
        values: npt.NDArray[Any] = np.frombuffer(content[at:], np.float16)
    else:
        values = np.frombuffer(content[at:], np.uint8).reshape(4, -1)
    return values if values.shape[-1] == about[_VALUES] else None


def _halves(split: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """Return half floats from the bytes of float32, the lowest first.

    NumPy takes several times as long. A float from 0 to 1 that is rounded to half precision has the bits of the half
    above its 13 lowest bits, but another offset of the exponent. Below 2**-14 a half is a multiple of 2**-24, and these
    are the lowest bits of the float's sum with 0.5.

    Shape:
        [4, n] -> [n]
    """
    upper = split[3].astype(np.uint16)
    upper <<= 8
    upper |= split[2]
    bits = upper.astype(np.int32)
    bits <<= 16
    lower = split[1].astype(np.int32)
    lower <<= 8
    bits |= lower
    if upper.max(initial=0) > _ONE:  # not a score
        return np.array(bits.view(np.float32), np.float16)
    small = (bits.view(np.float32) + np.float32(0.5)).view(np.int32)
    small -= _HALF_BITS
    np.minimum(small, _FIRST_NORMAL, out=small)
    bits >>= 13
    bits -= _OFFSET
    np.maximum(bits, small, out=bits)  # the other one is smaller, in both cases
    halves: npt.NDArray[np.float16] = bits.astype(np.uint16).view(np.float16)
    return halves


def _struct(content: memoryview, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct in Thrift's compact protocol, by number, and the position after it."""
    fields: dict[int, Any] = {}
    number = 0
    while head := content[at]:
        at += 1
        delta, kind = head >> 4, head & 15
        if delta:
            number += delta
        else:
            number, at = _integer(content, at)
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        elif _I16 <= kind <= _I64:
            fields[number], at = _integer(content, at)
        elif kind == _BINARY:
            length, at = _varint(content, at)
            at += length
        elif kind == _STRUCT:
            fields[number], at = _struct(content, at)
        else:
            raise ValueError(f"type {kind} of a field")
    return fields, at + 1


def _integer(content: memoryview, at: int) -> tuple[int, int]:
    value, at = _varint(content, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
