"""The cases of chunker.json: disks from a small script, and how profile 1 cuts them."""

import hashlib
import json
import struct

from content import BLOCK, REGION, Disk, crc32c, cut, disk_digest, identities, is_tail, region_identity, sha256

LOW = 1 << 28  # a block whose CRC-32C is below ends a chunk of 16 blocks or more


def stream(name, k):
    """Block k of the stream called name: 128 SHA-256 digests."""
    prefix = name.encode() + struct.pack("<Q", k)
    return b"".join(hashlib.sha256(prefix + bytes([i])).digest() for i in range(128))


def searched(block, wanted):
    """The block with the smallest little-endian nonce in its first 8 bytes that makes its CRC wanted."""
    nonce = 0
    while True:
        block = struct.pack("<Q", nonce) + block[8:]
        if wanted(crc32c(block)):
            return block
        nonce += 1


def make_block(kind, name, k):
    block = stream(name, k)
    if kind == "raw":
        return block
    if kind == "plain":
        return searched(block[:-1] + b"\1", lambda crc: crc >= LOW)
    if kind == "low":
        return searched(block[:-1] + b"\1", lambda crc: crc < LOW)
    if kind == "almost":
        return searched(block[:-16] + b"\1" + bytes(15), lambda crc: crc >= LOW)
    if kind == "tail":
        return block[:-17] + b"\1" + bytes(16)
    if kind == "lowtail":
        return searched(block[:-17] + b"\1" + bytes(16), lambda crc: crc < LOW)
    raise ValueError(kind)


def build(name, script, size=None, offset=0):
    """The disk of a script: `offset` zero bytes, then the script's blocks, cut or zero-filled to `size`."""
    blocks, at = {}, 0
    for op in flat(script):
        if op[0] == "repeat":
            start, count = op[1:]
            for i in range(count):
                if start + i in blocks:
                    blocks[at + i] = blocks[start + i]
        else:
            kind, count = op
            if kind != "hole":
                blocks.update({at + i: make_block(kind, name, at + i) for i in range(count)})
        at += count
    size = offset + at * BLOCK if size is None else size
    if offset == 0:
        return Disk(size, blocks)
    content = bytes(offset) + b"".join(blocks.get(i, bytes(BLOCK)) for i in range(at))
    return Disk.of_bytes(content[:size].ljust(size, b"\0"))


def flat(script):
    for op in script:
        if op[0] == "times":
            for _ in range(op[1]):
                yield from flat(op[2])
        else:
            yield op


P, T, H = "plain", "tail", "hole"

