//go:build ignore

// What bench/disks and bench/run need and a shell cannot do, or not fast. Seeded: the same bytes and places in every run.
//
//	go run bench/data.go write FILE COUNT SIZE   overwrite COUNT ranges of SIZE bytes of FILE with random bytes, spread over its data
//	go run bench/data.go reorder DIR             give every folder below DIR another name, so that they sort in another order;
//	                                             prints debugfs commands that undo it in a file system made of DIR
//	go run bench/data.go used FILE               the blocks of FILE that are not zero, to stdout
//	go run bench/data.go noise FILE SIZE         make FILE of SIZE random bytes
//	go run bench/data.go overhead BLOBS OLD NEW  bytes of index and of new directories in manifest NEW, which reuses layers of OLD,
//	                                             both given by the hex of their digest; BLOBS is "blobs/sha256" of a registry's storage
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 4 && args[0] == "write":
		err = write(args[1], atoi(args[2]), atoi(args[3]))
	case len(args) == 2 && args[0] == "reorder":
		err = reorder(args[1])
	case len(args) == 2 && args[0] == "used":
		err = used(args[1])
	case len(args) == 3 && args[0] == "noise":
		err = noise(args[1], atoi(args[2]))
	case len(args) == 4 && args[0] == "overhead":
		err = overhead(args[1], args[2], args[3])
	default:
		err = errors.New("usage: data.go write FILE COUNT SIZE | reorder DIR | used FILE | noise FILE SIZE | overhead BLOBS OLD NEW")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/data.go:", err)
		os.Exit(1)
	}
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

const block = 4096

// write replaces count ranges of size bytes. Each begins at a block that held data, so that none of them only fills a hole: that would
// be new data beside the old, which is cheaper.
func write(name string, count, size int) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	used, err := usedBlocks(f)
	if err != nil {
		return err
	}
	random := source()
	pick := rand.New(random)
	data := make([]byte, size)
	for range count {
		_, _ = random.Read(data)
		// Not in the first or last hundredth: a test of file data, not of boot sectors.
		i := len(used)/100 + pick.IntN(len(used)*98/100)
		if _, err := f.WriteAt(data, used[i]*block); err != nil {
			return err
		}
	}
	return f.Close()
}

// source is of the same noise in every run.
func source() *rand.ChaCha8 { return rand.NewChaCha8(sha256.Sum256([]byte("davit bench"))) }

func noise(name string, size int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, source(), int64(size)); err != nil {
		return err
	}
	return f.Close()
}

// usedBlocks lists the blocks of f that are not zero.
func usedBlocks(f *os.File) ([]int64, error) {
	const seekData, seekHole = 3, 4
	var used []int64
	buf, zero := make([]byte, 256*block), make([]byte, block)
	for end := int64(0); ; {
		off, err := f.Seek(end, seekData)
		if errors.Is(err, syscall.ENXIO) { // no more data
			return used, nil
		} else if err != nil {
			return nil, err
		}
		if end, err = f.Seek(off, seekHole); err != nil {
			return nil, err
		}
		for off < end {
			n, err := f.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
			if err != nil && err != io.EOF {
				return nil, err
			}
			for i := 0; i+block <= n; i += block {
				if !bytes.Equal(buf[i:i+block], zero) {
					used = append(used, (off+int64(i))/block)
				}
			}
			off += int64(n)
		}
	}
}

// reorder renames folders, deepest first. mke2fs -d takes a folder's entries in the order of their names; with the names of folders
// drawn by lot, files lie in the file system folder by folder as before, but the folders in another order, and between other files.
func reorder(root string) error {
	var folders []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root {
			folders = append(folders, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	// In the file system, parents come first: then a path holds true names only.
	for _, path := range folders {
		rel, _ := filepath.Rel(root, path)
		parent, name := filepath.Split("/" + rel)
		fmt.Printf("ln \"%[1]s%[2]s\" \"%[1]s%[3]s\"\nunlink \"%[1]s%[2]s\"\n", parent, lot(rel), name)
	}
	for i := len(folders) - 1; i >= 0; i-- {
		rel, _ := filepath.Rel(root, folders[i])
		dir, _ := filepath.Split(folders[i])
		if err := os.Rename(folders[i], dir+lot(rel)); err != nil {
			return err
		}
	}
	return nil
}

func lot(rel string) string {
	h := sha256.Sum256([]byte(rel))
	return fmt.Sprintf("%c%x", "-Zz"[int(h[0])%3], h[1:7])
}

func used(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	blocks, err := usedBlocks(f)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	buf := make([]byte, block)
	for _, b := range blocks {
		if _, err := f.ReadAt(buf, b*block); err != nil {
			return err
		}
		if _, err := out.Write(buf); err != nil {
			return err
		}
	}
	return out.Flush()
}

// overhead reads the two structures from the page, docs/spec.md, and not with davit's packages.
func overhead(blobs, older, newer string) error {
	type manifest struct {
		Layers []struct {
			MediaType, Digest string
			Size              int64
		}
	}
	blob := func(hex string) ([]byte, error) { return os.ReadFile(filepath.Join(blobs, hex[:2], hex, "data")) }
	read := func(hex string) (m manifest, err error) {
		b, err := blob(hex)
		if err != nil {
			return m, err
		}
		return m, json.Unmarshal(b, &m)
	}
	m0, err := read(older)
	if err != nil {
		return err
	}
	m1, err := read(newer)
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, l := range m0.Layers {
		old[l.Digest] = true
	}
	var indexes, directories int64
	for _, l := range m1.Layers {
		if l.MediaType != "application/vnd.davit.disk.index.v1" {
			continue
		}
		indexes += l.Size
		ix, err := blob(strings.TrimPrefix(l.Digest, "sha256:"))
		if err != nil {
			return err
		}
		const head, entry = 76, 92
		for i := range int(binary.LittleEndian.Uint32(ix[68:])) {
			e := ix[head+i*entry:]
			if !old[fmt.Sprintf("sha256:%x", e[:32])] {
				directories += int64(binary.LittleEndian.Uint32(e[48:]))
			}
		}
	}
	fmt.Println(indexes, directories)
	return nil
}
