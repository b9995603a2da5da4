package disk_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/internal/programs"
)

// pack compresses content with a program, which is the judge of what a
// compressed file is.
func pack(t testing.TB, content []byte, name string, args ...string) []byte {
	t.Helper()
	out, stderr, err := pipe(t, content, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, args, err, stderr)
	}
	return out
}

func pipe(t testing.TB, in []byte, name string, args ...string) (out []byte, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), programs.Need(t, name), args...)
	var messages bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &messages
	out, err = cmd.Output()
	return out, messages.String(), err
}

func unpack(file []byte) ([]byte, error) { return unpackFrom(bytes.NewReader(file)) }

func unpackFrom(r io.Reader) ([]byte, error) {
	d, err := disk.NewDecompressor(r)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

func TestDecompressor(t *testing.T) {
	t.Parallel()
	content := disktest.Mixture(200<<10, 1)
	gz := pack(t, content, "gzip", "-6")
	xz := pack(t, content, "xz", "-0")
	zst := pack(t, content, "zstd", "-1")
	bz2 := pack(t, content, "bzip2", "-9")
	twice := slices.Concat(content, content)
	skippable := []byte("\x5f\x2a\x4d\x18\x04\x00\x00\x00skip")
	for name, test := range map[string]struct {
		file, want []byte
	}{
		"gzip -1":                    {pack(t, content, "gzip", "-1"), content},
		"gzip -9":                    {pack(t, content, "gzip", "-9"), content},
		"gzip of nothing":            {pack(t, nil, "gzip"), nil},
		"gzip members":               {slices.Concat(gz, gz), twice},
		"gzip and zeros":             {slices.Concat(gz, make([]byte, 1000)), content},
		"xz -0":                      {xz, content},
		"xz -6":                      {pack(t, content, "xz", "-6"), content},
		"xz of nothing":              {pack(t, nil, "xz"), nil},
		"xz -C none":                 {pack(t, content, "xz", "-0", "-C", "none"), content},
		"xz -C crc32":                {pack(t, content, "xz", "-0", "-C", "crc32"), content},
		"xz -C sha256":               {pack(t, content, "xz", "-0", "-C", "sha256"), content},
		"xz -T2":                     {pack(t, content, "xz", "-0", "-T2", "--block-size=60KiB"), content},
		"xz blocks without sizes":    {pack(t, content, "xz", "-0", "-T1", "--block-size=80KiB"), content},
		"xz lc, lp and pb":           {pack(t, content, "xz", "--lzma2=preset=0,lc=0,lp=4,pb=1"), content},
		"xz streams":                 {slices.Concat(xz, xz), twice},
		"xz streams with padding":    {slices.Concat(xz, make([]byte, 8), xz, make([]byte, 4)), twice},
		"zstd -1":                    {zst, content},
		"zstd -19":                   {pack(t, content, "zstd", "-19"), content},
		"zstd --long":                {pack(t, content, "zstd", "--long"), content},
		"zstd of nothing":            {pack(t, nil, "zstd"), nil},
		"zstd --no-check":            {pack(t, content, "zstd", "--no-check"), content},
		"zstd frames":                {slices.Concat(zst, zst), twice},
		"zstd with skippable frames": {slices.Concat(skippable, zst, skippable, zst, skippable), twice},
		"bzip2 -1":                   {pack(t, content, "bzip2", "-1"), content},
		"bzip2 -9":                   {bz2, content},
		"bzip2 of nothing":           {pack(t, nil, "bzip2"), nil},
		"bzip2 streams":              {slices.Concat(bz2, bz2), twice},
	} {
		if got, err := unpack(test.file); err != nil || !bytes.Equal(got, test.want) {
			t.Errorf("%s: got %d bytes of %d, %v", name, len(got), len(test.want), err)
		}
	}
}

func TestDecompressorRefuses(t *testing.T) {
	content := disktest.Mixture(300<<10, 1)
	gz := pack(t, content, "gzip", "-1")
	xz := pack(t, content, "xz", "-0")
	zst := pack(t, content, "zstd", "-1")
	bz2 := pack(t, content, "bzip2", "-1")
	lz4 := []byte("\x04\x22\x4d\x18\x64\x40\xa7\x00\x00\x00\x00\x05\x5d\xcc\x02") // of nothing
	garbage := []byte("some garbage")
	for name, test := range map[string]struct {
		file []byte
		kind error
		says string
	}{
		"nothing":                      {nil, disk.ErrUnsupported, "not a compressed file"},
		"a raw disk":                   {make([]byte, 1<<16), disk.ErrUnsupported, "not a compressed file"},
		"lz4":                          {lz4, disk.ErrCompressed, "lz4"},
		"garbage after gzip":           {slices.Concat(gz, garbage), disk.ErrCorrupt, "gzip: what follows"},
		"zeros and garbage after gzip": {slices.Concat(gz, make([]byte, 10), garbage), disk.ErrCorrupt, "gzip: what follows"},
		"gzip flags":                   {[]byte("\x1f\x8b\x08\x20\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"), disk.ErrUnsupported, "gzip flags 0x20"},
		"a gzip name that has no end":  {[]byte("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03name"), disk.ErrCorrupt, "gzip: the file is cut short"},
		"such a name in a later one":   {slices.Concat(gz, []byte("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03name")), disk.ErrCorrupt, "gzip: the file is cut short"},
		"garbage after xz":             {slices.Concat(xz, garbage), disk.ErrCorrupt, "xz: what follows"},
		"three zeros after xz":         {slices.Concat(xz, make([]byte, 3)), disk.ErrCorrupt, "xz: stream padding"},
		"garbage after zstd":           {slices.Concat(zst, garbage), disk.ErrCorrupt, "zstd: "},
		"two bytes after zstd":         {slices.Concat(zst, garbage[:2]), disk.ErrCorrupt, "zstd: "},
		"half a magic after zstd":      {slices.Concat(zst, zst[:3]), disk.ErrCorrupt, "zstd: the file is cut short"},
		"garbage after bzip2":          {slices.Concat(bz2, garbage), disk.ErrCorrupt, "bzip2: "},
		"xz filters":                   {pack(t, content, "xz", "--x86", "--lzma2=preset=0"), disk.ErrUnsupported, "BCJ x86"},
		"xz dictionary":                {pack(t, content[:1000], "xz", "--lzma2=preset=0,dict=65MiB"), disk.ErrUnsupported, "dictionary of 100663296 bytes"},
		"xz dictionary in a later one": {slices.Concat(xz, pack(t, nil, "xz"), pack(t, content[:1000], "xz", "--lzma2=preset=0,dict=1GiB")), disk.ErrUnsupported, "dictionary"},
		"zstd window":                  {[]byte("\x28\xb5\x2f\xfd\x00\x8f\x01\x00\x00"), disk.ErrUnsupported, "window"},
		"zstd single segment":          {[]byte("\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00"), disk.ErrUnsupported, "window"},
		"zstd dictionary":              {[]byte("\x28\xb5\x2f\xfd\x01\x00\x07\x01\x00\x00"), disk.ErrUnsupported, "dictionary"},
		"lz4 in a skippable frame":     {slices.Concat([]byte("\x50\x2a\x4d\x18\x00\x00\x00\x00"), lz4), disk.ErrCorrupt, "zstd: "},
	} {
		before := disktest.Allocated()
		_, err := unpack(test.file)
		if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got error %v, want one that is %q and says %s", name, err, test.kind, test.says)
		}
		if n := disktest.Allocated() - before; n > 32<<20 {
			t.Errorf("%s: allocated %d MiB", name, n>>20)
		}
	}
}

