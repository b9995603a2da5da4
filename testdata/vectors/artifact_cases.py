"""The cases of *.vec: artifacts that a reader takes, and artifacts with one fault each."""

import base64
import struct

import codec
from artifact import (EMPTY, FILE, IMAGE_CONFIG, IMAGE_INDEX, INDEX, LAYER, OVF, TITLE, Builder, sha256, text)
from codec import MIB, xz, zstd, zstd_blocks
from content import BLOCK, REGION, Disk

NVRAM = "application/vnd.davit.nvram.v1"
MF = "application/vnd.davit.ovf.manifest.v1"
CERT = "application/vnd.davit.ovf.certificate.v1+pem"

CASES = {}


def disk(content, size=None):
    """A disk of a block per letter: upper case is full of that letter, lower case a tail of its capital, '.' a hole.
    Letters may be followed by a block number: {number: letters}."""
    blocks = {}
    for at, letters in (content if isinstance(content, dict) else {0: content}).items():
        for i, c in enumerate(letters):
            if c != ".":
                blocks[at + i] = c.upper().encode() * (BLOCK - 16) + (bytes(16) if c.islower() else c.encode() * 16)
            last = at + i + 1
    return Disk(last * BLOCK if size is None else size, blocks)


def ok(name, note, disks, **args):
    case("ok-" + name, note, disks, "ok", **args)


def bad(name, rule, reason, note, disks=None, **args):
    case(name, note, disks or BASE, "refused", rule=rule, reason=reason, **args)


def deep(name, rule, reason, note, disks=None, expect="ok", **args):
    """Only who reads every byte of every blob finds this."""
    case("deep-" + name, note, disks or BASE, expect, deep="refused", rule=rule, reason=reason, **args)


def newer(name, note, disks=None, **args):
    case(name, note, disks or BASE, "newer", **args)


def case(name, note, disks, expect, rule=None, reason=None, deep=None, media=None, also=None, **args):
    if isinstance(disks, Disk):
        disks = [("disk0", disks)]
    assert name not in CASES
    CASES[name] = dict(note=note, disks=disks, expect=expect, deep=deep, rule=rule, reason=reason, media=media, also=also, args=args)


# A disk of four blocks, two chunks (A and BC), one frame.
BASE = disk("A.BC")

# Hooks


def put(stage, key, value, at=0):
    """Sets a value; `at` picks from a list. A function gets the old value."""
    def hook(where, *_):
        where = where[at] if isinstance(where, list) else where
        where[key] = value(where[key]) if callable(value) else value
    return {stage: hook}


def frame_entry(i, value, at=0):
    def hook(d, _):
        d["frames"][at][i] = value(d["frames"][at][i]) if callable(value) else value
    return {"directory": hook}


def each_frame(make):
    """The stored form of the first frame of the first layer."""
    return {"frame": lambda stored, layer, i, plain: make(plain) if i == 0 and layer.number == 0 else stored}


def flip(digest):
    """32 bytes with one bit changed."""
    return bytes([digest[0] ^ 1]) + digest[1:]


def flip_text(digest):
    return text(flip(bytes.fromhex(digest[7:])))


def at_layer(i, change):
    """Changes the descriptor of layer i of the manifest."""
    return {"manifest": lambda m: change(m["layers"][i])}


def annotate(key, value, i=0):
    def change(d):
        if value is None:
            del d["annotations"][key]
        else:
            d["annotations"][key] = value(d["annotations"][key]) if callable(value) else value
    return at_layer(i, change)


def replaced(old, new):
    """In the bytes of the manifest, once."""
    def hook(blob):
        assert blob.count(old) >= 1, (old, blob)
        return blob.replace(old, new, 1)
    return {"manifest_bytes": hook}


def added(member):
    """One more member at the end of the manifest, as text."""
    return {"manifest_bytes": lambda blob: blob[:-1] + b"," + member + b"}"}


def stored(prefix, offset, change=lambda b: b ^ 1):
    """Changes a byte of the first stored blob after the manifest that begins with prefix, not its address."""
    def hook(blobs):
        for digest, blob in list(blobs.items())[1:]:
            if blob.startswith(prefix):
                at = offset(blob) if callable(offset) else offset
                at %= len(blob)
                blobs[digest] = blob[:at] + bytes([change(blob[at])]) + blob[at + 1 :]
                return
        raise AssertionError(prefix)
    return {"store": hook}


ZSTD_MAGIC = codec.MAGIC
SKIPPABLE = struct.pack("<II", 0x184D2A50, 4) + b"davi"
EMPTY_ZSTD = zstd(b"")
BLOAT = b"\0\0\0"  # an empty raw block

# What a reader takes

ok("none", "one disk, no compression", disk("A.b"), codec="none")
ok("zstd", "one disk, zstd", disk("A.BBb.Cc"))
ok("xz", "one disk, xz", disk("A.b"), codec="xz")

TEXT = b"".join(b"%05d the quick brown fox jumps over the lazy dog\n" % i for i in range(200))[: 2 * BLOCK]
REAL_ZSTD = base64.b64decode("""
KLUv/QRY7QYA0g0iHGBN0mKv5QgP8JUA4+rYoqgC2d3dvVkBgSgAxQH/////////////////////q4lnRc+uJp4VPbqaeFb05GriWdGDq4lnRc+tJp4VPbaaeFb0
1GriWdFDq4lnRc+riWdFz8wsCsoAoagAUGAcEYU8NCw0EMhEISAMEoURQBIEDhoO5DCAIDMzE4CkqBGwtz97BvA1tgMSSBD4/38Egf5UVWqrVtVaVbVV1apV
K1VbVY0uTlStDVMp1c0qreJUtTVTqdrNqqp4SrWaVanq5qqqOK1aBFilXKUAyComoDTP""")
# The directory of three equal frames of 100 equal chunks, by zstd 1.5.4, level 19.
REAL_DIRECTORY = base64.b64decode("""
KLUv/WBsJ1UDALQFREFWSVREUjEDAAAALAEAACUAQAYAZAAAANyAlNBkNOWQ23oLpa6dXiQPl9NFoNgWEwltrDRnbEDHAQBoltnqP3OkQ09YMrxlcU59Bm
8Xc3PzbzTcim9zXapBsQMAmj1F8e/11PQAIAw=""")
REAL_XZ = base64.b64decode("""
/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4B//ANVdABhpBA6Gg000d3n7b6K0S12bzvpjluiqg56y5eajENR2OsdLeajPbhFT2hsPicucCTP13BERV4eOSaIDtOwC
fMofbtcGDp+dgTzcMKl6aHX3T/XPeLTaX9f1aev3b9e/6iUtZoSpgG4VXOHr43zanB+k9DMhhDbQ0eVI6TvxNT/JE/QEqE5tb89Zzl1qe7u27wy3CjujUNnWs08A
xpPCIt1Ob9b8xrrSoT5gYAdErYNzte/HH+1asaOOucdRgCZug/Q6atjTYOiF38CLR93d2PiHrbyDAAAAAAA+7+iUKy/SnAAB8QGAQAAAKgw4vbHEZ/sCAAAAAARZWg==""")
TEXT_DISK = Disk.of_bytes(TEXT)
ok("zstd-compressed", "a frame of zstd 1.5.4, level 3, with a checksum", TEXT_DISK, **each_frame(lambda p: REAL_ZSTD))
ok("xz-compressed", "a frame of xz 5.4.1, level 6, CRC64", TEXT_DISK, codec="xz", **each_frame(lambda p: REAL_XZ))
ok("zstd-no-size", "a frame without content size, window 8 MiB", BASE, **each_frame(lambda p: zstd(p, size=-1, window=13 << 3)))
ok("zstd-empty-blocks", "a frame with empty blocks", BASE,
   **each_frame(lambda p: zstd(p, blocks=BLOAT * 3 + zstd_blocks(p))))
