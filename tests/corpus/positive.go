package main

import (
	"fmt"
	"slices"
	"strings"
)

var (
	one  = newWorld(1)
	four = newWorld(4)
	all  = []int{0, 1, 2, 3}
)

const text = "The quick brown fox.\n敏捷的狐狸。\n"

// base is the good receipt that most bad ones are made from: entry 100 of 257, four members, all of whom signed.
func base() bundle {
	return four.logged([]byte(text), evidence(digests([]byte(text), "sha256", "sha3-256", "sm3"), len(text)), 257, 100, all...)
}

func times(cosigners ...int) (t []uint64) {
	for _, i := range cosigners {
		t = append(t, when(i))
	}
	return t
}

func positive(c *corpus) {
	for _, at := range []struct {
		size    int64
		indexes []int64
	}{
		{1, []int64{0}}, {2, []int64{0, 1}}, {3, []int64{0, 2}}, {7, []int64{0, 3, 6}}, {8, []int64{0, 5, 7}},
		{255, []int64{0, 128, 254}}, {256, []int64{0, 127, 255}}, {257, []int64{0, 255, 256}}, {65537, []int64{0, 40000, 65535, 65536}},
	} {
		for i, index := range at.indexes {
			file := fmt.Appendf(nil, "evidence %d of %d\n", index, at.size)
			entry := evidence(digests(file, "sha256", "sha3-256"), len(file))
			name := fmt.Sprintf("valid-tree-%d-index-%d", at.size, index)
			what := fmt.Sprintf("Entry %d of a log of %d entries, ", index, at.size)
			if i%2 == 0 {
				b := four.logged(file, entry, at.size, index, all...)
				c.add(name, what+"four members, all signed.", valid(b, 4, times(all...)...), b)
			} else {
				b := one.logged(file, entry, at.size, index, 0)
				c.add(name, what+"one member.", valid(b, 1, when(0)), b)
			}
		}
	}
	b := base()
	c.add("valid-base", "The receipt most bad ones are made from: entry 100 of 257, four members, three digests.", valid(b, 4, times(all...)...), b)
	for _, signed := range [][]int{{0, 1, 2}, {1, 2, 3}, {3, 0, 2}} {
		b := base()
		b.signatures = four.signatures(b.body(), signed...)
		c.add(fmt.Sprintf("valid-signed-by-%d-%d-%d", signed[0], signed[1], signed[2]),
			"Exactly a quorum of three of four cosigned; the time is the second earliest.", valid(b, 4, times(signed...)...), b)
	}
	positiveSignatures(c)
	positiveEvidence(c)
	positivePolicies(c)
}