// A file that is damaged or cut short is read right, or refused.
func TestDecompressorFindsDamage(t *testing.T) {
	content := disktest.Mixture(1<<20, 1)[100000:101500]
	for program, args := range map[string][]string{"gzip": {"-9"}, "xz": {"-0"}, "zstd": {"-3"}, "bzip2": {"-1"}} {
		file := pack(t, content, program, args...)
		for i := range file {
			changed := bytes.Clone(file)
			changed[i] ^= 0x11
			if got, err := unpack(changed); err == nil && !bytes.Equal(got, content) {
				t.Errorf("%s: with byte %d changed, %d wrong bytes are read", program, i, len(got))
			} else if err != nil && !errors.Is(err, disk.ErrCorrupt) && !errors.Is(err, disk.ErrUnsupported) {
				t.Errorf("%s: with byte %d changed, the error is %v", program, i, err)
			}
			if got, err := unpack(file[:i]); err == nil {
				t.Errorf("%s: the first %d bytes are read as %d", program, i, len(got))
			} else if i > 16 && (!errors.Is(err, disk.ErrCorrupt) || !strings.Contains(err.Error(), "cut short")) {
				t.Errorf("%s: the first %d bytes: %v", program, i, err)
			}
		}
	}
}

func TestDecompressorPassesErrorsOfTheFileOn(t *testing.T) {
	broken := errors.New("broken")
	for program, args := range map[string][]string{"gzip": {"-9"}, "xz": {"-0"}, "zstd": {"-3"}, "bzip2": {"-1"}} {
		file := pack(t, disktest.Mixture(100000, 1), program, args...)
		for _, n := range []int{0, 600, len(file) / 2, len(file) - 1, len(file)} {
			_, err := unpackFrom(io.MultiReader(bytes.NewReader(file[:min(n, len(file))]), iotest.ErrReader(broken)))
			if !errors.Is(err, broken) || errors.Is(err, disk.ErrCorrupt) {
				t.Errorf("%s: after %d bytes: got error %v", program, n, err)
			}
		}
	}
}

