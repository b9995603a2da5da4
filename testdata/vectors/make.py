#!/usr/bin/env python3
"""Makes and checks the vectors of docs/spec.md; see README.md."""

import os
import sys

sys.dont_write_bytecode = True

import artifact_cases
import chunker_cases

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


def main(args):
    if args in ([], ["--replace"]):
        return make(replace=bool(args))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
