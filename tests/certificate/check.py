#!/usr/bin/env python3
"""Checks the commit certificate of a block: that a quorum of the members decided it.

Usage: check.py BLOCK.json MEMBERS.json
BLOCK.json is /v1/blocks/{height}; MEMBERS.json the entry `members.set` in force (entry 0 at first).
Written from docs/FORMATS.md and RFC 8032 alone; it needs nothing but Python's own library.
"""
import hashlib
import json
import sys

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def add(a, b):
    """Points in extended coordinates (RFC 8032, 5.1.4)."""
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(n, point):
    total = (0, 1, 1, 0)
    while n:
        if n & 1:
            total = add(total, point)
        point, n = add(point, point), n >> 1
    return total


def recover(data):
    """A point from its 32 bytes (RFC 8032, 5.1.3); None if there is none."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * ROOT % P
    if y >= P or (x * x - xx) % P or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = recover((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def verify(key, message, signature):
    a, r, s = recover(key), recover(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    left, right = times(s, BASE), add(r, times(k, a))
    return all((left[i] * right[2] - right[i] * left[2]) % P == 0 for i in (0, 1))


def field(data):
    return len(data).to_bytes(4, "big") + data


def tagged(domain, data):
    return hashlib.sha3_256(field(domain.encode()) + field(data)).digest()


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main():
    block, entry = (json.load(open(name, encoding="utf-8")) for name in sys.argv[1:3])
    header, certificate, members = block["header"], block["certificate"], entry["members"]
    value = tagged("chopmark/header/v1", canonical(header))
    if tagged("chopmark/members/v1", canonical(members)).hex() != header["members"]:
        sys.exit("INVALID check=members")
    if certificate["value"] != value.hex() or certificate["height"] != header["height"]:
        sys.exit("INVALID check=header")
    keys = {tagged("chopmark/address/v1", key)[:20]: key for key in (bytes.fromhex(m["validator_key"]) for m in members)}
    signed = set()
    for commit in certificate["signatures"]:
        address = bytes.fromhex(commit["address"])
        message = field(b"chopmark/vote/v1") + field(bytes.fromhex(header["chain"])) + b"\x02"
        message += header["height"].to_bytes(8, "big") + certificate["round"].to_bytes(4, "big")
        message += field(value) + field(address)
        if address not in keys or not verify(keys[address], message, bytes.fromhex(commit["signature"])):
            sys.exit("INVALID check=signature")
        signed.add(address)
    if len(signed) < 2 * len(members) // 3 + 1:
        sys.exit("INCOMPLETE missing=quorum")
    print(f"VALID height={header['height']} validators={len(signed)}/{len(members)}")


main()
