"""The cases of *.vec: artifacts that a reader takes, and artifacts with one fault each."""

from artifact import Builder
from content import BLOCK, Disk, disk_digest, identities, region_identity


def blk(letter):
    """A block of one letter: a zstd RLE block."""
    return letter.encode() * BLOCK


def tail(letter):
    return letter.encode() * (BLOCK - 16) + bytes(16)


def disk(content, size=None):
    """A disk from letters: upper-case a block of it, lower-case a tail block of its capital, '.' a hole."""
    blocks = {}
    for i, c in enumerate(content):
        if c != ".":
            blocks[i] = tail(c.upper()) if c.islower() else blk(c)
    return Disk(len(content) * BLOCK if size is None else size, blocks)


CASES = {}


def ok(name, note, disks, deep=None, expect="ok", reason=None, **args):
    if isinstance(disks, Disk):
        disks = [("disk0", disks)]
    CASES[name] = dict(note=note, disks=disks, expect=expect, deep=deep, reason=reason, args=args)


ok("ok-none", "one disk, no compression", disk("A.b"), codec="none")
ok("ok-zstd", "one disk, zstd", disk("A.BBb.Cc"))
ok("ok-xz", "one disk, xz", disk("A.b"), codec="xz")


def write(case):
    """The bytes of a vector file."""
    b = Builder(case["disks"], **case["args"])
    lines = ["note: " + case["note"], "expect: " + case["expect"]]
    if case["reason"]:
        lines.append("reason: " + case["reason"])
    if case["deep"]:
        lines.append("deep: " + case["deep"])
    lines.append("manifest: sha256:" + b.pinned.hex())
    if case["expect"] in ("ok", "any"):
        for name, d in case["disks"]:
            ids = [(n, region_identity(r)) for n, r in sorted(identities(d).items())]
            lines.append("disk.%s.size: %d" % (name, d.size))
            lines.append("disk.%s.sha256: %s" % (name, d.sha256().hex()))
            lines.append("disk.%s.digest: sha256:%s" % (name, disk_digest(b.profile, ids).hex()))
    out = "".join(line + "\n" for line in lines).encode() + b"\n"
    for digest, blob in b.stored.items():
        pad = getattr(b, "spaces", {}).get(digest)
        out += b"blob %s %d%s\n" % (digest.hex().encode(), len(blob), b" %d %d" % pad if pad else b"")
        out += blob + b"\n"
    return out
