"""A reader of artifacts, for vectors and OCI layouts: docs/spec.md's refusals, in its order.

Each check names its rule there. A rule in `ignore` is not checked: that shows that a
vector has no fault but its own.
"""

import json
import os
import re
import struct

import codec
from artifact import (EMPTY, FILE, HEADER, IMAGE_CONFIG, IMAGE_INDEX, INDEX, LAYER, MANIFEST, MEDIA, OVF, REGION_ENTRY,
                      TABLE, TITLE, VM)
from codec import Refused
from content import BLOCK, REGION, ZERO, Disk, cut, disk_digest, region_identity, sha256

CODECS = {media: kind for kind, media in MEDIA.items()}
PACKAGE = {FILE, "application/vnd.davit.nvram.v1", "application/vnd.davit.ovf.manifest.v1",
           "application/vnd.davit.ovf.certificate.v1+pem"}
KNOWN = """schemaVersion mediaType artifactType config layers manifests subject annotations digest size urls data platform
architecture os os.version os.features variant features""".split()
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
REASONS = {"M": "manifest", "I": "index", "P": "page", "D": "directory", "R": "region", "F": "frame", "C": "chunk"}


class Newer(Exception):
    pass


class Reader:
    """fetch(digest) returns the bytes stored under it; pinned is (media type, digest)."""

    def __init__(self, fetch, pinned, deep=False, ignore=()):
        self.fetch, self.pinned, self.deep, self.ignore = fetch, pinned, deep, ignore
        self.directories, self.frames, self.skipped = {}, {}, []

    def check(self, good, rule, text, reason=None):
        if good:
            return True
        if rule not in self.ignore:
            raise Refused(reason or REASONS[rule[0]], "%s: %s" % (rule, text))
        self.skipped.append(rule)
        return False

    def read(self):
        """[(name, size, SHA-256 of the raw disk, disk digest)]"""
        self.read_manifest()
        out = []
        indexes = [(d, self.read_index(d)) for d in self.indexes]
        for descriptor, index in indexes:
            disk = self.read_disk(index)
            out.append((descriptor["annotations"]["vnd.davit.disk.name"], disk.size, disk.sha256(), index["digest"]))
        if self.deep:
            self.read_rest(indexes)
        return out

    # Manifest

    def read_manifest(self):
        media, digest = self.pinned
        blob = self.fetch(digest)
        self.check(sha256(blob) == digest, "M1", "digest")
        self.check(len(blob) <= 4 << 20, "M2", "over 4 MiB")
        try:
            text = blob.decode("utf-8")
        except UnicodeDecodeError:
            self.check(False, "M3", "not UTF-8")
            text = blob.decode("utf-8", "replace")
        manifest = self.parse(text)
        self.check(not ("layers" in manifest and "manifests" in manifest), "M9", "layers beside manifests")
        self.check(manifest.get("mediaType") == media, "M8", "mediaType")
        self.manifest = manifest
        self.check(manifest.get("schemaVersion") == 2 and type(manifest["schemaVersion"]) is int, "M7", "schemaVersion")
        if media != MANIFEST:
            raise Newer("choosing a platform is not this reader's part")
        self.typed(manifest, "layers", list, "M6", True)
        self.typed(manifest, "config", dict, "M6", True)
        self.strings(manifest)
        layers = manifest["layers"]
        for d in [manifest["config"]] + layers + ([manifest["subject"]] if "subject" in manifest else []):
            self.descriptor(d)
        self.check(layers, "M13", "no layers")
        form = (manifest.get("artifactType"), manifest["config"]["mediaType"])
        ovfs = sum(d["mediaType"] == OVF for d in layers)
        native = form == (VM, OVF) and ovfs == 0
        compat = "artifactType" not in manifest and form[1] == IMAGE_CONFIG and ovfs == 1
        self.check(native or compat, "M12", "not a davit artifact")
        self.indexes = [d for d in layers if d["mediaType"] == INDEX]
        self.layers = {}
        names, titles = set(), set()
        for d in layers:
            a = d.get("annotations") or {}
            if d["mediaType"] == INDEX:
                self.index_annotations(a)
                name = a.get("vnd.davit.disk.name", "").lower()
                self.check(name not in names, "M15", "two disks of one name")
                names.add(name)
            elif d["mediaType"] in CODECS:
                self.check(d["digest"] not in self.layers, "M16", "a chunk layer twice")
                self.layers[d["digest"]] = d
            elif d["mediaType"] in PACKAGE:
                title = a.get(TITLE, "")
                self.check(safe(title), "M17", "title")
                self.check(title.lower() not in titles, "M17", "two files of one title")
                titles.add(title.lower())
            elif d["mediaType"].startswith("application/vnd.davit.disk."):
                raise Newer("media type " + d["mediaType"])

    def parse(self, text):
        start = len(text) - len(text.lstrip(" \t\r\n"))
        try:
            value, end = json.JSONDecoder(object_pairs_hook=Pairs, parse_constant=no_constant).raw_decode(text, start)
        except ValueError as e:
            raise Refused("manifest", "M4: " + str(e))
        self.check(type(value) is Pairs, "M4", "not an object")
        self.check(end == len(text), "M4", "text after the object")
        return self.plain(value)

    def plain(self, value, annotations=False):
        if type(value) is list:
            return [self.plain(v) for v in value]
        if type(value) is not Pairs:
            return value
        seen, out = set(), {}
        for key, v in value.pairs:
            folded = key if annotations else fold(key)
            self.check(folded not in seen, "M5", "key %r twice" % key)
            seen.add(folded)
            if not annotations:
                self.check(folded not in KNOWN_FOLDED or key == KNOWN_FOLDED[folded], "M5", "key %r misspelt" % key)
            out[key] = self.plain(v, key == "annotations")
        return out

    def typed(self, where, key, kind, rule, required=False):
        if required or key in where:
            self.check(type(where.get(key)) is kind, rule, key)

    def strings(self, where):
        self.typed(where, "annotations", dict, "M6")
        self.typed(where, "artifactType", str, "M6")
        for v in (where.get("annotations") or {}).values():
            self.check(type(v) is str, "M6", "annotation")

    def descriptor(self, d):
        self.check(type(d) is dict, "M6", "descriptor")
        self.strings(d)
        self.typed(d, "mediaType", str, "M6", True)
        self.check(type(d.get("digest")) is str, "M6", "digest")
        self.check(type(d.get("size")) is int and 0 <= d["size"] < 1 << 63, "M6", "size")
        self.check(DIGEST.fullmatch(d["digest"]), "M11", "digest")
        self.check("urls" not in d, "M10", "urls")

    def index_annotations(self, a):
        self.check(NAME.fullmatch(a.get("vnd.davit.disk.name", "")), "M14", "disk name")
        self.check(DIGEST.fullmatch(a.get("vnd.davit.disk.digest", "")), "M14", "disk digest")
        self.check(re.fullmatch(r"0|[1-9][0-9]{0,18}", a.get("vnd.davit.disk.size", "")), "M14", "disk size")
        self.check(DIGEST.fullmatch(a.get("vnd.davit.index.head", "")), "M14", "index head")
        self.check(a.get("vnd.davit.disk.sector", "512") in ("512", "4096"), "M14", "disk sector")

    # Index

    def read_index(self, d):
        blob, a = self.fetch(unhex(d["digest"])), d.get("annotations", {})
        self.check(len(blob) == d["size"], "I1", "size")
        self.check(sha256(blob) == unhex(d["digest"]), "I1", "digest")
        self.check(len(blob) >= 76, "I3", "too short")
        magic, incompatible, _, profile, size, digest, layers, regions = struct.unpack_from(HEADER, blob)
        self.check(magic == b"DAVITIX1", "I3", "magic")
        end = 76 + 92 * layers + 80 * regions
        self.check(end <= len(blob), "I4", "tables longer than the index")
        self.check(text(sha256(blob[:end])) == a.get("vnd.davit.index.head"), "I2", "head")
        if incompatible:
            raise Newer("incompatible feature bit %d" % ((incompatible & -incompatible).bit_length() - 1))
        self.check(size <= 1 << 58, "I5", "virtual size")
        self.check("M14" in self.skipped or str(size) == a.get("vnd.davit.disk.size"), "I6", "disk size")
        self.check("M14" in self.skipped or text(digest) == a.get("vnd.davit.disk.digest"), "I6", "disk digest")
        table = [dict(zip(("digest", "size", "dirOffset", "dirStored", "dirPlain", "dirSHA256", "chunks"),
                          struct.unpack_from(TABLE, blob, 76 + 92 * i))) for i in range(layers)]
        seen = set()
        for e in table:
            descriptor = self.layers.get(text(e["digest"]))
            if self.check(descriptor is not None, "I7", "a layer that the manifest has not"):
                self.check(descriptor["size"] == e["size"], "I7", "size of a layer")
                e["codec"] = CODECS[descriptor["mediaType"]]
            self.check(e["digest"] not in seen, "I8", "a layer twice")
            seen.add(e["digest"])
            self.check(1 <= e["chunks"] <= 1 << 20, "I9", "chunks of a layer")
            self.check(e["dirOffset"] <= e["size"] and e["size"] - e["dirOffset"] == e["dirStored"], "I9", "dirOffset")
            frames, rest = divmod(e["dirPlain"] - 16 - 34 * e["chunks"], 44)
            self.check(rest == 0 and 1 <= frames <= e["chunks"], "I9", "dirPlain", "directory")
            self.check(e["dirStored"] <= 2 * e["dirPlain"] + 1024, "I9", "dirStored")
            self.check(e["dirPlain"] <= 4 * e["dirStored"] + 4096, "I9", "out of proportion")
            if e.get("codec") == "none":
                self.check(e["dirStored"] == e["dirPlain"], "I9", "dirStored")
        found, last, at = [], -1, end
        for i in range(regions):
            number, identity, offset, length, page_digest = struct.unpack_from(REGION_ENTRY, blob, 76 + 92 * layers + 80 * i)
            self.check(number > last, "I10", "regions not ascending")
            self.check(number * REGION * BLOCK < size, "I10", "a region beyond the disk")
            self.check(offset == at and length <= 163840 and length <= len(blob) - at, "I4", "page of region %d" % number)
            found.append((number, identity, blob[offset : offset + length], page_digest))
            last, at = number, at + length
        self.check(at == len(blob), "I4", "bytes after the last page")
        want = disk_digest(profile, [(number, identity) for number, identity, _, _ in found])
        self.check(want == digest, "I11", "disk digest")
        return {"size": size, "profile": profile, "digest": digest, "table": table, "regions": found}

    # Pages and directories

    def read_disk(self, index):
        blocks = {}
        limit = (index["size"] + BLOCK - 1) // BLOCK
        claims = []
        for number, identity, page, digest in index["regions"]:
            self.check(sha256(page) == digest, "P1", "digest")
            at, chunks = 0, []
            for gap, layer, first, count in self.read_page(page, index["table"]):
                at += gap
                entry = index["table"][layer]
                directory = self.directory(entry)
                for c in range(first, first + count):
                    n, name = directory["chunks"][c]
                    chunks.append((at, n, name, entry, c))
                    at += n
                    self.check(at <= REGION, "P8", "past the region's end")
                    self.check(number * REGION + at <= limit, "P8", "past the disk's end")
            self.check(region_identity((s, n, d) for s, n, d, _, _ in chunks) == identity, "R1", "identity")
            claims.append((number, chunks))
        for number, chunks in claims:
            for start, n, _, entry, c in chunks:
                content = self.chunk(entry, c)
                for i in range(n):
                    blocks[number * REGION + start + i] = content[i * BLOCK : (i + 1) * BLOCK]
        short = -index["size"] % BLOCK
        last = blocks.get(limit - 1, ZERO)
        self.check(last[BLOCK - short :] == bytes(short), "C2", "padding of the last block", "padding")
        if self.deep and index["profile"] == 1:
            disk = Disk(index["size"], blocks)
            cuts = [(start, len(b)) for start, b in cut(disk)]
            said = [(number * REGION + start, n) for number, chunks in claims for start, n, _, _, _ in chunks]
            self.check(cuts == said, "V2", "not as profile 1 cuts", "cut")
        return Disk(index["size"], blocks)

    def read_page(self, page, table):
        at, total, last = 0, 0, None
        self.check(page, "P2", "no run")
        while at < len(page):
            run = []
            for _ in range(4):
                value, at = self.number(page, at)
                run.append(value)
            gap, layer, first, count = run
            self.check(count >= 1, "P4", "a run without chunks")
            total += count
            self.check(total <= 8192, "P5", "more than 8192 chunks")
            joined = last and gap == 0 and last[1] == layer and last[2] + last[3] == first
            self.check(not joined, "P6", "runs that are one")
            self.check(layer < len(table), "P7", "no such layer")
            self.check(first + count <= table[layer]["chunks"], "P7", "leaves its layer")
            last = run
            yield run

    def number(self, page, at):
        end = at
        while end < len(page) and page[end] & 128:
            end += 1
        self.check(end < len(page), "P2", "ends within a run")
        value, end = codec.read_varint(page, at)
        self.check(end - at == 1 or page[end - 1] != 0, "P3", "overlong number")
        self.check(value < 1 << 32, "P3", "number of 2^32 or more")
        return value, end

    def directory(self, e):
        if e["digest"] in self.directories:
            return self.directories[e["digest"]]
        blob = self.fetch(e["digest"])
        stored = blob[e["dirOffset"] : e["dirOffset"] + e["dirStored"]]
        self.check(sha256(stored) == e["dirSHA256"], "D1", "digest")
        try:
            plain = codec.decode(e["codec"], stored, e["dirPlain"])
        except Refused as err:
            raise Refused("directory", "D2: " + str(err))
        magic, frames, chunks = struct.unpack_from("<8sII", plain)
        self.check(magic == b"DAVITDR1", "D3", "magic")
        self.check(chunks == e["chunks"], "D4", "chunks unlike the index's")
        self.check(len(plain) == 16 + 44 * frames + 34 * chunks, "D5", "length")
        self.check(1 <= frames, "D5", "no frames")
        frame_entries = [struct.unpack_from("<III32s", plain, 16 + 44 * i) for i in range(frames)]
        chunk_entries = [struct.unpack_from("<H32s", plain, 16 + 44 * frames + 34 * i) for i in range(chunks)]
        self.check(sum(f[0] for f in frame_entries) == e["dirOffset"], "D6", "stored bytes of the frames")
        self.check(all(f[2] >= 1 for f in frame_entries), "D7", "a frame without chunks")
        self.check(sum(f[2] for f in frame_entries) == chunks, "D7", "chunks of the frames")
        for blocks, _ in chunk_entries:
            self.check(1 <= blocks <= 128, "D8", "blocks of a chunk")
        at = offset = 0
        found = []
        for stored, plain, n, digest in frame_entries:
            held = chunk_entries[at : at + n]
            self.check(plain == BLOCK * sum(b for b, _ in held), "D9", "plain size of a frame")
            self.check(plain <= 524288, "D9", "a frame over 524288 bytes")
            self.check(stored <= 2 * plain + 1024, "D10", "stored size of a frame")
            if e["codec"] == "none":
                self.check(stored == plain, "D10", "stored size of a frame")
            found.append((offset, stored, plain, at, held, digest))
            at, offset = at + n, offset + stored
        self.directories[e["digest"]] = {"frames": found, "chunks": chunk_entries}
        return self.directories[e["digest"]]

    # Frames and chunks

    def chunk(self, e, c):
        directory = self.directory(e)
        number = next(i for i, f in enumerate(directory["frames"]) if f[3] <= c < f[3] + len(f[4]))
        key = (e["digest"], number)
        if key not in self.frames:
            self.frames[key] = self.frame(e, directory["frames"][number])
        return self.frames[key][c - directory["frames"][number][3]]

    def frame(self, e, frame):
        offset, stored, plain, _, chunks, digest = frame
        data = self.fetch(e["digest"])[offset : offset + stored]
        self.check(sha256(data) == digest, "F1", "digest")
        try:
            content = codec.decode(e["codec"], data, plain)
        except Refused as err:
            raise Refused("frame", "F2: " + str(err))
        out = []
        for blocks, name in chunks:
            piece, content = content[: blocks * BLOCK], content[blocks * BLOCK :]
            self.check(sha256(piece) == name, "C1", "digest of a chunk")
            out.append(piece)
        return out

    # What only a deep reader reads

    def read_rest(self, indexes):
        for _, index in indexes:
            for e in index["table"]:
                for c in range(len(self.directory(e)["chunks"])):
                    self.chunk(e, c)
        for d in [self.manifest["config"]] + self.manifest["layers"]:
            blob = self.fetch(unhex(d["digest"]))
            good = len(blob) == d["size"] and sha256(blob) == unhex(d["digest"])
            reason = "layer" if d["mediaType"] in CODECS else "config" if d["mediaType"] == OVF else "file"
            self.check(good, "V1", "digest of " + d["mediaType"], reason)


