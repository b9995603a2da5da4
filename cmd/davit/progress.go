package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/davit-oci/davit/internal/secret"
	"golang.org/x/term"
)

// A console is stderr: messages, and below them at most one line of progress
// that is drawn again and again. It is safe for concurrent use.
type console struct {
	file    *os.File
	secrets *secret.Filter // what leaves here has none; nil: none is known

	mu    sync.Mutex
	drawn bool // a progress line stands on the screen
}

// Write writes whole lines, or a prompt. All that stderr gets comes through
// here or through draw, without its secrets.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.erase()
	if _, err := c.file.WriteString(c.secrets.Hide(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// line prints one line that cannot do anything to the terminal.
func (c *console) line(format string, args ...any) {
	// Hidden before it is one line: a key has several.
	fmt.Fprintln(c, printable(c.secrets.Hide(fmt.Sprintf(format, args...))))
}

func (c *console) warn(format string, args ...any) { c.line("davit: warning: "+format, args...) }

// fail prints the end of a command that failed.
func (c *console) fail(command string, err error) {
	c.line("davit: error: %s: %s", command, messageOf(err))
	if hint := hintOf(command, err); hint != "" {
		c.line("hint: %s", hint)
	}
}

// draw replaces the progress line.
func (c *console) draw(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.erase()
	if s = printable(c.secrets.Hide(s)); s != "" {
		width, _, err := term.GetSize(int(c.file.Fd()))
		if err == nil && len(s) >= width && width > 0 {
			s = s[:width-1]
		}
		_, _ = c.file.WriteString(s)
		c.drawn = true
	}
}

func (c *console) erase() {
	if c.drawn {
		_, _ = c.file.WriteString("\r\x1b[K")
		c.drawn = false
	}
}

// isTerminal says whether a person sees what is printed here.
func (c *console) isTerminal() bool {
	return term.IsTerminal(int(c.file.Fd())) && os.Getenv("TERM") != "dumb"
}

// progressMode settles auto.
func progressMode(mode string, quiet bool, stderr *console) string {
	switch {
	case mode != "auto":
		return mode
	case quiet:
		return "none"
	case stderr.isTerminal() && os.Getenv("CI") == "":
		return "tty"
	}
	return "plain"
}

// say prints a line that is good to know and no result.
func (g *globals) say(format string, args ...any) {
	if !g.quiet {
		g.stderr.line("davit: "+format, args...)
	}
}

// An observer shows what the engine tells.
type observer struct{ g *globals }

func (o observer) Warn(message string) { o.g.stderr.warn("%s", message) }
func (o observer) Note(message string) { o.g.say("%s", message) }

func (o observer) Begin(step string, total int64) (add func(int64), end func()) {
	p := o.g.begin(step, total)
	return p.add, p.end
}

// How often progress is shown.
const (
	ttyInterval   = 200 * time.Millisecond
	jsonInterval  = time.Second
	plainInterval = 10 * time.Second
)

// A progress shows how far one step of a command is. Its methods are safe for
// concurrent use.
type progress struct {
	g     *globals
	what  string
	start time.Time
	done  atomic.Int64
	total atomic.Int64 // 0: unknown

	stop func()
}

// begin starts to show a step: "reading disk0", of total bytes, 0 if nobody
// knows. The caller calls end.
func (g *globals) begin(what string, total int64) *progress {
	p := &progress{g: g, what: what, start: time.Now()}
	p.total.Store(total)
	var interval time.Duration
	switch g.progress {
	case "tty":
		interval = ttyInterval
	case "json":
		interval = jsonInterval
		p.event("begin")
	case "plain":
		interval = plainInterval
	default:
		p.stop = func() {}
		return p
	}
	quit, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.show()
			case <-quit:
				return
			}
		}
	}()
	p.stop = sync.OnceFunc(func() {
		close(quit)
		<-stopped
		switch g.progress {
		case "tty":
			g.stderr.draw("")
		case "json":
			p.event("end")
		}
	})
	return p
}

// add counts n more bytes.
func (p *progress) add(n int64) { p.done.Add(n) }

// end stops showing. It may be called twice.
func (p *progress) end() { p.stop() }

func (p *progress) show() {
	switch p.g.progress {
	case "tty":
		p.g.stderr.draw(p.String())
	case "json":
		p.event("progress")
	case "plain":
		p.g.stderr.line("davit: %s", p)
	}
}

// rate returns bytes a second, and the seconds that are left, -1 if nobody knows.
func (p *progress) rate() (rate, left float64) {
	done, total, seconds := p.done.Load(), p.total.Load(), time.Since(p.start).Seconds()
	if done <= 0 || seconds <= 0 {
		return 0, -1
	}
	rate = float64(done) / seconds
	if total < done {
		return rate, -1
	}
	return rate, float64(total-done) / rate
}

func (p *progress) String() string {
	var b strings.Builder
	done, total := p.done.Load(), p.total.Load()
	rate, left := p.rate()
	fmt.Fprintf(&b, "%s: %s", p.what, humanBytes(done))
	if total > 0 {
		fmt.Fprintf(&b, " of %s, %d %%", humanBytes(total), min(100, done*100/total))
	}
	if rate > 0 {
		fmt.Fprintf(&b, ", %s/s", humanBytes(int64(rate)))
	}
	if left >= 0 && total > 0 {
		fmt.Fprintf(&b, ", %s left", time.Duration(left*float64(time.Second)).Round(time.Second))
	}
	return b.String()
}

// event prints one line of --progress json.
func (p *progress) event(name string) {
	rate, left := p.rate()
	e := struct {
		Event string   `json:"event"` // begin, progress, end
		What  string   `json:"what"`
		Done  int64    `json:"done"`
		Total int64    `json:"total,omitempty"`
		Rate  int64    `json:"bytesPerSecond"`
		Left  *float64 `json:"secondsLeft,omitempty"`
	}{Event: name, What: p.g.stderr.secrets.Hide(p.what), Done: p.done.Load(), Total: p.total.Load(), Rate: int64(rate)}
	if left >= 0 && e.Total > 0 {
		e.Left = &left
	}
	line, err := json.Marshal(e)
	if err == nil {
		_, _ = p.g.stderr.Write(append(printableJSON(line), '\n'))
	}
}

// humanBytes writes a number of bytes for people: "1.2 GB" of 1000, as disks
// and networks are sold; flags take units of 1024.
func humanBytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), 0
	for value >= 999.95 && unit < 5 {
		value, unit = value/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", value, " kMGTP"[unit])
}