# (name, what it shows, script, more arguments of build)
CASES = [
    ("empty-disk", "size 0: no region, no chunk", [], {}),
    ("only-holes", "a disk of holes has the digest of an empty one", [[H, 40000]], {}),
    ("one-block", "the smallest chunk", [[P, 1]], {}),
    ("one-byte", "a block of one byte, padded with zeros, is a tail", [["raw", 1]], {"size": 1}),
    ("all-tails", "every chunk has two blocks", [[T, 21]], {}),
    ("no-tails", "at most 128 blocks a chunk", [[P, 300]], {}),
    ("low-at-15", "a low CRC does not end 15 blocks", [[P, 14], ["low", 1], [P, 20]], {}),
    ("low-at-16", "a low CRC ends 16 blocks", [[P, 15], ["low", 1], [P, 20]], {}),
    ("low-at-17", "a low CRC ends 17 blocks", [[P, 16], ["low", 1], [P, 20]], {}),
    ("low-everywhere", "16 blocks each", [["low", 50]], {}),
    ("low-at-128", "two reasons to end at once", [[P, 127], ["low", 1], [P, 20]], {}),
    ("random", "blocks as they come, a low CRC once in sixteen", [["raw", 400]], {}),
    ("tail-first", "8 blocks without a tail follow: cut at n = 1", [[T, 1], [P, 8]], {}),
    ("tail-first-7-follow", "only 7 blocks follow: no cut at n = 1", [[T, 1], [P, 7]], {}),
    ("tail-first-8th-is-tail", "a tail as the eighth: no cut at n = 1", [[T, 1], [P, 7], [T, 1], [P, 3]], {}),
    ("tail-first-9th-is-tail", "a tail as the ninth: cut at n = 1", [[T, 1], [P, 8], [T, 1], [P, 3]], {}),
    ("tail-first-hole-follows", "a hole ends the run before the eighth", [[T, 1], [P, 7], [H, 1], [P, 9]], {}),
    ("tail-tail", "no cut at n = 1, cut at n = 2", [[T, 2], [P, 12]], {}),
    ("tail-at-2", "cut after two blocks whatever follows", [[P, 1], [T, 1], [P, 3], [T, 1]], {}),
    ("tail-at-128", "two reasons to end at once", [[P, 127], [T, 1], [P, 12]], {}),
    ("tail-at-129", "a tail right after a chunk of 128, 8 follow", [[P, 128], [T, 1], [P, 8]], {}),
    ("tail-at-129-and-130", "a tail right after a chunk of 128, a tail follows", [[P, 128], [T, 2], [P, 4]], {}),
    ("lowtail", "the CRC of a tail is not looked at", [["lowtail", 1], [P, 7], [H, 1], [P, 1]], {}),
    ("almost-tail", "15 zero bytes are no tail", [["almost", 20], [P, 2]], {}),
    ("almost-follows", "a block with 15 zero bytes counts as no tail among the next 8", [[T, 1], ["almost", 8]], {}),
    ("alternate", "a chunk for each block", [["times", 40, [[P, 1], [H, 1]]]], {}),
    ("alternate-region", "8192 chunks in a region, the most there can be", [["times", REGION // 2, [[T, 1], [H, 1]]]], {}),
    ("small-files", "files of 1 to 9 blocks, each with a tail",
     [op for n in range(1, 10) for op in ([P, n - 1], [T, 1])], {}),
    ("region-end", "a chunk ends where the region ends", [[H, REGION - 10], [P, 30]], {}),
    ("region-end-tail", "the last block of a region is a tail: no blocks follow in it", [[H, REGION - 1], [T, 1], [P, 20]], {}),
    ("region-end-tail-first", "7 follow in the region, more in the next: no cut at n = 1", [[H, REGION - 8], [T, 1], [P, 20]], {}),
    ("region-end-tail-8", "8 follow in the region: cut at n = 1", [[H, REGION - 9], [T, 1], [P, 20]], {}),
    ("region-count-restarts", "the count starts anew in a region", [[H, REGION - 60], [P, 75], ["low", 1], [P, 10]], {}),
    ("far-region", "regions 0 and 5 only", [[P, 2], [H, 5 * REGION + 98], [P, 2]], {}),
    ("equal-chunks", "one content at three places, in two regions",
     [[T, 2], [H, 1], ["repeat", 0, 2], [H, REGION - 5], ["repeat", 0, 2]], {}),
    ("short-last-block", "the last chunk ends in a block of 1000 bytes", [[P, 3]], {"size": 2 * BLOCK + 1000}),
    ("short-by-16", "16 bytes of padding make a tail: no cut at n = 1", [[T, 1], [P, 8]], {"size": 9 * BLOCK - 16}),
    ("short-by-15", "15 bytes of padding do not: cut at n = 1", [[T, 1], [P, 8]], {"size": 9 * BLOCK - 15}),
    ("short-sector", "virtual size of 512-byte sectors", [[P, 20]], {"size": 19 * BLOCK + 1536}),
    ("only-last-partial", "data in nothing but the last, partial block", [[H, 9], [P, 1]], {"size": 9 * BLOCK + 17}),
    ("short-last-hole", "the last, partial block is a hole", [[P, 1], [H, 1]], {"size": BLOCK + 100}),
    ("zero-filled", "the size is past the data", [[P, 1]], {"size": 1 << 30}),
    ("sector-63", "content at byte 32256: no block of the stream is a block of the disk",
     [["raw", 20], [T, 1], ["raw", 10], [H, 3], ["raw", 2]], {"offset": 63 * 512}),
    ("two-regions-full-edge", "a run across the boundary with cuts on both sides",
     [[H, REGION - 20], ["low", 25], [T, 1], ["low", 20]], {}),
]


def case_json(name, note, script, args):
    disk = build(name, script, **args)
    regions = identities(disk)
    chunks = [[number * REGION + start, blocks, digest.hex()] for number in sorted(regions) for start, blocks, digest in regions[number]]
    ids = [(number, region_identity(regions[number])) for number in sorted(regions)]
    lines = [
        '"name": ' + json.dumps(name),
        '"note": ' + json.dumps(note),
        '"script": ' + json.dumps(script),
        '"offset": %d' % args.get("offset", 0),
        '"size": %d' % disk.size,
        '"sha256": "%s"' % disk.sha256().hex(),
        '"digest": "sha256:%s"' % disk_digest(1, ids).hex(),
        '"regions": ' + json.dumps([[n, identity.hex()] for n, identity in ids]),
        '"chunkCount": %d' % len(chunks),
    ]
    if len(chunks) <= 200:
        lines.append('"chunks": [' + ",".join("\n   " + json.dumps(c) for c in chunks) + "]")
    return "{" + ",\n  ".join(lines) + "}"


def chunker_json():
    cases = ",\n ".join(case_json(*case) for case in CASES)
    return ('{"schema": "davit.vectors.chunker.v1",\n "profile": 1,\n "cases": [\n ' + cases + "]}\n").encode()
