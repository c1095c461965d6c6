package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// badEvidence has good receipts for entries that do not fit the file, and confidential ones.
func badEvidence(c *corpus) {
	const verdict = "INVALID check=file"
	file := []byte(text)
	changed := func(name, what string, file []byte) {
		b := base()
		b.file = file
		c.add("invalid-file-"+name, what, verdict, b)
	}
	changed("byte", "One byte of the file differs.", bytes.Replace(file, []byte("quick"), []byte("quiet"), 1))
	changed("truncated", "The file lacks its last byte.", file[:len(file)-1])
	changed("appended", "A newline follows the file.", append(slices.Clone(file), '\n'))
	changed("crlf", "The file's newlines became CRLF.", bytes.ReplaceAll(file, []byte("\n"), []byte("\r\n")))
	changed("empty", "The file is empty.", nil)
	changed("is-entry", "The entry was given as the file.", base().entry)

	listed := func(name, what, digests string, size int) *expectation {
		return c.add("invalid-file-"+name, what, verdict, four.logged(file, evidence(digests, size), 8, 5, all...))
	}
	other := []byte("another file")
	member := func(alg string, data []byte) string { return fmt.Sprintf("%q:%q", alg, digest(alg, data)) }
	listed("sha256-wrong", "SHA-256 is another file's, SHA3-256 is right.", "{"+member("sha256", other)+","+member("sha3-256", file)+"}", len(file))
	listed("sha3-256-wrong", "SHA3-256 is another file's, SHA-256 is right.", "{"+member("sha256", file)+","+member("sha3-256", other)+"}", len(file))
	listed("sm3-wrong", "SM3 is another file's, SHA-256 is right; V2 knows no SM3.",
		"{"+member("sha256", file)+","+member("sm3", other)+"}", len(file)).V2 = "n/a"
	listed("size-wrong", "The digests are right, the size is one too many.", digests(file, "sha256"), len(file)+1)
	listed("upper-case", "The digest is in upper case.", strings.Replace(digests(file, "sha256"), digest("sha256", file), strings.ToUpper(digest("sha256", file)), 1), len(file))
	listed("truncated-digest", "The digest lacks its last byte.", strings.Replace(digests(file, "sha256"), digest("sha256", file), digest("sha256", file)[:62], 1), len(file))
	listed("empty-digest", "The digest is an empty string.", `{"sha256":""}`, len(file))
	listed("digest-number", "The digest is a number.", `{"sha256":1}`, len(file))

	open := opening(file, "sha256", "sha3-256")
	secret := func(name, what, verdict string, file, extra []byte, commitment string) *expectation {
		b := four.logged(file, confidential(commitment), 8, 5, all...)
		if extra != nil {
			b.extra = b64(extra)
		}
		return c.add(name, what, verdict, b)
	}
	committed := commitment(open, "sha256", "sha3-256")
	secret("incomplete-opening", "Confidential evidence without its opening.", "INCOMPLETE missing=opening", file, nil, committed)
	opened := func(name, what string, extra []byte, commitment string) *expectation {
		return secret("invalid-opening-"+name, what, "INVALID check=opening", file, extra, commitment)
	}
	opened("salt", "The opening has another salt.", bytes.Replace(open, []byte(digest("sha256", []byte("salt"))), []byte(digest("sha256", nil)), 1), committed)
	opened("truncated", "The opening lacks its last byte.", open[:len(open)-1], committed)
	opened("newline", "A newline follows the opening.", append(slices.Clone(open), '\n'), committed)
	opened("other-file", "The opening is of another file.", opening(other, "sha256", "sha3-256"), committed)
	opened("no-domain", "The commitment is a hash without the domain line.", open, digests(open, "sha256"))
	opened("sha3-256-wrong", "The commitment under SHA3-256 is wrong, that under SHA-256 right.", open,
		"{"+member("sha256", append([]byte("chopmark/commit/v1\n"), open...))+","+member("sha3-256", other)+"}")
	opened("sm3-wrong", "The commitment under SM3 is wrong, that under SHA-256 right; V2 knows no SM3.", open,
		"{"+member("sha256", append([]byte("chopmark/commit/v1\n"), open...))+","+member("sm3", other)+"}").V2 = "n/a"
	for _, bad := range []struct{ name, what, opening string }{
		{"v-2", "The opening, committed, is of version 2.", strings.Replace(string(open), `"v":1`, `"v":2`, 1)},
		{"no-v", "The opening, committed, has no version.", strings.Replace(string(open), `,"v":1`, ``, 1)},
		{"no-digests", "The opening, committed, has no digests.", `{"salt":"` + digest("sha256", nil) + `","size":1,"v":1}`},
		{"text", "What was committed is not JSON.", "hello"},
	} {
		opened(bad.name, bad.what, []byte(bad.opening), commitment([]byte(bad.opening), "sha256"))
	}
	secret("invalid-file-confidential", "The opening is the committed one, the file another.", verdict, other, open, committed)
	short := bytes.Replace(open, []byte(fmt.Sprintf(`"size":%d`, len(file))), []byte(`"size":1`), 1)
	secret("invalid-file-confidential-size", "The opening is the committed one, its size is not the file's.", verdict, file, short, commitment(short, "sha256"))
	odd := []byte(`{"digests":{"blake3":"00"},"salt":"` + digest("sha256", nil) + `","v":1}`)
	secret("unknown-type-unknown-opening", "The opening is the committed one; all its digests are of unknown kinds.", "UNKNOWN-FORMAT what=entry-type",
		file, odd, commitment(odd, "sha256"))
	secret("unknown-type-unknown-commitment", "The commitment is under an unknown hash.", "UNKNOWN-FORMAT what=entry-type", file, open, `{"blake3":"00"}`)
}

