// V2 judges a receipt with golang.org/x/mod/sumdb/{note,tlog}: v2 FILE entry.json receipt.tlog-proof policy.txt
// Verdict line and exit status are those of schemas/verifier/verify.sh. It has no SM3 and passes over sm3 digests.
package main

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var headRE = regexp.MustCompile(`^(?:extra ([^\n]+)\n)?index ([^\n]+)((?:\n[^\n]+)*)$`)

func main() {
	in := readArguments() // FILE, entry, receipt, policy
	rest, ok := strings.CutPrefix(string(in[2]), "c2sp.org/tlog-proof@v1\n")
	must(ok, "UNKNOWN-FORMAT what=receipt")
	p, ok := parsePolicy(string(in[3]))
	must(ok, "UNKNOWN-FORMAT what=policy")
	entry, ok := parseObject(in[1])
	must(ok, "UNKNOWN-FORMAT what=entry")
	same, plain := entry.compare("digests", in[0])
	_, confidential := entry.compare("commitment", nil)
	must(plain || confidential, "UNKNOWN-FORMAT what=entry-type")

	head, checkpoint, ok := strings.Cut(rest, "\n\n")
	h := headRE.FindStringSubmatch(head)
	must(ok && h != nil && !strings.HasPrefix(checkpoint, "\n"), "INVALID check=receipt")
	opening, ok1 := unb64(h[1])
	index, ok2 := parseNumber(h[2])
	must(ok1 && ok2, "INVALID check=receipt")
	var path tlog.RecordProof
	for _, s := range strings.Split(h[3], "\n")[1:] {
		node, ok := parseHash(s)
		must(ok && len(path) < 63, "INVALID check=receipt")
		path = append(path, node)
	}

	_, err := note.Open([]byte(checkpoint), nil)
	bare, ok := err.(*note.UnverifiedNoteError)
	must(ok && len(in[2]) <= 256<<10, "INVALID check=checkpoint")
	text := bare.Note.Text
	body, lines := strings.Split(text, "\n"), strings.SplitAfter(checkpoint[len(text)+1:], "\n")
	must(len(body) == 3+1 && len(lines) <= 64+1, "INVALID check=checkpoint")
	size, ok1 := parseNumber(body[1])
	root, ok2 := parseHash(body[2])
	must(ok1 && ok2, "INVALID check=checkpoint")
	logged, forged, times := false, false, map[string][]int64{} // times: of each cosigner
	for _, line := range lines[:len(lines)-1] {
		f := strings.Fields(line)
		sig, ok := unb64(f[2])
		must(ok, "INVALID check=checkpoint")
		id := fmt.Sprintf("%s+%x", f[1], sig[:4])
		k, known := p.keys[id]
		_, err := note.Open([]byte(text+"\n"+line), p.keys) // line by line, as Open passes over the second one of a key
		forged, logged = forged || known && err != nil, logged || k.kind == 1
		if k.kind == 4 && len(sig) == 76 {
			times[id] = append(times[id], int64(binary.BigEndian.Uint64(sig[4:])))
			must(slices.Min(times[id]) >= 0, "INVALID check=checkpoint")
		}
	}
	depth := 0
	for i, last := index, size-1; last > 0; i, last = i>>1, last>>1 {
		depth += int(i&1 | min(1, max(0, last-i)))
	}
	must(index < size && len(path) == depth, "INVALID check=receipt")
	must(body[0] == p.origin, "INVALID check=origin")

	if !plain { // confidential: the opening takes the place of the entry
		must(len(opening) > 0, "INCOMPLETE missing=opening")
		committed, _ := entry.compare("commitment", append([]byte("chopmark/commit/v1\n"), opening...))
		entry, ok = parseObject(opening)
		same, plain = entry.compare("digests", in[0])
		must(committed && ok && entry["digests"] != nil, "INVALID check=opening")
		must(plain, "UNKNOWN-FORMAT what=entry-type")
	}
	bytes, listed := entry["size"]
	must(same && (!listed || string(bytes) == fmt.Sprint(len(in[0]))), "INVALID check=file")
	must(!forged, "INVALID check=signature")
	must(tlog.CheckRecord(path, size, root, index, tlog.RecordHash(in[1])) == nil, "INVALID check=inclusion")
	must(logged, "INCOMPLETE missing=log")
	var seen []int64
	for _, id := range p.quorum.members {
		if at := times[id]; at != nil {
			seen = append(seen, slices.Min(at))
		}
	}
	must(len(seen) >= p.quorum.k, "INCOMPLETE missing=quorum")
	slices.Sort(seen)
	n, bound := len(p.quorum.members), "none"
	if f := (n - 1) / 3; f < len(seen) && seen[f] < time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).Unix() {
		bound = time.Unix(seen[f], 0).UTC().Format(time.RFC3339)
	}
	fmt.Printf("VALID index=%d size=%d cosigners=%d/%d time=%s\n", index, size, len(seen), n, bound)
}