func positiveSignatures(c *corpus) {
	good := valid(base(), 4, times(all...)...)
	stranger := newKey("stranger.example/witness", 4, "stranger")
	add := func(name, what string, extra ...string) {
		b := base()
		b.signatures = append(b.signatures, extra...)
		c.add(name, what, good, b)
	}
	body := base().body()
	add("valid-unknown-name", "A line of a witness that the policy does not know is ignored.", stranger.sign(body, genesis))
	add("valid-unknown-id", "A line with a known name and an unknown key id is ignored.",
		newKey(four.cosigners[0].name, 4, "stranger").sign(body, genesis), newKey(origin, 1, "stranger").sign(body, 0))
	add("valid-known-id-under-other-name", "A known key id under a name that is not its own is ignored, though the signature is bad.",
		line("other.example/cosigner", four.cosigners[0].id(), make([]byte, 72)))
	add("valid-other-type", "A line of type 0xff under the name of a cosigner is ignored.",
		line(four.cosigners[0].name, []byte{0xff, 1, 2, 3}, []byte("a signature of another kind, of another length")))
	add("valid-shortest-unknown", "An unknown line may be as short as key id and one byte.", line("short.example", []byte{1, 2, 3, 4}, []byte{5}))
	add("valid-unknown-name-utf8", "The name of an unknown key may be any UTF-8 without spaces and plus.", line("见证人.example", []byte{1, 2, 3, 4}, []byte("signature")))
	add("valid-unknown-late", "The time of an unknown cosigner is not looked at.", stranger.sign(body, 1<<63))
	add("valid-all-log-keys", "Every member's log key signed.",
		four.logs[1].sign(body, 0), four.logs[2].sign(body, 0), four.logs[3].sign(body, 0))
	add("valid-repeated-line", "The same cosignature twice counts once.", four.cosigners[2].sign(body, when(2)))
	add("valid-second-line-later", "A cosigner's second, later cosignature changes nothing.", four.cosigners[1].sign(body, genesis+50_000))
	b := base()
	b.signatures = append(b.signatures, four.cosigners[0].sign(body, genesis))
	c.add("valid-second-line-earlier", "Of a cosigner's two cosignatures the earlier counts, wherever it stands.",
		valid(b, 4, genesis, when(1), when(2), when(3)), b)
	b = base()
	slices.Reverse(b.signatures)
	c.add("valid-lines-reversed", "The order of signature lines does not matter.", good, b)
	b = base()
	for i := len(b.signatures); i < 64; i++ {
		b.signatures = append(b.signatures, line(fmt.Sprintf("w%d.example", i), []byte{1, 2, 3, byte(i)}, make([]byte, 72)))
	}
	c.add("valid-64-lines", "64 signature lines are allowed.", good, b)
	b = base()
	for n := 1; len(b.receipt()) != 256<<10 && n <= 4; n++ { // the name takes up what base64, in fours, cannot
		name := strings.Repeat("x", n) + ".example"
		room := 256<<10 - len(base().receipt()) - len(line(name, nil, nil)) - len("\n")
		b.signatures = append(base().signatures, line(name, nil, make([]byte, room/4*3)))
	}
	if len(b.receipt()) != 256<<10 {
		panic(len(b.receipt()))
	}
	c.add("valid-256-kib", "A receipt of exactly 256 KiB is allowed.", good, b)

	late := func(name, what string, at ...uint64) {
		b := base()
		b.signatures = b.signatures[:1]
		for i, t := range at {
			b.signatures = append(b.signatures, four.cosigners[i].sign(b.body(), t))
		}
		c.add(name, what, valid(b, 4, at...), b)
	}
	late("valid-time-zero", "Times may be 0.", 0, 0, 0, 0)
	late("valid-time-one-liar", "One absurdly early and one absurdly late time do not move the bound far.", 1, genesis+10, genesis+20, 1<<63-1)
	late("valid-time-9999", "The last second of the year 9999 can still be printed.", lastSecond, lastSecond, lastSecond)
	late("valid-time-unprintable", "2^63-1 is a legal time, but not one of RFC 3339: no bound is given.", 1<<63-1, 1<<63-1, 1<<63-1)
}

func positiveEvidence(c *corpus) {
	file := []byte(text)
	add := func(name, what string, file, entry []byte) *expectation {
		b := four.logged(file, entry, 8, 5, 0, 1, 2)
		return c.add(name, what, valid(b, 4, times(0, 1, 2)...), b)
	}
	add("valid-only-sha256", "Only a SHA-256 digest is listed.", file, evidence(digests(file, "sha256"), len(file)))
	add("valid-only-sha3-256", "Only a SHA3-256 digest is listed.", file, evidence(digests(file, "sha3-256"), len(file)))
	add("valid-only-sm3", "Only an SM3 digest is listed; V2 cannot compare it.", file, evidence(digests(file, "sm3"), len(file))).V2 =
		"UNKNOWN-FORMAT what=entry-type"
	add("valid-empty-file", "The file is empty.", nil, evidence(digests(nil, "sha256", "sha3-256", "sm3"), 0))
	binary := []byte("\x00\x01\xff\r\n\x1a\x00 no newline")
	add("valid-binary-file", "The file has NUL and other odd bytes.", binary, evidence(digests(binary, "sha256", "sha3-256", "sm3"), len(binary)))
	add("valid-no-size", "The entry lists no size.", file, fmt.Appendf(nil, `{"digests":%s,"type":"evidence","v":1}`, digests(file, "sha256")))
	add("valid-unknown-digest", "A digest of an unknown kind beside a known one is passed over.", file,
		evidence(`{"blake3":"00","sha256":"`+digest("sha256", file)+`"}`, len(file)))
	add("valid-unknown-type", "The type of the entry is unknown; it has digests, so it can be judged.", file,
		fmt.Appendf(nil, `{"digests":%s,"type":"from.the.future","v":1}`, digests(file, "sha256")))
	wrong := digests([]byte("another file"), "sha256")
	add("valid-nested-look-alikes", "Members named digests, size and v further inside the entry mean nothing.", file,
		fmt.Appendf(nil, `{"digests":%s,"provenance":{"digests":%s,"list":[{"size":1},[],true,-1],"size":1,"v":2},"size":%d,"type":"evidence","v":1}`,
			digests(file, "sha256"), wrong, len(file)))
	add("valid-strings-with-syntax", "Strings hold quotes, brackets and Chinese.", file,
		fmt.Appendf(nil, `{"digests":%s,"media_type":"a/b; x=\"},{\\\"digests\":{]","note":"证据","type":"evidence","v":1}`, digests(file, "sha256")))
	add("valid-trailing-newline-logged", "The entry was logged with a newline at its end.", file,
		append(evidence(digests(file, "sha256"), len(file)), '\n'))

	secret := func(name, what string, open []byte, commitment string) bundle {
		b := four.logged(file, confidential(commitment), 8, 5, 0, 1, 2)
		b.extra = b64(open)
		c.add(name, what, valid(b, 4, times(0, 1, 2)...), b)
		return b
	}
	open := opening(file, "sha256")
	secret("valid-confidential", "Confidential evidence with its opening.", open, commitment(open, "sha256"))
	open = opening(file, "sha256", "sha3-256", "sm3")
	secret("valid-confidential-three", "Confidential evidence, commitment and opening under three hashes.", open, commitment(open, "sha256", "sha3-256", "sm3"))
	open = fmt.Appendf(nil, `{"digests":%s,"salt":"%s","v":1}`, digests(file, "sha3-256"), digest("sha256", nil))
	secret("valid-confidential-no-size", "The opening lists no size.", open, commitment(open, "sha256"))
	b := base()
	b.extra = b64([]byte("not an opening"))
	c.add("valid-plain-with-extra", "Plain evidence does not look at extra.", valid(b, 4, times(all...)...), b)
	b = base()
	b.extra = b64(make([]byte, 100_002))
	c.add("valid-long-extra", "A long extra line.", valid(b, 4, times(all...)...), b)
}