class Pairs:
    def __init__(self, pairs):
        self.pairs = pairs


def no_constant(name):
    raise ValueError(name)


def fold(key):
    """ASCII lower case; U+017F and U+212A are s and k, as some JSON decoders take them."""
    ascii_lower = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in key)
    return ascii_lower.replace("\u017f", "s").replace("\u212a", "k")


KNOWN_FOLDED = {fold(k): k for k in KNOWN}


def safe(title):
    """A relative path of plain elements."""
    if not title or any(c < " " or c in '\\:\x7f' for c in title) or len(title.encode()) > 255:
        return False
    return all(part not in ("", ".", "..") for part in title.split("/"))


def unhex(digest):
    return bytes.fromhex(digest[7:])


def text(digest):
    return "sha256:" + digest.hex()


def read_vector(path):
    """(header, fetch) of a vector file."""
    with open(path, "rb") as f:
        data = f.read()
    head, _, rest = data.partition(b"\n\n")
    header = dict(line.split(": ", 1) for line in head.decode().split("\n"))
    blobs = {}
    while rest:
        line, _, rest = rest.partition(b"\n")
        _, digest, length, *spaces = line.decode().split(" ")
        blob, rest = rest[: int(length)], rest[int(length) + 1 :]
        if spaces:
            at, n = map(int, spaces)
            blob = blob[:at] + b" " * n + blob[at:]
        blobs[bytes.fromhex(digest)] = blob
    return header, blobs.__getitem__


def read_layout(folder, tag):
    """(fetch, pinned) of a tag in an OCI layout."""
    def fetch(digest):
        with open(os.path.join(folder, "blobs", "sha256", digest.hex()), "rb") as f:
            return f.read()

    with open(os.path.join(folder, "index.json"), "rb") as f:
        manifests = json.load(f)["manifests"]
    named = [d for d in manifests if d.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag or d["digest"] == tag]
    if not named:
        raise SystemExit("no tag %s in %s" % (tag, folder))
    return fetch, (named[0]["mediaType"], unhex(named[0]["digest"]))