ok("frame-stored-limit", "a frame of exactly 2 x plain + 1024 stored bytes", disk("A"),
   **each_frame(lambda p: zstd(p, blocks=BLOAT * 3066 + struct.pack("<I", 4094 << 3 | 2)[:3] + b"A" + b"\x11\0\0AA")))
ok("xz-check-none", "a stream without integrity check", disk("A"), codec="xz", **each_frame(lambda p: xz(p, check=0)))
ok("xz-check-crc64", "CRC64", disk("A"), codec="xz", **each_frame(lambda p: xz(p, check=4)))
ok("xz-check-sha256", "SHA-256", disk("A"), codec="xz", **each_frame(lambda p: xz(p, check=10)))
ok("xz-two-blocks", "a stream of two blocks, with sizes in their headers", disk("A"), codec="xz",
   **each_frame(lambda p: xz(p[:1000], p[1000:], sizes=True)))
ok("xz-small-dictionary", "a dictionary of 64 KiB", disk("A"), codec="xz", **each_frame(lambda p: xz(p, dictionary=65536)))

A, B, C, D, E = (letter.encode() * BLOCK for letter in "ABCDE")
ok("mixed-codecs", "three layers, of zstd, xz and no compression", disk("A.B.C.A"),
   layers=[("zstd", [[A]]), ("xz", [[B]]), ("none", [[C]])])
ok("two-disks", "two disks with a chunk in common", [("root", disk("A.BC")), ("data", disk("..D.A"))])
ok("two-disks-equal", "two disks of one content have one index", [("disk0", BASE), ("disk1", BASE)])
ok("two-disks-two-sizes", "equal chunks, other size: one disk digest, two indexes",
   [("disk0", BASE), ("disk1", disk("A.BC", 1 << 20))])
ok("empty-disk", "a disk of size 0: no chunk layer", Disk(0, {}))
ok("holes-only", "a disk without chunks: no chunk layer", Disk(100 << 20, {}))
ok("holes-and-data", "a disk without chunks beside one with: its index has the layer table, too",
   [("disk0", Disk(1 << 20, {})), ("disk1", BASE)])
ok("short-last-block", "a size that is no multiple of 4096 or 512", disk("A.BC", 3 * BLOCK + 1001))
ok("one-byte", "a disk of one byte", disk("A", 1))
ok("regions", "regions 0, 1 and 3, a run that ends with its region", disk({0: "AB.", REGION - 2: "CDE", 3 * REGION + 7: "A"}))
ok("last-region-full", "the last region ends with the disk", disk({REGION - 1: "A", 2 * REGION - 2: "AB"}))
ok("shared-chunk", "one chunk at three places", disk("aa.aa..aa"))
ok("dead-chunk", "a layer holds a chunk that no page names", disk("A.C"), layers=[("zstd", [[A], [B], [C]])])
ok("dead-chunk-in-frame", "a frame holds a chunk that no page names", disk("A.C"), layers=[("zstd", [[A, B, C]])])
ok("layer-not-used", "a layer of the table that no page names", disk("A.C"), layers=[("zstd", [[B]]), ("zstd", [[A, C]])])
ok("chunk-in-two-layers", "the pages name the second layer", disk("A.C"), layers=[("zstd", [[A]]), ("zstd", [[A, C]])],
   runs=lambda runs, n: [[0, 1, 0, 1], [1, 1, 1, 1]])
ok("chunk-twice-in-layer", "a directory with one digest twice", disk("A.A"), layers=[("zstd", [[A, A]])],
   runs=lambda runs, n: [[0, 0, 0, 1], [1, 0, 1, 1]])
ok("frames", "a layer of three frames, a run of chunks over all of them", disk("aa" * 2 + "bb" + "cc"),
   layers=[("zstd", [[disk("aa").blocks[0] * 2], [disk("bb").blocks[0] * 2], [disk("cc").blocks[0] * 2]])])
ok("frame-full", "a frame of 524288 bytes, chunks of 128 blocks", disk("A" * 128 + "B" * 128 + "C"),
   chunks=lambda d: [(0, [A] * 128), (128, [B] * 128), (256, [C])], profile=77)
