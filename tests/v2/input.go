package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func readArguments() (in [4][]byte) {
	if len(os.Args) != 1+len(in) {
		fmt.Fprintln(os.Stderr, "usage: v2 FILE entry.json receipt.tlog-proof policy.txt")
		os.Exit(64)
	}
	for i, name := range os.Args[1:] {
		var err error
		if in[i], err = os.ReadFile(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(64)
		}
	}
	return in
}

// must ends with the verdict unless ok; exit status 1 for INVALID, 2 for INCOMPLETE, 3 for UNKNOWN-FORMAT.
func must(ok bool, verdict string) {
	if !ok {
		fmt.Println(verdict)
		os.Exit(strings.Index(" VCK", verdict[2:3]))
	}
}

// parseNumber reads a decimal below 2^63 without leading zeros.
func parseNumber(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}

func parseHash(s string) (tlog.Hash, bool) {
	h, err := tlog.ParseHash(s)
	return h, err == nil && h.String() == s
}

// unb64 decodes base64 in its canonical spelling only.
func unb64(s string) ([]byte, bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	return b, err == nil && base64.StdEncoding.EncodeToString(b) == s
}

// An object is an entry, an opening, or a list of digests.
type object map[string]json.RawMessage

func parseObject(b []byte) (o object, ok bool) {
	err := json.Unmarshal(b, &o)
	return o, err == nil && utf8.Valid(b) && string(o["v"]) == "1"
}

// compare says whether the list name has digests that Go can compute, and whether all of them are those of data.
func (o object) compare(name string, data []byte) (equal, known bool) {
	digests, equal := object{}, true
	json.Unmarshal(o[name], &digests)
	for alg, sum := range map[string][32]byte{"sha256": sha256.Sum256(data), "sha3-256": sha3.Sum256(data)} {
		if digest, listed := digests[alg]; listed {
			known, equal = true, equal && string(digest) == fmt.Sprintf(`"%x"`, sum)
		}
	}
	return equal, known
}

// A key is a policy's vkey as a note.Verifier: type 0x01 like x/mod's own, and type 0x04 (c2sp.org/tlog-cosignature).
type key struct {
	note.Verifier
	id   uint32
	kind byte
	pub  ed25519.PublicKey
}

func (k key) KeyHash() uint32 { return k.id }

func (k key) Verify(msg, sig []byte) bool {
	if k.kind == 4 {
		if len(sig) != 72 {
			return false
		}
		msg = fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
		sig = sig[8:]
	}
	return ed25519.Verify(k.pub, msg, sig)
}

func parseKey(kind byte, vkey string) (k key, ok bool) {
	name, rest, _ := strings.Cut(vkey, "+")
	id, b64, _ := strings.Cut(rest, "+")
	raw, ok := unb64(b64)
	if !ok || len(raw) != 33 || raw[0] != kind {
		return k, false
	}
	sum := sha256.Sum256([]byte(name + "\n" + string(raw)))
	as01, _ := note.NewEd25519VerifierKey(name, raw[1:])
	v, err := note.NewVerifier(as01) // for x/mod's opinion of the name
	return key{v, binary.BigEndian.Uint32(sum[:]), kind, raw[1:]}, err == nil && strings.EqualFold(id, fmt.Sprintf("%x", sum[:4]))
}

// A keyring has the keys of a policy by name+id.
type keyring map[string]key

func (r keyring) Verifier(name string, id uint32) (note.Verifier, error) {
	if k, known := r[fmt.Sprintf("%s+%08x", name, id)]; known {
		return k, nil
	}
	return nil, &note.UnknownVerifierError{Name: name, KeyHash: id}
}

// learn adds a key that no other line of the same kind has; it returns name+id.
func (r keyring) learn(kind byte, vkey string) (id string, ok bool) {
	k, ok := parseKey(kind, vkey)
	if !ok {
		return "", false
	}
	for _, other := range r {
		ok = ok && (other.kind != kind || !k.pub.Equal(other.pub))
	}
	id = fmt.Sprintf("%s+%08x", k.Name(), k.id)
	r[id] = k
	return id, ok
}

// A group is some witnesses, by name+id, of which k must cosign. A witness is also a group of one.
type group struct {
	k       int
	members []string
	witness bool
}

type policy struct {
	origin string
	keys   keyring
	quorum *group
}

// parsePolicy reads the part of c2sp.org/tlog-policy where groups hold witnesses, not groups, and all logs have one name.
func parsePolicy(text string) (p policy, ok bool) {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }) {
		return p, false
	}
	p.keys = keyring{}
	groups := map[string]*group{"none": {}}
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
		n := len(f)
		if n == 0 || f[0][0] == '#' {
			continue
		}
		id, ok := "", false
		switch {
		case f[0] == "log" && (n == 2 || n == 3):
			id, ok = p.keys.learn(1, f[1])
			name, _, _ := strings.Cut(id, "+")
			ok = ok && (p.origin == "" || p.origin == name)
			p.origin = name
		case f[0] == "witness" && (n == 3 || n == 4) && groups[f[1]] == nil:
			id, ok = p.keys.learn(4, f[2])
			groups[f[1]] = &group{1, []string{id}, true}
		case f[0] == "group" && n > 3 && groups[f[1]] == nil:
			groups[f[1]], ok = parseGroup(groups, f[2], f[3:])
		case f[0] == "quorum" && n == 2 && p.quorum == nil:
			p.quorum, ok = groups[f[1]]
		}
		if !ok {
			return p, false
		}
	}
	return p, p.origin != "" && p.quorum != nil
}

func parseGroup(groups map[string]*group, k string, names []string) (*group, bool) {
	g := &group{k: map[string]int{"any": 1, "all": len(names)}[k]}
	if g.k == 0 {
		g.k, _ = strconv.Atoi(k)
		if strconv.Itoa(g.k) != k || g.k < 1 || g.k > len(names) {
			return g, false
		}
	}
	for i, name := range names {
		w := groups[name]
		if w == nil || !w.witness || slices.Contains(names[:i], name) {
			return g, false
		}
		g.members = append(g.members, w.members[0])
	}
	return g, true
}
