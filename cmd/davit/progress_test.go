package main

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// shown runs steps with a progress of the given kind and returns what is on stderr.
func shown(t *testing.T, mode string, steps func(g *globals)) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	synctest.Test(t, func(t *testing.T) {
		steps(&globals{progress: mode, stderr: &console{file: f}})
	})
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func copying(g *globals) {
	p := g.begin("copying", 100e6)
	defer p.end()
	for range 25 {
		time.Sleep(time.Second) //nolint:forbidigo // in the time of synctest
		p.add(2e6)
	}
	time.Sleep(time.Millisecond) //nolint:forbidigo // in the time of synctest
}

func TestProgressPlain(t *testing.T) {
	// A line every 10 s; at 20 s 38 or 40 MB, the clock decides.
	lines := strings.Split(strings.TrimSpace(shown(t, "plain", copying)), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "davit: copying: ") ||
		!strings.Contains(lines[0], " of 100.0 MB, ") || !strings.Contains(lines[0], "MB/s, ") || !strings.HasSuffix(lines[0], "s left") {
		t.Errorf("lines %q", lines)
	}
}

func TestProgressJSON(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(shown(t, "json", copying)), "\n")
	if len(lines) < 20 {
		t.Fatalf("%d events", len(lines))
	}
	for i, line := range lines {
		var e struct {
			Event, What string
			Done, Total int64
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want := "progress"
		switch i {
		case 0:
			want = "begin"
		case len(lines) - 1:
			want = "end"
		}
		if e.Event != want || e.What != "copying" || e.Total != 100e6 {
			t.Errorf("event %d is %q", i, line)
		}
	}
}

func TestProgressTerminal(t *testing.T) {
	out := shown(t, "tty", func(g *globals) {
		p := g.begin("copying", 100)
		defer p.end()
		p.add(50)
		time.Sleep(time.Second) //nolint:forbidigo // in the time of synctest
		g.stderr.warn("in the middle")
	})
	// The line is gone before the warning comes, and at the end.
	if !strings.Contains(out, "copying: 50 B of 100 B, 50 %") || !strings.Contains(out, "\r\x1b[Kdavit: warning: in the middle\n") {
		t.Errorf("%q", out)
	}
	if rest := out[strings.LastIndex(out, "copying"):]; strings.Contains(rest, "copying") && !strings.Contains(rest, "\x1b[K") {
		t.Errorf("a progress line is left: %q", rest)
	}
}

func TestProgressNone(t *testing.T) {
	if out := shown(t, "none", copying); out != "" {
		t.Errorf("%q", out)
	}
}

func TestProgressMode(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, test := range []struct {
		mode  string
		quiet bool
		want  string
	}{
		{"auto", false, "plain"}, // a file is no terminal
		{"auto", true, "none"},
		{"json", true, "json"},
		{"tty", false, "tty"},
	} {
		if got := progressMode(test.mode, test.quiet, &console{file: f}); got != test.want {
			t.Errorf("progressMode(%s, quiet %t) = %s, want %s", test.mode, test.quiet, got, test.want)
		}
	}
}

func TestHumanBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_951: "1.0 MB", 1 << 30: "1.1 GB", 5e15: "5.0 PB"} {
		if got := humanBytes(n); got != want {
			t.Errorf("humanBytes(%d) = %q, want %q", n, got, want)
		}
	}
}
