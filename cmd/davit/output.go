package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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

// writeFile makes the file at path appear whole: write gets a temporary file in
// the same folder, which then takes the name. After an error nothing is left,
// and a file that was there is as it was. An existing file needs force.
func writeFile(path string, force bool, write func(*os.File) error) (err error) {
	mode := fs.FileMode(0o666)
	old, err := mayWrite(path, force)
	if err != nil {
		return err
	}
	if old != nil {
		mode = old.Mode().Perm()
		// A link stays a link, to the new content.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	f, err := createTemp(path, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	// Somebody else may have been quicker.
	if _, err := mayWrite(path, force); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// mayWrite says whether a file may get this name, before work is spent on its
// content. It returns the file that is there, nil if none is.
func mayWrite(path string, force bool) (fs.FileInfo, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !force {
		return nil, fmt.Errorf("%s: %w: --force replaces it", path, fs.ErrExist)
	}
	info, err := os.Stat(path) // what a link leads to
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	return info, nil
}

// createTemp creates .NAME.RANDOM.davit-tmp beside path. Unlike [os.CreateTemp]
// it leaves the mode to the umask.
func createTemp(path string, mode fs.FileMode) (*os.File, error) {
	dir, name := filepath.Split(path)
	// The longest name that file systems take has 255 bytes.
	if len(name) > 200 {
		name = name[:200]
	}
	for n := 0; ; n++ {
		temp := filepath.Join(dir, "."+name+"."+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(n)+".davit-tmp")
		f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
		if errors.Is(err, fs.ErrExist) && n < 100 {
			continue
		}
		return f, err
	}
}
