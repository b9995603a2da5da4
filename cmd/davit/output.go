package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"

	"golang.org/x/term"
)

// A report heads every JSON result. Commands embed it in a struct of their own.
type report struct {
	Schema string `json:"schema"`
}

// newReport returns the head of the JSON of a command: "davit.push.v1",
// "davit.key-generate.v1".
func newReport(commandPath string) report {
	_, name, _ := strings.Cut(commandPath, " ")
	return report{Schema: "davit." + strings.ReplaceAll(name, " ", "-") + ".v1"}
}

// A refusal is what the JSON of every command that ends with exit 3 has.
type refusal struct {
	Verdict string   `json:"verdict"` // "refused"
	Reasons []reason `json:"reasons"`
}

type reason struct {
	Code   string `json:"code"`
	Part   string `json:"part,omitempty"`   // of the artifact
	Digest string `json:"digest,omitempty"` // of the signature
	Why    string `json:"why"`
}

func newRefusal(err error) refusal {
	return refusal{Verdict: "refused", Reasons: refusals(err)}
}

type refusedReport struct {
	report
	refusal
}

// list is s, but never null in JSON.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// hideInJSON returns JSON whose texts have gone through hide.
func hideInJSON(data []byte, hide func(string) string) []byte {
	return jsonText.ReplaceAllFunc(data, func(quoted []byte) []byte {
		var text string
		if json.Unmarshal(quoted, &text) != nil {
			return quoted
		}
		hidden := hide(text)
		if hidden == text {
			return quoted
		}
		var b bytes.Buffer
		if writeJSON(&b, hidden) != nil {
			return quoted
		}
		return bytes.TrimSpace(b.Bytes())
	})
}

// jsonText is a text in JSON, with its quotes.
var jsonText = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// writeResult writes a command's result to stdout and closes it: some file
// systems say only then that they are full. What commands write is printable
// where it is not theirs; a terminal gets nothing else in any case.
func writeResult(stdout *os.File, result []byte) error {
	if len(result) == 0 {
		return nil
	}
	if term.IsTerminal(int(stdout.Fd())) {
		result = []byte(printableLines(string(result)))
	}
	_, err := stdout.Write(result)
	return errors.Join(err, stdout.Close())
}
