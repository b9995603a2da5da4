package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/guest"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
)

// hintForSource is what can be done about a source that cannot be read, "" for
// nothing.
func hintForSource(err error) (hint string) {
	var which *source.WhichDiskError
	var machines *machine.WhichError
	switch {
	case errors.As(err, &which):
		return "--disk " + which.Names[0]
	case errors.As(err, &machines):
		return "--machine " + quoted(machines.IDs[0])
	}
	// The innermost error knows most: an image that a descriptor names.
	for e := (*source.Error)(nil); errors.As(err, &e); err = e.Err {
		if h := hintForImage(e); h != "" {
			hint = h
		}
	}
	return hint
}

const hintHidden = "--backing-dir DIR, the folder that the file lies in, if it may be published"

func hintForImage(e *source.Error) string {
	var compressed *disk.CompressedError
	var unpacked *source.UnpackError
	var remote *appliance.RemoteError
	var medium *appliance.CDFormatError
	second, _ := errors.AsType[*disk.BackingFileError](e.Err)
	switch err := e.Err; {
	case errors.Is(err, guest.ErrNotClean):
		return "shut the guest down cleanly or check its file system (fsck, chkdsk), or leave out --trim"
	case errors.As(err, &remote):
		fetch, driver := fetchRemote(remote)
		return fmt.Sprintf("%s, and in the descriptor a <disk type='file'> with %s<source file='disk.img'/>", fetch, driver)
	case errors.As(err, &medium):
		return fmt.Sprintf("qemu-img convert -O raw %s cd.iso, and cd.iso in the descriptor (of libvirt: with <driver name='qemu' type='raw'/>)", quoted(medium.Name))
	case errors.As(err, &unpacked):
		return hintToUnpack(unpacked.Err, unpacked.By, e.Path)
	case errors.As(err, &compressed):
		return hintToUnpack(err, compressed.By, e.Path)
	case errors.Is(err, disk.ErrEncrypted):
		return fmt.Sprintf("qemu-img convert --object secret,id=key,file=PASSWORD --image-opts driver=qcow2,encrypt.key-secret=key,file.filename=%s -O qcow2 plain.qcow2", e.Path)
	case e.BackingDir != "": // the error says what is wrong
	case errors.Is(err, disk.ErrHidden), errors.Is(err, appliance.ErrHidden), second != nil && second.Folder == "":
		// Who follows a hint must not publish what the image's author wants.
		return hintHidden
	case second != nil && second.Continues:
		return fmt.Sprintf("--backing-dir %s, if all files that it and its parents name in there may be published", second.Folder)
	case second != nil:
		return "--backing-dir " + second.Folder
	case errors.Is(err, appliance.ErrMissing) && !isPackage(e.Path):
		return "--backing-dir DIR, the folder that the files lie in"
	}
	if strings.EqualFold(filepath.Ext(e.Path), ".tar") {
		return untar(e.Path)
	}
	return ""
}

// unpackers unpack what [disk.CompressedError] names.
var unpackers = map[string]string{
	"gzip":     "gzip -dc %s >disk.img",
	"xz":       "xz -dc %s >disk.img",
	"zstd":     "zstd -dc %s >disk.img",
	"bzip2":    "bzip2 -dc %s >disk.img",
	"lz4":      "lz4 -dc %s >disk.img",
	"lzip":     "lzip -dc %s >disk.img",
	"lzma":     "xz --format=lzma -dc %s >disk.img",
	"lzop":     "lzop -dc %s >disk.img",
	"compress": "gzip -dc %s >disk.img",
	"zip":      "unzip %s",
	"7z":       "7z x %s",
	"rar":      "7z x %s",
}

// hintToUnpack is the command that unpacks the file at path, which is compressed.
func hintToUnpack(err error, by, path string) string {
	var inside *disk.CompressedError
	if errors.As(err, &inside) && inside.By == "tar" { // tar finds out by itself what is around it
		return untar(path)
	}
	if unpackers[by] != "" {
		return fmt.Sprintf(unpackers[by], path)
	}
	return ""
}

// untar is what to do with an archive: it is no disk, but has one in it.
func untar(path string) string {
	what := "the disk or the descriptor"
	if strings.EqualFold(filepath.Ext(path), ".box") { // Vagrant's: of VirtualBox, VMware or libvirt
		what = "the box.ovf, the .vmx or the box.img"
	}
	return fmt.Sprintf("tar -xf %s, and then davit with %s that was in it", path, what)
}

// fetchRemote is the command that makes a file of what a descriptor has in a
// network or in a pool, and what the driver of its disk becomes by that. Names in
// it are somebody else's; so is what the disk begins with, which is why the format
// is said.
func fetchRemote(e *appliance.RemoteError) (command, driver string) {
	scheme, rest, _ := strings.Cut(e.URL, ":")
	switch scheme {
	case "volume":
		pool, volume, _ := strings.Cut(rest, "/")
		return fmt.Sprintf("virsh vol-download --pool %s %s disk.img", quoted(pool), quoted(volume)), ""
	case "rbd":
		_, image, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "/") // which follows the host
		return fmt.Sprintf("rbd export %s disk.img", quoted(image)), ""
	}
	format := ""
	switch f := disk.Format(e.Format); f {
	case "":
	case disk.VHD:
		format = "-f vpc "
	default:
		format = fmt.Sprintf("-f %s ", quoted(string(f)))
	}
	return fmt.Sprintf("qemu-img convert %s-O raw %s disk.img", format, quoted(e.URL)), "<driver name='qemu' type='raw'/> and "
}

// isPackage says whether path is named as an OVF package is, or is a folder: its
// files are where it is, and nowhere else.
func isPackage(path string) bool {
	ext := strings.ToLower(filepath.Ext(path))
	return !isFile(path) || ext == ".ova" || ext == ".ovf"
}

// quoted is an ID as it is given to a shell.
func quoted(id string) string {
	if machine.FileName(id, "") == id && id != "" {
		return id
	}
	return "'" + strings.ReplaceAll(id, "'", `'\''`) + "'"
}
