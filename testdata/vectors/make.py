#!/usr/bin/env python3
"""Makes and checks the vectors of docs/spec.md; see README.md."""

import os
import sys

sys.dont_write_bytecode = True

import artifact_cases
import chunker_cases
import reader
from codec import Refused

HERE = os.path.dirname(os.path.abspath(__file__))


def make(replace):
    """Writes what is missing. What is there must be what would be written, unless replace."""
    files = {"chunker.json": chunker_cases.chunker_json()}
    for name, case in artifact_cases.CASES.items():
        files[name + ".vec"] = artifact_cases.write(case)
    changed = 0
    for name, content in files.items():
        path = os.path.join(HERE, name)
        if os.path.exists(path):
            with open(path, "rb") as f:
                if f.read() == content:
                    continue
            changed += 1
            print("replaced" if replace else "DIFFERS", name)
            if not replace:
                continue
        with open(path, "wb") as f:
            f.write(content)
    print("%d vectors" % len(files))
    return 1 if changed and not replace else 0


def check(paths):
    """Reads each vector and compares. With the one rule left out that a vector breaks, no other may refuse it."""
    bad = 0
    for path in paths:
        header, fetch = reader.read_vector(path)
        pinned = (header.get("mediaType", reader.MANIFEST), bytes.fromhex(header["manifest"][7:]))
        for deep in (False, True):
            want = header.get("deep", header["expect"]) if deep else header["expect"]
            faults = compare(header, fetch, pinned, deep, want)
            bad += len(faults)
            for fault in faults:
                print("%s%s: %s" % (os.path.basename(path), " (deep)" if deep else "", fault))
    print("%d vectors, %d faults" % (len(paths), bad))
    return 1 if bad else 0


def compare(header, fetch, pinned, deep, want):
    verdict, why, disks = outcome(fetch, pinned, deep, ())
    if want == "any":
        return []
    if verdict != want:
        return ["got %s (%s), want %s" % (verdict, why, want)]
    if verdict == "ok":
        return [k for k, v in said(disks).items() if header.get(k) != v]
    if verdict == "newer":
        return []
    faults = []
    if why.split(":")[0] not in header["reason"].split():
        faults.append("refused for %s, want %s" % (why, header["reason"]))
    rule = header["rule"]
    if " %s: " % rule not in why:
        faults.append("refused by %s, want %s" % (why, rule))
    if deep or rule == "I5":  # 2^58 zeros
        return faults
    rules = [rule] + header.get("also", "").split()
    try:
        verdict, why, _ = outcome(fetch, pinned, deep, rules)
    except Exception:  # nothing sensible can be read when this is not refused
        return faults
    if verdict == "refused" and not any(" %s: " % r in why for r in rules):
        faults.append("without %s: %s %s" % (rule, verdict, why))
    return faults


def outcome(fetch, pinned, deep, ignore):
    try:
        return "ok", "", reader.Reader(fetch, pinned, deep, ignore).read()
    except Refused as e:
        return "refused", str(e), None
    except reader.Newer as e:
        return "newer", str(e), None


def said(disks):
    out = {}
    for name, size, digest, disk_digest in disks:
        out["disk.%s.size" % name] = str(size)
        out["disk.%s.sha256" % name] = digest.hex()
        out["disk.%s.digest" % name] = reader.text(disk_digest)
    return out


def check_layout(folder, tag):
    fetch, pinned = reader.read_layout(folder, tag)
    verdict, why, disks = outcome(fetch, pinned, True, ())
    if verdict != "ok":
        print("%s: %s" % (verdict, why), file=sys.stderr)
        return 3 if verdict == "refused" else 1
    for name, size, digest, disk_digest in disks:
        print(name, size, digest.hex(), reader.text(disk_digest))
    return 0


def main(args):
    if args in ([], ["--replace"]):
        return make(replace=bool(args))
    if args[0] == "check" and len(args) > 1:
        return check(args[1:])
    if args[0] == "check-layout" and len(args) == 3:
        return check_layout(*args[1:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