ok("chunks-8192", "a region with 8192 chunks", disk("a." * (REGION // 2)))
ok("optional-feature", "unknown optional feature bits are ignored", BASE, **put("header", "optional", 1 << 63 | 5))
ok("unknown-profile", "cuts that profile 1 does not make, under another number", disk("A.BC"), profile=4000000000,
   chunks=lambda d: [(0, [A]), (2, [B]), (3, [C])])
ok("layer-not-in-table", "a chunk layer of the manifest that is in no table", disk("A.BC"), layers=[("zstd", [[A, B + C]]), ("zstd", [[D]])],
   table=lambda table, i: table[:1])
ok("table-order", "a table in another order than the manifest's", disk("A.BC"), layers=[("zstd", [[A]]), ("zstd", [[B + C]])],
   table=lambda table, i: table[::-1], runs=lambda runs, n: [[0, 1, 0, 1], [1, 0, 0, 1]])
ok("package", "all kinds of package files", BASE, files=[
    (FILE, "media/boot.iso", b"not really an ISO"), (FILE, "copy.iso", b"not really an ISO"), (NVRAM, "vm.nvram", b"nvram"),
    (MF, "vm.mf", b"SHA256(vm.ovf)= 00\n"), (CERT, "vm.cert", b"SHA256(vm.mf)= 00\n")])
ok("no-disks", "a machine with neither disks nor files: the OCI empty descriptor", [])
ok("files-only", "a machine with a file and no disk", [], files=[(FILE, "boot.iso", b"not really an ISO")])
ok("compat-gitlab", "no artifactType, an OCI image config, the OVF as a layer", BASE, compat=True)
ok("manifest-spaces", "white space before the object and in it", BASE,
   manifest_bytes=lambda b: b" \r\n" + b.replace(b'":', b'" :\t'))
ok("manifest-limit", "a manifest of exactly 4 MiB", BASE, length=4 << 20)
ok("manifest-unknown-members", "members and annotations that nobody knows", BASE,
   manifest=lambda m: m["layers"][1].update(annotations={"a": "", "A": "", "org.example": "\u017f"}) or dict(m, extra={"a": [None, 1.5, {}]}))
ok("disk-sector", "a disk of 4096-byte sectors", BASE, **annotate("vnd.davit.disk.sector", "4096"))
ok("disk-sector-512", "sectors of 512 bytes, which need not be said", BASE, **annotate("vnd.davit.disk.sector", "512"))
ok("manifest-unknown-layer", "a layer of an unknown media type", BASE, files=[("application/vnd.example.notes", "notes", b"notes")])
ok("manifest-annotations", "annotations of the manifest", BASE, manifest=lambda m: dict(m, annotations={
    "org.opencontainers.image.description": "<a & b> \u2028 \u00e9", "vnd.davit.platform": "linux/amd64"}))


# What only a deep reader refuses

PACKED = dict(files=[(FILE, "boot.iso", b"not really an ISO")])
deep("config", "V1", "config", "a bit of the OVF is flipped", **stored(b"<?xml", -2))
deep("file", "V1", "file", "a bit of a package file is flipped", **PACKED, **stored(b"not", -2))
deep("layer-longer", "V1", "layer", "a byte after the directory, which no digest but the layer's covers", expect="any",
     store=lambda blobs: blobs.update((k, v + b"\0") for k, v in list(blobs.items()) if v.startswith(ZSTD_MAGIC)))
deep("dead-frame", "F1", "frame layer", "a bit is flipped in a frame that no page names", disk("A.C"),
     layers=[("zstd", [[A, C], [B]])], **stored(ZSTD_MAGIC, len(zstd(A + C)) + 12))
deep("dead-chunk", "C1", "chunk", "a wrong digest of a chunk that no page names", disk("A.C"), layers=[("zstd", [[A, C], [B]])],
     directory=lambda d, l: d["chunks"].__setitem__(2, [1, flip(sha256(B))]))
deep("layer-not-used", "D1", "directory layer", "a bit is flipped in the directory of a layer that no page names", disk("A.C"),
     layers=[("zstd", [[A, C]]), ("zstd", [[B]])], store=lambda blobs: flip_last(blobs, zstd(B)))
deep("cuts", "V2", "cut", "profile 1 does not cut here", chunks=lambda d: [(0, [A]), (2, [B]), (3, [C])])
deep("hole-in-chunk", "V2", "cut", "a chunk with a block of zeros", chunks=lambda d: [(0, [A, bytes(BLOCK), B, C])])


def flip_last(blobs, prefix):
    for k, v in blobs.items():
        if v.startswith(prefix):
            blobs[k] = v[:-1] + bytes([v[-1] ^ 1])


# Manifest

bad("manifest-digest", "M1", "manifest", "the bytes do not hash to the pinned digest",
    store=lambda blobs: blobs.update([(k, v.replace(b'"disk0"', b'"disk1"')) for k, v in list(blobs.items())[:1]]))
bad("manifest-too-large", "M2", "manifest", "4 MiB and one byte", length=(4 << 20) + 1)
bad("manifest-not-utf8", "M3", "manifest", "a byte that is not UTF-8", **added(b'"x":"\xff"'))
bad("manifest-utf16-surrogate", "M3", "manifest", "a surrogate as three bytes is not UTF-8", **added(b'"x":"\xed\xa0\x80"'))
bad("manifest-trailing-object", "M4", "manifest", "a second object after the first", manifest_bytes=lambda b: b + b"{}")
bad("manifest-trailing-newline", "M4", "manifest", "a newline after the object", manifest_bytes=lambda b: b + b"\n")
bad("manifest-trailing-nul", "M4", "manifest", "a zero byte after the object", manifest_bytes=lambda b: b + b"\0")
bad("manifest-array", "M4", "manifest", "an array around the object", manifest_bytes=lambda b: b"[" + b + b"]")
bad("manifest-truncated", "M4", "manifest", "the last brace is missing", manifest_bytes=lambda b: b[:-1])
bad("manifest-empty", "M4", "manifest", "no byte at all", manifest_bytes=lambda b: b"")
bad("manifest-bom", "M4", "manifest", "a byte order mark", manifest_bytes=lambda b: b"\xef\xbb\xbf" + b)
bad("manifest-comma", "M4", "manifest", "a comma too many", manifest_bytes=lambda b: b[:-1] + b",}")
bad("manifest-nan", "M4", "manifest", "NaN is not JSON", **added(b'"x":NaN'))
bad("manifest-key-twice", "M5", "manifest", "layers twice, with equal value",
    manifest_bytes=lambda b: b[:-1] + b"," + b[b.index(b'"layers"') : -1] + b"}")
bad("manifest-key-twice-escaped", "M5", "manifest", "layers twice, once with an escape",
    manifest_bytes=lambda b: b[:-1] + b"," + b[b.index(b'"layers"') : -1].replace(b"layers", b"l\\u0061yers") + b"}")
bad("manifest-key-case-twice", "M5", "manifest", "layers and Layers",
    manifest_bytes=lambda b: b[:-1] + b"," + b[b.index(b'"layers"') : -1].replace(b"layers", b"Layers") + b"}")
bad("manifest-unknown-key-case-twice", "M5", "manifest", "two unknown keys that differ in case", **added(b'"extra":1,"eXtra":1'))
bad("manifest-nested-key-case-twice", "M5", "manifest", "the same in an object within an unknown member", **added(b'"x":[{"a":1,"A":1}]'))
bad("manifest-key-misspelt", "M5", "manifest", "Subject for subject", **added(b'"Subject":null'))
bad("manifest-key-misspelt-annotations", "M5", "manifest", "ANNOTATIONS for annotations", **added(b'"ANNOTATIONS":{}'))
bad("manifest-key-long-s", "M5", "manifest", "U+017F for the s of annotations, which some decoders take for it", **added('"annotation\u017f":{}'.encode()))
bad("descriptor-key-twice", "M5", "manifest", "size twice in a descriptor", **replaced(b'"size":', b'"size":1,"size":'))
bad("descriptor-key-misspelt", "M5", "manifest", "URLs for urls in a descriptor", **replaced(b'"digest":', b'"URLs":[],"digest":'))
bad("annotation-twice", "M5", "manifest", "an annotation twice", **added(b'"annotations":{"a":"1","a":"1"}'))
bad("annotation-of-layer-twice", "M5", "manifest", "the disk name twice", **replaced(b'"vnd.davit.disk.name":', b'"vnd.davit.disk.name":"disk0","vnd.davit.disk.name":'))
bad("size-negative", "M6", "manifest", "a negative size", manifest=lambda m: m["config"].update(size=-1))
bad("size-fraction", "M6", "manifest", "a size with a fraction", manifest=lambda m: m["config"].update(size=float(m["config"]["size"])))
bad("size-exponent", "M6", "manifest", "a size with an exponent", **replaced(b'"size":', b'"size":1e3,"x":'))
bad("size-text", "M6", "manifest", "a size that is a string", manifest=lambda m: m["config"].update(size=str(m["config"]["size"])))
bad("size-too-large", "M6", "manifest", "a size of 2^63", manifest=lambda m: m["config"].update(size=1 << 63))
bad("size-missing", "M6", "manifest", "a descriptor without size", manifest=lambda m: m["config"].pop("size") and None)
bad("digest-missing", "M6", "manifest", "a descriptor without digest", manifest=lambda m: m["config"].pop("digest") and None)
bad("descriptor-type-missing", "M6", "manifest", "a descriptor without mediaType", manifest=lambda m: m["layers"].append({"digest": text(sha256(b"{}")), "size": 2}))
bad("descriptor-null", "M6", "manifest", "null among the layers", manifest=lambda m: m["layers"].append(None))
bad("layers-missing", "M6", "manifest", "no layers", manifest=lambda m: m.pop("layers") and None)
bad("layers-null", "M6", "manifest", "layers is null", [], manifest=lambda m: m.update(layers=None))
bad("layers-object", "M6", "manifest", "layers is an object", [], manifest=lambda m: m.update(layers={}))
bad("config-missing", "M6", "manifest", "no config", manifest=lambda m: m.pop("config") and None)
bad("annotations-null", "M6", "manifest", "annotations is null", manifest=lambda m: m.update(annotations=None))
bad("annotation-number", "M6", "manifest", "an annotation that is a number", manifest=lambda m: m.update(annotations={"a": 1}))
bad("schema-version", "M7", "manifest", "schemaVersion 1", **put("manifest", "schemaVersion", 1))
bad("schema-version-missing", "M7", "manifest", "no schemaVersion", manifest=lambda m: m.pop("schemaVersion") and None)
bad("media-type-missing", "M8", "manifest", "no mediaType in the manifest", manifest=lambda m: m.pop("mediaType") and None)
bad("media-type-other", "M8", "manifest", "the mediaType of a Docker manifest", **put("manifest", "mediaType", "application/vnd.docker.distribution.manifest.v2+json"))
bad("media-type-parameter", "M8", "manifest", "a mediaType with a parameter", **put("manifest", "mediaType", lambda m: m + "; charset=utf-8"))
bad("media-type-descriptor", "M8", "manifest", "the descriptor says it is an index", media=IMAGE_INDEX)
bad("layers-and-manifests", "M9", "manifest", "layers and manifests in one object", manifest=lambda m: m.update(manifests=[]))
bad("manifests-and-layers", "M9", "manifest", "an index with layers", media=IMAGE_INDEX,
    manifest=lambda m: m.update(mediaType=IMAGE_INDEX, manifests=[]))
bad("urls-layer", "M10", "manifest", "a layer with urls", **at_layer(1, lambda d: d.update(urls=["https://example.com/blob"])))
bad("urls-config", "M10", "manifest", "a config with urls", manifest=lambda m: m["config"].update(urls=["https://example.com/blob"]))
bad("urls-empty", "M10", "manifest", "urls that is empty", **at_layer(0, lambda d: d.update(urls=[])))
bad("digest-sha512", "M11", "manifest", "another algorithm", manifest=lambda m: m["config"].update(digest="sha512:" + 128 * "0"))
bad("digest-upper-case", "M11", "manifest", "upper-case hex digits", **at_layer(0, lambda d: d.update(digest="sha256:" + d["digest"][7:].upper())))
bad("digest-algorithm-case", "M11", "manifest", "SHA256 for sha256", **at_layer(0, lambda d: d.update(digest=d["digest"].replace("sha", "SHA"))))
bad("digest-short", "M11", "manifest", "63 hex digits", manifest=lambda m: m["config"].update(digest=m["config"]["digest"][:-1]))
bad("digest-bare", "M11", "manifest", "no algorithm", manifest=lambda m: m["config"].update(digest=m["config"]["digest"][7:]))
bad("artifact-type", "M12", "manifest", "another artifactType", **put("manifest", "artifactType", "application/vnd.davit.vm.v2"))
bad("artifact-type-missing", "M12", "manifest", "no artifactType and an OVF as config", manifest=lambda m: m.pop("artifactType") and None)
bad("config-type", "M12", "manifest", "another config type", manifest=lambda m: m["config"].update(mediaType="application/vnd.davit.ovf.v2+xml"))
bad("config-image", "M12", "manifest", "artifactType and an image config", compat=True, **{"manifest": lambda m: m.update(artifactType="application/vnd.davit.vm.v1")})
bad("ovf-as-layer-too", "M12", "manifest", "an OVF as config and one as a layer", manifest=lambda m: m["layers"].append(dict(m["config"])))
bad("compat-no-ovf", "M12", "manifest", "an image config and no OVF among the layers", compat=True, manifest=lambda m: m["layers"].pop(0) and None)
bad("compat-two-ovfs", "M12", "manifest", "an image config and two OVFs among the layers", compat=True, manifest=lambda m: m["layers"].append(dict(m["layers"][0])))
bad("layers-empty", "M13", "manifest", "no layer, not even the OCI empty descriptor", [], manifest=lambda m: m.update(layers=[]))
for key in ("name", "digest", "size"):
    bad("disk-%s-missing" % key, "M14", "manifest", "an index without vnd.davit.disk." + key, **annotate("vnd.davit.disk." + key, None))
bad("index-head-missing", "M14", "manifest", "an index without vnd.davit.index.head", **annotate("vnd.davit.index.head", None), also="I2")
for name, value, note in (
    ("slash", "a/b", "a slash in a disk name"), ("empty", "", "an empty disk name"), ("dot", ".disk", "a disk name that begins with a dot"),
    ("long", "d" * 64, "a disk name of 64 characters"), ("unicode", "d\u00e4", "a letter that is not ASCII"), ("newline", "disk0\n", "a newline after the name"),
):
    bad("disk-name-" + name, "M14", "manifest", note, **annotate("vnd.davit.disk.name", value))
bad("disk-size-zero-first", "M14", "manifest", "a disk size with a leading zero", **annotate("vnd.davit.disk.size", lambda s: "0" + s))
bad("disk-size-plus", "M14", "manifest", "a disk size with a sign", **annotate("vnd.davit.disk.size", lambda s: "+" + s))
for name, note, value in [("1024", "sectors of 1024 bytes", "1024"), ("zero-first", "a sector size with a leading zero", "04096"), ("empty", "a sector size that is empty", "")]:
    bad("disk-sector-" + name, "M14", "manifest", note, **annotate("vnd.davit.disk.sector", value))
bad("disk-digest-malformed", "M14", "manifest", "a disk digest in upper case", **annotate("vnd.davit.disk.digest", lambda s: "sha256:" + s[7:].upper()))
bad("index-head-malformed", "M14", "manifest", "an index head without algorithm", **annotate("vnd.davit.index.head", lambda s: s[7:]), also="I2")
bad("disk-name-twice", "M15", "manifest", "two disks of one name", [("disk0", BASE), ("disk0", disk("A"))])
bad("disk-name-case", "M15", "manifest", "two names that differ in case", [("root", BASE), ("Root", disk("A"))])
bad("chunk-layer-twice", "M16", "manifest", "a chunk layer twice", manifest=lambda m: m["layers"].append(dict(m["layers"][1])))
for name, value, note in (
    ("missing", None, "a package file without title"), ("up", "../boot.iso", "a title that leads out of the folder"),
    ("absolute", "/boot.iso", "an absolute title"), ("backslash", "..\\boot.iso", "a backslash in a title"),
    ("drive", "C:boot.iso", "a colon in a title"), ("dot", "a/./boot.iso", "an element that is a dot"), ("double-slash", "a//boot.iso", "an empty element"),
    ("newline", "boot\n.iso", "a control character in a title"), ("long", "a/" * 127 + "bc", "a title of 256 bytes"),
):
    bad("title-" + name, "M17", "manifest", note, **PACKED, **annotate(TITLE, value, 2))
bad("title-twice", "M17", "manifest", "two titles that differ in case", files=[(FILE, "boot.iso", b"1"), (FILE, "BOOT.iso", b"2")])
newer("media-type-unknown", "a chunk layer of an unknown codec", manifest=lambda m: m["layers"].append(dict(m["layers"][1], mediaType=LAYER + "+lz4")))
newer("media-type-index-v2", "an index of version 2", **at_layer(0, lambda d: d.update(mediaType="application/vnd.davit.disk.index.v2")))

# Index

bad("index-flipped", "I1", "index", "a bit is flipped in an optional feature", **stored(b"DAVITIX1", 16), also="I2")
bad("index-flipped-page", "I1", "index page", "a bit is flipped in the last page", **stored(b"DAVITIX1", -1), also="P1 P4 R1")
bad("index-size", "I1", "index", "a size that is one byte more", **at_layer(0, lambda d: d.update(size=d["size"] + 1)))
bad("index-longer", "I1", "index", "a byte after the end, not in digest and size", store=lambda blobs: blobs.update((k, v + b"\0") for k, v in list(blobs.items()) if v.startswith(b"DAVITIX1")), also="I4")
bad("index-head", "I2", "index", "another digest of the head", **annotate("vnd.davit.index.head", flip_text))
bad("index-magic", "I3", "index", "another magic", **put("header", "magic", b"DAVITIX2"))
bad("index-short", "I3", "index", "75 bytes", index=lambda blob, i: blob[:75])
bad("index-gap", "I4", "index", "a byte between tables and pages", index=lambda blob, i: blob[:-8] + b"\0" + blob[-8:],
    **put("offsets", "pageOffset", lambda n: n + 1))
bad("index-trailing", "I4", "index", "a byte after the last page", index=lambda blob, i: blob + b"\0")
bad("index-pages-swapped", "I4", "index", "pages in another order than regions", disk({0: "A", REGION: "B."}),
    offsets=lambda r, i: (r[1].update(pageOffset=r[0]["pageOffset"]), r[0].update(pageOffset=r[0]["pageOffset"] + 4)) and None,
    index=lambda blob, i: blob[:-8] + blob[-4:] + blob[-8:-4])
bad("index-pages-shared", "I4", "index", "two regions with one page", disk({0: "A", REGION: "A."}),
    offsets=lambda r, i: r[1].update(pageOffset=r[0]["pageOffset"]), index=lambda blob, i: blob[:-4])
bad("index-page-beyond", "I4", "index", "a page longer than the rest", **put("offsets", "pageLength", lambda n: n + 1))
bad("index-page-offset-wraps", "I4", "index", "pageOffset 2^64 - 1", **put("offsets", "pageOffset", (1 << 64) - 1), also="P1 P2 R1")
bad("index-layers-wrap", "I4", "index", "2^32 - 1 layers", **put("header", "layers", 0xFFFFFFFF), also="I2")
bad("index-regions-wrap", "I4", "index", "2^32 - 1 regions", **put("header", "regions", 0xFFFFFFFF), also="I2")
newer("index-incompatible", "incompatible feature bit 0", **put("header", "incompatible", 1))
newer("index-incompatible-63", "incompatible feature bit 63", **put("header", "incompatible", 1 << 63))
bad("index-virtual-size", "I5", "index", "a virtual size of 2^58 + 1", **put("header", "virtualSize", (1 << 58) + 1))
bad("index-size-annotation", "I6", "index", "another size in the annotation", **annotate("vnd.davit.disk.size", "16385"))
bad("index-digest-annotation", "I6", "index", "another disk digest in the annotation", **annotate("vnd.davit.disk.digest", flip_text))
bad("index-layer-unknown", "I7", "index", "a layer that the manifest has not",
    table=lambda t, i: t + [dict(t[0], digest=sha256(b"no layer"))])
bad("index-layer-is-file", "I7", "index", "a layer that is a package file in the manifest", files=[(FILE, "layer", b"no layer")],
    table=lambda t, i: t + [dict(t[0], digest=sha256(b"no layer"), size=8, dirOffset=0, dirStored=8)])
bad("index-layer-size", "I7", "index", "a descriptor with another size", **at_layer(1, lambda d: d.update(size=d["size"] + 1)))
bad("index-layer-twice", "I8", "index", "a layer twice in the table", table=lambda t, i: t + t)
bad("index-no-chunks", "I9", "index directory", "a layer of 0 chunks that no page names", layers=[("zstd", [[A, B + C]]), ("zstd", [[D]])],
    table=lambda t, i: t[1].update(chunks=0, dirPlain=16 + 44))
bad("index-many-chunks", "I9", "index directory", "a layer of 2^20 + 1 chunks that no page names", layers=[("zstd", [[A, B + C]]), ("zstd", [[D]])],
    table=lambda t, i: t[1].update(chunks=(1 << 20) + 1, dirPlain=16 + 44 + 34 * ((1 << 20) + 1)))
bad("index-directory-before-end", "I9", "index directory", "a byte after the directory", layer=lambda blob, l: blob + b"\0")
bad("index-directory-wraps", "I9", "index directory", "dirOffset + dirStored is 2^64 + size",
    layers=[("zstd", [[A, B + C]]), ("zstd", [[D]])], table=lambda t, i: t[1].update(dirOffset=(1 << 64) - 1, dirStored=t[1]["size"] + 1, dirPlain=16 + 44 * 400 + 34 * 400, chunks=400))
bad("index-directory-plain", "I9", "index directory", "a directory with a byte after its entries", directory_plain=lambda p, l: p + b"\0", also="D5")
bad("index-directory-proportion", "I9", "index directory", "a directory of 10348 bytes stored in 116: 300 times one chunk", disk("A"),
    layers=[("zstd", [[A] * 100] * 3)], runs=lambda runs, n: [[0, 0, 0, 1]], directory_stored=lambda s, l, p: REAL_DIRECTORY)
bad("index-directory-stored", "I9", "index directory", "a directory of more than 2 x plain + 1024 stored bytes",
    directory_stored=lambda s, l, p: zstd(p, blocks=BLOAT * ((2 * len(p) + 1024) // 3) + zstd_blocks(p)))
TWO_REGIONS = disk({0: "A", REGION: "B."})
bad("index-regions-descend", "I10", "index", "region 1 before region 0", TWO_REGIONS, regions=lambda r, i: r[::-1])
bad("index-region-twice", "I10", "index", "region 0 twice", TWO_REGIONS, regions=lambda r, i: [r[0], dict(r[0])])
bad("index-region-beyond", "I10", "index", "a region that begins where the disk ends", disk({0: "A", REGION: "B"}), **put("header", "virtualSize", REGION * BLOCK), also="P8")
bad("index-disk-digest", "I11", "index", "a disk digest that is not that of the regions", **put("header", "digest", flip))
bad("index-profile", "I11", "index", "another profile than the disk digest's", **put("header", "profile", 2))

# Pages

bad("page-digest", "P1", "page", "another digest of a page", **put("regions", "pageSHA256", flip))


def page(change):
    return {"page": lambda page, runs: change(page)}


bad("page-empty", "P2", "page index", "a page of no bytes", disk("..."), layers=[("zstd", [[A]])],
    regions=lambda r, i: [{"number": 0, "identity": sha256(b""), "page": b"", "pageSHA256": sha256(b"")}])
bad("page-ends-in-run", "P2", "page", "a gap and nothing after it", **page(lambda p: p + b"\1"))
bad("page-ends-in-count", "P2", "page", "the count is missing", **page(lambda p: p + b"\1\0\0"))
bad("page-ends-in-number", "P2", "page", "the last number is cut", **page(lambda p: p[:-1] + b"\x81"))
bad("page-overlong", "P3", "page", "0 in two bytes", **page(lambda p: b"\x80\0" + p[1:]))
bad("page-overlong-count", "P3", "page", "1 in five bytes", **page(lambda p: p[:-1] + b"\x81\x80\x80\x80\0"))
bad("page-number-2-32", "P3", "page", "a gap of 2^32", **page(lambda p: b"\x80\x80\x80\x80\x10" + p[1:]), also="P8")
bad("page-number-2-64", "P3", "page", "a gap of 2^64, in ten bytes", **page(lambda p: b"\x80" * 9 + b"\2" + p[1:]), also="P8")
bad("page-count-0", "P4", "page", "a run without chunks", **page(lambda p: p + b"\0\0\0\0"))
bad("page-8193-chunks", "P5", "page", "8193 chunks", disk("a" * 8193 + "."), chunks=lambda d: [(i, [disk("a").blocks[0]]) for i in range(8193)], profile=2)
bad("page-run-split", "P6", "page", "two runs that are one", disk("ABB."), chunks=lambda d: [(0, [A]), (1, [B, B])], profile=2,
    runs=lambda runs, n: [[0, 0, 0, 1], [0, 0, 1, 1]])
bad("page-layer", "P7", "page", "a layer that the table has not", **page(lambda p: p + b"\0\1\0\1"))
bad("page-chunk", "P7", "page", "a chunk that the layer has not", **page(lambda p: p + b"\1\0\2\1"))
bad("page-count", "P7", "page", "a run that leaves its layer", runs=lambda runs, n: [runs[0], [1, 0, 1, 2]])
bad("page-chunk-wraps", "P7", "page", "firstChunk + count is 2^32 + 1", **page(lambda p: p + b"\0\0\xff\xff\xff\xff\x0f\2"))
bad("page-leaves-region", "P8", "page", "a chunk of two blocks at a region's last", disk({0: "A", REGION - 1: "BC..."}),
    chunks=lambda d: [(0, [A]), (REGION - 1, [B, C])])
bad("page-starts-beyond-region", "P8", "page", "a gap of 16384 blocks", disk({0: "A", REGION: "B."}),
    runs=lambda runs, n: [[0, 0, 0, 1], [REGION - 1, 0, 1, 1]] if n == 0 else runs, regions=lambda r, i: r[:1])
bad("page-gap-wraps", "P8", "page", "a gap of 2^32 - 1", runs=lambda runs, n: [[0, 0, 0, 1], [(1 << 32) - 1, 0, 1, 1]])
bad("page-leaves-disk", "P8", "page", "a chunk of two blocks at the disk's last", **put("header", "virtualSize", 3 * BLOCK))
bad("page-leaves-short-disk", "P8", "page", "the same, with a short last block", disk("A.bC"), **put("header", "virtualSize", 3 * BLOCK - 16))

# Directories

bad("directory-digest", "D1", "directory", "another digest of the directory", table=lambda t, i: t[0].update(dirSHA256=flip(t[0]["dirSHA256"])))
bad("directory-flipped", "D1", "directory layer", "a bit is flipped in the directory", **stored(ZSTD_MAGIC, -1), also="R1 C1")
bad("directory-not-compressed", "D2", "directory", "a directory without compression in a zstd layer", directory_stored=lambda s, l, p: p)
bad("directory-other-codec", "D2", "directory", "an xz directory in a zstd layer", directory_stored=lambda s, l, p: xz(p))
bad("directory-zstd-trailing", "D2", "directory", "an empty zstd frame after the directory's", directory_stored=lambda s, l, p: s + EMPTY_ZSTD)
bad("directory-zstd-skippable", "D2", "directory", "a skippable frame before the directory's", directory_stored=lambda s, l, p: SKIPPABLE + s)
bad("directory-zstd-dictionary", "D2", "directory", "a directory with a dictionary", directory_stored=lambda s, l, p: zstd(p, dictionary=b"\7"))
bad("directory-zstd-size", "D2", "directory", "a content size that is one more", directory_stored=lambda s, l, p: zstd(p, size=len(p) + 1, window=0))
bad("directory-zstd-window", "D2", "directory", "a window of 9 MiB", directory_stored=lambda s, l, p: zstd(p, window=13 << 3 | 1))
bad("directory-zstd-more", "D2", "directory", "one byte more than dirPlain", directory_stored=lambda s, l, p: zstd(p + b"\0", size=-1, window=0))
bad("directory-xz-padding", "D2", "directory", "stream padding", codec="xz", directory_stored=lambda s, l, p: s + bytes(4))
bad("directory-xz-dictionary", "D2", "directory", "a dictionary of 16 MiB", codec="xz", directory_stored=lambda s, l, p: xz(p, dictionary=16 * MIB))
bad("directory-magic", "D3", "directory", "another magic", **put("directory", "magic", b"DAVITDR2"))
bad("directory-chunks", "D4", "directory index", "the index says 22 chunks more and 17 frames less, which is as long", disk("A.B.C.D.E.F.G.H.I.J.K.L.M.N.O.P.Q.R"),
    layers=[("zstd", [[c.encode() * BLOCK] for c in "ABCDEFGHIJKLMNOPQR"])], table=lambda t, i: t[0].update(chunks=40))
bad("directory-frames", "D5", "directory", "one frame more than there are entries", **put("directory", "nframes", lambda n: n + 1))
bad("directory-frames-wrap", "D5", "directory", "2^32 - 1 frames", **put("directory", "nframes", 0xFFFFFFFF))
bad("directory-gap", "D6", "directory", "a byte between frames and directory", data=lambda data, l: data + b"\0")
bad("directory-frame-empty", "D7", "directory", "a frame without chunks",
    data=lambda data, l: data + EMPTY_ZSTD, directory=lambda d, l: d.update(nframes=2) or d["frames"].append([len(EMPTY_ZSTD), 0, 0, sha256(EMPTY_ZSTD)]))
bad("directory-chunk-in-no-frame", "D7", "directory", "a chunk more than the frames have", directory=lambda d, l: d.update(nchunks=3) or d["chunks"].append([1, sha256(D)]))
bad("directory-chunk-empty", "D8", "directory", "a chunk of 0 blocks",
    directory=lambda d, l: (d.update(nchunks=3), d["chunks"].append([0, sha256(b"")]), d["frames"][0].__setitem__(2, 3)) and None)
bad("directory-chunk-129", "D8", "directory", "a chunk of 129 blocks", disk("A" * 129), chunks=lambda d: [(0, [A] * 129)], profile=2, also="D9")
bad("directory-chunk-65535", "D8", "directory", "a chunk of 65535 blocks that no page names", disk("A"), layers=[("zstd", [[A, B]])],
    directory=lambda d, l: d["chunks"].__setitem__(1, [65535, sha256(B)]), also="D9")
bad("directory-frame-plain", "D9", "directory", "a frame with a block more than its chunks", frame=lambda s, l, i, p: zstd(p + D), **frame_entry(1, lambda n: n + BLOCK))
bad("directory-frame-large", "D9", "directory", "a frame of 524288 + 4096 bytes", disk("A" * 128 + "B"),
    chunks=lambda d: [(0, [A] * 128), (128, [B])], profile=2, layers=[("zstd", [[A * 128, B]])])
bad("directory-frame-stored", "D10", "directory", "a frame of 2 x plain + 1025 stored bytes", disk("A"),
    frame=lambda s, l, i, p: zstd(p, blocks=BLOAT * 3066 + struct.pack("<I", 4093 << 3 | 2)[:3] + b"A" + b"\x19\0\0AAA"))
bad("directory-frame-none", "D10", "directory frame", "a frame without compression with a byte more", disk("A"), codec="none",
    frame=lambda s, l, i, p: s + b"\0", also="F2")

# Region identity

bad("region-identity", "R1", "region", "another identity of a region", **put("regions", "identity", flip))
bad("region-moved", "R1", "region", "a page that places a chunk one block further", disk("AB..."),
    regions=lambda r, i: [dict(r[0], page=b"\1" + r[0]["page"][1:], pageSHA256=sha256(b"\1" + r[0]["page"][1:]))])
bad("region-other-chunk", "R1", "region", "a page that names another chunk of equal length", disk("A.B"),
    regions=lambda r, i: [dict(r[0], page=b"\0\0\1\1\1\0\0\1", pageSHA256=sha256(b"\0\0\1\1\1\0\0\1"))])

# Frames

bad("frame-digest", "F1", "frame", "another digest of a frame", **frame_entry(3, flip))
bad("frame-flipped", "F1", "frame layer", "a bit is flipped in a frame", **stored(ZSTD_MAGIC, 12), also="C1")
bad("frame-flipped-none", "F1", "frame layer", "a bit is flipped in a frame without compression", disk("A"), codec="none", **stored(b"AAAA", 12), also="C1")


def frame(name, note, make, codec="zstd", disks=None):
    bad("frame-" + name, "F2", "frame", note, disks, codec=codec, **each_frame(make))


frame("not-compressed", "a frame without compression in a zstd layer", lambda p: p, disks=disk("A"))
frame("other-codec", "an xz stream in a zstd layer", xz, disks=disk("A"))
frame("zstd-skippable-first", "a skippable frame before", lambda p: SKIPPABLE + zstd(p))
frame("zstd-skippable-last", "a skippable frame after", lambda p: zstd(p) + SKIPPABLE)
frame("zstd-two-frames", "two frames that together have the content", lambda p: zstd(p[:BLOCK]) + zstd(p[BLOCK:]))
frame("zstd-trailing-frame", "an empty frame after", lambda p: zstd(p) + EMPTY_ZSTD)
frame("zstd-leading-frame", "an empty frame before", lambda p: EMPTY_ZSTD + zstd(p))
frame("zstd-trailing-byte", "a byte after", lambda p: zstd(p) + b"\0")
frame("zstd-truncated", "the last byte is missing", lambda p: zstd(p)[:-1])
frame("zstd-no-last-block", "no block is the last one", lambda p: zstd(p, blocks=b"".join(struct.pack("<I", BLOCK << 3 | 2)[:3] + p[i : i + 1] for i in range(0, len(p), BLOCK))))
frame("zstd-dictionary-1", "a Dictionary_ID of one byte", lambda p: zstd(p, dictionary=b"\7"))
frame("zstd-dictionary-2", "a Dictionary_ID of two bytes", lambda p: zstd(p, dictionary=b"\0\x80"))
frame("zstd-dictionary-4", "a Dictionary_ID of four bytes", lambda p: zstd(p, dictionary=b"\0\0\0\x80"))
frame("zstd-dictionary-0", "a Dictionary_ID that is there and 0", lambda p: zstd(p, dictionary=b"\0"))
frame("zstd-size-more", "a content size that is one more", lambda p: zstd(p, size=len(p) + 1, window=13 << 3))
frame("zstd-size-less", "a content size that is one less", lambda p: zstd(p, size=len(p) - 1, window=13 << 3))
frame("zstd-size-huge", "a content size of 4 GiB - 1, window with it", lambda p: zstd(p, size=0xFFFFFFFF))
frame("zstd-window", "a window of 9 MiB", lambda p: zstd(p, size=-1, window=13 << 3 | 1))
frame("zstd-window-largest", "the largest window there is", lambda p: zstd(p, window=0xFF))
frame("zstd-reserved-bit", "the reserved bit of the frame header", lambda p: zstd(p, reserved=True))
frame("zstd-reserved-block", "a block of the reserved type", lambda p: zstd(p, blocks=b"\x06\0\0" + zstd_blocks(p)))
frame("zstd-checksum", "a wrong checksum", lambda p: zstd(p, checksum=b"davi"))
frame("zstd-more", "one byte more than plain, no content size", lambda p: zstd(p + b"\0", size=-1, window=13 << 3))
frame("zstd-much-more", "256 MiB more than plain, no content size",
      lambda p: zstd(p, size=-1, window=13 << 3, blocks=b"".join(struct.pack("<I", 131072 << 3 | 2)[:3] + b"\0" for _ in range(2048)) + zstd_blocks(p)))
frame("zstd-less", "one byte less than plain, no content size", lambda p: zstd(p[:-1], size=-1, window=13 << 3))
frame("zstd-nothing", "a frame with no content", lambda p: zstd(b"", size=-1, window=13 << 3))
ONE = disk("A")
LZMA_ALONE = base64.b64decode("XQAAgAD//////////wAg7/u//qOxXuX4P7KqJlX4aHBBcBUO5Akw//+1LAAA")
frame("xz-padding", "stream padding of four zeros", lambda p: xz(p) + bytes(4), "xz", ONE)
frame("xz-two-streams", "two streams that together have the content", lambda p: xz(p[:1000]) + xz(p[1000:]), "xz", ONE)
frame("xz-trailing-stream", "an empty stream after", lambda p: xz(p) + xz(), "xz", ONE)
frame("xz-trailing-byte", "a byte after", lambda p: xz(p) + b"\0", "xz", ONE)
frame("xz-leading-padding", "four zeros before", lambda p: bytes(4) + xz(p), "xz", ONE)
frame("xz-truncated", "the last four bytes are missing", lambda p: xz(p)[:-4], "xz", ONE)
frame("xz-bcj", "the x86 filter before LZMA2", lambda p: xz(p, filters=[(4, b""), (0x21, b"\x16")]), "xz", ONE)
frame("xz-delta", "the delta filter before LZMA2",
      lambda p: xz(p, filters=[(3, b"\0"), (0x21, b"\x16")], packed=codec.lzma2_chunks(p[:1] + bytes(len(p) - 1))), "xz", ONE)
frame("xz-dictionary", "a dictionary of 12 MiB", lambda p: xz(p, filters=[(0x21, b"\x17")]), "xz", ONE)
frame("xz-dictionary-largest", "a dictionary of 4 GiB - 1", lambda p: xz(p, filters=[(0x21, b"\x28")]), "xz", ONE)
frame("xz-dictionary-second-block", "a dictionary of 16 MiB in the second block", lambda p: xz(p[:1000], p[1000:], later_dictionary=16 * MIB), "xz", ONE)
frame("xz-check", "a wrong integrity check", lambda p: xz(p, check_off=1), "xz", ONE)
frame("xz-check-reserved", "a reserved kind of integrity check", lambda p: xz(p, check=2), "xz", ONE)
frame("xz-index", "an index with another size", lambda p: xz(p, index_off=1), "xz", ONE)
frame("xz-lzma-alone", "the older .lzma format", lambda p: LZMA_ALONE, "xz", ONE)
frame("xz-more", "one byte more than plain", lambda p: xz(p + b"\0"), "xz", ONE)
frame("xz-less", "one byte less than plain", lambda p: xz(p[:-1]), "xz", ONE)
frame("xz-nothing", "a stream of no blocks", lambda p: xz(), "xz", ONE)

# Chunks

bad("chunk-digest", "C1", "chunk", "another digest of a chunk", directory=lambda d, l: d["chunks"].__setitem__(0, [1, flip(sha256(A))]))
bad("chunk-digests-swapped", "C1", "chunk", "the digests of two chunks of a frame, swapped", disk("A.B"),
    directory=lambda d, l: d["chunks"].reverse())
bad("padding", "C2", "padding", "a byte of the last block past the virtual size that is not zero", **put("header", "virtualSize", 4 * BLOCK - 1))
bad("padding-second-disk", "C2", "padding", "the same in the second disk, which has the chunk of the first", [("disk0", BASE), ("disk1", BASE)],
    header=lambda h, i: h.update(virtualSize=4 * BLOCK - 512 * i))


def write(case):
    """The bytes of a vector file."""
    b = Builder(case["disks"], **case["args"])
    lines = ["note: " + case["note"]]
    lines += ["%s: %s" % (k, case[k]) for k in ("rule", "also", "expect", "deep", "reason") if case[k]]
    if case["media"]:
        lines.append("mediaType: " + case["media"])
    lines.append("manifest: " + text(b.pinned))
    if case["expect"] in ("ok", "any"):
        for (name, d), index in zip(case["disks"], b.indexes):
            lines.append("disk.%s.size: %d" % (name, d.size))
            lines.append("disk.%s.sha256: %s" % (name, d.sha256().hex()))
            lines.append("disk.%s.digest: %s" % (name, text(index["header"]["digest"])))
    out = "".join(line + "\n" for line in lines).encode() + b"\n"
    for digest, blob in b.stored.items():
        spaces = " %d %d" % b.spaces[digest] if digest in b.spaces else ""
        out += ("blob %s %d%s\n" % (digest.hex(), len(blob), spaces)).encode() + blob + b"\n"
    return out
