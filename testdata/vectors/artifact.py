"""Writes artifacts, right ones and, through hooks, ones with a single fault.

A Builder holds what an artifact says at each stage as plain Python values. A hook
changes the values of one stage; everything that encloses them is computed after
it, so that no other check can refuse what the hook broke.
"""

import hashlib
import json
import struct

import codec
from content import BLOCK, REGION, cut, disk_digest, identities, region_identity, sha256

VM = "application/vnd.davit.vm.v1"
OVF = "application/vnd.davit.ovf.v1+xml"
INDEX = "application/vnd.davit.disk.index.v1"
LAYER = "application/vnd.davit.disk.layer.v1"
FILE = "application/vnd.davit.file.v1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
MEDIA = {"none": LAYER, "zstd": LAYER + "+zstd", "xz": LAYER + "+xz"}
COMPAT_CONFIG = b'{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}'

HEADER = "<8sQQIQ32sII"
TABLE = "<32sQQII32sI"
REGION_ENTRY = "<I32sQI32s"

OVF_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References>
"""
OVF_FILE = """    <File ovf:id="file{n}" ovf:href="disk{n}.img"/>
"""
OVF_DISKS = """  </References>
  <DiskSection>
    <Info>Virtual disks</Info>
"""
OVF_DISK = """    <Disk ovf:diskId="{name}" ovf:fileRef="file{n}" ovf:capacity="{size}" ovf:format="https://github.com/davit-oci/davit#disk"/>
"""
OVF_SYSTEM = """  </DiskSection>
  <VirtualSystem ovf:id="vm">
    <Info>A virtual machine</Info>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:ElementName>CPU</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>1</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>Memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>1024</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:ElementName>SATA controller</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>AHCI</rasd:ResourceSubType>
        <rasd:ResourceType>20</rasd:ResourceType>
      </Item>
"""
OVF_ITEM = """      <Item>
        <rasd:AddressOnParent>{n}</rasd:AddressOnParent>
        <rasd:ElementName>{name}</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/{name}</rasd:HostResource>
        <rasd:InstanceID>{instance}</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
"""
OVF_END = """    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""


def ovf(disks):
    """The OVF that davit writes for bare disks: [(name, size)]."""
    each = [dict(n=n, name=name, size=size, instance=4 + n) for n, (name, size) in enumerate(disks)]
    text = OVF_HEAD + "".join(OVF_FILE.format(**d) for d in each)
    text += OVF_DISKS + "".join(OVF_DISK.format(**d) for d in each)
    text += OVF_SYSTEM + "".join(OVF_ITEM.format(**d) for d in each)
    return (text + OVF_END).encode()


def uvarint(n):
    return codec.varint(n)


def text(digest):
    return "sha256:" + digest.hex()


