"""Disk content and its names: blocks, cutting (profile 1), region identity, disk digest.

Written from docs/spec.md alone, with the standard library of Python 3.
"""

import hashlib
import struct

BLOCK = 4096
REGION = 16384  # blocks
MAX_BLOCKS = 128
ZERO = bytes(BLOCK)


def sha256(data):
    return hashlib.sha256(data).digest()


def _crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


CRC_TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    table = CRC_TABLE
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


class Disk:
    """A virtual disk: its size in bytes and its non-hole blocks, by number, padded to 4096 bytes."""

    def __init__(self, size, blocks):
        self.size = size
        self.blocks = {}
        for number, block in blocks.items():
            start = number * BLOCK
            if start >= size:
                continue
            block = block[: size - start].ljust(BLOCK, b"\0")
            if block != ZERO:
                self.blocks[number] = block

    @classmethod
    def of_bytes(cls, content):
        blocks = {i // BLOCK: content[i : i + BLOCK] for i in range(0, len(content), BLOCK)}
        return cls(len(content), blocks)

    def sha256(self):
        """SHA-256 of the raw disk: size bytes, the padding of the last block cut off."""
        digest = hashlib.sha256()
        done = 0
        for number in sorted(self.blocks):
            skip_zeros(digest, number * BLOCK - done)
            piece = self.blocks[number][: self.size - number * BLOCK]
            digest.update(piece)
            done = number * BLOCK + len(piece)
        skip_zeros(digest, self.size - done)
        return digest.digest()


def skip_zeros(digest, n):
    zeros = bytes(1 << 20)
    while n > 0:
        digest.update(zeros[:n])
        n -= min(n, len(zeros))


def is_tail(block):
    return block[-16:] == bytes(16)


def cut(disk):
    """All chunks of a disk, ascending: (first block, [blocks])."""
    chunks = []
    for run in runs(disk):
        chunks += cut_run(run, [disk.blocks[n] for n in run])
    return chunks


def runs(disk):
    """Maximal ranges of adjacent non-hole blocks, split where a region ends."""
    found = []
    for n in sorted(disk.blocks):
        if found and found[-1].stop == n and n % REGION != 0:
            found[-1] = range(found[-1].start, n + 1)
        else:
            found.append(range(n, n + 1))
    return found


def cut_run(run, blocks):
    chunks = []
    start = 0
    for i, block in enumerate(blocks):
        n = i - start + 1
        if is_tail(block):
            following = blocks[i + 1 : i + 9]
            fresh = len(following) == 8 and not any(map(is_tail, following))
            stop = n >= 2 or fresh
        else:
            stop = n >= 16 and crc32c(block) < 1 << 28
        if stop or n == MAX_BLOCKS or i + 1 == len(blocks):
            chunks.append((run.start + start, blocks[start : i + 1]))
            start = i + 1
    return chunks


def region_identity(chunks):
    """chunks: (start block in the region, blocks, SHA-256), in order."""
    return sha256(b"".join(struct.pack("<HH", start, blocks) + digest for start, blocks, digest in chunks))


def disk_digest(profile, regions):
    """regions: (number, identity), ascending, only the non-empty ones."""
    text = b"davit disk 1\0" + struct.pack("<I", profile)
    return sha256(text + b"".join(struct.pack("<I", n) + identity for n, identity in regions))


def identities(disk):
    """The regions of a disk as profile 1 cuts it: {number: [(start, blocks, SHA-256)]}."""
    regions = {}
    for start, blocks in cut(disk):
        entry = (start % REGION, len(blocks), sha256(b"".join(blocks)))
        regions.setdefault(start // REGION, []).append(entry)
    return regions
