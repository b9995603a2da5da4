package artifact

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// ErrMemory is the error of an artifact whose tables do not fit the memory that
// the caller allows. Nothing is said about the artifact by it.
var ErrMemory = errors.New("more memory is needed than is allowed")

// DefaultMemory is how many bytes tables of artifacts take if nothing is said.
const DefaultMemory = 64 << 20

// A Memory bounds what the tables of several artifacts take in memory, in all:
// heads of indexes, which stay as long as the artifact is open, and directories,
// which are decompressed and then kept in a file, but for small ones. Somebody
// who can push decides how large these are. Safe for concurrent use.
type Memory struct {
	max   int64
	loads *semaphore.Weighted

	mu    sync.Mutex
	small int64 // bytes that directories and pages may still keep in memory
	heads int64 // bytes that heads may still take
}

// NewMemory returns a Memory of max bytes; 0 is [DefaultMemory].
func NewMemory(max int64) *Memory {
	if max <= 0 {
		max = DefaultMemory
	}
	return &Memory{max: max, loads: semaphore.NewWeighted(max), small: max / 4, heads: min(max, maxHead)}
}

// load waits until n bytes can be used for a while. One that wants more than
// there is waits until it is alone, and may take twice as much: what is allowed
// has to be enough for the largest layers that davit writes, and should not lie
// idle for them. More than that is an [ErrMemory].
func (m *Memory) load(ctx context.Context, n int64) (done func(), err error) {
	if n > 2*m.max {
		return nil, fmt.Errorf("to load it takes %d bytes, and no more than %d may be taken: %w", n, 2*m.max, ErrMemory)
	}
	n = min(n, m.max)
	if err := m.loads.Acquire(ctx, n); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { m.loads.Release(n) }, nil
}

// keep takes n bytes for something small that stays, and reports whether they
// were there.
func (m *Memory) keep(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int64(n) > m.small {
		return false
	}
	m.small -= int64(n)
	return true
}

// head takes n bytes for the head of an index.
func (m *Memory) head(n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > m.heads {
		return fmt.Errorf("its tables have %d bytes, and %d are left: %w", n, m.heads, ErrMemory)
	}
	m.heads -= n
	return nil
}

// free gives back what was kept.
func (m *Memory) free(small, heads int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.small += small
	m.heads += heads
}
