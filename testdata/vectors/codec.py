"""Frames: one zstd frame or one xz stream, written by hand so that every byte of it can be chosen.

Data is written as zstd raw and RLE blocks and as LZMA2 uncompressed chunks. Reading
checks what docs/spec.md asks of a frame; compressed zstd blocks are left to the zstd program.
"""

import lzma
import re
import struct
import subprocess
import zlib

from content import BLOCK, sha256

MAGIC = struct.pack("<I", 0xFD2FB528)
MIB = 1 << 20


class Refused(Exception):
    """reason: a stable word of docs/spec.md."""

    def __init__(self, reason, text):
        super().__init__(reason + ": " + text)
        self.reason = reason


# zstd


def zstd_blocks(data):
    """data as RLE blocks where 16 bytes or more are equal, else as raw blocks."""
    pieces = []  # (is RLE, bytes)
    for match in re.finditer(rb"(?s)(.)\1*", data):
        equal = match.group()
        if len(equal) >= 16:
            pieces += [(True, equal[i : i + 65536]) for i in range(0, len(equal), 65536)]
        elif pieces and not pieces[-1][0] and len(pieces[-1][1]) < BLOCK:
            pieces[-1] = (False, pieces[-1][1] + equal)
        else:
            pieces.append((False, equal))
    out = b""
    for i, (rle, piece) in enumerate(pieces or [(False, b"")]):
        header = len(piece) << 3 | rle << 1 | (i + 1 >= len(pieces))
        out += struct.pack("<I", header)[:3] + (piece[:1] if rle else piece)
    return out


def zstd(data, size=None, window=None, dictionary=None, checksum=None, blocks=None, reserved=False):
    """A zstd frame. size: the declared content size (None: the true one, -1: absent);
    window: the Window_Descriptor byte, which makes it a frame that is not single-segment;
    dictionary: the Dictionary_ID field; checksum: the last four bytes; blocks: instead of data's own."""
    single = window is None
    size = len(data) if size is None else size
    descriptor = single << 5 | reserved << 3 | (checksum is not None) << 2
    header = b"" if single else bytes([window])
    if dictionary is not None:
        descriptor |= {1: 1, 2: 2, 4: 3}[len(dictionary)]
        header += dictionary
    if size >= 0:
        descriptor |= 2 << 6
        header += struct.pack("<I", size)
    assert size >= 0 or not single
    return MAGIC + bytes([descriptor]) + header + (zstd_blocks(data) if blocks is None else blocks) + (checksum or b"")


def zstd_decode(frame, plain):
    """The content of exactly one zstd frame, or Refused."""
    refuse = lambda text: Refused("frame", text)
    if frame[:4] != MAGIC or len(frame) < 5:
        raise refuse("not a zstd frame")
    descriptor, at = frame[4], 5
    if descriptor & 8:
        raise refuse("reserved bit in the frame header")
    single = descriptor >> 5 & 1
    if not single:
        exponent, mantissa = frame[at] >> 3, frame[at] & 7
        window = (1 << 10 + exponent) + ((1 << 10 + exponent) >> 3) * mantissa
        at += 1
    if descriptor & 3:
        raise refuse("a dictionary is named")
    field = [single, 2, 4, 8][descriptor >> 6]
    if field:
        size = int.from_bytes(frame[at : at + field], "little") + (256 if field == 2 else 0)
        at += field
        if size != plain:
            raise refuse("content size %d, want %d" % (size, plain))
    if single:
        window = plain
    if window > max(8 * MIB, plain):
        raise refuse("window of %d bytes" % window)
    out, last, compressed = [], False, False
    while not last:
        if at + 3 > len(frame):
            raise refuse("ends within its blocks")
        header = int.from_bytes(frame[at : at + 3], "little")
        last, kind, n = header & 1, header >> 1 & 3, header >> 3
        at += 3
        if kind == 3 or n > min(window, 128 << 10):
            raise refuse("bad block")
        compressed |= kind == 2
        out.append(frame[at : at + 1] * n if kind == 1 else frame[at : at + n])
        at += 1 if kind == 1 else n
        if kind != 2 and sum(map(len, out)) > plain:
            raise refuse("more than %d bytes" % plain)
    if descriptor & 4:
        at += 4
    if at != len(frame):
        raise refuse("ends %d bytes before or after its frame does" % (len(frame) - at))
    if compressed or descriptor & 4:
        run = subprocess.run(["zstd", "-dc"], input=frame, capture_output=True)
        if run.returncode != 0:
            raise refuse("does not decompress")
        out = [run.stdout]
    return b"".join(out)


# xz

