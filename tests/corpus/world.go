package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	origin  = "log.example/log"
	genesis = 1_790_000_000 // Unix seconds; every time in the corpus is derived from it
)

// A key signs notes; its seed is the hash of its label, so the corpus comes out the same every time.
type key struct {
	name string
	kind byte // signature type: 1 log, 4 cosigner
	priv ed25519.PrivateKey
}

func newKey(name string, kind byte, label string) key {
	seed := sha256.Sum256([]byte("chopmark test key " + label))
	return key{name, kind, ed25519.NewKeyFromSeed(seed[:])}
}

func (k key) raw() []byte { return append([]byte{k.kind}, k.priv.Public().(ed25519.PublicKey)...) }

func (k key) id() []byte {
	sum := sha256.Sum256([]byte(k.name + "\n" + string(k.raw())))
	return sum[:4]
}

func (k key) vkey() string { return fmt.Sprintf("%s+%x+%s", k.name, k.id(), b64(k.raw())) }

// payload is what follows the key id in a signature line; only cosigners use the time.
func (k key) payload(body string, time uint64) []byte {
	if k.kind == 1 {
		return ed25519.Sign(k.priv, []byte(body))
	}
	at := binary.BigEndian.AppendUint64(nil, time)
	return append(at, ed25519.Sign(k.priv, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", time, body))...)
}

func (k key) sign(body string, time uint64) string {
	return line(k.name, k.id(), k.payload(body, time))
}

func line(name string, id, payload []byte) string {
	return "— " + name + " " + b64(append(append([]byte{}, id...), payload...))
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func unb64(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// A world is a consortium: per member a log key, all under the name of the log, and a cosigner key.
type world struct {
	logs, cosigners []key
	policy          string
}

func newWorld(members int) world {
	var w world
	var witnesses, names strings.Builder
	for i := range members {
		member := fmt.Sprintf("member-%c", 'a'+i)
		w.logs = append(w.logs, newKey(origin, 1, fmt.Sprintf("log %d of %d", i, members)))
		w.cosigners = append(w.cosigners, newKey(member+".example/cosigner", 4, fmt.Sprintf("cosigner %d of %d", i, members)))
		w.policy += "log " + w.logs[i].vkey() + "\n"
		fmt.Fprintf(&witnesses, "witness %s %s\n", member, w.cosigners[i].vkey())
		names.WriteString(" " + member)
	}
	w.policy += witnesses.String() + fmt.Sprintf("group members %d%s\nquorum members\n", 2*members/3+1, names.String())
	return w
}

// when is the time at which cosigner i signs, out of order on purpose.
func when(i int) uint64 { return genesis + []uint64{40, 10, 30, 20}[i%4] + uint64(i/4) }

// signatures are the lines of one log key, then of the cosigners asked for.
func (w world) signatures(body string, cosigners ...int) []string {
	lines := []string{w.logs[0].sign(body, 0)}
	for _, i := range cosigners {
		lines = append(lines, w.cosigners[i].sign(body, when(i)))
	}
	return lines
}

// tree builds a log of size leaves with entry at index; the other leaves are filler.
func tree(size, index int64, entry []byte) (root tlog.Hash, path []tlog.Hash) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	for i := range size {
		data := fmt.Appendf(nil, "filler %d", i)
		if i == index {
			data = entry
		}
		hashes, err := tlog.StoredHashes(i, data, reader)
		check(err)
		stored = append(stored, hashes...)
	}
	root, err := tlog.TreeHash(size, reader)
	check(err)
	path, err = tlog.ProveRecord(size, index, reader)
	check(err)
	return root, path
}

// A bundle is one case: the four files, the receipt still in its parts.
type bundle struct {
	file, entry []byte
	policy      string
	extra       string
	index       int64
	size        int64
	path        []string
	origin      string
	root        string
	signatures  []string
}

func (b bundle) body() string { return fmt.Sprintf("%s\n%d\n%s\n", b.origin, b.size, b.root) }

func (b bundle) header() string {
	s := "c2sp.org/tlog-proof@v1\n"
	if b.extra != "" {
		s += "extra " + b.extra + "\n"
	}
	s += fmt.Sprintf("index %d\n", b.index)
	for _, node := range b.path {
		s += node + "\n"
	}
	return s
}

func (b bundle) checkpoint() string { return b.body() + "\n" + strings.Join(b.signatures, "\n") + "\n" }

func (b bundle) receipt() string { return b.header() + "\n" + b.checkpoint() }

// logged puts entry at index of a log of the given size and has it signed.
func (w world) logged(file, entry []byte, size, index int64, cosigners ...int) bundle {
	b := bundle{file: file, entry: entry, policy: w.policy, index: index, size: size, origin: origin}
	root, path := tree(size, index, entry)
	b.root = root.String()
	for _, node := range path {
		b.path = append(b.path, node.String())
	}
	b.signatures = w.signatures(b.body(), cosigners...)
	return b
}

// digest in lower-case hex; this program has its own SM3, so that it needs no other module.
func digest(alg string, data []byte) string {
	switch alg {
	case "sha256":
		sum := sha256.Sum256(data)
		return hex.EncodeToString(sum[:])
	case "sha3-256":
		sum := sha3.Sum256(data)
		return hex.EncodeToString(sum[:])
	case "sm3":
		sum := sm3(data)
		return hex.EncodeToString(sum[:])
	}
	panic(alg)
}

// digests is the canonical JSON object of the named digests; algs must be sorted.
func digests(data []byte, algs ...string) string {
	var members []string
	for _, alg := range algs {
		members = append(members, fmt.Sprintf("%q:%q", alg, digest(alg, data)))
	}
	return "{" + strings.Join(members, ",") + "}"
}

// evidence is a plain entry; what it says of the file is given as JSON, so that a case can lie.
func evidence(digests string, size int) []byte {
	return fmt.Appendf(nil, `{"digests":%s,"media_type":"text/plain","op":"%s","private":{"sha256":"%s"},"size":%d,`+
		`"tenant":"ten_corpus","time":%d000,"type":"evidence","v":1}`,
		digests, digest("sha256", []byte("operation")), digest("sha256", []byte("private part")), size, genesis)
}

func opening(file []byte, algs ...string) []byte {
	return fmt.Appendf(nil, `{"digests":%s,"salt":"%s","size":%d,"v":1}`, digests(file, algs...), digest("sha256", []byte("salt")), len(file))
}

// confidential is an entry that commits to the opening.
func confidential(commitment string) []byte {
	return fmt.Appendf(nil, `{"commitment":%s,"op":"%s","tenant":"ten_corpus","time":%d000,"type":"evidence","v":1}`,
		commitment, digest("sha256", []byte("operation")), genesis)
}

func commitment(opening []byte, algs ...string) string {
	return digests(append([]byte("chopmark/commit/v1\n"), opening...), algs...)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
