//go:build unix

package own

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

const (
	noFollow = syscall.O_NOFOLLOW
	noWait   = syscall.O_NONBLOCK // for who has the other end of a pipe
)

// othersWrite is the permission of a group and of everybody. A POSIX ACL shows
// in that of the group; those of macOS are not looked at. A file system without
// permissions, of a USB stick or of Windows, often grants everything, and then
// nothing that is there counts.
const othersWrite fs.FileMode = 0o022

func checkOwner(path string, info fs.FileInfo) error {
	if uid := owner(info); uid != os.Geteuid() {
		return &Error{path, "belongs to " + user(uid)}
	}
	if mode := info.Mode().Perm(); mode&othersWrite != 0 {
		return &Error{path, fmt.Sprintf("can be written to by others (mode %04o)", mode)}
	}
	return nil
}

func checkNames(path string, _ *os.File, info fs.FileInfo) error {
	return checkNumber(path, uint64(info.Sys().(*syscall.Stat_t).Nlink)) //nolint:unconvert // macOS has another type
}

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

func user(uid int) string {
	if uid == 0 {
		return "root"
	}
	return fmt.Sprint("user ", uid)
}

// maxLinks is how many links of a path are followed, as Linux does.
const maxLinks = 40

// Resolve returns the path to what path leads to, without symbolic links. Its
// last element need not exist.
//
// Followed are links of this user and of root. A link that is not the last
// element is also followed if the owner of the folder that it lies in has made
// it, as Linux has it for links in /tmp: who owns a folder says what is in it.
// Another one is an [Error]: its owner would say which file is written.
func Resolve(path string) (string, error) {
	at, rest := "", path // at has no links
	links := 0
	for rest != "" {
		elem, behind, folder := strings.Cut(rest, "/")
		next := at + elem
		if folder {
			next += "/"
		}
		if elem == "" || elem == "." || elem == ".." {
			at, rest = next, behind
			continue
		}
		info, err := os.Lstat(at + elem)
		if errors.Is(err, fs.ErrNotExist) && !folder {
			err = nil
		}
		if err != nil {
			return "", err
		}
		if info == nil || info.Mode()&fs.ModeSymlink == 0 {
			at, rest = next, behind
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: path, Err: syscall.ELOOP}
		}
		if err := mayFollow(at, elem, info, folder); err != nil {
			return "", err
		}
		target, err := os.Readlink(at + elem)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(target, "/") {
			at = ""
		}
		if rest = target; folder {
			rest += "/" + behind
		}
	}
	if links == 0 {
		return path, nil
	}
	return at, nil
}

// mayFollow says whether the link elem in the folder at is followed.
func mayFollow(at, elem string, link fs.FileInfo, folder bool) error {
	uid := owner(link)
	if uid == os.Geteuid() || uid == 0 {
		return nil
	}
	if folder {
		dir, err := os.Stat(cmp.Or(at, "."))
		if err != nil {
			return err
		}
		if owner(dir) == uid {
			return nil
		}
	}
	return &Error{at + elem, fmt.Sprintf("is a symbolic link of %s, which is not followed", user(uid))}
}