func badSignature(c *corpus) {
	good := base().receipt()
	text := func(name, what, verdict, text string) { c.addReceipt("invalid-"+name, what, verdict, base(), text) }
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	resigned := func(name, what, other string) {
		b := base()
		b.origin = other
		b.signatures = four.signatures(b.body(), all...)
		c.add("invalid-origin-"+name, what, "INVALID check=origin", b)
	}
	resigned("other", "The checkpoint is of another log, signed by all keys of this one.", "other.example/log")
	resigned("upper-case", "The origin in upper case, signed.", strings.ToUpper(origin))
	resigned("space", "A space after the origin, signed.", origin+" ")
	resigned("sm3", "The origin of the SM3 tree, signed.", origin+"/sm3")
	resigned("utf8", "The origin in other letters, signed.", "日志.example/log")
	text("origin-unsigned", "The origin of another log; signatures as they were.", "INVALID check=origin", swap("\n"+origin+"\n", "\nlog.example/log2\n"))

	const verdict = "INVALID check=signature"
	text("signature-root", "A byte of the root changed.", verdict, swap(base().root, flip(base().root, 7)))
	text("signature-size-plus-1", "The size made one more.", verdict, swap("\n257\n", "\n258\n"))
	minus := four.logged([]byte("minus"), evidence(digests([]byte("minus"), "sha256"), 5), 255, 100, all...)
	minus.size--
	c.add("invalid-signature-size-minus-1", "Entry 100 of 255, and the size made 254.", verdict, minus)
	lines := func(name, what string, change func(b *bundle)) {
		b := base()
		change(&b)
		c.add("invalid-signature-"+name, what, verdict, b)
	}
	payload := func(k key, p []byte) string { return line(k.name, k.id(), p) }
	log, w := four.logs[0], four.cosigners
	body := base().body()
	lines("log", "A bit of the log's signature changed.", func(b *bundle) {
		b.signatures[0] = payload(log, bit(log.payload(body, 0), 20))
	})
	lines("cosigner", "A bit of a cosignature changed, though the others make a quorum.", func(b *bundle) {
		b.signatures[4] = payload(w[3], bit(w[3].payload(body, when(3)), 40))
	})
	lines("time", "The time of a cosignature changed by a second.", func(b *bundle) {
		b.signatures[4] = payload(w[3], bit(w[3].payload(body, when(3)), 7))
	})
	lines("other-size", "A cosignature of another size of the same log.", func(b *bundle) {
		b.signatures[4] = w[3].sign(strings.Replace(body, "\n257\n", "\n256\n", 1), when(3))
	})
	lines("other-root", "A cosignature of another root.", func(b *bundle) {
		b.signatures[4] = w[3].sign(strings.Replace(body, base().root, flip(base().root, 7), 1), when(3))
	})
	lines("other-log", "A cosignature of another log.", func(b *bundle) {
		b.signatures[4] = w[3].sign(strings.Replace(body, origin, "other.example/log", 1), when(3))
	})
	lines("collision", "Name and key id of a cosigner, signature of another key.", func(b *bundle) {
		b.signatures[4] = payload(w[3], newKey(w[3].name, 4, "attacker").payload(body, when(3)))
	})
	lines("log-collision", "Name and key id of the log, signature of another key.", func(b *bundle) {
		b.signatures[0] = payload(log, newKey(origin, 1, "attacker").payload(body, 0))
	})
	lines("other-member", "Name and key id of one member, cosignature of another.", func(b *bundle) {
		b.signatures[4] = payload(w[3], w[2].payload(body, when(3)))
	})
	lines("second-line", "A good cosignature, and a bad one of the same key after it.", func(b *bundle) {
		b.signatures = append(b.signatures, payload(w[3], bit(w[3].payload(body, when(3)), 40)))
	})
	lines("second-log-key", "The second member's log key made a bad signature; the first is good.", func(b *bundle) {
		b.signatures = append(b.signatures, payload(four.logs[1], bit(four.logs[1].payload(body, 0), 20)))
	})
	lines("zero", "A cosignature of zeros.", func(b *bundle) { b.signatures[4] = payload(w[3], make([]byte, 72)) })
	lines("log-short", "The log's signature lacks a byte.", func(b *bundle) { b.signatures[0] = payload(log, log.payload(body, 0)[:63]) })
	lines("log-long", "A byte follows the log's signature.", func(b *bundle) {
		b.signatures[0] = payload(log, append(log.payload(body, 0), 0))
	})
	lines("cosigner-short", "A cosignature lacks a byte.", func(b *bundle) { b.signatures[4] = payload(w[3], w[3].payload(body, when(3))[:71]) })
	lines("cosigner-long", "A byte follows a cosignature.", func(b *bundle) {
		b.signatures[4] = payload(w[3], append(w[3].payload(body, when(3)), 0))
	})
	lines("no-time", "A cosigner's plain note signature, without a time.", func(b *bundle) {
		b.signatures[4] = payload(w[3], key{w[3].name, 1, w[3].priv}.payload(body, 0))
	})
	lines("plain-with-time", "A time, and a cosigner's plain note signature that does not cover it.", func(b *bundle) {
		b.signatures[4] = payload(w[3], append(w[3].payload(body, when(3))[:8:8], key{w[3].name, 1, w[3].priv}.payload(body, 0)...))
	})
	lines("log-with-time", "The log signed a cosignature message.", func(b *bundle) {
		b.signatures[0] = payload(log, key{origin, 4, log.priv}.payload(body, genesis)[8:])
	})
	lines("malleable", "The order of the group was added to the scalar of a signature.", func(b *bundle) {
		b.signatures[4] = payload(w[3], plusOrder(w[3].payload(body, when(3))))
	})
	lines("cosigners-and-quorum", "A bad cosignature where the quorum is missing too.", func(b *bundle) {
		b.signatures = append(b.signatures[:1], payload(w[3], make([]byte, 72)))
	})
	lines("no-log-line", "A bad cosignature where the log's line is missing too.", func(b *bundle) {
		b.signatures = []string{b.signatures[1], b.signatures[2], b.signatures[3], payload(w[3], make([]byte, 72))}
	})
}