XZ_MAGIC = b"\xfd7zXZ\0"
CHECKS = (0, 1, 4, 10)  # none, CRC32, CRC64, SHA-256; the others are reserved


def crc32(data):
    return struct.pack("<I", zlib.crc32(data))


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def pad4(data):
    return data + bytes(-len(data) % 4)


def check_of(kind, data):
    return {0: lambda d: b"", 1: crc32, 2: lambda d: b"none", 4: crc64, 10: sha256}[kind](data)


def crc64(data):
    crc = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xC96C5795D7870F42 if crc & 1 else 0)
    return struct.pack("<Q", crc ^ 0xFFFFFFFFFFFFFFFF)


def lzma2_chunks(data):
    out = b""
    for i in range(0, len(data), 65536):
        piece = data[i : i + 65536]
        out += (b"\x01" if i == 0 else b"\x02") + struct.pack(">H", len(piece) - 1) + piece
    return out + b"\0"


LZMA2 = 0x21


def xz_dict(size):
    """The LZMA2 dictionary byte for a size that is a power of two."""
    return 2 * (size.bit_length() - 1 - 12)


def xz(*parts, check=1, dictionary=8 * MIB, filters=None, sizes=False, index_off=0, check_off=0, later_dictionary=None, packed=None):
    """An xz stream with a block for each part. filters: [(id, properties)] instead of LZMA2 alone;
    packed: the LZMA2 bytes instead of data's own; sizes: with the optional sizes in block headers; index_off, check_off: faults."""
    flags = bytes([0, check])
    out = XZ_MAGIC + flags + crc32(flags)
    records = b""
    for i, data in enumerate(parts):
        size = later_dictionary if i > 0 and later_dictionary else dictionary
        chain = filters or [(LZMA2, bytes([xz_dict(size)]))]
        body = lzma2_chunks(data) if packed is None else packed
        header = bytes([len(chain) - 1 | (0xC0 if sizes else 0)])
        if sizes:
            header += varint(len(body)) + varint(len(data))
        for kind, properties in chain:
            header += varint(kind) + varint(len(properties)) + properties
        header += bytes(-(len(header) + 1) % 4)
        header = bytes([(len(header) + 1) // 4]) + header
        header += crc32(header)
        integrity = bytes(b ^ check_off for b in check_of(check, data))
        records += varint(len(header) + len(body) + len(integrity)) + varint(len(data) + index_off)
        out += header + pad4(body) + integrity
    index = pad4(b"\0" + varint(len(parts)) + records)
    index += crc32(index)
    footer = struct.pack("<I", len(index) // 4 - 1) + flags
    return out + index + crc32(footer) + footer + b"YZ"


def xz_decode(frame, plain):
    """The content of exactly one xz stream, or Refused."""
    refuse = lambda text: Refused("frame", text)
    if len(frame) < 12 or frame[7] not in CHECKS:
        raise refuse("not an xz stream, or a reserved check")
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    try:
        out = decoder.decompress(frame, plain + 1)
        if len(out) > plain:
            raise refuse("more than %d bytes" % plain)
        if not decoder.eof:
            out += decoder.decompress(b"", 1)
    except lzma.LZMAError as e:
        raise refuse(str(e))
    if not decoder.eof or decoder.unused_data:
        raise refuse("ends before or after its stream does")
    for filters in xz_filters(frame):
        if len(filters) != 1 or filters[0][0] != LZMA2:
            raise refuse("a filter other than LZMA2")
        if filters[0][1][0] > xz_dict(8 * MIB):
            raise refuse("dictionary over 8 MiB")
    return out


def xz_filters(stream):
    """The filter chain of each block of a sound stream, found through its index."""
    back = (struct.unpack("<I", stream[-8:-4])[0] + 1) * 4
    index = stream[-12 - back : -12]
    count, at = read_varint(index, 1)
    block, found = 12, []
    for _ in range(count):
        unpadded, at = read_varint(index, at)
        _, at = read_varint(index, at)
        found.append(block_filters(stream[block:]))
        block += unpadded + -unpadded % 4
    return found


def block_filters(header):
    flags, at = header[1], 2
    for bit in (0x40, 0x80):
        if flags & bit:
            _, at = read_varint(header, at)
    filters = []
    for _ in range((flags & 3) + 1):
        kind, at = read_varint(header, at)
        n, at = read_varint(header, at)
        filters.append((kind, header[at : at + n]))
        at += n
    return filters


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def decode(codec, stored, plain):
    if codec == "zstd":
        out = zstd_decode(stored, plain)
    elif codec == "xz":
        out = xz_decode(stored, plain)
    else:
        out = stored
    if len(out) != plain:
        raise Refused("frame", "%d bytes, want %d" % (len(out), plain))
    return out
