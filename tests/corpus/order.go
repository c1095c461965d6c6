package main

import "strings"

// order has cases with two faults each: the one that is checked first is the one that is told.
func order(c *corpus) {
	add := func(name, what, expect string, change func(b *bundle)) {
		b := base()
		change(&b)
		c.add("order-"+name, what, expect, b)
	}
	raw := func(name, what, expect string, change func(b *bundle), old, new string) {
		b := base()
		change(&b)
		c.addReceipt("order-"+name, what, expect, b, strings.Replace(b.receipt(), old, new, 1))
	}
	raw("receipt-policy", "An unknown receipt and an unknown policy.", "UNKNOWN-FORMAT what=receipt",
		func(b *bundle) { b.policy = "" }, "@v1", "@v9")
	add("policy-entry", "An unknown policy and an unknown entry.", "UNKNOWN-FORMAT what=policy",
		func(b *bundle) { b.policy, b.entry = "", nil })
	raw("entry-receipt", "An unknown entry and a malformed index.", "UNKNOWN-FORMAT what=entry",
		func(b *bundle) { b.entry = nil }, "index 100", "index 0100")
	raw("receipt-checkpoint", "A malformed index and an empty origin.", "INVALID check=receipt",
		func(b *bundle) { b.origin = "" }, "index 100", "index 0100")
	add("checkpoint-range", "A malformed signature line, and an index beyond the tree.", "INVALID check=checkpoint",
		func(b *bundle) { b.index = 300; b.signatures[4] = "garbage" })
	add("time-origin", "A cosignature with time 2^63, and another origin.", "INVALID check=checkpoint",
		func(b *bundle) {
			b.origin = "other.example/log"
			b.signatures[4] = four.cosigners[3].sign(b.body(), 1<<63)
		})
	add("time-signature", "A cosignature with time 2^63 that is not good either.", "INVALID check=checkpoint",
		func(b *bundle) { b.signatures[4] = four.cosigners[3].sign("another body\n", 1<<63) })
	add("late-malformed", "A bad signature, and a malformed line after it.", "INVALID check=checkpoint",
		func(b *bundle) {
			b.signatures[1] = four.cosigners[0].sign("another body\n", genesis)
			b.signatures[4] = "garbage"
		})
	add("range-origin", "An index beyond the tree, and another origin.", "INVALID check=receipt",
		func(b *bundle) { b.index = 300; b.origin = "other.example/log" })
	add("path-origin", "A short path, and another origin.", "INVALID check=receipt",
		func(b *bundle) { b.path = b.path[1:]; b.origin = "other.example/log" })
	add("origin-file", "Another origin and another file.", "INVALID check=origin",
		func(b *bundle) { b.origin = "other.example/log"; b.file = nil })
	add("file-signature", "Another file and a changed root.", "INVALID check=file",
		func(b *bundle) { b.file = nil; b.root = flip(b.root, 1) })
	add("file-log", "Another file, and no signature of the log.", "INVALID check=file",
		func(b *bundle) { b.file = nil; b.signatures = b.signatures[1:] })
	add("signature-inclusion", "A changed root, so that neither signatures nor path fit.", "INVALID check=signature",
		func(b *bundle) { b.root = flip(b.root, 1); b.path[0] = flip(b.path[0], 1) })
	add("inclusion-log", "A changed path, and no signature of the log.", "INVALID check=inclusion",
		func(b *bundle) { b.path[0] = flip(b.path[0], 1); b.signatures = b.signatures[1:] })
	add("inclusion-quorum", "A changed path, and no quorum.", "INVALID check=inclusion",
		func(b *bundle) { b.path[0] = flip(b.path[0], 1); b.signatures = b.signatures[:2] })

	file := []byte(text)
	open := opening(file, "sha256")
	secret := four.logged(file, confidential(commitment(open, "sha256")), 8, 5, all...)
	secret.origin = "other.example/log"
	c.add("order-origin-opening", "Another origin, and no opening.", "INVALID check=origin", secret)
	secret = four.logged(file, confidential(commitment(open, "sha256")), 8, 5, all...)
	secret.root = flip(secret.root, 1)
	c.add("order-opening-signature", "No opening, and a changed root.", "INCOMPLETE missing=opening", secret)
	secret.extra = b64(opening(file, "sha3-256"))
	secret.file = nil
	c.add("order-opening-file", "Another opening and another file.", "INVALID check=opening", secret)
}