// plusOrder makes a cosignature whose scalar is not reduced.
func plusOrder(payload []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	out := slices.Clone(payload)
	scalar := out[len(out)-32:]
	slices.Reverse(scalar)
	new(big.Int).Add(new(big.Int).SetBytes(scalar), order).FillBytes(scalar)
	slices.Reverse(scalar)
	return out
}

// flip changes a bit of byte i of what the base64 says; bit does so of plain bytes.
func flip(s string, i int) string { return b64(bit(unb64(s), i)) }

func bit(b []byte, i int) []byte {
	b = slices.Clone(b)
	b[i] ^= 1
	return b
}

func badInclusion(c *corpus) {
	const verdict = "INVALID check=inclusion"
	add := func(name, what string, change func(b *bundle)) {
		b := base()
		change(&b)
		c.add("invalid-inclusion-"+name, what, verdict, b)
	}
	entry := func(name, what string, change func(entry string) string) {
		add("entry-"+name, what, func(b *bundle) { b.entry = []byte(change(string(b.entry))) })
	}
	entry("byte", "A byte of the entry changed, in what it says of the tenant.", func(e string) string { return strings.Replace(e, "ten_corpus", "ten_corpse", 1) })
	entry("time", "The entry's time changed.", func(e string) string { return strings.Replace(e, "000,\"type\"", "001,\"type\"", 1) })
	entry("newline", "A newline follows the entry.", func(e string) string { return e + "\n" })
	entry("spaces", "The entry has spaces between its members.", func(e string) string { return strings.ReplaceAll(e, `","`, `", "`) })
	entry("indented", "The entry has line breaks between its members.", func(e string) string { return strings.ReplaceAll(e, `","`, "\",\n\t\"") })
	entry("order", "The members of the entry changed places.", func(e string) string { return `{"v":1,` + strings.Replace(e[1:], `,"v":1`, ``, 1) })
	entry("escape", "A letter of the entry is escaped.", func(e string) string { return strings.Replace(e, "text/plain", `text\/plain`, 1) })
	entry("less", "The entry lists one digest less.", func(e string) string {
		return strings.Replace(e, `,"sm3":"`+digest("sm3", []byte(text))+`"`, "", 1)
	})
	entry("more", "The entry has a member more.", func(e string) string { return strings.Replace(e, `,"v":1`, `,"type2":true,"v":1`, 1) })
	add("index-plus-1", "The index is one too many.", func(b *bundle) { b.index++ })
	add("index-minus-1", "The index is one too few.", func(b *bundle) { b.index-- })
	add("index-0", "The index is 0.", func(b *bundle) { b.index = 0 })
	add("swapped", "Two nodes of the path changed places.", func(b *bundle) { b.path[2], b.path[3] = b.path[3], b.path[2] })
	add("reversed", "The path runs from the root down.", func(b *bundle) { slices.Reverse(b.path) })
	add("first-node", "A bit of the first node changed.", func(b *bundle) { b.path[0] = flip(b.path[0], 0) })
	add("last-node", "A bit of the last node changed.", func(b *bundle) { b.path[8] = flip(b.path[8], 31) })
	add("zero-node", "A node of zeros.", func(b *bundle) { b.path[4] = b64(make([]byte, 32)) })
	add("other-entry", "The path is that of the neighbour.", func(b *bundle) {
		_, path := tree(b.size, 101, b.entry)
		for i := range path {
			b.path[i] = path[i].String()
		}
	})
	signed := func(name, what string, change func(b *bundle)) {
		add("signed-"+name, what, func(b *bundle) {
			change(b)
			b.signatures = four.signatures(b.body(), all...)
		})
	}
	signed("root", "All members signed a root that is not the tree's.", func(b *bundle) { b.root = flip(b.root, 7) })
	signed("size-plus-2", "All members signed the root with a size two too many.", func(b *bundle) { b.size += 2; b.root = flip(b.root, 3) })
	signed("root-is-leaf", "All members signed the leaf hash as the root.", func(b *bundle) {
		root, _ := tree(1, 0, b.entry)
		b.root = root.String()
	})
	signed("empty-root", "All members signed the root of the empty tree.", func(b *bundle) { b.root = b64(unhex(digest("sha256", nil))) })
	signed("unprefixed", "All members signed a root made without the prefixes 0 and 1.", func(b *bundle) {
		sum := unhex(digest("sha256", b.entry))
		for i, node := range b.path {
			if b.index>>i&1 == 1 {
				sum = unhex(digest("sha256", append(unb64(node), sum...)))
			} else {
				sum = unhex(digest("sha256", append(sum, unb64(node)...)))
			}
		}
		b.root = b64(sum)
	})
}