func TestCompressedFilesAreNamed(t *testing.T) {
	at := func(off int, magic string) []byte {
		b := make([]byte, 4096)
		copy(b[off:], magic)
		return b
	}
	for by, content := range map[string][]byte{
		"gzip":     []byte("\x1f\x8b\x08"),
		"xz":       at(0, "\xfd7zXZ\x00"),
		"zstd":     at(0, "\x28\xb5\x2f\xfd"),
		"bzip2":    at(0, "BZh9"),
		"lz4":      at(0, "\x04\x22\x4d\x18"),
		"lzip":     at(0, "LZIP\x01"),
		"lzma":     pack(t, disktest.Mixture(100000, 1), "xz", "--format=lzma"),
		"lzop":     at(0, "\x89LZO\x00\x0d\x0a\x1a\x0a"),
		"compress": at(0, "\x1f\x9d\x90"),
		"zip":      at(0, "PK\x03\x04"),
		"7z":       at(0, "7z\xbc\xaf\x27\x1c"),
		"rar":      at(0, "Rar!\x1a\x07\x01"),
		"tar":      at(257, "ustar"),
	} {
		path := disktest.WriteFile(t, "image.qcow2", content)
		for _, format := range []disk.Format{"", disk.QCOW2} {
			img, err := disk.Open(path, disk.OpenOptions{Format: format})
			wantError(t, img, err, disk.ErrCompressed, by)
			wantError(t, img, err, disk.ErrUnsupported, by)
			var compressed *disk.CompressedError
			if !errors.As(err, &compressed) || compressed.By != by {
				t.Errorf("%s: opened as %q, the error is %v", by, format, err)
			}
		}
		testImage(t, path, disk.OpenOptions{Format: disk.Raw}, content)
	}
}

// What is read is what the program that the format is named for reads; what
// the standard library reads is not refused.
func FuzzDecompressor(f *testing.F) {
	content := disktest.Mixture(1<<20, 1)[100000:102000]
	for _, program := range []string{"gzip", "xz", "zstd", "bzip2"} {
		file := pack(f, content, program)
		f.Add(file)
		f.Add(slices.Concat(file, file, make([]byte, 4)))
		f.Add(pack(f, nil, program))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		d, err := disk.NewDecompressor(bytes.NewReader(file))
		if err != nil {
			if !errors.Is(err, disk.ErrUnsupported) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		defer d.Close()
		const limit = 4 << 20
		got, err := io.ReadAll(io.LimitReader(d, limit))
		switch {
		case len(got) == limit:
		case err == nil:
			if want, by, stderr, err := byProgram(t, file); err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %d bytes, and %s %d: %v\n%s", len(got), by, len(want), err, stderr)
			}
		case !errors.Is(err, disk.ErrCorrupt) && !errors.Is(err, disk.ErrUnsupported):
			t.Errorf("the error is %v", err)
		case errors.Is(err, disk.ErrCorrupt):
			if r, zerr := gzip.NewReader(bytes.NewReader(file)); zerr == nil {
				if n, zerr := io.Copy(io.Discard, r); zerr == nil {
					t.Errorf("refused: %v; and the standard library reads %d bytes of gzip", err, n)
				}
			}
		}
	})
}

func byProgram(t *testing.T, file []byte) (out []byte, by, stderr string, err error) {
	by = map[byte]string{0x1f: "gzip", 0xfd: "xz", 'B': "bzip2"}[file[0]]
	if by == "" {
		by = "zstd"
	}
	out, stderr, err = pipe(t, file, by, "-dc")
	if err != nil {
		err = fmt.Errorf("%s: %w", by, err)
	}
	return out, by, stderr, err
}