func positivePolicies(c *corpus) {
	add := func(name, what, policy, expect string) {
		b := base()
		b.policy = policy
		c.add(name, what, expect, b)
	}
	good := valid(base(), 4, times(all...)...)
	lines := strings.Split(strings.TrimSuffix(four.policy, "\n"), "\n") // 4 logs, 4 witnesses, group, quorum
	keys := strings.Join(lines[:8], "\n") + "\n"
	add("valid-policy-layout", "Comments, blank lines, tabs, spaces around, and URLs in the policy.",
		"# 策略 policy\n\n \t \n\t# indented\n"+strings.ReplaceAll(strings.Join(lines[:8], " \t https://example.com/x \n\n"), " ", " \t")+
			"\n"+"  "+lines[8]+"\n\tquorum\tmembers\t\n", good)
	add("valid-policy-no-last-newline", "The last line of the policy has no newline.", strings.TrimSuffix(four.policy, "\n"), good)
	add("valid-policy-all", "A group that wants all.", keys+"group g all member-a member-b member-c member-d\nquorum g\n", good)
	add("valid-policy-any", "A group that wants any.", keys+"group g any member-a member-b member-c member-d\nquorum g\n", good)
	add("valid-policy-one-witness", "The quorum is one witness.", keys+"quorum member-c\n", valid(base(), 1, when(2)))
	add("valid-policy-none", "The quorum is none: the log's signature is enough, and there is no time.", keys+"quorum none\n",
		"VALID index=100 size=257 cosigners=0/0 time=none")
	add("valid-policy-part", "Only the quorum's group counts; member-d is known, but not in it.",
		keys+"group g 2 member-a member-b member-c\nquorum g\n", valid(base(), 3, times(0, 1, 2)...))
	add("valid-policy-two-groups", "Two groups of witnesses, of which one is the quorum.",
		keys+"group g 1 member-a member-b\ngroup h 2 member-c member-d\nquorum h\n", valid(base(), 2, times(2, 3)...))
	add("valid-policy-odd-names", "Names of witnesses and groups may look like patterns.",
		strings.NewReplacer(four.cosigners[0].name, four.cosigners[0].name, four.cosigners[1].name, four.cosigners[1].name,
			four.cosigners[2].name, four.cosigners[2].name, four.cosigners[3].name, four.cosigners[3].name,
			"member-a", "*", "member-b", "[a]", "member-c", `\c`, "member-d", "$(法院)", "members", ".*").Replace(four.policy), good)
	upper := four.policy
	for _, k := range slices.Concat(four.logs, four.cosigners) {
		id := fmt.Sprintf("+%x+", k.id())
		upper = strings.ReplaceAll(upper, id, strings.ToUpper(id))
	}
	add("valid-policy-upper-case-id", "The key ids in the policy are in upper case.", upper, good)
	add("valid-policy-one-log", "The policy has one log key of four, the one that signed.", lines[0]+"\n"+strings.Join(lines[4:], "\n"), good)
	b := base()
	b.policy = keys + "group g any member-a member-b member-c member-d\nquorum g\n"
	b.signatures = four.signatures(b.body(), 2)
	c.add("valid-too-few-for-time", "One of four is quorum enough here, but gives no time: any one may lie.",
		"VALID index=100 size=257 cosigners=1/4 time=none", b)
}