class Layer:
    """A chunk layer: frames of chunks, a directory of lists that hooks may change before finish()."""

    def __init__(self, kind, frames, hooks, number=0):
        self.kind, self.number, self.hooks = kind, number, hooks
        self.chunks = [chunk for frame in frames for chunk in frame]
        data, entries = b"", []
        for i, frame in enumerate(frames):
            plain = b"".join(frame)
            stored = self.hook("frame", self.encode(plain), i, plain)
            data += stored
            entries.append([len(stored), len(plain), len(frame), sha256(stored)])
        self.directory = {
            "magic": b"DAVITDR1", "frames": entries, "nframes": len(entries),
            "chunks": [[len(c) // BLOCK, sha256(c)] for c in self.chunks], "nchunks": len(self.chunks),
        }
        self.hook("directory", self.directory)
        plain = self.hook("directory_plain", self.directory_plain())
        stored = self.hook("directory_stored", self.encode(plain), plain)
        data = self.hook("data", data)
        self.entry = {
            "size": len(data) + len(stored), "dirOffset": len(data), "dirStored": len(stored), "dirPlain": len(plain),
            "dirSHA256": sha256(stored), "chunks": self.directory["nchunks"],
        }
        self.blob = self.hook("layer", data + stored)
        self.entry["size"] = len(self.blob)
        self.entry["digest"] = sha256(self.blob)

    def hook(self, stage, value, *more):
        return apply(self.hooks, stage, value, self, *more)

    def encode(self, plain):
        return {"none": lambda p: p, "zstd": codec.zstd, "xz": codec.xz}[self.kind](plain)

    def directory_plain(self):
        d = self.directory
        out = d["magic"] + struct.pack("<II", d["nframes"], d["nchunks"])
        out += b"".join(struct.pack("<III32s", *f) for f in d["frames"])
        return out + b"".join(struct.pack("<H32s", *c) for c in d["chunks"])


def apply(hooks, stage, value, *more):
    """A hook returns the new value, or None when it changed the old one in place."""
    if stage in hooks:
        changed = hooks[stage](value, *more)
        if changed is not None:
            return changed
    return value


class Builder:
    """disks: [(name, Disk)]. layers: [(codec, [frames of chunks])], by default one layer with all chunks.
    chunks: cuts a disk, by default as profile 1. length: the manifest has so many spaces in it that it has this length."""

    def __init__(self, disks, codec="zstd", layers=None, files=(), profile=1, chunks=None, compat=False, length=0, **hooks):
        self.hooks, self.disks, self.profile, self.compat, self.length = hooks, disks, profile, compat, length
        self.blobs = {}
        self.cuts = [chunks(disk) if chunks else cut(disk) for _, disk in disks]
        if layers is None:
            layers = [(codec, frames_of(self.distinct()))] if self.distinct() else []
        self.layers = [Layer(kind, frames, hooks, i) for i, (kind, frames) in enumerate(layers)]
        self.indexes = [self.index(i) for i in range(len(disks))]
        self.manifest(files)

    def hook(self, stage, value, *more):
        return apply(self.hooks, stage, value, *more)

    def distinct(self):
        return list(dict.fromkeys(b"".join(blocks) for cuts in self.cuts for _, blocks in cuts))

    def add(self, blob):
        self.blobs[sha256(blob)] = blob
        return sha256(blob)

    def index(self, i):
        disk = self.disks[i][1]
        table = self.hook("table", [dict(layer.entry) for layer in self.layers], i)
        where = {}
        for l, layer in enumerate(self.layers):
            for c, chunk in enumerate(layer.chunks):
                where.setdefault(chunk, (l, c))
        regions, pages = [], []
        for number, runs in sorted(self.runs(self.cuts[i], where).items()):
            runs = self.hook("runs", runs, number)
            page = self.hook("page", b"".join(uvarint(v) for run in runs for v in run), runs)
            identity = region_identity(self.claims(runs, table))
            regions.append({"number": number, "identity": identity, "page": page, "pageSHA256": sha256(page)})
        regions = self.hook("regions", regions, i)
        header = {
            "magic": b"DAVITIX1", "incompatible": 0, "optional": 0, "profile": self.profile, "virtualSize": disk.size,
            "digest": disk_digest(self.profile, [(r["number"], r["identity"]) for r in regions]),
            "layers": len(table), "regions": len(regions),
        }
        header = self.hook("header", header, i)
        at = 76 + 92 * len(table) + 80 * len(regions)
        for r in regions:
            r.setdefault("pageOffset", at)
            r.setdefault("pageLength", len(r["page"]))
            at += len(r["page"])
        self.hook("offsets", regions, i)
        head = struct.pack(HEADER, *header.values())
        for e in table:
            head += struct.pack(TABLE, *(e[k] for k in ("digest", "size", "dirOffset", "dirStored", "dirPlain", "dirSHA256", "chunks")))
        for r in regions:
            head += struct.pack(REGION_ENTRY, *(r[k] for k in ("number", "identity", "pageOffset", "pageLength", "pageSHA256")))
        head = self.hook("head", head, i)
        blob = self.hook("index", head + b"".join(r["page"] for r in regions), i)
        return {"blob": blob, "head": sha256(head), "header": header}

    def runs(self, cuts, where):
        """Pages as lists of [gap, layer, firstChunk, count], by region."""
        pages, end = {}, {}
        for start, blocks in cuts:
            number, start = start // REGION, start % REGION
            layer, chunk = where[b"".join(blocks)]
            page = pages.setdefault(number, [])
            gap = start - end.get(number, 0)
            if page and gap == 0 and page[-1][1] == layer and page[-1][2] + page[-1][3] == chunk:
                page[-1][3] += 1
            else:
                page.append([gap, layer, chunk, 1])
            end[number] = start + len(blocks)
        return pages

    def claims(self, runs, table):
        """What a reader sees in these runs: (start, blocks, digest) of each chunk, as far as directories have it."""
        known = {layer.entry["digest"]: layer.directory["chunks"] for layer in self.layers}
        at = 0
        for gap, layer, first, count in runs:
            at += gap
            for blocks, digest in known[table[layer]["digest"]][first : first + count]:
                yield at & 0xFFFF, blocks, digest
                at += blocks

    def manifest(self, files):
        descriptors = []
        for (name, _), index in zip(self.disks, self.indexes):
            header = index["header"]
            d = self.descriptor(INDEX, index["blob"])
            d["annotations"] = {
                "vnd.davit.disk.digest": text(header["digest"]), "vnd.davit.disk.name": name,
                "vnd.davit.disk.size": str(header["virtualSize"]), "vnd.davit.index.head": text(index["head"]),
            }
            descriptors.append(d)
        descriptors += [self.descriptor(MEDIA[layer.kind], layer.blob) for layer in self.layers]
        for media, title, content in files:
            d = self.descriptor(media, content)
            d["annotations"] = {TITLE: title}
            descriptors.append(d)
        config = ovf([(name, disk.size) for name, disk in self.disks])
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": VM, "config": None, "layers": descriptors}
        if self.compat:
            del manifest["artifactType"]
            manifest["config"] = self.descriptor(IMAGE_CONFIG, COMPAT_CONFIG)
            descriptors.insert(0, self.descriptor(OVF, config))
        else:
            manifest["config"] = self.descriptor(OVF, config)
            if not descriptors:
                descriptors.append(self.descriptor(EMPTY, b"{}"))
        manifest = self.hook("manifest", manifest)
        blob = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()
        self.spaces = {}
        blob = whole = self.hook("manifest_bytes", blob)
        if self.length:
            at, n = 1, self.length - len(blob)
            whole = blob[:at] + b" " * n + blob[at:]
            self.spaces[sha256(whole)] = (at, n)
        self.pinned = sha256(whole)
        self.stored = {self.pinned: blob, **self.blobs}
        self.hook("store", self.stored)

    def descriptor(self, media, blob):
        return {"mediaType": media, "digest": text(self.add(blob)), "size": len(blob)}


def frames_of(chunks):
    """Frames of up to 524288 bytes."""
    frames = []
    for chunk in chunks:
        if not frames or sum(map(len, frames[-1])) + len(chunk) > 524288:
            frames.append([])
        frames[-1].append(chunk)
    return frames
