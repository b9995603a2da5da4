// Command gotest reads the events of "go test -json" on its standard input and prints what a person wants to see of them: go test's
// own closing line of each package as it comes, all output of what failed, and at the end what was skipped, by what would run it.
//
// It exits 1 if a test failed, if a fuzz target ran without a seed (it tests nothing), or, with -noskip, if a test was skipped.
//
//	go test -json ./... | go run .ci/gotest.go
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// event is what "go doc cmd/test2json" describes.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	FailedBuild string
}

type key struct{ pkg, test string }

func main() {
	noSkip := flag.Bool("noskip", false, "a skipped test is a failure")
	flag.Parse()

	output := map[key]*strings.Builder{} // of tests still running, and of failed ones until they are printed
	children := map[key]int{}
	var passed, failed int
	skipped := map[string][]string{} // tests, by why
	var skips int
	var unseeded []string

	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) == 0 && err != nil {
			break
		}
		var e event
		if json.Unmarshal(line, &e) != nil { // go vet, a build error of an older go: nothing of ours to hide
			os.Stdout.Write(line)
			continue
		}
		k := key{e.Package, e.Test}
		switch e.Action {
		case "build-output":
			fmt.Print(e.Output)
		case "start":
		case "run":
			if parent, _, ok := strings.Cut(e.Test, "/"); ok {
				children[key{e.Package, parent}]++
			}
		case "output":
			if e.Test == "" {
				if e.Output != "PASS\n" && !strings.HasPrefix(e.Output, "testing: warning: no tests to run") {
					fmt.Print(e.Output)
				}
				continue
			}
			if output[k] == nil {
				output[k] = new(strings.Builder)
			}
			output[k].WriteString(e.Output)
		case "pass", "skip", "fail":
			if e.Test == "" {
				if e.Action == "fail" {
					failed++
					// What was still running when the package went down (a panic, the timeout) has no end of its own.
					for k, b := range output {
						if k.pkg == e.Package {
							fmt.Print(b)
							delete(output, k)
						}
					}
				}
				continue
			}
			text := ""
			if b := output[k]; b != nil {
				text = b.String()
			}
			delete(output, k)
			switch e.Action {
			case "pass":
				passed++
				if strings.HasPrefix(e.Test, "Fuzz") && !strings.Contains(e.Test, "/") && children[k] == 0 {
					unseeded = append(unseeded, e.Package+" "+e.Test)
				}
			case "fail":
				fmt.Print(text)
			case "skip":
				w := why(text)
				skipped[w] = append(skipped[w], e.Package+" "+e.Test)
				skips++
			}
		}
	}

	fmt.Printf("\n%d tests passed, %d packages failed, %d tests skipped\n", passed, failed, skips)
	for _, w := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Printf("SKIPPED %d: %s\n", len(skipped[w]), w)
		for _, s := range skipped[w] {
			fmt.Println("    " + s)
		}
	}
	for _, s := range unseeded {
		fmt.Println("FAIL", s, "is a fuzz target without seeds: it tests nothing")
	}
	if skips > 0 {
		if *noSkip {
			fmt.Println("FAIL: here a skipped test is a failure")
		} else {
			fmt.Println("What was skipped needs programs that this machine lacks. make tools installs all of them.")
		}
	}
	if failed > 0 || len(unseeded) > 0 || *noSkip && skips > 0 || passed == 0 {
		os.Exit(1)
	}
}

// place is where go test says that words were said.
var place = regexp.MustCompile(`^\S+\.go:\d+: `)

// why is what a test said when it skipped itself, without the frame that go test puts around it.
func why(text string) string {
	said := "it does not say why"
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		said = place.ReplaceAllString(line, "")
		if strings.Contains(said, "what would run this test") {
			break // a script goes on, with its log
		}
	}
	return said
}