func incomplete(c *corpus) {
	body := base().body()
	add := func(name, what, missing string, signatures ...string) {
		b := base()
		b.signatures = signatures
		c.add("incomplete-"+name, what, "INCOMPLETE missing="+missing, b)
	}
	log, w := four.logs[0].sign(body, 0), make([]string, 4)
	for i := range w {
		w[i] = four.cosigners[i].sign(body, when(i))
	}
	add("log", "No signature of a log key.", "log", w...)
	add("log-unknown-key", "The log's name, but a key that the policy does not know.", "log", append(w, newKey(origin, 1, "stranger").sign(body, 0))...)
	add("log-other-name", "The log's key signed under another name.", "log", append(w, newKey("other.example/log", 1, "log 0 of 4").sign(body, 0))...)
	add("log-as-cosigner", "The log's key made a cosignature instead.", "log", append(w, newKey(origin, 4, "log 0 of 4").sign(body, genesis))...)
	add("log-and-quorum", "Neither the log's signature nor a quorum: the log is missed first.", "log", w[0])
	add("quorum", "Two of four cosigned, three are wanted.", "quorum", log, w[0], w[2])
	add("quorum-none", "Nobody cosigned.", "quorum", log)
	add("quorum-one-twice", "One member counted twice: three lines of two cosigners.", "quorum", log, w[0], w[1], four.cosigners[1].sign(body, genesis+99))
	add("quorum-same-line-twice", "One line stands twice.", "quorum", log, w[0], w[1], w[1])
	add("quorum-wrong-key", "The right name with a wrong key, and that key's id.", "quorum", log, w[0], w[1], newKey(four.cosigners[2].name, 4, "attacker").sign(body, when(2)))
	add("quorum-wrong-name", "A right key under a wrong name.", "quorum", log, w[0], w[1], newKey("x.example/cosigner", 4, "cosigner 2 of 4").sign(body, when(2)))
	add("quorum-upper-case", "A cosigner's name in upper case.", "quorum", log, w[0], w[1], strings.Replace(w[2], "member-c", "Member-C", 1))
	add("quorum-strangers", "Strangers cosigned.", "quorum", log, w[0], w[1], newKey("s1.example", 4, "s1").sign(body, genesis), newKey("s2.example", 4, "s2").sign(body, genesis))
	add("quorum-log-keys", "Log keys are not cosigners.", "quorum", log, four.logs[1].sign(body, 0), four.logs[2].sign(body, 0), four.logs[3].sign(body, 0))
	add("quorum-type-1", "Cosigner keys signed as if they were log keys.", "quorum", log, w[0], w[1], newKey(four.cosigners[2].name, 1, "cosigner 2 of 4").sign(body, 0))
	outside := base()
	outside.policy = strings.Replace(four.policy, "members 3 member-a member-b member-c member-d", "members 3 member-a member-b member-c", 1)
	outside.signatures = []string{log, w[0], w[1], w[3]}
	c.add("incomplete-quorum-outsider", "A known witness outside the quorum's group does not count.", "INCOMPLETE missing=quorum", outside)
	every := base()
	every.policy = strings.Replace(four.policy, "members 3", "members all", 1)
	every.signatures = []string{log, w[0], w[1], w[3]}
	c.add("incomplete-quorum-all", "All four are wanted, three signed.", "INCOMPLETE missing=quorum", every)
	single := base()
	single.policy = strings.Replace(four.policy, "quorum members", "quorum member-c", 1)
	single.signatures = []string{log, w[0], w[1], w[3]}
	c.add("incomplete-quorum-single", "The one witness that is wanted did not sign.", "INCOMPLETE missing=quorum", single)
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	check(err)
	return b
}
