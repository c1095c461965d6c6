// Corpus writes schemas/vectors/receipts: receipts good and bad, each with the verdict every verifier must give.
//
//	corpus -out DIR     writes the cases and cases.json, the same bytes every time
//	corpus -list FILE   prints a cases.json as "name<TAB>v1<TAB>v2" lines, for check.sh
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

type testCase struct {
	Name   string      `json:"name"`
	What   string      `json:"what"`
	Expect expectation `json:"expect"`
}

// An expectation is the last line of standard output, or "n/a" where a verifier cannot judge.
type expectation struct {
	V1       string `json:"v1"`
	V2       string `json:"v2"`
	Chopmark string `json:"chopmark"`
}

type corpus struct {
	dir   string
	cases []testCase
}

func (c *corpus) add(name, what, expect string, b bundle) *expectation {
	return c.addReceipt(name, what, expect, b, b.receipt())
}

// addReceipt is for a receipt that a bundle cannot express.
func (c *corpus) addReceipt(name, what, expect string, b bundle, receipt string) *expectation {
	for _, other := range c.cases {
		if other.Name == name {
			panic("two cases named " + name)
		}
	}
	dir := filepath.Join(c.dir, name)
	check(os.MkdirAll(dir, 0o755))
	for file, data := range map[string][]byte{
		"file": b.file, "entry.json": b.entry, "receipt.tlog-proof": []byte(receipt), "policy.txt": []byte(b.policy),
	} {
		check(os.WriteFile(filepath.Join(dir, file), data, 0o644))
	}
	c.cases = append(c.cases, testCase{name, what, expectation{expect, expect, expect}})
	return &c.cases[len(c.cases)-1].Expect
}

// lastSecond is the end of the year 9999, after which RFC 3339 has no words.
const lastSecond = 253402300799

// valid is the verdict on a bundle cosigned at the given times by witnesses of a group of n.
func valid(b bundle, n int, times ...uint64) string {
	slices.Sort(times)
	bound := "none"
	if f := (n - 1) / 3; f < len(times) && times[f] <= lastSecond {
		bound = time.Unix(int64(times[f]), 0).UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("VALID index=%d size=%d cosigners=%d/%d time=%s", b.index, b.size, len(times), n, bound)
}

func write(dir string) {
	check(os.RemoveAll(dir))
	c := &corpus{dir: dir}
	positive(c)
	unknownFormat(c)
	badReceipt(c)
	badCheckpoint(c)
	badEvidence(c)
	badSignature(c)
	badInclusion(c)
	incomplete(c)
	order(c)
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	check(enc.Encode(c.cases))
	check(os.WriteFile(filepath.Join(dir, "cases.json"), out.Bytes(), 0o644))
	check(os.WriteFile(filepath.Join(dir, ".gitattributes"), []byte("* -text\n"), 0o644)) // the bytes are the point
}

func list(file string) {
	data, err := os.ReadFile(file)
	check(err)
	var cases []testCase
	check(json.Unmarshal(data, &cases))
	for _, tc := range cases {
		fmt.Printf("%s\t%s\t%s\n", tc.Name, tc.Expect.V1, tc.Expect.V2)
	}
}

func main() {
	out := flag.String("out", "", "folder to write")
	in := flag.String("list", "", "cases.json to print")
	flag.Parse()
	switch {
	case *out != "":
		write(*out)
	case *in != "":
		list(*in)
	default:
		flag.Usage()
		os.Exit(64)
	}
}
